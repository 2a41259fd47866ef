"""Checks of a study's range and size: R6, R19, R20, R23 and R28."""

from collections.abc import Iterator, Sequence

from fieldmark.diagnosis.finding import Check, Seen, check, clear, fires, unknown
from fieldmark.diagnosis.study_evidence import StudyEvidence
from fieldmark.errors import RecipeError
from fieldmark.language import axis_words
from fieldmark.studies.space import Axis
from fieldmark.studies.table import Summary

INFEASIBLE = 0.2  # of the runs; ours
FEWEST_RUNS = 5
FEWEST_TRIALS = 20  # over two spaces or more; playbook
OUTER = 0.1  # of a space's range, by its own scale; ours
DIVERGED = "became"  # what a run says that ended in numbers no longer finite


@check(
    "many_infeasible",
    "R20",
    "problem",
    "study",
    label="Many runs that failed",
    title="{failed} of {runs} runs failed: {reason}",
    cause="The range reaches where nothing can train, or there is a mistake.",
    advice="Cut the range, or vary what goes together (lr times batch size) as arms. If it fails "
    "at ordinary settings, look at the recipe first.",
    refuted_by="Run again with another seed, the same cells finish.",
    otherwise="{failed} of {runs} runs failed",
)
def many_infeasible(evidence: StudyEvidence) -> Seen:
    """Playbook, "a very large fraction"; a fifth is ours."""
    failed = sum(summary.failed for _, summary in evidence.cells)
    runs = failed + sum(summary.seeds for _, summary in evidence.cells)
    if runs < FEWEST_RUNS:
        return unknown("too_few_cells", needed=FEWEST_RUNS, found=runs)
    if failed > INFEASIBLE * runs:
        results = evidence.study.results().values()
        reason = next(str(result.reason) for result in results if result.status == "failed")
        return fires(failed=failed, runs=runs, reason=reason[:160])
    return clear(failed=failed, runs=runs)


def _diverged(summary: Summary) -> bool:
    return summary.failed > 0 and DIVERGED in (summary.reason or "")


def _edges(evidence: StudyEvidence, axes: Sequence[Axis]) -> Iterator[tuple[Axis, str, float]]:
    """Axes whose best setting is the outermost that could be moved further out."""
    best = evidence.finished[0][0]
    for axis in axes:
        at, values = best.points[0][axis.name], evidence.settings(axis)
        if len(values) < 3:
            continue
        low, high = axis.space.bounds if axis.space else (values[0], values[-1])
        if axis.space and axis.space.log and low > 0:
            margin = (high / low) ** OUTER
            sides = (at <= low * margin, at >= high / margin)
        else:
            margin = OUTER * (high - low) if axis.space else 0.0
            sides = (at <= low + margin, at >= high - margin)
        if sides[0] and low > 0 and _may_be(evidence, axis, "low"):  # nothing lies below 0
            yield axis, "low", at
        if sides[1] and _may_be(evidence, axis, "high"):
            yield axis, "high", at


def _may_be(evidence: StudyEvidence, axis: Axis, side: str) -> bool:
    """Whether a recipe takes the next setting out: some keys have a least or a most.

    A level counts from the first if it is 0 or more, from the last if it is less: 0 is not beyond
    -1, but the other end.
    """
    at = evidence.settings(axis)[0 if side == "low" else -1]
    further = _further(evidence, axis, side)
    if axis in evidence.axes_of("level") and (at < 0) != (further < 0):
        return False
    point = evidence.finished[0][0].points[0]
    try:
        evidence.study.design.recipe({**point, axis.name: further})
    except RecipeError:
        return False
    return True


def _better_than_inside(evidence: StudyEvidence, axis: Axis) -> bool:
    """Whether the best beats its neighbour along an axis by more than a standard error."""
    best = evidence.finished[0][0]
    at, beside = best.points[0][axis.name], evidence.beside_best(axis)
    inside = [beside[value] for value in sorted(beside, key=lambda v: abs(v - at)) if value != at]
    verdict = evidence.verdict(inside[0], best) if inside else None
    if verdict is None:
        return True
    return verdict.answer != "noise" and verdict.difference > (verdict.high - verdict.low) / 4


@check(
    "best_at_the_edge",
    "R19",
    "warning",
    "axis",
    "cell",
    label="Best setting at the edge of its range",
    title="The best {axis} is {best:g}, the {side}est that was tried.",
    cause="The range is too narrow: better may lie outside.",
    advice="Add {next:g} to {axis} and run again; only the new cells are run. Conclude nothing "
    "about {axis} yet.",
    refuted_by="{next:g} is worse.",
    otherwise="no axis has its best setting, beyond chance, at an end that could be moved",
)
def best_at_the_edge(evidence: StudyEvidence) -> Seen:
    """Playbook and cs231n; an end that is no better than the setting inside does not count."""
    decays = evidence.axes_of("weight_decay")
    axes = [a for a in evidence.axes if a.arms is None and a not in decays]
    if not any(len(evidence.settings(axis)) >= 3 for axis in axes):
        return unknown("no_such_axis", what="a number in three settings or more")
    if short := evidence.lacks(3):
        return short
    for axis, side, at in _edges(evidence, axes):
        if axis.space or _better_than_inside(evidence, axis):
            return _at_the_edge(evidence, axis, side, at)
    return clear()


def _at_the_edge(evidence: StudyEvidence, axis: Axis, side: str, at: float) -> Seen:
    seen = fires(axis=axis.name, best=at, side=side, next=_further(evidence, axis, side))
    return seen.in_words(axis=axis_words(axis.name))


def _further(evidence: StudyEvidence, axis: Axis, side: str) -> float:
    """The next setting out: as many times as the last step, or as far; of a space, three times.

    A whole number where all that were tried are.
    """
    values = evidence.settings(axis)
    above = [value for value in values if value > 0]  # 0 is no step below the others
    if axis.space:
        at = float(evidence.finished[0][0].points[0][axis.name])
        found = at / 3 if side == "low" else at * 3
    elif len(above) > 1 and above[-1] / above[0] > 4:
        first, second = above[:2] if side == "low" else above[:-3:-1]
        found = first * first / second
        found = found if found.is_integer() else float(f"{found:.3g}")
    else:
        first, second = values[:2] if side == "low" else values[:-3:-1]
        found = 2 * first - second
    return round(found) if all(isinstance(value, int) for value in values) else found


@check(
    "decay_at_the_edge",
    "R28",
    "warning",
    "weight decay",
    "axis",
    label="Decay that gets better towards an end",
    title="Top-1 goes one way along {axis} up to {best:g}, the {side}est that was tried.",
    cause="Decay has to balance lr, the model and the photos; the range misses its optimum.",
    advice="Add {next:g}, or bisect the exponent between the two best. More lr wants less decay.",
    refuted_by="{next:g} is worse.",
    otherwise="the best decay lies inside the range, or at 0",
)
def decay_at_the_edge(evidence: StudyEvidence) -> Seen:
    """Smith, arXiv 1803.09820: regularisation must balance."""
    axes = [axis for axis in evidence.axes_of("weight_decay") if axis.arms is None]
    if not axes:
        return unknown("no_such_axis", what="weight decay")
    if short := evidence.lacks(3):
        return short
    for axis, side, at in _edges(evidence, axes):
        if _one_way(evidence, axis) and (axis.space or _better_than_inside(evidence, axis)):
            return _at_the_edge(evidence, axis, side, at)
    return clear()


def _one_way(evidence: StudyEvidence, axis: Axis) -> bool:
    """Whether the means along an axis, at the best cell's other settings, only rise or fall."""
    beside = evidence.beside_best(axis)
    means = {cell.hash: mean for cell, mean in evidence.finished}
    seen = [means[beside[value].hash] for value in sorted(beside) if beside[value].hash in means]
    return seen in (sorted(seen), sorted(seen, reverse=True))


@check(
    "rate_capped_by_divergence",
    "R6",
    "warning",
    "lr",
    "warm-up",
    label="Best rate beside diverged runs",
    title="The best cell has {axis} {best:g}; at {above:g}, the next higher, the run diverged.",
    cause="Instability caps the rate, so the best may lie above what could be tried.",
    advice="Give the stage a warm-up of up to 10 % and `clip_norm`, and run the same rates again.",
    refuted_by="With a warm-up {above:g} trains, and is no better.",
    otherwise="no run diverged at a rate next to the best",
)
def rate_capped_by_divergence(evidence: StudyEvidence) -> Seen:
    """Google tuning playbook, figure 7a."""
    axes = [axis for axis in evidence.axes_of("lr") if axis.arms is None]
    if not axes:
        return unknown("no_such_axis", what="lr")
    if short := evidence.lacks(1):
        return short
    best, failed = evidence.finished[0][0], {c.hash for c, s in evidence.cells if _diverged(s)}
    for axis in axes:
        beside = evidence.beside_best(axis)
        at = best.points[0][axis.name]
        above = min((value for value in beside if value > at), default=None)
        if above is not None and beside[above].hash in failed:
            seen = fires(axis=axis.name, best=at, above=above)
            return seen.in_words(axis=axis_words(axis.name))
    return clear()


@check(
    "too_few_trials",
    "R23",
    "warning",
    "study",
    "axis",
    label="Few trials for so many dimensions",
    title="{trials} trials over {spaces} free dimensions: the best of so few is mostly luck of "
    "where they fell.",
    cause="The trials are too few to cover the space.",
    advice="Ask for 20 trials or more (`search.trials=20`), quasi-random, or free fewer "
    "dimensions; with under ten trials tune lr alone and fix the rest.",
    refuted_by="Twenty more trials have their best at the same place.",
    otherwise="{trials} trials in a space of {spaces} dimensions",
)
def too_few_trials(evidence: StudyEvidence) -> Seen:
    """Playbook, figure 3: the best of 6 scatters far more than that of 20."""
    spaces = len(evidence.study.design.spaces)
    if not spaces:
        return unknown("no_such_axis", what="a space")
    if short := evidence.lacks(1):
        return short
    places = max(1, len(evidence.study.design.grid()))
    trials = len(evidence.finished) // places
    if spaces < 2 or trials >= FEWEST_TRIALS:
        return clear(trials=trials, spaces=spaces)
    return fires(trials=trials, spaces=spaces)


CHECKS: tuple[Check[StudyEvidence], ...] = (
    many_infeasible,
    best_at_the_edge,
    decay_at_the_edge,
    rate_capped_by_divergence,
    too_few_trials,
)

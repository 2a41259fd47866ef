"""Checks of a study: whether what it seems to say follows from it. R6, R19 to R24, R28 and R31."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from fieldmark.diagnosis.finding import Check, Number, Seen, check, clear, fires, unknown
from fieldmark.errors import FieldmarkError
from fieldmark.studies.answered import answered_cells, plain
from fieldmark.studies.compare import changed_classes, compare
from fieldmark.studies.design import Cell
from fieldmark.studies.effects import Cell as AnsweredCell
from fieldmark.studies.effects import study_spread
from fieldmark.studies.selection import best_cell
from fieldmark.studies.space import Axis
from fieldmark.studies.study import Study
from fieldmark.studies.table import Summary, summarize
from fieldmark.studies.verdict import Verdict

INFEASIBLE = 0.2  # of the runs; ours
FEWEST_RUNS = 5
FEWEST_TRIALS = 20  # over two spaces or more; playbook
OUTER = 0.1  # of a space's range, by its own scale; ours
FEW_PHOTOS, MOVED = 10, 0.05  # of a class, and how far they move
DIVERGED = "became"  # what a run says that ended in numbers no longer finite


@dataclass(frozen=True, eq=False)
class StudyEvidence:
    """What came of a study so far."""

    study: Study

    @cached_property
    def cells(self) -> list[tuple[Cell, Summary]]:
        """Each cell and what came of it."""
        states = self.study.states()
        return [(cell, summarize(self.study, cell, states)) for cell in self.study.cells]

    @cached_property
    def finished(self) -> list[tuple[Cell, float]]:
        """Cells with a result, the best first."""
        found = [(cell, summary.mean) for cell, summary in self.cells if summary.mean is not None]
        lower = self.study.design.file.objective.lower_is_better
        return sorted(found, key=lambda one: one[1] if lower else -one[1])

    @cached_property
    def answered(self) -> list[AnsweredCell]:
        """Cells with answers photo by photo."""
        return answered_cells(self.study)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What is varied."""
        return self.study.design.file.axes

    def axes_of(self, *keys: str) -> list[Axis]:
        """The axes that set a key which ends so, as `lr` or `weight_decay`."""
        return [axis for axis in self.axes if any(k in _last_keys(axis) for k in keys)]

    def verdict(self, a: Cell, b: Cell) -> Verdict | None:
        """B - A photo by photo; None where their answers are not there."""
        found = [self._answers(cell) for cell in (a, b)]
        if found[0] is None or found[1] is None:
            return None
        try:
            spread = study_spread(self.answered)
            return compare(found[0].answers, found[1].answers, spread=spread)
        except FieldmarkError:
            return None

    def _answers(self, cell: Cell) -> AnsweredCell | None:
        wanted = {name: plain(value) for name, value in cell.points[0].items()}
        return next((each for each in self.answered if dict(each.settings) == wanted), None)


def _last_keys(axis: Axis) -> set[str]:
    return {key.rpartition(".")[2] for changes in axis.changes() for key in changes}


def _words(cell: Cell) -> str:
    return ", ".join(f"{name} {value}" for name, value in cell.points[0].items())


def _settings(evidence: StudyEvidence, axis: Axis) -> list[float]:
    """An axis's settings in rising order; none where they are no numbers."""
    values = {cell.points[0][axis.name] for cell, _ in evidence.cells}
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return []
    return sorted(values)


def _lacks(evidence: StudyEvidence, needed: int) -> Seen | None:
    found = len(evidence.finished)
    return unknown("too_few_cells", needed=needed, found=found) if found < needed else None


def _neighbours(evidence: StudyEvidence, cell: Cell, axis: Axis) -> dict[float, Cell]:
    """Cells that differ from a cell in one axis alone, by their setting."""
    point = cell.points[0]
    return {
        each.points[0][axis.name]: each
        for each, _ in evidence.cells
        if all(each.points[0][k] == v for k, v in point.items() if k != axis.name)
    }


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
    if short := _lacks(evidence, 1):
        return short
    best, failed = evidence.finished[0][0], {c.hash for c, s in evidence.cells if _diverged(s)}
    for axis in axes:
        beside = _neighbours(evidence, best, axis)
        at = best.points[0][axis.name]
        above = min((value for value in beside if value > at), default=None)
        if above is not None and beside[above].hash in failed:
            return fires(axis=axis.name, best=at, above=above)
    return clear()


def _diverged(summary: Summary) -> bool:
    return summary.failed > 0 and DIVERGED in (summary.reason or "")


def _edges(evidence: StudyEvidence, axes: Sequence[Axis]) -> Iterator[tuple[Axis, str, float]]:
    """Axes whose best setting is the outermost that could be moved further out."""
    best = evidence.finished[0][0]
    for axis in axes:
        at, values = best.points[0][axis.name], _settings(evidence, axis)
        if len(values) < 3:
            continue
        low, high = axis.space.bounds if axis.space else (values[0], values[-1])
        if axis.space and axis.space.log and low > 0:
            margin = (high / low) ** OUTER
            sides = (at <= low * margin, at >= high / margin)
        else:
            margin = OUTER * (high - low) if axis.space else 0.0
            sides = (at <= low + margin, at >= high - margin)
        if sides[0] and low > 0:  # nothing lies below 0
            yield axis, "low", at
        if sides[1]:
            yield axis, "high", at


def _better_than_inside(evidence: StudyEvidence, axis: Axis) -> bool:
    """Whether the best beats its neighbour along an axis by more than a standard error."""
    best = evidence.finished[0][0]
    at, beside = best.points[0][axis.name], _neighbours(evidence, best, axis)
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
    if not any(len(_settings(evidence, axis)) >= 3 for axis in axes):
        return unknown("no_such_axis", what="a number in three settings or more")
    if short := _lacks(evidence, 3):
        return short
    for axis, side, at in _edges(evidence, axes):
        if axis.space or _better_than_inside(evidence, axis):
            further = at / 3 if side == "low" else at * 3
            if not axis.space:
                further = _further(_settings(evidence, axis), side)
            return fires(axis=axis.name, best=at, side=side, next=further)
    return clear()


def _further(values: Sequence[float], side: str) -> float:
    """The next setting out: as many times as the last step, or as far."""
    first, second = (values[0], values[1]) if side == "low" else (values[-1], values[-2])
    if values[0] > 0 and values[-1] / values[0] > 4:
        return float(f"{first * first / second:.3g}")
    return 2 * first - second


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
    reasons = [summary.reason for _, summary in evidence.cells if summary.reason]
    if failed > INFEASIBLE * runs:
        return fires(failed=failed, runs=runs, reason=reasons[0][:160])
    return clear(failed=failed, runs=runs)


@check(
    "nuisance_not_tuned",
    "R21",
    "warning",
    "axis",
    "lr",
    label="Settings compared at one learning rate",
    title="{axes} compared at one learning rate for all: each setting may want its own.",
    cause="The best rate depends on what is varied; with one rate the setting it suits wins.",
    advice="Add a nuisance axis for lr (a third, the same, three times) at least at the corners "
    "and the best cell, and compare each setting at its best rate.",
    refuted_by="With lr tuned for each setting the order is the same.",
    otherwise="lr is varied too",
)
def nuisance_not_tuned(evidence: StudyEvidence) -> Seen:
    """Playbook: optimiser settings are nuisances and are not to be fixed."""
    varied = [axis for axis in evidence.axes if axis.role == "scientific"]
    varied = [a for a in varied if len(a.labels()) > 1 and not {"lr"} & _last_keys(a)]
    if not varied:
        return unknown("no_such_axis", what="anything but lr")
    if evidence.axes_of("lr"):
        return clear()
    names = [axis.name for axis in varied]
    return fires(axes=f"Settings of {' and '.join(names)} are")


@check(
    "best_is_luck",
    "R22",
    "warning",
    "luck of the best",
    "real, noise, cannot tell",
    label="Lead of the best within chance",
    title="The best cell ({best}) leads the second ({second}) by {lead_points:.1f} points (95 % "
    "interval {low_points:+.1f} to {high_points:+.1f}); the best of {cells} owes some "
    "{luck_points:.1f} to luck.",
    cause="Of many equal cells one is always first.",
    advice="Take the simpler or cheaper of the two, or run both with more seeds{needs}.",
    refuted_by="With more seeds the lead's interval leaves out 0.",
    otherwise="the best leads the second by {lead_points:.1f} points, more than chance",
)
def best_is_luck(evidence: StudyEvidence) -> Seen:
    """Paired by photo, with seeds as chance; luck of the best as `studies.selection` has it."""
    if short := _lacks(evidence, 2):
        return short
    (best, _), (second, _) = evidence.finished[:2]
    verdict = evidence.verdict(second, best)
    if verdict is None or len(evidence.answered) < 2:
        return unknown("not_recorded", key="answers photo by photo")
    luck = best_cell(evidence.answered, spread=study_spread(evidence.answered))
    numbers: dict[str, Number] = {
        "best": _words(best),
        "second": _words(second),
        "lead_points": 100 * verdict.difference,
        "low_points": 100 * verdict.low,
        "high_points": 100 * verdict.high,
        "cells": luck.of,
        "luck_points": 100 * luck.optimism,
        "needs": f": {verdict.needs.describe()} would tell" if verdict.needs else "",
    }
    return clear(**numbers) if verdict.answer == "real" else fires(**numbers)


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
    advice="{advice}",
    refuted_by="Twenty more trials have their best at the same place.",
    otherwise="{trials} trials over {spaces} free dimension(s)",
)
def too_few_trials(evidence: StudyEvidence) -> Seen:
    """Playbook, figure 3: the best of 6 scatters far more than that of 20."""
    spaces = len(evidence.study.design.spaces)
    if not spaces:
        return unknown("no_such_axis", what="a space")
    places = max(1, len(evidence.study.design.grid()))
    trials = len(evidence.finished) // places
    if spaces < 2 or trials >= FEWEST_TRIALS:
        return clear(trials=trials, spaces=spaces)
    advice = "Ask for 20 trials or more (`search.trials=20`), quasi-random, or free fewer."
    if trials < FEWEST_TRIALS // 2:
        advice = "With under ten trials tune lr alone, and fix the rest."
    return fires(trials=trials, spaces=spaces, advice=advice)


@check(
    "batch_changed_alone",
    "R24",
    "warning",
    "lr",
    "step",
    "epoch",
    label="Batch size changed alone",
    title="Stage {stage} is compared at {sizes} photos a step, all at lr {lr:g}.",
    cause="The best rate goes with the batch size, and larger batches take fewer steps in as "
    "many epochs.",
    advice="Scale lr with the batch size as a start ({example}), tune it, and compare at equal "
    "photos and at equal steps. Choose a batch for speed, not for val.",
    refuted_by="With lr tuned for each batch size the differences stay.",
    otherwise="lr is varied with the batch size",
)
def batch_changed_alone(evidence: StudyEvidence) -> Seen:
    """Goyal et al., arXiv 1706.02677; "Bag of tricks"; playbook."""
    rates: dict[str, dict[int, set[float]]] = defaultdict(lambda: defaultdict(set))
    for cell, _ in evidence.cells:
        for stage in cell.recipe.stages:
            rates[stage.name][stage.samples_per_step].add(stage.lr)
    varied = {stage: of for stage, of in rates.items() if len(of) > 1}
    if not varied:
        return unknown("no_such_axis", what="the batch size")
    for name, of in varied.items():
        used = set().union(*of.values())
        if len(used) == 1:
            (lr,), sizes = used, sorted(of)
            example = f"lr {lr:g} at {sizes[0]}, {lr * sizes[-1] / sizes[0]:g} at {sizes[-1]}"
            shown = ", ".join(map(str, sizes))
            return fires(stage=name, sizes=shown, lr=lr, example=example)
    return clear()


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
    if short := _lacks(evidence, 3):
        return short
    for axis, side, at in _edges(evidence, axes):
        if _one_way(evidence, axis) and (axis.space or _better_than_inside(evidence, axis)):
            further = at / 3 if side == "low" else at * 3
            return fires(axis=axis.name, best=at, side=side, next=further)
    return clear()


def _one_way(evidence: StudyEvidence, axis: Axis) -> bool:
    """Whether the means along an axis, at the best cell's other settings, only rise or fall."""
    beside = _neighbours(evidence, evidence.finished[0][0], axis)
    means = {cell.hash: mean for cell, mean in evidence.finished}
    seen = [means[beside[value].hash] for value in sorted(beside) if beside[value].hash in means]
    return seen in (sorted(seen), sorted(seen, reverse=True))


@check(
    "single_photos_decide",
    "R31",
    "note",
    "top-1",
    "cell",
    label="Classes of few photos that moved",
    title="Between the two best cells {count} classes of fewer than 10 photos move by over 5 "
    "points, {name} the most: {right_a:.0f} and {right_b:.0f} of {photos} right.",
    cause="In a class of {photos} one photo is {one_points:.0f} points.",
    advice="Read single classes as k of n photos, and conclude nothing about one of them.",
    refuted_by="With more val photos of {name} it moves as far.",
    otherwise="no class of fewer than 10 photos moves by over 5 points between the two best cells",
)
def single_photos_decide(evidence: StudyEvidence) -> Seen:
    """Playbook: "was it just one more example correct?"."""
    if len(evidence.answered) < 2:
        return unknown("too_few_cells", needed=2, found=len(evidence.answered))
    order = sorted(evidence.answered, key=lambda cell: -cell.answers.top1)
    try:
        changes = changed_classes(order[0].answers, order[1].answers)
    except FieldmarkError:
        return unknown("not_recorded", key="classes of the photos")
    small = [one for one in changes if one.photos < FEW_PHOTOS]
    moved = [one for one in small if abs(one.right_b - one.right_a) > MOVED * one.photos]
    if not moved:
        return clear()
    first = moved[0]
    return fires(
        count=len(moved),
        name=first.name,
        right_a=first.right_a,
        right_b=first.right_b,
        photos=first.photos,
        one_points=100 / first.photos,
    )


CHECKS: tuple[Check[StudyEvidence], ...] = (
    many_infeasible,
    best_is_luck,
    best_at_the_edge,
    decay_at_the_edge,
    rate_capped_by_divergence,
    batch_changed_alone,
    nuisance_not_tuned,
    too_few_trials,
    single_photos_decide,
)

"""Verdicts as sentences yet to be put into words; in English what their `describe` says."""

from collections.abc import Mapping, Sequence

from fieldmark.diagnosis.study_advice import study_command
from fieldmark.language import (
    Said,
    axis_words,
    counted,
    metric_words,
    points_words,
    said,
    setting_text,
    setting_words,
    settings_words,
)
from fieldmark.studies.effects import AnsweredCell, Effect, Interaction, Setting
from fieldmark.studies.selection import Best, Cheapest
from fieldmark.studies.study import Study
from fieldmark.studies.table import Guess
from fieldmark.studies.verdict import Needs, Verdict


def effect_sentence(effect: Effect) -> Said:
    """What `Effect.describe` says."""
    a, b = (setting_words(effect.axis, level) for level in (effect.a, effect.b))
    found = verdict_sentence(effect.verdict, a, b)
    if not effect.depends_on:
        return found
    return said("effect.depends", found=found, others=_all(effect.depends_on))


def interaction_sentence(found: Interaction) -> Said:
    """What `Interaction.describe` says."""
    (first, second), ((a1, b1), (a2, b2)) = found.axes, found.levels
    points = 100 * found.verdict.difference
    what = said(
        "effect.interaction_more" if points >= 0 else "effect.interaction_less",
        first=axis_words(first),
        second=axis_words(second),
        points=abs(points),
        a1=setting_text(a1),
        b1=setting_text(b1),
        a2=setting_text(a2),
        b2=setting_text(b2),
    )
    return _judged(found.verdict, what)


def verdict_sentence(verdict: Verdict, a: Said | str, b: Said | str) -> Said:
    """What `Verdict.describe` says of B against A."""
    points = 100 * verdict.difference
    if verdict.answer == "noise":
        what = said("verdict.noise", a=a, b=b, care=points_words(verdict.care), points=points)
    else:
        key = "verdict.more" if points >= 0 else "verdict.fewer"
        what = said(key, a=a, b=b, points=abs(points))
    if verdict.is_level:
        what = said("verdict.same", a=a, b=b)
    return _judged(verdict, what)


def best_sentence(best: Best, settings: Mapping[str, Setting]) -> Said:
    """What `Best.describe` says of the best cell."""
    name, measured = settings_words(settings), 100 * best.measured
    if not best.owes_to_luck:
        return said("best.plain", name=name, measured=measured)
    return said(
        "best.sentence",
        name=name,
        measured=measured,
        expected=100 * best.expected,
        of=best.of,
        luck=100 * best.optimism,
    )


def cheapest_sentence(found: Cheapest, cells: Sequence[AnsweredCell]) -> list[Said]:
    """What `Cheapest.describe` says, where there is something to save."""
    if found.verdict is None or not found.saves:
        return []
    verdict = verdict_sentence(found.verdict, said("best.best"), said("best.it"))
    share = 100 * found.cost / found.best_cost
    name = settings_words(cells[found.cell].settings)
    return [said("best.cheapest", name=name, share=share, verdict=verdict)]


def guess_sentences(guess: Guess, metric: str) -> list[Said]:
    """What was expected, what came, and whether that was right; `metric` is what was judged by."""
    size = said("list.nothing")
    if guess.size:
        size = said("guess.size", size=_size(guess.size, metric))
    expected = said(
        f"guess.{guess.direction}",
        axis=axis_words(guess.axis),
        against=setting_text(guess.against),
        to=setting_text(guess.to),
        metric=metric_words(metric),
        size=size,
    )
    if guess.seen is None:
        return [expected, said("guess.nothing_yet")]
    came = said("guess.came_alone", seen=_gained(guess.seen, metric))
    if guess.low is not None and guess.high is not None:
        came = said(
            "guess.came",
            seen=_gained(guess.seen, metric),
            low=_gained(guess.low, metric),
            high=_gained(guess.high, metric),
            pairs=guess.pairs,
        )
    right = {True: "guess.right", False: "guess.wrong", None: "guess.open"}[guess.right]
    late = [counted("guess.late", guess.results_before)] if guess.results_before else []
    return [expected, came, said(right), *late]


def _size(size: float, metric: str) -> Said:
    if metric.endswith("loss"):
        return said("value.size_nats", nats=size)
    return points_words(size)


def _gained(difference: float, metric: str) -> Said:
    if metric.endswith("loss"):
        return said("value.nats", nats=difference)
    return said("value.gained", points=100 * difference)


def outdated_sentence(study: Study, *, mark: str = "`") -> list[Said]:
    """Of finished runs that the study no longer asks for: why they don't count, and what to do.

    Args:
        study: It.
        mark: Put around the command: on a page it makes code of it; a shell would run that.
    """
    count = study.outdated()
    if not count:
        return []
    told = said("answer.outdated", runs=counted("count.runs", count))
    if study.plan().is_done:
        return [told]
    return [told, said("answer.ask_again", command=f"{mark}{study_command(study)}{mark}")]


def axis_answer(axis: str, effects: Sequence[Effect]) -> Said:
    """Whether an axis matters, in half a sentence: by its largest real effect, if it has one."""
    real = [effect for effect in effects if effect.verdict.answer == "real"]
    if real:
        most = max(real, key=lambda effect: abs(effect.verdict.difference))
        a, b = (most.a, most.b) if most.verdict.difference >= 0 else (most.b, most.a)
        low, high = sorted(abs(100 * end) for end in (most.verdict.low, most.verdict.high))
        points = abs(100 * most.verdict.difference)
        return said(
            "answer.matters",
            axis=axis_words(axis),
            a=setting_text(a),
            b=setting_text(b),
            points=points,
            low=low,
            high=high,
        )
    if all(effect.verdict.answer == "noise" for effect in effects):
        care = points_words(effects[0].verdict.care)
        return said("answer.noise", axis=axis_words(axis), care=care)
    return said("answer.cannot_tell", axis=axis_words(axis))


def _all(names: Sequence[str]) -> Said | str:
    """Names with the language's `and` between them."""
    words = axis_words(names[0])
    for name in names[1:]:
        words = said("list.and", before=words, last=axis_words(name))
    return words


def _judged(verdict: Verdict, what: Said) -> Said:
    answer = verdict.answer.replace(" ", "_")
    needs = said("verdict.needs", what=_needs(verdict.needs)) if verdict.needs else ""
    return said(
        "verdict.sentence",
        answer=said(f"answers.{answer}"),
        what=what,
        low=100 * verdict.low,
        high=100 * verdict.high,
        counts=_counts(verdict),
        scope=said(f"verdict.about.{verdict.about.replace(' ', '_')}"),
        needs=needs,
    )


def _counts(verdict: Verdict) -> tuple[Said, ...]:
    a, b = verdict.seeds
    seeds = said("counts.seeds_of", a=a, b=b)
    if a == b:
        seeds = said("counts.seed_each" if a == 1 else "counts.seeds_each", count=a)
    words = [said("counts.photos", count=verdict.photos), seeds]
    if verdict.folds:
        words.append(said("counts.folds", count=verdict.folds))
    if verdict.comparisons > 1:
        words.append(said("counts.comparisons", count=verdict.comparisons))
    if verdict.rests_on_p:
        key = "counts.p_corrected" if verdict.comparisons > 1 else "counts.p_exact"
        words.append(said(key, p=verdict.p))
    return tuple(words)


def _needs(needs: Needs) -> Said:
    seeds, photos = needs.seeds, needs.photos
    if seeds is not None:
        of_seeds = said("needs.seed" if seeds == 1 else "needs.seeds", count=seeds)
    if photos is not None:
        of_photos = said("needs.photos", count=photos)
    if seeds is not None and photos is not None:
        return said("needs.either", a=of_seeds, b=of_photos)
    if seeds is None and photos is None:
        return said("needs.both")
    return said("needs.one", what=of_photos if seeds is None else of_seeds)

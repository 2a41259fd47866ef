"""What each axis of a grid does to top-1, averaged over the others, and where axes interact.

Every effect is a contrast of cells, estimated by `spread.estimate` photo by photo. Several are
looked at together, so their p-values are Holm's: he asks nothing of how the contrasts depend on
one another, and takes p-values that count seeds as chance. A max-t bootstrap over photos would be
somewhat sharper, but knows nothing of seeds. Where cells have two seeds or more, their spread is
pooled over all cells: a few seeds each make many degrees of freedom, and a contrast that averages
over all cells needs just the average spread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from fieldmark.errors import SettingError
from fieldmark.studies.answers import Answers
from fieldmark.studies.spread import Estimate, SeedSpread, estimate, pooled_spread
from fieldmark.studies.verdict import CARE, Verdict, check_care, holm, judge, p_at_care

Setting = str | int | float | bool | None
Pair = tuple[Setting, Setting]
Key = frozenset[tuple[str, Setting]]


@dataclass(frozen=True)
class AnsweredCell:
    """One setting of every axis, and what came of it.

    Attributes:
        settings: Axis to setting.
        answers: Of its models.
        cost: In whatever unit the cells share, such as seconds; None: not known.
    """

    settings: Mapping[str, Setting]
    answers: Answers
    cost: float | None = None


@dataclass(frozen=True)
class Effect:
    """What going from one setting of an axis to another does, all else equal.

    Attributes:
        axis: Which.
        a: The setting gone from.
        b: The setting gone to.
        cells: Pairs of cells that differ in nothing else, averaged over.
        verdict: B - A.
        depends_on: Axes that change this axis's effect: read it at each of their settings.
    """

    axis: str
    a: Setting
    b: Setting
    cells: int
    verdict: Verdict
    depends_on: tuple[str, ...] = ()

    def describe(self) -> str:
        """One sentence, and another where the effect depends on another axis."""
        found = self.verdict.describe(f"{self.axis} {self.a}", f"{self.axis} {self.b}")
        if not self.depends_on:
            return found
        return f"{found} It depends on {' and '.join(self.depends_on)}: look at the single cells."


@dataclass(frozen=True)
class Interaction:
    """How much more one axis's effect is at another axis's setting b than at its setting a.

    Attributes:
        axes: The two.
        levels: From a to b, of each.
        verdict: The effect of the first axis at b of the second, minus that at a.
    """

    axes: tuple[str, str]
    levels: tuple[Pair, Pair]
    verdict: Verdict

    def describe(self) -> str:
        """One sentence."""
        (first, second), ((a1, b1), (a2, b2)) = self.axes, self.levels
        points = 100 * self.verdict.difference
        return self.verdict.sentence(
            f"from {first} {a1} to {b1} top-1 changes by {abs(points):.1f} points "
            f"{'more' if points >= 0 else 'less'} at {second} {b2} than at {a2}"
        )


def main_effects(
    cells: Sequence[AnsweredCell], *, care: float = CARE, spread: SeedSpread | None = None
) -> list[Effect]:
    """Every two settings of every axis, averaged over the cells that differ in nothing else.

    All are corrected together, by Holm. An interaction that is real is noted.

    Raises:
        SettingError: cells have other axes, or one setting twice, or other photos.
    """
    at = _by_settings(cells)
    spread = spread or study_spread(cells)
    found = []
    for axis, (a, b) in _pairs_of_levels(at):
        pairs = [(key, _moved(key, axis, b)) for key in at if dict(key)[axis] == a]
        pairs = [pair for pair in pairs if pair[1] in at]
        if pairs:
            signs = [(key, sign) for pair in pairs for key, sign in zip(pair, (-1, 1), strict=True)]
            found.append(((axis, a, b, len(pairs)), _contrast(at, signs, len(pairs), spread)))
    verdicts = _judge_all(cells, [each for _, each in found], care)
    found_together = interactions(cells, care=care, spread=spread)
    real = [each.axes for each in found_together if each.verdict.answer == "real"]
    return [
        Effect(*what, verdict, _partners(what[0], real))
        for (what, _), verdict in zip(found, verdicts, strict=True)
    ]


def interactions(
    cells: Sequence[AnsweredCell], *, care: float = CARE, spread: SeedSpread | None = None
) -> list[Interaction]:
    """Every two settings of every two axes: whether their effects just add up.

    All are corrected together, by Holm, apart from the main effects.

    Raises:
        SettingError: cells have other axes, or one setting twice, or other photos.
    """
    at = _by_settings(cells)
    spread = spread or study_spread(cells)
    found = []
    for (first, one), (second, two) in combinations(_pairs_of_levels(at), 2):
        if first == second:
            continue
        start = [key for key in at if (dict(key)[first], dict(key)[second]) == (one[0], two[0])]
        corners = [_corners(key, (first, second), (one, two)) for key in start]
        corners = [corner for corner in corners if all(key in at for key, _ in corner)]
        if corners:
            signs = [signed for corner in corners for signed in corner]
            what = ((first, second), (one, two))
            found.append((what, _contrast(at, signs, len(corners), spread)))
    verdicts = _judge_all(cells, [each for _, each in found], care)
    return [Interaction(*what, verdict) for (what, _), verdict in zip(found, verdicts, strict=True)]


def strongest(found: Sequence[Interaction]) -> list[Interaction]:
    """The largest real interaction of every two axes: one is read, the 36 of a 4 x 4 grid not."""
    largest: dict[tuple[str, str], Interaction] = {}
    for each in found:
        known = largest.get(each.axes)
        size = abs(each.verdict.difference)
        if each.verdict.answer == "real" and (
            known is None or size > abs(known.verdict.difference)
        ):
            largest[each.axes] = each
    return list(largest.values())


def study_spread(cells: Sequence[AnsweredCell]) -> SeedSpread | None:
    """The cells' own spread between seeds, pooled; None where a cell has a single seed."""
    answers = [cell.answers for cell in cells]
    return pooled_spread(answers) if min(len(each.seeds) for each in answers) > 1 else None


def _by_settings(cells: Sequence[AnsweredCell]) -> dict[Key, AnsweredCell]:
    """Cells by their settings, held to have the same axes and no settings twice."""
    if not cells:
        raise SettingError("A grid needs cells, got none.")
    for cell in cells:
        if set(cell.settings) != set(cells[0].settings):
            raise SettingError(
                f"Every cell must set the same axes, got {sorted(cells[0].settings)} and "
                f"{sorted(cell.settings)}."
            )
    at = {frozenset(cell.settings.items()): cell for cell in cells}
    if len(at) < len(cells):
        raise SettingError(
            f"{len(cells)} cells have only {len(at)} different settings. "
            "Join the seeds of a setting in one cell."
        )
    return at


def _pairs_of_levels(at: Mapping[Key, AnsweredCell]) -> list[tuple[str, Pair]]:
    """Every axis with every two of its settings, in the order they come up."""
    levels: dict[str, dict[Setting, None]] = {}
    for cell in at.values():
        for axis, setting in cell.settings.items():
            levels.setdefault(axis, {})[setting] = None
    return [(axis, pair) for axis, seen in levels.items() for pair in combinations(seen, 2)]


def _moved(key: Key, axis: str, setting: Setting) -> Key:
    return frozenset({**dict(key), axis: setting}.items())


def _corners(key: Key, axes: tuple[str, str], levels: tuple[Pair, Pair]) -> list[tuple[Key, int]]:
    """Four cells whose signed sum is an interaction."""
    found = []
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        corner = _moved(_moved(key, axes[0], levels[0][i]), axes[1], levels[1][j])
        found.append((corner, 1 if i == j else -1))
    return found


def _contrast(
    at: Mapping[Key, AnsweredCell],
    signs: Sequence[tuple[Key, int]],
    count: int,
    spread: SeedSpread | None,
) -> Estimate:
    weights = [sign / count for _, sign in signs]
    return estimate(weights, [at[key].answers for key, _ in signs], spread)


def _judge_all(
    cells: Sequence[AnsweredCell], found: Sequence[Estimate], care: float
) -> list[Verdict]:
    check_care(care)
    p = holm([each.p_value() for each in found])
    p_care = holm([p_at_care(each, care) for each in found])
    some = cells[0].answers
    seeds = min(len(cell.answers.seeds) for cell in cells)
    return [
        judge(
            each,
            photos=some.right.shape[1],
            seeds=(seeds, seeds),
            folds=some.fold_count,
            care=care,
            p=p_one,
            p_care=p_care_one,
            comparisons=len(found),
        )
        for each, p_one, p_care_one in zip(found, p, p_care, strict=True)
    ]


def _partners(axis: str, real: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(other for pair in real if axis in pair for other in pair if other != axis)
    )

"""The best of many cells, how much luck is in its lead, and the cheapest that keeps up with it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fieldmark.errors import SettingError
from fieldmark.studies.answers import check_same_photos
from fieldmark.studies.effects import AnsweredCell, study_spread
from fieldmark.studies.spread import LEVEL, SeedSpread, estimate
from fieldmark.studies.verdict import CARE, Verdict, is_no_point, judge

WORTH_SAVING = 0.1  # of the best cell's cost: times of one machine differ by less without a reason
_DRAWS = 4000  # the optimism's own error is then 1/50 of a cell's standard error


@dataclass(frozen=True)
class Best:
    """The cell with the highest top-1.

    Attributes:
        cell: Its position.
        measured: Its top-1, a fraction.
        optimism: How much of it is luck of having been picked from so many, on average.
        of: How many there were.
    """

    cell: int
    measured: float
    optimism: float
    of: int

    @property
    def expected(self) -> float:
        """Top-1 to be expected on other photos, and of other seeds where cells have several."""
        return self.measured - self.optimism

    @property
    def owes_to_luck(self) -> bool:
        """Whether any is left once it is rounded as people read it, to a tenth of a point."""
        return not is_no_point(self.optimism)

    def describe(self, name: str = "The best cell") -> str:
        """One sentence."""
        if not self.owes_to_luck:
            return f"{name} measured {100 * self.measured:.1f} % top-1."
        return (
            f"{name} measured {100 * self.measured:.1f} % top-1; expect about "
            f"{100 * self.expected:.1f} %, since the best of {self.of} owes some "
            f"{100 * self.optimism:.1f} points to luck."
        )


@dataclass(frozen=True)
class Cheapest:
    """The cheapest cell that is not really worse than the best.

    Attributes:
        cell: Its position.
        cost: What it costs.
        best: Position of the best.
        best_cost: What that costs.
        verdict: This cell minus the best; None where they are the same.
    """

    cell: int
    cost: float
    best: int
    best_cost: float
    verdict: Verdict | None

    @property
    def saves(self) -> bool:
        """Whether it costs so much less than the best that somebody may want it."""
        return self.verdict is not None and self.cost <= (1 - WORTH_SAVING) * self.best_cost

    def describe(self, name: str | None = None, best: str = "the best") -> str:
        """One sentence and the verdict; a cell without a `name` is called by its position."""
        if self.verdict is None:
            return f"No cheaper cell keeps up with {best}."
        name = name or f"cell {self.cell + 1}"
        return (
            f"The cheapest cell not shown to be worse than {best} is {name}, at "
            f"{self.cost / self.best_cost:.0%} of the cost. {self.verdict.describe(best, 'it')}"
        )


def best_cell(cells: Sequence[AnsweredCell], *, spread: SeedSpread | None = None) -> Best:
    """The best of n cells and its optimism.

    Draws n cells again and again around their true top-1, with the covariance that photos and
    seeds give them, and asks how much the best then promises too much. The true top-1 are not
    known; those measured lie too far apart, by chance, and are drawn together for it:

        true = mean + max(0, 1 - V / sum of squares) (measured - mean)

    A parametric bootstrap around James & Stein's estimate (Efron & Morris, JASA 70 (1975)). It is
    nearer to the truth, and steadier, than the bootstrap over photos that BBC-CV uses (Tsamardinos,
    Greasidou & Borboudakis, Machine Learning 107 (2018)), and counts seeds too.

    Args:
        cells: Two or more, with answers about the same photos.
        spread: Between seeds, pooled over a study; by default that of the cells themselves.

    Raises:
        SettingError: there are fewer than two cells, or their photos differ.
    """
    measured = np.array([cell.answers.top1 for cell in cells])
    covariance = _covariance(cells, spread)
    apart = np.eye(len(cells)) - 1 / len(cells)  # what is common to all cells picks none of them
    covariance = apart @ covariance @ apart
    away = measured - measured.mean()
    kept = max(0.0, 1 - np.trace(covariance) / max(away @ away, np.finfo(float).tiny))
    size, axes = np.linalg.eigh(covariance)
    draws = np.random.default_rng(0).standard_normal((_DRAWS, len(cells)))
    drawn = kept * away + draws * np.sqrt(np.maximum(size, 0)) @ axes.T
    luck = float((drawn.max(1) - (kept * away)[drawn.argmax(1)]).mean())
    optimism = max(0.0, luck)  # as it is on average; of these draws it may be a hair below
    best = int(measured.argmax())
    return Best(best, float(measured[best]), optimism, len(cells))


def cheapest_cell(
    cells: Sequence[AnsweredCell], *, care: float = CARE, spread: SeedSpread | None = None
) -> Cheapest:
    """The cheapest cell that comparing does not show to be worse than the best.

    Since the best is the best by chance too, p-values are corrected for all n (n - 1) / 2 pairs
    (Bonferroni), not just for the n - 1 looked at. "Not shown" is no proof: read the interval.

    Raises:
        SettingError: a cell has no cost, there are fewer than two, or their photos differ.
    """
    _check(cells)
    costs = [cell.cost for cell in cells if cell.cost is not None]
    if len(costs) < len(cells):
        raise SettingError("Every cell needs a `cost` to find the cheapest. Give all of them one.")
    spread = spread or study_spread(cells)
    best = int(np.argmax([cell.answers.top1 for cell in cells]))
    for position in np.argsort(costs, kind="stable").tolist():
        if position == best or costs[position] >= costs[best]:
            break
        verdict = _against(cells, position, best, care, spread)
        if verdict.p > 1 - LEVEL or verdict.answer == "noise":
            return Cheapest(position, costs[position], best, costs[best], verdict)
    return Cheapest(best, costs[best], best, costs[best], None)


def _against(
    cells: Sequence[AnsweredCell], position: int, best: int, care: float, spread: SeedSpread | None
) -> Verdict:
    answers = [cells[best].answers, cells[position].answers]
    found = estimate((-1, 1), answers, spread)
    pairs = len(cells) * (len(cells) - 1) // 2
    return judge(
        found,
        photos=answers[0].right.shape[1],
        seeds=(len(answers[0].seeds), len(answers[1].seeds)),
        folds=answers[0].fold_count,
        care=care,
        p=min(1.0, pairs * found.p_value()),
        comparisons=pairs,
    )


def _covariance(cells: Sequence[AnsweredCell], spread: SeedSpread | None) -> NDArray[np.float64]:
    """(cells, cells), of the cells' top-1: photos are common to all, seeds to each its own."""
    _check(cells)
    rows = np.stack([cell.answers.right.mean(0) for cell in cells])
    covariance: NDArray[np.float64] = np.cov(rows) / rows.shape[1]
    seeds = np.array([len(cell.answers.seeds) for cell in cells])
    spread = spread or study_spread(cells)
    if spread is None:
        return covariance
    covariance[np.diag_indices(len(cells))] += (spread.variance - spread.noise) / seeds
    return covariance


def _check(cells: Sequence[AnsweredCell]) -> None:
    if len(cells) < 2:
        raise SettingError(f"The best is picked from two cells or more, got {len(cells)}.")
    for cell in cells[1:]:
        check_same_photos(cells[0].answers, cell.answers)

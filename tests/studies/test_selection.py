"""The best of many and the cheapest that keeps up, on cells with known truth."""

import numpy as np
import pytest

from fieldmark.errors import SettingError
from fieldmark.studies.answers import Answers
from fieldmark.studies.effects import AnsweredCell
from fieldmark.studies.selection import Best, best_cell, cheapest_cell
from fieldmark.studies.spread import SeedSpread


def cells(tops, *, photos=500, seeds=1, seed=0, costs=None):
    rng = np.random.default_rng(seed)
    return [
        AnsweredCell(
            {"number": i},
            Answers(rng.random((seeds, photos)) < top),
            None if costs is None else costs[i],
        )
        for i, top in enumerate(tops)
    ]


def test_the_best_is_the_highest():
    grid = cells([0.5, 0.9, 0.6])
    best = best_cell(grid)
    assert (best.cell, best.of) == (1, 3)
    assert best.measured == grid[1].answers.top1
    assert best.expected == best.measured - best.optimism


def test_equal_cells_promise_what_order_statistics_say():
    # The highest of 12 normal numbers lies 1.629 standard deviations above their mean.
    rows = [best_cell(cells([0.7] * 12, seed=seed)) for seed in range(40)]
    sigma = np.sqrt(0.7 * 0.3 / 500)
    assert np.mean([row.optimism for row in rows]) == pytest.approx(1.629 * sigma, rel=0.08)
    assert np.mean([row.measured - 0.7 for row in rows]) == pytest.approx(1.629 * sigma, rel=0.2)


def test_a_clear_winner_owes_nothing_to_luck():
    assert best_cell(cells([0.3, 0.9, 0.3])).optimism == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("others", [0.1, 0.2, 0.3, 0.4, 0.45, 0.5])
def test_luck_is_never_below_nothing(others: float):
    found = best_cell(cells([others, 0.9, others, others]))
    assert found.optimism >= 0
    assert "-0.0" not in found.describe()


def test_seeds_add_to_the_luck():
    grid = cells([0.7] * 6, seeds=2)
    calm = best_cell(grid, spread=SeedSpread(0.0, 0.0, 6)).optimism
    loud = best_cell(grid, spread=SeedSpread(0.03**2, 0.0, 6)).optimism
    assert loud > 1.5 * calm


def test_noise_that_the_photos_show_already_is_counted_once():
    grid = cells([0.7] * 6, seeds=2)
    calm = best_cell(grid, spread=SeedSpread(0.0, 0.0, 6)).optimism
    noisy = best_cell(grid, spread=SeedSpread(0.03**2, 0.03**2, 6)).optimism
    assert noisy == pytest.approx(calm)


def test_cells_that_answer_alike_owe_nothing_to_luck():
    right = np.random.default_rng(0).random(300) < 0.7
    grid = [AnsweredCell({"number": i}, Answers(right)) for i in range(5)]
    assert best_cell(grid).optimism == pytest.approx(0, abs=1e-9)


def test_the_best_in_words():
    assert Best(3, 0.831, 0.012, 12).describe("336 x 8192") == (
        "336 x 8192 measured 83.1 % top-1; expect about 81.9 %, "
        "since the best of 12 owes some 1.2 points to luck."
    )


def test_luck_that_rounds_to_nothing_is_not_told():
    assert Best(3, 0.831, 0.00049, 12).describe() == "The best cell measured 83.1 % top-1."


def test_the_cheapest_that_keeps_up():
    grid = cells([0.5, 0.79, 0.8, 0.81], costs=[1, 2, 3, 8], photos=1000)
    found = cheapest_cell(grid)
    assert found.cell == 1  # cell 0 is far worse
    assert (found.cost, found.best_cost) == (2, grid[found.best].cost)
    assert found.verdict.comparisons == 6
    assert found.verdict.answer != "real"
    words = found.describe("cell 1", "cell 3")
    assert words.startswith("The cheapest cell not shown to be worse than cell 3 is cell 1, at ")


def test_where_nothing_cheaper_keeps_up_the_best_it_is():
    found = cheapest_cell(cells([0.3, 0.9, 0.9], costs=[1, 5, 9], photos=1000))
    assert found.cell in {1, found.best}
    alone = cheapest_cell(cells([0.3, 0.9], costs=[1, 5]))
    assert (alone.cell, alone.best, alone.verdict) == (1, 1, None)
    assert alone.describe() == "No cheaper cell keeps up with the best."


def test_a_difference_nobody_cares_about_is_no_reason_to_pay():
    grid = cells([0.5, 0.9], costs=[1, 5], photos=1000)
    assert cheapest_cell(grid).cell == 1
    assert cheapest_cell(grid, care=0.6).cell == 0


@pytest.mark.parametrize("pick", [best_cell, cheapest_cell])
def test_one_cell_is_no_choice(pick):
    with pytest.raises(SettingError, match="two cells or more, got 1"):
        pick(cells([0.5], costs=[1]))


def test_costs_must_be_known():
    with pytest.raises(SettingError, match="Every cell needs a `cost`"):
        cheapest_cell(cells([0.5, 0.6]))

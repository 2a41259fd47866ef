"""Main effects and interactions of grids whose effects are known."""

from itertools import product

import numpy as np
import pytest

from fieldmark.errors import SettingError
from fieldmark.studies.answers import Answers
from fieldmark.studies.effects import (
    AnsweredCell,
    interactions,
    main_effects,
    strongest,
    study_spread,
)
from fieldmark.studies.spread import estimate

SIZES, DIMS = (224, 336), (1024, 4096, 8192)


def grid(top1, *, seeds=2, photos=600, seed=0):
    """Cells of `top1(size, dim)`; a photo's difficulty is the same in all."""
    rng = np.random.default_rng(seed)
    hard = 0.8 * rng.random(photos)
    return [
        AnsweredCell(
            {"size": size, "dim": dim},
            Answers(hard + 0.2 * rng.random((seeds, photos)) < top1(size, dim)),
        )
        for size, dim in product(SIZES, DIMS)
    ]


def just_size(size, dim):
    return 0.55 + 0.1 * (size == 336)


def gains_by_dim(size, dim):
    return 0.55 + 0.2 * (size == 336 and dim == 8192)


def test_a_main_effect_is_the_mean_of_matched_differences():
    cells = grid(just_size)
    top1 = {tuple(cell.settings.values()): cell.answers.top1 for cell in cells}
    found = {(e.axis, e.a, e.b): e for e in main_effects(cells)}
    assert set(found) == {
        ("size", 224, 336),
        ("dim", 1024, 4096),
        ("dim", 1024, 8192),
        ("dim", 4096, 8192),
    }
    effect = found["size", 224, 336]
    expected = np.mean([top1[336, dim] - top1[224, dim] for dim in DIMS])
    assert effect.verdict.difference == pytest.approx(expected)
    assert (effect.cells, effect.verdict.comparisons, effect.verdict.about) == (3, 4, "recipes")
    assert effect.verdict.answer == "real"
    assert effect.depends_on == ()
    assert found["dim", 1024, 4096].verdict.answer != "real"
    assert found["dim", 1024, 4096].cells == 2


def test_p_values_are_corrected_for_their_number():
    cells = grid(just_size)
    effect = next(e for e in main_effects(cells) if e.axis == "size")
    signs = [(1 if cell.settings["size"] == 336 else -1) / 3 for cell in cells]
    alone = estimate(signs, [cell.answers for cell in cells], study_spread(cells))
    assert effect.verdict.p == pytest.approx(4 * alone.p_value())
    one_axis = [AnsweredCell({"size": c.settings["size"]}, c.answers) for c in cells[::3]]
    assert [e.verdict.comparisons for e in main_effects(one_axis)] == [1]


def test_an_interaction_is_a_difference_of_differences():
    cells = grid(gains_by_dim)
    top1 = {tuple(cell.settings.values()): cell.answers.top1 for cell in cells}
    found = {i.levels: i for i in interactions(cells)}
    assert set(found) == {((224, 336), pair) for pair in ((1024, 4096), (1024, 8192), (4096, 8192))}
    gain = found[(224, 336), (1024, 8192)]
    expected = top1[336, 8192] - top1[224, 8192] - top1[336, 1024] + top1[224, 1024]
    assert gain.axes == ("size", "dim")
    assert gain.verdict.difference == pytest.approx(expected)
    assert gain.verdict.answer == "real"
    assert found[(224, 336), (1024, 4096)].verdict.answer != "real"
    assert gain.describe().startswith(
        f"Real: from size 224 to 336 top-1 changes by {100 * expected:.1f} points more at dim 8192 "
        "than at 1024 (95 % interval"
    )


def test_of_every_two_axes_the_largest_real_interaction_is_told():
    found = interactions(grid(gains_by_dim))
    (most,) = strongest(found)
    assert most.verdict.answer == "real"
    assert abs(most.verdict.difference) == max(
        abs(each.verdict.difference) for each in found if each.verdict.answer == "real"
    )
    assert strongest(list(reversed(found))) == [most]
    assert strongest(interactions(grid(just_size))) == []


def test_effects_that_depend_on_another_axis_say_so():
    effect = next(e for e in main_effects(grid(gains_by_dim)) if e.axis == "size")
    assert effect.depends_on == ("dim",)
    assert effect.describe().endswith("It depends on dim: look at the single cells.")
    plain = next(e for e in main_effects(grid(just_size)) if e.axis == "size")
    assert plain.describe().startswith("Real: size 336 names ")
    assert "photos rightly than size 224" in plain.describe()


def test_a_missing_cell_leaves_the_matched_ones():
    cells = [c for c in grid(just_size) if dict(c.settings) != {"size": 336, "dim": 4096}]
    effect = next(e for e in main_effects(cells) if e.axis == "size")
    assert effect.cells == 2
    assert {i.levels[1] for i in interactions(cells)} == {(1024, 8192)}


def test_settings_with_nothing_in_common_have_no_effect():
    cells = grid(just_size)
    assert main_effects([cells[0], cells[5]]) == []


def test_one_seed_speaks_of_models():
    cells = grid(just_size, seeds=1)
    assert study_spread(cells) is None
    assert {e.verdict.about for e in main_effects(cells)} == {"models"}


def test_the_spread_is_pooled_over_all_cells():
    assert study_spread(grid(just_size, seeds=3)).df == 12


def test_grids_that_are_none_are_refused():
    cells = grid(just_size)
    with pytest.raises(SettingError, match="A grid needs cells"):
        main_effects([])
    with pytest.raises(SettingError, match="6 cells have only 5 different settings"):
        main_effects([*cells[:5], cells[0]])
    with pytest.raises(SettingError, match=r"the same axes, got \['dim', 'size'\] and \['lr'\]"):
        main_effects([*cells, AnsweredCell({"lr": 1.0}, cells[0].answers)])
    with pytest.raises(SettingError, match=r"Use 0\.01"):
        main_effects(cells, care=2)

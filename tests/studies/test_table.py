"""Tables against answers worked out by hand: top1 = size/1000 + dim/100000 + seed/1000."""

import math

import pytest
from scipy.stats import ttest_1samp

from fieldmark.errors import SettingError
from fieldmark.studies.executor import LocalExecutor
from fieldmark.studies.study import Study
from fieldmark.studies.table import (
    _interval,
    _is_right,
    cell_table,
    importance,
    marginals,
    score_guess,
)

SIZES, DIMS = (200, 400), (1000, 2000, 3000)
GRID = """\
name: sizes
question: Which?
base: base
axes:
  - {key: data.image_size, values: [200, 400]}
  - {key: pooling.sketch_dim, values: [1000, 2000, 3000]}
"""


def top1(size, dim, seed=0):
    return size / 1000 + dim / 100_000 + seed / 1000


@pytest.fixture
def ran(design, fake, tmp_path):
    def run(text=GRID, *overrides, function="run_trials"):
        study = Study.create(tmp_path / "s", design(text, *overrides))
        list(LocalExecutor(f"{fake}:{function}").run(study))
        return study, cell_table(study)

    return run


def test_a_row_is_a_point_with_its_mean_and_spread(ran):
    study, table = ran(GRID, "seeds=3")
    assert table["image_size"].to_list() == [200, 200, 200, 400, 400, 400]
    assert table["cell"].to_list() == [cell.hash for cell in study.cells]
    means = [top1(size, dim, 1) for size in SIZES for dim in DIMS]
    assert table["mean"].to_list() == pytest.approx(means)
    assert table["spread"].to_list() == pytest.approx([0.001] * 6)
    assert table["seeds"].to_list() == [3] * 6
    assert table["seconds"].to_list() == [3.0] * 6
    assert set(table["status"]) == {"finished"}


def test_before_it_runs_a_study_has_a_table_too(design, tmp_path):
    study = Study.create(tmp_path / "s", design(GRID, "expect={axis: image_size, direction: up}"))
    table = cell_table(study)
    assert set(table["status"]) == {"waiting"}
    assert table["mean"].null_count() == 6
    assert importance(study, table) == {}
    guess = score_guess(study)
    assert (guess.seen, guess.right, guess.pairs) == (None, None, 0)
    assert marginals(study, table, "image_size")["cells"].to_list() == [0, 0]


def test_marginal_means_and_what_each_setting_can_do(ran):
    study, table = ran()
    found = marginals(study, table, "image_size")
    assert found["image_size"].to_list() == [200, 400]
    assert found["mean"].to_list() == pytest.approx([0.22, 0.42])
    assert found["best"].to_list() == pytest.approx([0.23, 0.43])
    with pytest.raises(SettingError, match=r"no axis 'size' in this study; axes: image_size, sk"):
        marginals(study, table, "size")


def test_where_less_is_better_the_least_is_best(ran):
    study, table = ran(
        GRID.replace(
            "pooling.sketch_dim, values: [1000, 2000, 3000]", "stages.0.lr, values: [3, 1]"
        ),
        "objective.metric=loss",
    )
    assert marginals(study, table, "image_size")["best"].to_list() == [1, 1]


def test_failures_are_counted_and_told(ran):
    study, table = ran(GRID, "axes.0.values=[200, 336]", function="raises")
    failed = table.filter(table["image_size"] == 336)
    assert failed["status"].to_list() == ["failed"] * 3
    assert failed["reason"].to_list() == ["RuntimeError: out of memory"] * 3
    found = marginals(study, table, "image_size")
    assert found["failed"].to_list() == [0, 3]
    assert found["cells"].to_list() == [3, 0]


def test_importance_of_a_grid_is_its_share_of_the_variance(ran):
    study, table = ran()
    of_size, of_dim = 0.1**2, (0.01**2 * 2) / 3  # variances of the marginal means
    assert importance(study, table) == pytest.approx(
        {"image_size": of_size / (of_size + of_dim), "sketch_dim": of_dim / (of_size + of_dim)}
    )


SPACES = """\
name: spaces
question: Which?
base: base
axes:
  - {key: data.image_size, space: {low: 100, high: 1000, integer: true}}
  - {key: pooling.sketch_dim, space: {low: 1, high: 100, integer: true}}
search: {trials: 64}
"""


def test_importance_of_spaces_is_ped_anovas(ran):
    study, table = ran(SPACES)
    found = importance(study, table)
    assert math.fsum(found.values()) == pytest.approx(1)
    assert found["image_size"] > 0.8
    bins = marginals(study, table, "image_size")
    assert bins["cells"].to_list() == [16] * 4
    assert bins["mean"].is_sorted()
    assert bins["image_size"][0].startswith("1")


def test_points_of_one_recipe_are_rows_of_one_cell(ran):
    _, table = ran(GRID, "axes.0.values=[200, 200.0]")
    assert len(table) == 6
    assert table["cell"].n_unique() == 3


def test_arms_and_lists_are_words(ran):
    _, table = ran(
        """\
        name: crops
        question: Which?
        base: base
        axes:
          - {key: augment.crop_area, values: [null, [0.3, 1]]}
          - {name: size, arms: {small: {data.image_size: 100}, large: {data.image_size: 300}}}
        """
    )
    assert table["crop_area"].to_list() == ["null", "null", "[0.3, 1]", "[0.3, 1]"]
    assert table["size"].to_list() == ["small", "large"] * 2


@pytest.mark.parametrize(
    ("expect", "right"),
    [
        ("{axis: image_size, direction: up, size: 0.1}", True),
        ("{axis: image_size, direction: down}", False),
        ("{axis: image_size, direction: up, to: 200, against: 400}", False),
        ("{axis: image_size, direction: none, size: 0.3}", True),
        ("{axis: image_size, direction: none, size: 0.1}", False),
        ("{axis: image_size, direction: none}", False),
    ],
)
def test_a_guess_is_held_against_what_came(ran, expect, right):
    study, _ = ran(GRID, f"expect={expect}", "seeds=2")
    guess = score_guess(study)
    sign = -1 if "to: 200" in expect else 1
    assert guess.seen == pytest.approx(sign * 0.2)
    assert guess.pairs == 6  # three sketches, two seeds
    assert (guess.right, guess.results_before) == (right, 0)


def test_an_interval_is_students():
    numbers = [0.01, 0.03, 0.02, -0.01]
    low, high = _interval(numbers)
    expected = ttest_1samp(numbers, 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert _is_right("up", None, low, high) is None
    assert _is_right("none", 0.05, low, high) is True
    assert _is_right("none", 0.03, low, high) is None


def test_one_pair_decides_nothing(ran):
    study, _ = ran(GRID, "axes.1.values=[1000]", "expect={axis: image_size, direction: up}")
    guess = score_guess(study)
    assert guess.seen == pytest.approx(0.2)
    assert (guess.low, guess.right) == (None, None)

"""The numbers behind each chart, all known beforehand."""

import math

import numpy as np
import pytest

from fieldmark.charts.calibration import calibration_data
from fieldmark.charts.confusion import classes_data, matrix_data, pairs_data
from fieldmark.charts.cost import cost_data, stages_data
from fieldmark.charts.forest import forest_data
from fieldmark.charts.grid import Point, axis_data, heat_chart, heat_data
from fieldmark.charts.rates import amount_data, rates_data
from fieldmark.language import Words
from fieldmark.metrics import calibration_error, wilson_interval
from fieldmark.studies.verdict import Verdict

VALUES = {(224, 1): 0.5, (224, 2): 0.6, (448, 1): 0.9, (448, 2): 0.4}
POINTS = [
    Point({"size": size, "dim": dim, "lr": lr}, value - 0.1 * (lr == 0.5))
    for (size, dim), value in VALUES.items()
    for lr in (1, 0.5)
]


def test_a_heat_map_shows_the_best_over_the_other_axes():
    data = heat_data(POINTS, ("size", "dim"), "val/top1")
    assert (data.rows, data.columns) == (["224", "448"], ["1", "2"])
    found = data.cells.select("row", "column", "value", "of", "shade").rows()
    assert found == [
        ("224", "1", 0.5, 2, 1),
        ("224", "2", 0.6, 2, 2),
        ("448", "1", 0.9, 2, 6),
        ("448", "2", 0.4, 2, 0),
    ]
    losses = heat_data(POINTS, ("size", "dim"), "val/loss", lower_is_better=True)
    assert losses.cells["value"].to_list() == pytest.approx([0.4, 0.5, 0.8, 0.3])
    assert losses.cells["shade"].to_list()[2:] == [0, 6]


def test_a_cell_that_named_nothing_rightly_has_its_interval_too():
    low, high = wilson_interval(0.0, 40)
    none = Point({"size": 1, "dim": 1}, 0.0, low, high)
    drawn = heat_chart(heat_data([none], ("size", "dim"), "val/top1"), Words("en")).to_dict()
    (rows,) = drawn["datasets"].values()
    assert [row["interval"] for row in rows] == ["0.0% – 8.8%"]


def test_a_heat_map_leaves_out_what_has_no_result():
    data = heat_data(POINTS[:-2], ("size", "dim"), "val/top1")
    assert len(data.cells) == 3
    assert heat_data([], ("a", "b"), "val/top1").cells.is_empty()


def test_an_axis_shows_its_mean_and_the_best_over_all_other_axes():
    data = axis_data(POINTS, "size", "val/top1")
    assert data.summary.rows() == [
        ("224", pytest.approx(0.5), 0.6, 4),
        ("448", pytest.approx(0.6), 0.9, 4),
    ]
    assert data.cells.row(0) == ("224", 0.5)
    assert Words("en").word(data.others[0]) == "dim 1, learning rate 1"
    ratios = axis_data(POINTS, "lr", "val/loss", kind="ratios", lower_is_better=True)
    assert ratios.summary["setting"].to_list() == [0.5, 1.0]  # in order, whatever came first
    assert ratios.summary["best"].to_list() == pytest.approx([0.3, 0.4])


def test_a_forest_is_in_points_of_top1():
    seen = Verdict("real", -0.03, -0.05, -0.01, 0.01, "recipes", 100, (2, 2), 0.01)
    data = forest_data([("a to b", seen)])
    assert data.labels == ("a to b",)
    assert data.rows.rows() == [(-3.0, -5.0, -1.0, "real")]
    assert data.care == 1.0


CONFUSION = np.array([[8, 2, 0], [1, 4, 0], [0, 0, 0]])


def test_confusions_are_what_is_off_the_diagonal():
    data = matrix_data(["a", "b", "c"], CONFUSION)
    assert data.cells.rows() == [(0, 1, "a", "b", 2, 0.2), (1, 0, "b", "a", 1, 0.2)]


def test_a_pair_has_a_row_for_each_way():
    data = pairs_data([("a", "b", 2, 1), *[("a", "c", 1, 0)] * 20])
    assert data.rows.rows()[:2] == [("a · b", 0, "a", "b", 2), ("a · b", 1, "b", "a", 1)]
    assert data.left_out == 5


def test_classes_come_worst_first_and_those_without_photos_not_at_all():
    data = classes_data(["a", "b", "c"], CONFUSION)
    low, high = wilson_interval(0.8, 10)
    assert data.rows["name"].to_list() == ["a", "b"]  # as good, but seen in more photos
    assert data.rows.row(0) == ("a", 10, 8, 0.8, low, high)
    assert data.mean == 12 / 15


def test_calibration_is_that_of_the_metric():
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (200, 4))
    labels = generator.integers(0, 4, 200)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    data = calibration_data(shares.max(1), logits.argmax(1) == labels)
    assert data.error == pytest.approx(calibration_error(logits, labels))
    assert data.bins["photos"].sum() == 200
    assert ((data.bins["low"] <= data.bins["accuracy"]) & (data.bins["high"] <= 1)).all()


def test_the_frontier_is_what_no_cheaper_cell_equals():
    data = cost_data("val/top1", [("a", 3, 0.5), ("b", 1, 0.5), ("c", 2, 0.4), ("d", 4, 0.6)])
    rows = list(zip(data.names, data.rows["frontier"], strict=True))
    assert rows == [("b", True), ("c", False), ("a", False), ("d", True)]
    shared = cost_data("val/top1", [("a", 2, 0.5), ("b", 2, 0.6), ("c", 2, 0.6), ("d", 3, 0.6)])
    assert shared.rows["frontier"].to_list() == [False, True, True, False]  # of equal cost
    losses = cost_data("val/loss", [("a", 3, 0.5), ("b", 1, 0.6)], lower_is_better=True)
    assert losses.rows["frontier"].to_list() == [True, True]


def test_a_stage_has_two_parts():
    assert stages_data([("head", 2.0, 3.0)]).rows.rows() == [
        ("head", "preparing", 2.0),
        ("head", "training", 3.0),
    ]


def test_a_range_test_keeps_what_is_finite():
    record = {"seeds": [0, 1], "lr": [0.1, 1, 10], "loss": [[2, 1, math.inf], [3, None, 4]]}
    data = rates_data("head", {**record, "band": [0.1, 1.0], "reason": "it rises"}, used=1.0)
    assert data.curves.rows() == [("0", 0.1, 2), ("0", 1, 1), ("1", 0.1, 3), ("1", 10, 4)]
    assert (data.band, data.used, data.reason) == ((0.1, 1.0), 1.0, "it rises")
    assert rates_data("head", {**record, "band": None}).band is None


def test_amounts_come_in_order():
    seen = [(1, 0.6, 0.5, 0.7), (0.25, 0.4, 0.3, 0.5)]
    data = amount_data("val/top1", seen, [(2, 0.7, 0.6, 0.8)])
    assert data.rows.select("amount", "foreseen").rows() == [(0.25, False), (1, False), (2, True)]

"""The figures behind a chart are known exactly; the picture is only looked at for signs of life."""

import math
import re

import numpy as np
import polars as pl
import pytest
import vl_convert
from PIL import Image
from polars.testing import assert_frame_equal

from fieldmark.charts import curves
from fieldmark.charts.curves import Mark, curves_data
from fieldmark.charts.curves_drawing import curves_chart, training_chart
from fieldmark.charts.look import THEMES
from fieldmark.charts.picture import save_chart
from fieldmark.errors import SettingError
from fieldmark.language import Words
from fieldmark.studies.run import Run, RunWriter


def make_run(folder, records):
    with RunWriter.create(folder, "", {"class_names": ["a", "b"]}) as writer:
        for step, epoch, stage, metrics in records:
            writer.record(metrics, step=step, stage=stage, epoch=epoch)
    return Run(folder)


def evaluated(loss, top1):
    return {"val/loss": loss, "val/top1": top1, "minitrain/loss": loss / 2, "minitrain/top1": 0.96}


@pytest.fixture
def run(tmp_path):
    return make_run(
        tmp_path / "run",
        [
            (0, 0.0, "head", evaluated(4.0, 0.25)),
            (10, 1.0, "head", {"train/loss": 3.0, "train/lr": 1.0}),
            (20, 2.0, "head", {"train/loss": 1.0, "train/lr": 0.1}),
            (20, 2.0, "head", evaluated(2.0, 0.75)),
            (20, 2.0, "all", evaluated(2.0, 0.75)),
            (24, 2.5, "all", {"train/loss": math.inf, "train/lr": 0.0}),
            (24, 2.5, "all", evaluated(2.5, 0.5)),
        ],
    )


def test_the_loss_panel_holds_every_finite_record(run):
    data = curves_data(run, "loss")
    expected = [
        (0, 0, "val", 4.0),
        (0, 0, "minitrain", 2.0),
        (0, 10, "train", 3.0),
        (0, 20, "train", 1.0),
        (0, 20, "val", 2.0),
        (0, 20, "minitrain", 1.0),
        (1, 20, "val", 2.0),
        (1, 20, "minitrain", 1.0),
        (1, 24, "val", 2.5),
        (1, 24, "minitrain", 1.25),
    ]
    schema = ["stage_index", "step", "split", "value"]
    expected = pl.DataFrame(expected, schema=schema, orient="row")
    assert_frame_equal(data.curves[schema], expected, check_row_order=False)
    assert data.curves["smooth"].to_list() == data.curves["value"].to_list()  # too few to smooth
    assert data.stages.rows() == [(0, "head", 0, 20, 2.0), (1, "all", 20, 24, 0.5)]
    assert data.rates.rows() == [(0, 10, 1.0), (0, 20, 0.1), (1, 24, 0.0)]
    assert data.best == (0, 20, 2.0)  # the first of two equals
    assert data.domain == (0.0, pytest.approx(4.2))
    assert data.labels.rows() == [("val", 2.5, 2.5), ("minitrain", 1.25, 1.25)]


def test_the_top1_panel_has_no_running_train(run):
    data = curves_data(run, "top1")
    assert set(data.curves["split"]) == {"val", "minitrain"}
    assert data.best == (0, 20, 0.75)
    assert data.domain == pytest.approx((0.2, 1.0))
    assert data.labels["split"].to_list() == ["minitrain", "val"]
    assert [data.shown(value) for value in data.labels["value"]] == ["96.0%", "50.0%"]


def test_running_loss_is_smoothed_within_its_stage(tmp_path):
    losses = [float(n % 2) for n in range(45)]  # a window of 3
    records = [(n, None, "head", {"train/loss": loss}) for n, loss in enumerate(losses)]
    records += [(45 + n, None, "all", {"train/loss": 9.0}) for n in range(45)]
    smooth = curves_data(make_run(tmp_path / "run", records)).curves["smooth"].to_list()
    inner = [sum(losses[n - 1 : n + 2]) / 3 for n in range(1, 44)]
    assert smooth[:45] == pytest.approx([0.5, *inner, 0.5])
    assert smooth[45:] == pytest.approx([9.0] * 45)


def test_one_wild_loss_does_not_set_the_scale(tmp_path):
    losses = [1.0] * 300
    losses[7] = 1000.0
    records = [(n, None, "head", {"train/loss": loss}) for n, loss in enumerate(losses)]
    data = curves_data(make_run(tmp_path / "run", records))
    assert data.domain[1] < 100
    assert data.curves["value"].max() == 1000.0


@pytest.mark.parametrize(
    ("values", "places"),
    [
        ([], []),
        ([3.0, 2.0, 1.0], [3.0, 2.0, 1.0]),
        ([3.0, 2.9, 1.0], [3.0, 2.5, 1.0]),
        ([0.2, 0.1, 0.0], [1.0, 0.5, 0.0]),
        ([0.3, 0.3, 0.3], [1.0, 0.5, 0.0]),
    ],
)
def test_labels_are_spread_without_leaving_the_panel(values, places):
    assert curves._spread(values, 0.5, 0.0) == pytest.approx(places)


def test_a_metric_that_is_not_there_is_named(tmp_path, run):
    with pytest.raises(SettingError, match=r"`metric` must be one of loss, top1, got 'f1'"):
        curves_data(run, "f1")
    empty = make_run(tmp_path / "empty", [(1, None, "head", {"train/lr": 0.1})])
    with pytest.raises(SettingError, match=r"empty` has recorded no loss yet, only: train/lr\."):
        training_chart(empty)


def test_the_drawing_has_a_pane_for_each_stage(run):
    loss, top1 = training_chart(run).to_dict()["hconcat"]
    assert [len(row["hconcat"]) for row in loss["vconcat"]] == [2, 2]  # values, learning rate
    assert [len(row["hconcat"]) for row in top1["vconcat"]] == [2]
    assert top1["vconcat"][0]["title"]["subtitle"] == "○ best val 75.0%, step 20"


def test_a_png_is_drawn_at_twice_the_size_and_not_blank(tmp_path, run):
    save_chart(training_chart(run), tmp_path / "curves.png")
    picture = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB"))
    height, width, _ = picture.shape
    assert 1200 < width < 2000
    assert 500 < height < 900
    assert (picture[0] == 255).all()
    for colour in (THEMES["light"]["val"], THEMES["light"]["minitrain"]):
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (picture == rgb).all(axis=2).sum() > 500
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["curves.png"]


@pytest.mark.parametrize(
    "records",
    [
        [(5, None, "only", {"train/loss": 0.0})],
        [(5, None, "only", {"val/top1": 0.0})],
        [(5, 1.0, "only", {"val/top1": 1.0, "val/loss": 0.0})],
        [(n, n / 2, f"stage {n}", evaluated(1.0, 0.5) | {"train/lr": 0.1}) for n in range(6)],
    ],
    ids=["one loss", "one accuracy", "one of both", "six stages"],
)
def test_runs_with_little_to_show_are_drawn(tmp_path, records):
    save_chart(training_chart(make_run(tmp_path / "run", records)), tmp_path / "x.svg")
    svg = (tmp_path / "x.svg").read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert "NaN" not in svg
    assert "undefined" not in svg


def test_a_mark_stands_on_the_point_of_its_curve_that_is_nearest(run):
    marks = [Mark(1, "val/loss", 18, "rises"), Mark(2, "val/top1", 0, "elsewhere")]
    data = curves_data(run, "loss", marks)
    assert data.marks.rows() == [(0, 20, 2.0, "1", "rises")]  # the first of two at step 20
    drawn = training_chart(run).to_dict()
    assert "rises" not in str(drawn)  # unless asked for


def test_what_was_judged_out_of_fold_stands_for_val(tmp_path):
    records = [(n, None, "head", {"out_of_fold/loss": 2.0 - n}) for n in range(2)]
    data = curves_data(make_run(tmp_path / "run", records))
    assert data.curves.select("split", "value").rows() == [("val", 2.0), ("val", 1.0)]


@pytest.mark.parametrize("last", [1, 2, 3, 5, 7, 40])
def test_steps_are_whole_and_none_is_named_twice(tmp_path, last):
    """A stage of two steps had ticks at 4, 4.5, 5, …, told as 4, 5, 5, 6, 6."""
    stage = {"step": (0, last), "metrics": {"val/loss": 2.0, "val/top1": 0.5}}
    records = [(step, None, "head", stage["metrics"]) for step in stage["step"]]
    data = curves_data(make_run(tmp_path / "run", records), "top1")  # its values are per cent
    svg = vl_convert.vegalite_to_svg(curves_chart(data, Words("en")).to_dict())
    named = re.findall(r">(\d+)</text>", svg)
    assert len(set(named)) == len(named) > 1


def test_a_huge_loss_is_told_in_powers_of_ten(tmp_path):
    run = make_run(tmp_path / "run", [(0, 0.0, "head", {"val/loss": 8.19e8, "val/top1": 0.1})])
    data = curves_data(run, "loss")
    assert data.shown(8.1912e8) == "8.19e+08"
    assert data.shown(9999.5) == "9999.50"
    svg = vl_convert.vegalite_to_svg(curves_chart(data, Words("en")).to_dict())
    assert "00000" not in re.sub(r"<[^>]*>", " ", svg)

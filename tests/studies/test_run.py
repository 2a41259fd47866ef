"""A run's folder, written and read back."""

import json
import math
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from fieldmark import durable
from fieldmark.errors import RecordError, SettingError
from fieldmark.studies.run import METRICS_SCHEMA, Run, RunWriter, StageSpan

MANIFEST = {"class_names": ["Möwe", "gull 鳥"], "counts": {"val": 3}}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "one"


@pytest.fixture
def writer(folder, monkeypatch):
    ticks = iter(range(100, 1000))
    monkeypatch.setattr(durable._disk, "now", lambda: float(next(ticks)))
    with RunWriter.create(folder, "seed: 1  # Größe\n", MANIFEST) as writer:
        yield writer


def test_a_run_that_just_began_can_be_read(writer, folder):
    run = Run(folder)
    assert run.recipe_text == "seed: 1  # Größe\n"
    assert run.manifest == {"format": 1, "status": "running", "started": 100.0, **MANIFEST}
    assert (run.status, run.reason, run.test_openings) == ("running", None, 0)
    assert (run.stages, run.keys) == ([], [])
    assert run.class_names == MANIFEST["class_names"]
    assert_frame_equal(run.metrics(), pl.DataFrame(schema=METRICS_SCHEMA))


def test_metrics_come_back_in_long_form(writer, folder):
    writer.record({"val/top1": 0.25}, step=0, stage="head", epoch=0.0)
    writer.record({"train/loss": 2.5, "train/lr": 0.1}, step=10, stage="head", epoch=0.5)
    writer.count_test_opening()
    writer.record({"val/top1": 0.25}, step=10, stage="all", epoch=0.5)
    writer.record({"val/top1": np.float32(0.75)}, step=14, stage="all")
    run = Run(folder)
    rows = [
        (0, 0.0, "head", 0, "val/top1", 0.25, 101.0),
        (10, 0.5, "head", 0, "train/loss", 2.5, 102.0),
        (10, 0.5, "head", 0, "train/lr", 0.1, 102.0),
        (10, 0.5, "all", 1, "val/top1", 0.25, 104.0),
        (14, None, "all", 1, "val/top1", 0.75, 105.0),
    ]
    assert_frame_equal(run.metrics(), pl.DataFrame(rows, schema=METRICS_SCHEMA, orient="row"))
    assert run.keys == ["train/loss", "train/lr", "val/top1"]
    assert run.stages == [StageSpan("head", 0, 10), StageSpan("all", 10, 14)]
    assert run.test_openings == 1
    steps, values = run.series("val/top1")
    assert steps.tolist() == [0, 10, 14]
    assert values.tolist() == [0.25, 0.25, 0.75]


def test_a_metric_not_recorded_is_an_empty_series(writer, folder):
    steps, values = Run(folder).series("test/top1")
    assert (steps.dtype, values.dtype) == (np.int64, np.float64)
    assert (steps.shape, values.shape) == ((0,), (0,))


def test_a_loss_that_is_no_number_is_kept(writer, folder):
    writer.record({"train/loss": math.nan, "val/loss": math.inf}, step=1, stage="head")
    run = Run(folder)
    assert math.isnan(run.series("train/loss")[1][0])
    assert run.series("val/loss")[1].tolist() == [math.inf]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"top1": 0.5}, r"a path such as `val/top1`, got `top1`"),
        ({"val/top1": 81.5}, r"`val/top1` must be a fraction in 0..1, got 81.5"),
        ({"val/top5": -0.1}, r"`val/top5` must be a fraction in 0..1, got -0.1"),
    ],
)
def test_wrong_metrics_are_refused_whole(writer, folder, metrics, message):
    with pytest.raises(SettingError, match=message):
        writer.record({"val/loss": 1.0, **metrics}, step=1, stage="head")
    assert Run(folder).keys == []


def test_records_after_the_checkpoint_do_not_count_twice(writer, folder):
    for step in (1, 2, 3):
        writer.record({"train/loss": float(step)}, step=step, stage="head")
    writer.count_test_opening()
    writer.fail("killed")
    with RunWriter.open(folder) as again:
        again.resume(keep=2)
        again.record({"train/loss": 30.0}, step=3, stage="head")
        run = Run(folder)
        assert (run.status, run.reason, run.test_openings) == ("running", None, 1)
        assert run.series("train/loss")[1].tolist() == [1.0, 2.0, 30.0]


def test_predictions_are_kept_under_the_classes_names(writer, folder):
    probabilities = np.array([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]])
    writer.predictions("val", ["a.jpg", "b.jpg", "ö.jpg"], np.array([0, 1, 1]), probabilities)
    one, two = MANIFEST["class_names"]
    expected = pl.DataFrame(
        {
            "path": ["a.jpg", "b.jpg", "ö.jpg"],
            "label": [one, two, two],
            "predicted": [one, one, two],
            "probabilities": pl.Series(probabilities.tolist(), dtype=pl.List(pl.Float32)),
        }
    )
    assert_frame_equal(Run(folder).predictions("val"), expected)
    with pytest.raises(RecordError, match=r"no predictions of `test`, only of: val\. Run"):
        Run(folder).predictions("test")


def test_predictions_that_do_not_fit_are_refused(writer):
    with pytest.raises(SettingError, match=r"shape \(1, 2\), got 2 labels and shape \(1, 3\)"):
        writer.predictions("val", ["a.jpg"], [0, 1], np.ones((1, 3)))


def test_how_a_run_ends_is_in_its_manifest(writer, folder):
    writer.update_manifest(counts={"val": 4}, plan=["head: 1"])
    writer.finish()
    manifest = Run(folder).manifest
    assert manifest["status"] == "finished"
    assert manifest["ended"] > manifest["started"]
    assert manifest["counts"] == {"val": 4}
    assert json.loads((folder / "manifest.json").read_text(encoding="utf-8")) == manifest


def test_an_exception_fails_a_run_still_running_and_no_other(folder):
    def break_off(writer):
        with writer:
            raise ValueError("lightning struck")

    with pytest.raises(ValueError, match="lightning"):
        break_off(RunWriter.create(folder, "", MANIFEST))
    assert (Run(folder).status, Run(folder).reason) == ("failed", "ValueError: lightning struck")
    with RunWriter.open(folder) as writer:
        writer.finish()
    with pytest.raises(ValueError, match="lightning"):
        break_off(RunWriter.open(folder))
    assert Run(folder).status == "finished"


def test_a_run_is_closed_also_where_saying_that_it_failed_fails(folder, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError("the disk is full")

    writer = RunWriter.create(folder, "", MANIFEST)
    monkeypatch.setattr(durable, "replace", full)
    with pytest.raises(OSError, match="the disk is full"), writer:
        raise ValueError("lightning struck")
    monkeypatch.undo()
    with RunWriter.open(folder) as again:  # its journal has one writer at a time
        again.finish()
    assert Run(folder).status == "finished"


def test_a_manifest_that_json_cannot_say_changes_nothing(writer, folder):
    before = Run(folder).manifest
    with pytest.raises(SettingError, match=r"made of JSON's types without NaN"):
        writer.update_manifest(seconds=math.nan)
    assert Run(folder).manifest == writer.manifest == before


def test_lines_go_to_the_log(writer, folder):
    writer.log("stage head: 60 epochs")
    writer.log("  ünfrozen")
    log = (folder / "log.txt").read_text(encoding="utf-8")
    assert log == "stage head: 60 epochs\n  ünfrozen\n"


def test_a_folder_in_use_is_no_place_for_a_run(folder):
    folder.mkdir(parents=True)
    RunWriter.create(folder, "", MANIFEST).close()
    with pytest.raises(SettingError, match=r"one` is not empty.*Name another"):
        RunWriter.create(folder, "", MANIFEST)


def test_a_manifest_needs_class_names_before_a_folder_is_made(folder):
    with pytest.raises(SettingError, match=r"needs `class_names`, got only \['counts'\]"):
        RunWriter.create(folder, "", {"counts": {}})
    assert not folder.exists()


def test_a_folder_that_is_no_run_is_told_what_it_lacks(tmp_path):
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(RecordError, match=r"no run: it lacks `metrics.jsonl`, `manifest.json`\."):
        Run(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"manifest.json` is damaged or not ours"),
        ("[1]", r"manifest.json` is damaged or not ours"),
        ('{"status": "running"}', r"manifest.json` is damaged or not ours: KeyError\('format'\)"),
        ('{"format": 2}', r"has format 2, this Fieldmark reads up to 1. Upgrade"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(folder, content, message):
    RunWriter.create(folder, "", MANIFEST).close()
    durable.replace(folder / "manifest.json", content.encode())
    with pytest.raises(RecordError, match=message):
        Run(folder)


def test_a_run_killed_before_its_manifest_does_not_exist_and_may_begin_again(folder):
    RunWriter.create(folder, "seed: Größe\n", MANIFEST).close()
    (folder / "manifest.json").rename(folder / ".manifest.json.123-4.tmp")  # killed before renaming
    with pytest.raises(RecordError, match=r"no run: it lacks `manifest.json`"):
        Run(folder)
    with pytest.raises(SettingError, match="is not empty"):
        RunWriter.create(folder, "another: recipe\n", MANIFEST)
    RunWriter.create(folder, "seed: Größe\n", MANIFEST).close()
    assert Run(folder).status == "running"


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
def test_a_run_has_one_writer_among_processes(writer, folder):
    code = "import sys; from fieldmark.studies.run import RunWriter; RunWriter.open(sys.argv[1])"
    other = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False
    )
    assert "is being written by another process" in other.stderr


def test_of_two_runs_begun_at_once_in_one_folder_one_is_turned_away(folder, monkeypatch):
    """The slower one is past its look at the folder when the other begins; nothing of it stays."""
    make_folder, rivals = durable.make_folder, []

    def make_folder_late(path):
        make_folder(path)
        if not rivals:
            rivals.append(None)
            rivals[0] = RunWriter.create(folder, "the quicker one's\n", MANIFEST)

    monkeypatch.setattr(durable, "make_folder", make_folder_late)
    with pytest.raises(RecordError, match=r"metrics\.jsonl` is being written by another process"):
        RunWriter.create(folder, "the slower one's\n", MANIFEST)
    rivals[0].finish()
    assert (Run(folder).status, Run(folder).recipe_text) == ("finished", "the quicker one's\n")


def test_a_run_that_was_begun_and_ended_meanwhile_is_left_alone(folder, monkeypatch):
    make_folder, rivals = durable.make_folder, []

    def make_folder_late(path):
        make_folder(path)
        if not rivals:
            rivals.append(None)
            RunWriter.create(folder, "the quicker one's\n", MANIFEST).finish()

    monkeypatch.setattr(durable, "make_folder", make_folder_late)
    with pytest.raises(SettingError, match="is not empty"):
        RunWriter.create(folder, "the slower one's\n", MANIFEST)
    assert (Run(folder).status, Run(folder).recipe_text) == ("finished", "the quicker one's\n")

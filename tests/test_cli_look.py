"""`fieldmark predict` and `fieldmark eval`: what is printed, for people and for programs."""

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fieldmark.checked_yaml import check_text
from fieldmark.cli import app
from fieldmark.ledger import Silent
from fieldmark.recipe import Recipe
from fieldmark.studies.run import Run
from fieldmark.train import train
from fieldmark.training.features import FeatureStore

RECIPE = """\
data: {folder: "%s", image_size: 32, resize_size: 36}
backbone: {name: test_resnet, weights: none}
pooling: {name: average}
threads: 1
stages: [{name: head, train: head, lr: 1, length: 1 epoch, batch_size: 8}]
"""
LONG = "a class with a name that is far too long for its column"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, draw_squares) -> Path:
    folder = draw_squares(tmp_path_factory.mktemp("squares"))
    (folder / "amber").rename(folder / LONG)
    return folder


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    home = tmp_path_factory.mktemp("run")
    recipe = check_text(RECIPE % photos, Recipe)
    return train(recipe, home / "a", store=FeatureStore(home / "features"), reporter=Silent())


def asked(monkeypatch: pytest.MonkeyPatch, *arguments: str, columns: int = 80) -> Result:
    monkeypatch.setenv("COLUMNS", str(columns))
    return CliRunner().invoke(app, arguments)


def test_nothing_of_a_table_is_cut_at_80_columns(run: Run, photos: Path, monkeypatch):
    done = asked(monkeypatch, "predict", str(run.folder), str(photos / LONG))
    assert done.exit_code == 0
    assert "…" not in done.stdout
    rows = [line.split("│")[1:-1] for line in done.stdout.splitlines() if line.startswith("│")]
    joined = ["".join("".join(column).split()) for column in zip(*rows, strict=True)]
    names = sorted(photo.name for photo in (photos / LONG).iterdir())
    assert all(name in joined[0] for name in names)
    assert "".join(LONG.split()) in "".join(joined)


def test_a_photo_that_cannot_be_read_is_told_after_the_others(
    run: Run, photos: Path, tmp_path: Path, monkeypatch
):
    good = tmp_path / "good.png"
    good.write_bytes((photos / "teal" / "00.png").read_bytes())
    (tmp_path / "bad.jpg").write_text("no photo")
    done = asked(monkeypatch, "predict", str(run.folder), str(tmp_path), "--format", "csv")
    assert done.exit_code == 1
    (row,) = csv.DictReader(io.StringIO(done.stdout))
    assert row["photo"] == str(good)
    assert set(row) == {"photo", *(f"{w} {n}" for w in ("class", "probability") for n in (1, 2, 3))}
    assert "1 of 2 photos are left out:" in done.stderr
    assert "bad.jpg` can't be read as a photo" in done.stderr


def test_eval_says_how_many_photos_and_how_sure(run: Run, monkeypatch):
    done = asked(monkeypatch, "eval", str(run.folder))
    assert "on val (10 photos)" in " ".join(done.stdout.split())
    for word in ("top-1", "mean-class top-1", "calibration error", "loss (nats)", "95 % interval"):
        assert word in done.stdout
    (row,) = json.loads(asked(monkeypatch, "eval", str(run.folder), "--format", "json").stdout)
    assert (row["split"], row["photos"]) == ("val", 10)
    assert row["top1"] == run.series("val/top1")[1][-1]
    opened = asked(monkeypatch, "eval", str(run.folder), "--split", "test", "--open-test")
    assert "opened 1x" in opened.stdout


@pytest.mark.parametrize("command", ["predict", "eval"])
def test_a_folder_of_runs_is_told_which_there_are(command, run: Run, photos: Path, monkeypatch):
    rest = [str(photos)] if command == "predict" else []
    done = asked(monkeypatch, command, str(run.folder.parent), *rest)
    assert f"Name one of those in it: {run.folder}." in str(done.exception)


def test_programs_get_the_interval_and_how_often_test_was_opened(run: Run, monkeypatch):
    asks = ("eval", str(run.folder), "--split", "test", "--open-test")
    shown = asked(monkeypatch, *asks).stdout
    (row,) = json.loads(asked(monkeypatch, *asks, "--format", "json").stdout)
    assert f"opened {row['test_openings'] - 1}x" in shown
    assert f"({row['top1_low']:.1%} - {row['top1_high']:.1%})" in shown
    assert row["top1_low"] < row["top1"] < row["top1_high"]


@pytest.mark.parametrize(
    ("place", "named"),
    [("mine", "mine-refit-1"), ("studies/s/cells/a1b2/seed-0", "my-photos-refit-1")],
)
def test_a_refit_is_called_after_its_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, named: str
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))
    shutil.copytree(run.folder, tmp_path / place)
    recipe = tmp_path / place / "recipe.yaml"
    recipe.write_text(f"{recipe.read_text()}".replace("name: recipe", "name: my-photos", 1))
    assert asked(monkeypatch, "refit", place).exit_code == 0
    assert Run(tmp_path / "runs" / named).status == "finished"

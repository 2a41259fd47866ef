"""`fieldmark compare` on runs whose every answer is known."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fieldmark.cli import app
from fieldmark.errors import RecordError, SettingError
from fieldmark.questions import runs_in
from fieldmark.studies.design import Design
from fieldmark.studies.run import RunWriter
from fieldmark.studies.study import Study

NAMES = ["crow", "raven"]
PHOTOS = 200
RECIPE = """\
seed: %d
data: {folder: photos}
stages: [{name: head, train: head, lr: %g, length: 1 epochs}]
"""


def _run(folder: Path, right: int, *, lr: float = 1, seed: int = 0, split: str = "val") -> Path:
    """A run that names the first `right` of 200 photos rightly."""
    labels = np.arange(PHOTOS) % 2
    named = np.where(np.arange(PHOTOS) < right, labels, 1 - labels)
    with RunWriter.create(folder, RECIPE % (seed, lr), {"class_names": NAMES}) as writer:
        paths = [f"{label}/{number:03}.jpg" for number, label in enumerate(labels)]
        writer.predictions(split, paths, labels, np.eye(2)[named])
        writer.finish()
    return folder


def _begun(folder: Path) -> Path:
    """A run that is not finished."""
    RunWriter.create(folder, RECIPE % (0, 1), {"class_names": NAMES}).close()
    return folder


def _told(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["compare", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_large_difference_is_real(tmp_path: Path) -> None:
    a, b = _run(tmp_path / "a", 100), _run(tmp_path / "b", 160, lr=2)
    told = " ".join(_told(str(a), str(b)).split())
    assert "On val: Real: b (80.0%) names 30.0 points more photos rightly than a (50.0%)" in told
    assert "for these trained models only" in told
    assert "crow" in told


def test_equal_runs_differ_by_nothing(tmp_path: Path) -> None:
    a, b = _run(tmp_path / "a", 150), _run(tmp_path / "b", 150, lr=2)
    (found,) = json.loads(_told(str(a), str(b), "--format", "json", "--care", "5"))
    assert found["answer"] == "noise"
    assert found["difference"] == 0
    assert found["photos"] == PHOTOS
    assert found["low"] < 0 < found["high"]


def test_a_folder_of_seeds_is_one_side(tmp_path: Path) -> None:
    for seed, right in enumerate((150, 152, 149)):
        _run(tmp_path / "a" / str(seed), right, seed=seed)
        _run(tmp_path / "b" / str(seed), right - 40, lr=2, seed=seed)
    (found,) = json.loads(_told(str(tmp_path / "a"), str(tmp_path / "b"), "--format", "json"))
    assert found["about"] == "recipes"
    assert found["answer"] == "real"
    assert found["difference"] == pytest.approx(-0.2)


def test_mistakes_are_told(tmp_path: Path) -> None:
    a, other = _run(tmp_path / "a", 100), _run(tmp_path / "b", 100, split="test")
    runner = CliRunner()
    for arguments, kind, message in (
        ([str(a), str(other)], RecordError, "no predictions of a split they share"),
        ([str(a), str(_begun(tmp_path / "c"))], RecordError, "c: none, it is not finished"),
        ([str(a), str(a), "--care", "0"], SettingError, "between 0 and 100, got 0"),
        ([str(a), str(tmp_path / "nowhere")], RecordError, "is no run: there is no such folder"),
    ):
        done = runner.invoke(app, ["compare", *arguments])
        assert isinstance(done.exception, kind)
        assert message in str(done.exception)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study of two cells, of which the second is better; and no result yet in a copy."""
    asked = {
        "name": "sizes",
        "question": "Which?",
        "base": "base",
        "axes": [{"key": "data.image_size", "values": [224, 336]}],
        "objective": {"folds": "none"},
    }
    design = Design.read(json.dumps(asked), lambda _: RECIPE % (0, 1))
    Study.create(tmp_path / "empty", design)
    made = Study.create(tmp_path / "sizes", design)
    for number, slot in enumerate(made.slots()):
        place = made.folder / "cells" / slot.cell.hash
        _run(place / "seed-0.1", 100 + 50 * number)
        record = {
            "status": "finished",
            "metrics": {"val/top1": 0.5 + 0.25 * number},
            "seconds": 1,
            "reason": None,
            "folder": "seed-0.1",
            "time": 0,
        }
        (place / "seed-0.1.json").write_text(json.dumps(record))
    return made


def test_of_studies_it_is_told_what_can_be_compared(study: Study, tmp_path: Path) -> None:
    a, empty = study.folder, tmp_path / "empty"
    run = a / "cells" / study.cells[0].hash / "seed-0.1"
    best = f"{a}/cells/{study.cells[1].hash}"
    for sides, cells in (
        ((a, empty), f"{best}, {empty}/cells/CELL"),
        ((run, a), best),
        ((a, run), best),
    ):
        done = CliRunner().invoke(app, ["compare", *map(str, sides)])
        assert isinstance(done.exception, RecordError)
        said = str(done.exception)
        assert f"Compare cells or runs; of the best: {cells}.\n" in said
        assert "Or ask both settings in one study, as values of an axis" in said
        assert f"fieldmark report {a}" in said
    told = " ".join(_told(str(run.parent), best).split())  # as advised
    assert "Real: " in told


def test_a_run_is_itself(tmp_path: Path) -> None:
    assert runs_in(_run(tmp_path / "a", 100)) == [tmp_path / "a"]
    assert runs_in(tmp_path) == [tmp_path / "a"]


def test_what_was_judged_on_test_says_how_often_that_was_opened(tmp_path: Path) -> None:
    a, b = (_run(tmp_path / name, 150, split="test") for name in "ab")
    for run, times in ((a, 1), (b, 3)):
        with RunWriter.open(run) as writer:
            for _ in range(times):
                writer.count_test_opening()
    assert "On test (opened up to 3x): " in " ".join(_told(str(a), str(b)).split())

"""`fieldmark study plan`, `run` and `show`, on photos a tiny network sees in a second."""

import csv
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner

from fieldmark.cli import app
from fieldmark.errors import DataError, RecipeError, RecordError, SettingError
from fieldmark.questions import executor_of, run
from fieldmark.report.content import shown_run, study_page
from fieldmark.shipped import base_text, find_design
from fieldmark.studies.study import Study

BASE = """\
data: {folder: "%s", image_size: 32, resize_size: 36}
backbone: {name: test_resnet, weights: none}
pooling: {name: average}
threads: 1
stages:
  - {name: head, train: head, lr: 1, length: 3 epochs, batch_size: 8}
  - {name: all, train: all, lr: 0.01, length: 1 epoch}
"""
STUDY = """\
name: rates
question: Which rate?
base: %s@head
axes:
  - {key: stages.head.lr, values: [0.1, 1]}
  - name: pooling
    arms:
      average: {}
      max: {pooling: {name: max}}
seeds: 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, draw_squares) -> Path:
    folder = tmp_path_factory.mktemp("study")
    draw_squares(folder / "photos", ("amber", "olive"), noise=70)
    (folder / "base.yaml").write_text(BASE % (folder / "photos"))
    (folder / "rates.yaml").write_text(STUDY % (folder / "base.yaml"))
    return folder


def _told(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["study", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_plan_run_show_and_run_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(folder / "cache"))
    out = ("--out", folder / "rates")
    planned = _told("plan", folder / "rates.yaml", *out)
    assert "4 cells, 8 runs, 0 of them done; judged by top-1 out of fold" in planned
    assert re.search(r"time    about [\d.]+ s \([\d.]+ to [\d.]+\), one worker", planned)
    assert re.search(r"memory  [\d.]+ GB at the fullest moment", planned)
    assert "learning rate: a difference of" in planned
    assert not (folder / "rates").exists()  # a plan leaves nothing behind
    told = _told("run", folder / "rates.yaml", *out)
    assert "8 runs to go" in told
    assert "Learning rate by pooling" in told
    assert "names" in told
    assert "The best cell (" in told
    again = _told("run", folder / "rates.yaml", *out)
    assert "0 runs to go" in again
    before = {path: path.read_bytes() for path in (folder / "rates").rglob("*") if path.is_file()}
    changed = _told("plan", folder / "rates.yaml", "seeds=3", "--no-probe", *out)
    assert "4 cells, 12 runs, 8 of them done" in changed
    after = {path: path.read_bytes() for path in (folder / "rates").rglob("*") if path.is_file()}
    assert after == before  # not even what would be asked now
    drawn = _told("show", folder / "rates", "--png", folder / "charts")
    names = {path.stem for path in (folder / "charts").glob("*.png")}
    assert f"Wrote {len(names)} charts into" in drawn
    assert names >= {"heat", "axis-lr", "axis-pooling", "forest", "loss", "top1", "cost"}
    rows = json.loads(_told("show", folder / "rates", "--format", "json"))
    assert [(row["lr"], row["pooling"]) for row in rows] == [
        (0.1, "average"),
        (0.1, "max"),
        (1, "average"),
        (1, "max"),
    ]
    study = Study.open(folder / "rates")
    for row, cell in zip(rows, study.cells, strict=True):
        results = [study.results()[slot.key] for slot in study.slots_of(cell)]
        tops = [result.metrics["out_of_fold/top1"] for result in results]
        assert row["mean"] == pytest.approx(np.mean(tops))
        assert (row["seeds"], row["status"]) == (2, "finished")
    read = list(csv.DictReader(io.StringIO(_told("show", folder / "rates", "--format", "csv"))))
    assert len(read) == 4


def test_a_study_ends_with_where_its_best_cell_looked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(folder / "cache"))
    out = tmp_path / "rates"
    arguments = ("run", folder / "rates.yaml", "seeds=1", "--out", out)
    assert _told(*arguments).count("Seeing where") == 1
    (looked,) = out.rglob("looked.npz")  # of one run alone
    shown = shown_run(Study.open(out))
    assert shown
    assert looked.parent.parent == shown.folder
    assert "Seeing where" not in _told(*arguments)
    photos = [
        photo
        for section in study_page(Study.open(out)).sections
        if section.id in {"mistakes", "uncertain"}
        for photo in section.photos
    ]
    assert photos
    assert all(photo.looked for photo in photos)
    looked.unlink()
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "empty"))
    done = CliRunner().invoke(app, ["report", str(out)], catch_exceptions=False)
    assert "It stays unknown: The features that" in done.stdout
    assert "Wrote" in done.stdout
    assert not looked.exists()
    monkeypatch.setenv("FIELDMARK_CACHE", str(folder / "cache"))
    done = CliRunner().invoke(app, ["report", str(out)], catch_exceptions=False)
    assert "stays unknown" not in done.stdout
    assert looked.exists()
    assert (out / "report.html").is_file()


def test_a_failed_cell_is_told_with_its_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(folder / "cache"))
    text = (folder / "rates.yaml").read_text().replace("[0.1, 1]", "[1, 1e+38]")
    (folder / "wild.yaml").write_text(text.replace("seeds: 2", "seeds: 1"))
    told = _told("run", folder / "wild.yaml", "--out", folder / "wild")
    assert "failed: The loss became" in told
    rows = json.loads(_told("show", folder / "wild", "--format", "json"))
    assert [row["status"] for row in rows] == ["finished", "finished", "failed", "failed"]
    assert rows[2]["mean"] is None
    assert "The loss became" in rows[2]["reason"]


def test_what_failed_is_run_again_where_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(folder / "cache"))
    (folder / "once.yaml").write_text((folder / "rates.yaml").read_text())
    arguments = ("run", folder / "once.yaml", "seeds=1", "--out", folder / "once")
    with monkeypatch.context() as patched:
        patched.setattr("fieldmark.trials.run_head_trials", _out_of_memory)
        assert "failed: MemoryError: no more" in _told(*arguments)
    assert "0 runs to go" in _told(*arguments)
    told = _told(*arguments, "--retry")
    assert "4 failed runs are run again" in told
    assert "4 runs to go" in told
    rows = json.loads(_told("show", folder / "once", "--format", "json"))
    assert [row["status"] for row in rows] == ["finished"] * 4
    records = [json.loads(path.read_bytes()) for path in (folder / "once").glob("cells/*/*.json")]
    assert sorted(record["status"] for record in records) == ["failed"] * 4 + ["finished"] * 4
    assert "0 failed runs are run again" in _told(*arguments, "--retry")


def _out_of_memory(*_: object) -> None:
    raise MemoryError("no more")


def test_photos_that_are_not_there_are_one_error_and_nothing_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))
    arguments = ["study", "run", str(folder / "rates.yaml"), f"data.folder={tmp_path / 'gone'}"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, DataError)
    assert "gone" in str(done.exception)
    assert "failed" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_photo_that_can_not_be_read_is_one_error_too(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))
    shutil.copytree(folder / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "olive" / "3.png").write_bytes(b"no photo")
    arguments = ["study", "run", str(folder / "rates.yaml"), f"data.folder={tmp_path / 'photos'}"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert isinstance(done.exception, DataError)
    assert "1 photo can't be read" in str(done.exception)
    assert "3.png" in str(done.exception)
    assert not (tmp_path / "out").exists()


AMOUNTS = """\
name: amounts
question: What would more photos give, each at the rate that suits it?
base: %s@head
axes:
  - {key: data.train_fraction, values: [0.3, 0.6, 1]}
  - {key: stages.head.lr, values: [0.001, 1], role: nuisance}
objective: {folds: 2}
"""


def test_nuisances_are_compared_at_their_best_and_fractions_make_curves(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(folder / "cache"))
    (folder / "amounts.yaml").write_text(AMOUNTS % (folder / "base.yaml"))
    told = _told("run", folder / "amounts.yaml", "--out", folder / "amounts")
    assert "Learning rate 0.001: Twice the training photos would bring top-1 from" in told
    assert "lr 1: Twice the training photos would bring top-1 from" in told
    assert "train_fraction 0.3" in told
    effects = [line for line in told.splitlines() if re.match("Real|Noise|Cannot tell", line)]
    assert len(effects) == 3  # of the fractions, each at its best rate; none of the rates
    assert not any("lr" in line for line in effects)


def test_a_base_ends_with_the_stage_it_names() -> None:
    text = base_text("my-photos@head")
    assert "name: head" in text
    assert "name: all" not in text
    with pytest.raises(RecipeError, match="There is no stage 'tail' in my-photos; stages: head, "):
        base_text("my-photos@tail")
    with pytest.raises(RecipeError, match="Did you mean weight-decay"):
        find_design("weight-decai")


def test_a_plan_looks_at_its_folder_and_leaves_it(folder: Path, tmp_path: Path) -> None:
    told = _told("plan", folder / "rates.yaml", "--no-probe", "--out", tmp_path)
    assert "0 of them done" in told
    assert "time" not in told
    assert list(tmp_path.iterdir()) == []
    (row,) = json.loads(_told("plan", folder / "rates.yaml", "--out", tmp_path, "--format", "json"))
    assert (row["cells"], row["runs"], row["passes"]) == (4, 8, 2)
    assert row["seconds_low"] < row["seconds"] < row["seconds_high"]
    assert row["memory"] > row["disk"] > 0
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine.txt").write_text("not a study")
    arguments = ["study", "plan", str(folder / "rates.yaml"), "--out", str(tmp_path)]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, SettingError)
    assert "is not empty, and holds no study" in str(done.exception)


def test_what_is_no_study_is_told() -> None:
    done = CliRunner().invoke(app, ["study", "show", "nowhere"])
    assert isinstance(done.exception, RecordError)
    assert "`nowhere` is no study" in str(done.exception)


def test_a_person_sees_how_far_the_pass_over_photos_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bars for people; for programs a line for each run, as ever."""
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cold"))
    seen = {}
    for terminal in (True, False):
        shown = Console(file=io.StringIO(), width=100, force_terminal=terminal)
        out = tmp_path / f"rates-{terminal}"
        run(shown, str(folder / "rates.yaml"), ["seeds=1"], out, executor_of("local", 1, None))
        seen[terminal] = Text.from_ansi(shown.file.getvalue()).plain
    assert re.search(r"features .* 32 of 32", seen[True])
    assert re.search(r"photos .* 32 of 32", seen[True])
    assert re.search(r"runs .*4 of 4", seen[True])
    assert "learning rate 0.1, pooling max, seed 0: " not in seen[True]
    assert "learning rate 0.1, pooling max, seed 0: " in seen[False]
    assert "features" not in seen[False].partition("Seeing")[0]

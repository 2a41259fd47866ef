"""Ctrl-C: what is said, what is written down, and how the command ends."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import fieldmark.questions
import fieldmark.train
from fieldmark.cli import app
from fieldmark.studies.run import Run, RunWriter
from fieldmark.terminal import interruptible

RECIPE = """\
data: {folder: photos}
stages: [{name: head, train: head, lr: 1, length: 1 epoch}]
"""


def test_it_ends_with_a_line_and_130(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match=r"^130$"), interruptible(lambda: "Go on so."):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "Interrupted. Go on so.\n"


def test_what_else_is_raised_is_not_touched():
    with pytest.raises(ValueError, match=r"^other$"), interruptible(lambda: "Go on so."):
        raise ValueError("other")


def test_a_run_says_that_it_was_interrupted(tmp_path: Path):
    with (
        pytest.raises(KeyboardInterrupt),
        RunWriter.create(tmp_path / "a", RECIPE, {"class_names": ["a", "b"]}),
    ):
        raise KeyboardInterrupt
    assert (Run(tmp_path / "a").status, Run(tmp_path / "a").reason) == (
        "failed",
        "interrupted by Ctrl-C",
    )


@pytest.mark.parametrize("begun", [True, False])
def test_train_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool):
    folder = tmp_path / "a run"

    def stopped(*_: object, **__: object) -> None:
        if begun:
            RunWriter.create(folder, RECIPE, {"class_names": ["a", "b"]}).close()
        raise KeyboardInterrupt

    monkeypatch.setattr(fieldmark.train, "train", stopped)
    (tmp_path / "r.yaml").write_text(RECIPE)
    done = CliRunner().invoke(app, ["train", str(tmp_path / "r.yaml"), "--out", str(folder)])
    assert done.exit_code == 130
    told = f"fieldmark train --resume '{folder}'" if begun else "Nothing was written"
    assert told in done.stderr


def test_a_study_says_that_nothing_is_lost(monkeypatch: pytest.MonkeyPatch):
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fieldmark.questions, "run", stopped)
    done = CliRunner().invoke(app, ["study", "run", "pooling"])
    assert done.exit_code == 130
    assert "Finished runs are kept; the same command again goes on." in done.stderr

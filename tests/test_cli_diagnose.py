"""`fieldmark diagnose`, and the one finding that runs and studies end with."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fieldmark.cli import app
from fieldmark.diagnosis.diagnose import RUN_CHECKS, STUDY_CHECKS
from fieldmark.diagnosis_report import duration, most_worth, run_diagnosis, study_diagnosis
from fieldmark.errors import RecordError
from fieldmark.studies.design import Design
from fieldmark.studies.run import Run, RunWriter
from fieldmark.studies.study import Study

RECIPE = """\
data: {folder: photos}
stages: [{name: head, train: head, lr: 0.01, length: 30 epochs, batch_size: 16}]
"""


@pytest.fixture
def slow_run(tmp_path: Path) -> Path:
    """A run whose learning rate is too low: its loss has barely moved, in a straight line."""
    told = {
        "class_names": list("abcdefghij"),
        "counts": {"train": 160, "minitrain": 200, "val": 200},
        "stages": [{"name": "head", "seconds_preparing": 1.0, "seconds_training": 9.0}],
    }
    with RunWriter.create(tmp_path / "slow", RECIPE, told) as writer:
        for epoch, loss in enumerate(np.linspace(np.log(10), 0.8 * np.log(10), 31)):
            found = {"minitrain/loss": loss, "val/loss": loss, "train/lr": 0.01}
            writer.record(found, step=10 * epoch, stage="head", epoch=epoch)
        writer.finish()
    return tmp_path / "slow"


def told(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["diagnose", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return " ".join(done.stdout.split())


def test_findings_are_told_in_sentences_with_what_to_try(slow_run):
    said = told(slow_run)
    assert "Warning In stage head the loss on minitrain falls from 2.30 to only 1.84 nats" in said
    for part in (
        "Cause: The learning rate is too low",
        "Try: Raise lr to 0.1",
        "Wrong if: At lr 0.1",
    ):
        assert part in said
    assert "lr_too_low (R7). Words: lr, minitrain. Seen in stage head, minitrain/loss" in said
    assert "recipe.yaml stages.head.lr=0.1 about 10 s" in said
    assert f"of {len(RUN_CHECKS)} checks fire" in said
    assert "--all says why" in said


def test_all_says_why_the_others_do_not(slow_run):
    said = told(slow_run, "--all")
    assert "Over-confidence without worse decisions: it takes 6 records of `val/top1`" in said
    assert "it was not tried beforehand: `fieldmark rehearse" in said
    assert "--all" not in said


def test_programs_get_rows(slow_run):
    rows = json.loads(told(slow_run, "--format", "json"))
    assert rows[0]["check"] == "lr_too_low"
    assert rows[0]["severity"] == "warning"
    assert json.loads(rows[0]["numbers"])["stage"] == "head"
    everything = json.loads(told(slow_run, "--format", "json", "--all"))
    assert len(everything) == len(RUN_CHECKS)
    done = CliRunner().invoke(app, ["diagnose", str(slow_run), "--format", "csv"])
    read = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["check"] for row in read] == [row["check"] for row in rows]


def test_a_rehearsal_elsewhere_is_read(slow_run, tmp_path):
    (tmp_path / "rehearsal.json").write_text(
        '{"range": {"head": {"band": null, "reason": "flat"}}}'
    )
    assert "gives no band of learning rates: flat." in told(slow_run, "--rehearsal", tmp_path)


def test_a_study_is_diagnosed_as_one(tmp_path):
    axes = [{"key": "data.image_size", "values": [224, 336]}]
    text = json.dumps({"name": "n", "question": "Which?", "base": "b", "axes": axes})
    study = Study.create(tmp_path / "study", Design.read(text, lambda _: RECIPE))
    said = told(study.folder)
    assert "Settings of image size are compared at one learning rate for all" in said
    assert f"of {len(STUDY_CHECKS)} checks fire" in said
    assert study_diagnosis(study) == ""  # no run has ended: it says nothing of itself


def test_a_folder_that_is_neither_is_refused(tmp_path):
    done = CliRunner().invoke(app, ["diagnose", str(tmp_path)])
    assert isinstance(done.exception, RecordError)
    assert "is no run" in str(done.exception)


def test_a_run_ends_with_the_finding_most_worth_knowing(slow_run):
    said = run_diagnosis(Run(slow_run))
    assert said.startswith("Diagnosis, warning: In stage head the loss on minitrain")
    assert said.endswith(f"fieldmark diagnose {slow_run}")
    assert most_worth([], slow_run) == "Diagnosis: none of the 0 checks that can tell fires."


@pytest.mark.parametrize(("seconds", "words"), [(42.4, "42 s"), (600, "10 min"), (7200, "2.0 h")])
def test_durations(seconds, words):
    assert duration(seconds) == words

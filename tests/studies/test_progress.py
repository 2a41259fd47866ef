"""How far a run is, from records whose times are known."""

import sys

import pytest

from fieldmark import durable
from fieldmark.studies import control
from fieldmark.studies.executor import LocalExecutor
from fieldmark.studies.lease import Leases
from fieldmark.studies.progress import run_progress, study_seconds_left
from fieldmark.studies.run import Run, RunWriter
from fieldmark.studies.study import LEASES, Study

RECIPE = """\
data: {folder: photos}
stages:
  - {name: head, train: head, lr: 1, length: 10 epochs, batch_size: 10}
  - {name: all, train: all, lr: 0.1, length: 30 steps, batch_size: 10}
"""
MANIFEST = {"class_names": ["a", "b"], "counts": {"train": 95}}  # 10 steps an epoch, 100 in head


@pytest.fixture
def clock(monkeypatch):
    """Moved by hand."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(durable._disk, "now", lambda: Clock.now)
    return Clock


@pytest.fixture
def writer(tmp_path, clock):
    with RunWriter.create(tmp_path / "run", RECIPE, MANIFEST) as writer:
        yield writer


def record(writer, clock, step, time, stage="head"):
    clock.now = float(time)
    writer.record({"train/loss": 1.0}, step=step, stage=stage)


def test_before_the_first_record_only_the_total_is_known(writer):
    found = run_progress(Run(writer.folder))
    assert (found.stage, found.step, found.total) == (None, 0, 130)
    assert (found.seconds_left(1000), found.usual_gap, found.last_word) == (None, None, 1000)


def test_the_pace_of_late_tells_what_is_left(writer, clock):
    for n in range(6):
        record(writer, clock, 10 * n, 1000 + 20 * n)  # 2 s a step
    found = run_progress(Run(writer.folder))
    assert (found.stage, found.step, found.stages_left) == ("head", 50, 1)
    assert found.seconds_left(1100) == pytest.approx(100)
    assert found.seconds_left(1130) == pytest.approx(70)
    assert found.seconds_left(9999) == 0
    assert found.usual_gap == 20


def test_a_pause_is_no_pace(writer, clock):
    for n in range(6):
        record(writer, clock, 10 * n, 1000 + 20 * n)
    record(writer, clock, 60, 5000)
    record(writer, clock, 70, 5020)
    assert run_progress(Run(writer.folder)).seconds_left(5020) == pytest.approx(60)


def test_evaluations_count_into_the_pace(writer, clock):
    record(writer, clock, 0, 1000)
    record(writer, clock, 10, 1010)
    record(writer, clock, 10, 1020)  # an evaluation of ten seconds
    record(writer, clock, 20, 1030)
    record(writer, clock, 20, 1040)
    assert run_progress(Run(writer.folder)).seconds_left(1040) == pytest.approx(80 * 2)


def test_a_stage_that_stopped_early_shortens_the_whole(writer, clock):
    writer.update_manifest(stages=[{"name": "head", "last_step": 40}])
    record(writer, clock, 40, 1000, "all")
    record(writer, clock, 50, 1100, "all")
    found = run_progress(Run(writer.folder))
    assert (found.total, found.stages_left) == (70, 0)
    assert found.seconds_left(1100) == pytest.approx(200)


def test_a_recipe_that_cannot_be_read_leaves_the_total_open(tmp_path, clock):
    with RunWriter.create(tmp_path / "run", "nonsense: 1", MANIFEST) as writer:
        record(writer, clock, 10, 1010)
        found = run_progress(Run(writer.folder))
    assert (found.step, found.total, found.seconds_left(1010)) == (10, None, None)


def test_long_silence_is_told_from_a_slow_run(writer, clock):
    for n in range(3):
        record(writer, clock, n, 1000 + 10 * n)
    found = run_progress(Run(writer.folder))
    assert not found.is_silent(1020 + 1199)
    assert found.is_silent(1020 + 1201)  # 120 times the usual gap


def test_a_study_is_foretold_from_what_is_done(fake, design, tmp_path):
    sys.modules.pop(fake, None)
    study = Study.create(tmp_path / "study", design())
    assert study_seconds_left(study) is None
    for number, result in enumerate(LocalExecutor(f"{fake}:run_trials").run(study), start=1):
        assert result.seconds == 1
        if number == 4:
            control.ask(study.folder, "stop", "ada")
    assert study_seconds_left(study) == 8  # of a second each
    leases = Leases(study.folder / LEASES, "somebody")
    held = [leases.take(group.key) for group in study.plan().groups]
    assert len(held) == 2
    assert study_seconds_left(study) == 4  # two work on it
    for lease in held:
        with lease:
            pass
    list(LocalExecutor(f"{fake}:run_trials").run(study))
    assert study_seconds_left(study) == 0

"""A study's folder: what it remembers, what it plans, and how it is found again."""

import json
import subprocess
import sys

import pytest

from fieldmark import durable
from fieldmark.errors import RecordError, SettingError
from fieldmark.studies.executor import LocalExecutor
from fieldmark.studies.lease import Leases
from fieldmark.studies.study import Study
from fieldmark.studies.trial import Outcome

STUDY = """\
name: sizes
question: Which?
base: base
axes:
  - {key: data.image_size, values: [224, 336, 448]}
  - {key: pooling.sketch_dim, values: [1024, 2048, 4096, 8192]}
"""

ADAPTIVE = """\
name: rate
question: Which rate?
base: base
axes:
  - {key: stages.0.lr, space: {low: 0.01, high: 4, log: true}}
search: {sampler: tpe, trials: 6, batch: 3}
"""


def test_a_study_is_found_again_as_it_was(design, tmp_path):
    study = Study.create(tmp_path / "s", design())
    again = Study.open(tmp_path / "s")
    assert again.cells == study.cells
    assert (tmp_path / "s" / "study.yaml").read_text(encoding="utf-8").startswith("name: sizes")
    assert again.design.texts == study.design.texts
    assert set(again.states().values()) == {"waiting"}
    Study.create(tmp_path / "s", design())
    assert len(durable.read(tmp_path / "s" / "journal.jsonl")) == 1


def test_other_folders_are_left_alone(design, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match="is not empty, and holds no study"):
        Study.create(tmp_path, design())
    with pytest.raises(RecordError, match=r"is no study: it lacks `journal.jsonl`"):
        Study.open(tmp_path)


def test_a_study_killed_before_its_first_record_is_begun_again(design, tmp_path):
    (tmp_path / "study.yaml").touch()
    (tmp_path / "journal.jsonl").touch()
    with pytest.raises(RecordError, match="holds no design"):
        Study.open(tmp_path)
    assert Study.found(tmp_path) is None
    assert len(Study.create(tmp_path, design()).cells) == 12
    assert len(Study.found(tmp_path).cells) == 12


def test_the_plan_of_the_grid_is_three_passes(design, tmp_path):
    plan = Study.create(tmp_path / "s", design(STUDY, "seeds=2")).plan()
    assert (plan.points, plan.cells, plan.duplicates, plan.over_budget) == (12, 12, 0, 0)
    assert (plan.runs, plan.done, plan.later) == (24, 0, 0)
    assert (plan.passes, plan.passes_saved) == (3, 21)
    assert [len(group.slots) for group in plan.groups] == [8, 8, 8]
    assert {slot.seed for group in plan.groups for slot in group.slots} == {0, 1}


def test_who_trains_the_backbone_shares_no_pass(design, tmp_path):
    plan = Study.create(tmp_path / "s", design(STUDY, "stages.0.train=all", "seeds=2")).plan()
    assert (plan.runs, plan.passes, plan.passes_saved) == (24, 24, 0)


def test_states_follow_leases_and_records(design, tmp_path):
    study = Study.create(tmp_path / "s", design())
    group = study.groups()[0]
    with Leases(tmp_path / "s" / "leases", "me").take(group.key) as lease:
        for slot, status in zip(group.slots[:2], ["finished", "failed"], strict=True):
            trial = study.records.trial(slot, lease)
            outcome = Outcome(trial.folder, status, {"out_of_fold/top1": 0.5}, 2.0, None)
            assert study.records.record(slot, lease, outcome).status == status
            assert study.records.record(slot, lease, outcome) is None  # each has one
        states = Study.open(tmp_path / "s").states()
    assert list(states.values())[:5] == ["finished", "failed", "running", "running", "waiting"]
    assert set(Study.open(tmp_path / "s").states().values()) == {"finished", "failed", "waiting"}
    result = Study.open(tmp_path / "s").results()[group.slots[0].key]
    assert result.folder == tmp_path / "s" / "cells" / result.cell / "seed-0.1"
    assert (result.metrics, result.seconds) == ({"out_of_fold/top1": 0.5}, 2.0)


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_cells_of_a_worker_that_died_here_are_not_running(design, tmp_path):
    study = Study.create(tmp_path / "s", design())
    folder = tmp_path / "s" / "leases"
    lease = Leases(folder, "me").take(study.groups()[0].key)
    assert list(study.states().values())[:5] == ["running"] * 4 + ["waiting"]
    path = lease.folder / "1.json"
    said = [sys.executable, "-c", "from fieldmark import processes; print(processes.mark())"]
    dead = subprocess.run(said, capture_output=True, text=True, check=True).stdout.strip()
    held = json.loads(path.read_bytes())
    path.write_text(json.dumps(held | {"process": dead}), encoding="utf-8")
    assert set(study.states().values()) == {"waiting"}
    boot, *rest = dead.split(" ")  # of another machine nobody here knows whether it is dead
    path.write_text(json.dumps(held | {"process": " ".join([boot[::-1], *rest])}), encoding="utf-8")
    assert list(study.states().values())[:5] == ["running"] * 4 + ["waiting"]


def test_numbers_that_are_none_survive(design, tmp_path):
    study = Study.create(tmp_path / "s", design())
    group = study.groups()[0]
    metrics = {"out_of_fold/top1": 0.5, "out_of_fold/loss": float("inf")}
    with Leases(tmp_path / "s" / "leases", "me").take(group.key) as lease:
        trial = study.records.trial(group.slots[0], lease)
        study.records.record(group.slots[0], lease, Outcome(trial.folder, "finished", metrics))
    (path,) = (tmp_path / "s" / "cells").glob("*/*.json")
    assert json.loads(path.read_text(encoding="utf-8"))["metrics"]["out_of_fold/loss"] is None
    (result,) = Study.open(tmp_path / "s").results().values()
    assert result.metrics == pytest.approx(
        {**metrics, "out_of_fold/loss": float("nan")}, nan_ok=True
    )


def test_a_changed_design_keeps_what_still_belongs(design, fake, tmp_path):
    study = Study.create(tmp_path / "s", design())
    list(LocalExecutor(f"{fake}:run_trials").run(study))
    smaller = Study.create(tmp_path / "s", design(STUDY, "axes.0.values=[224, 500]"))
    assert (smaller.plan().runs, smaller.plan().done, smaller.outdated()) == (8, 4, 8)
    assert Study.create(tmp_path / "s", design()).plan().done == 12
    assert Study.open(tmp_path / "s").outdated() == 0
    other = Study.create(tmp_path / "s", design(STUDY, "stages.0.weight_decay=0.1"))
    assert (other.plan().done, other.outdated()) == (0, 12)
    failed, taken_back, *_ = sorted((tmp_path / "s" / "cells").glob("*/seed-0.1.json"))
    failed.write_text('{"status": "failed"}')
    taken_back.write_text('{"status": "lost"}')
    assert other.outdated() == 10  # what failed answers nothing


def test_what_is_expected_after_the_fact_is_told_so(design, fake, tmp_path):
    expects = "expect={axis: image_size, direction: up}"
    study = Study.create(tmp_path / "a", design(STUDY, expects))
    list(LocalExecutor(f"{fake}:run_trials").run(study))
    study = Study.create(tmp_path / "a", design(STUDY, expects, "seeds=2"))
    assert study.results_before_expecting == 0
    study = Study.create(tmp_path / "a", design(STUDY, expects.replace("up", "down")))
    assert study.results_before_expecting == 12


def test_proposals_wait_for_results_and_come_in_batches(design, fake, tmp_path):
    study = Study.create(tmp_path / "s", design(ADAPTIVE))
    assert (study.plan().points, study.plan().later) == (0, 6)
    study.extend()
    assert (study.plan().points, study.plan().later) == (3, 3)
    study.extend()
    assert study.plan().points == 3
    list(LocalExecutor(f"{fake}:run_trials").run(study))
    assert (study.plan().points, study.plan().later) == (6, 0)
    more = Study.create(tmp_path / "s", design(ADAPTIVE, "search.trials=8"))
    assert (more.plan().points, more.plan().done, more.plan().later) == (6, 6, 2)
    other = Study.create(tmp_path / "s", design(ADAPTIVE, "search.seed=1"))
    assert other.plan().points == 0


def test_of_two_that_propose_at_once_the_first_counts(design, tmp_path):
    study = Study.create(tmp_path / "s", design(ADAPTIVE))
    study.extend()
    first = study.points()
    late = {**durable.read(tmp_path / "s" / "journal.jsonl")[-1], "points": [{"lr": 3.0}]}
    durable.append(tmp_path / "s" / "journal.jsonl", late)
    assert Study.open(tmp_path / "s").points() == first


def test_a_proposal_stands_whatever_became_of_the_sampler(design, tmp_path, monkeypatch):
    study = Study.create(tmp_path / "s", design(ADAPTIVE))
    study.extend()
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert Study.open(tmp_path / "s").points() == study.points()

"""One suite for all executors, then what only processes can suffer: kill -9, and a long sleep."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from fieldmark.errors import SettingError, TrainingError
from fieldmark.studies.executor import MOST_LOST, LocalExecutor, _Crew
from fieldmark.studies.lease import Lease, Leases
from fieldmark.studies.study import Study
from fieldmark.studies.trial import Outcome

EXECUTORS = ["in this process", "two processes", pytest.param("ray", marks=pytest.mark.slow)]


@pytest.fixture(params=EXECUTORS)
def make(request):
    """From the import path of what runs trials to an executor."""
    if request.param == "ray":
        return request.getfixturevalue("on_two_nodes")
    workers = 1 if request.param == "in this process" else 2
    return lambda path: LocalExecutor(path, workers=workers, lapse=2)


posix = pytest.mark.skipif(sys.platform == "win32", reason="no signals")


def records(study):
    """What is on the disk, read without the study's own code: (cell, seed) -> statuses."""
    found = {}
    for path in (study.folder / "cells").glob("*/*.json"):
        seed = path.name.split(".")[0]
        status = path.read_text(encoding="utf-8").split('"')[3]
        found.setdefault((path.parent.name, seed), []).append(status)
    return found


def results_of(statuses):
    return [status for status in statuses if status != "lost"]


def test_each_run_is_made_once_and_told_once(make, fake, design, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACE", str(tmp_path / "trace"))
    sys.modules.pop(fake, None)
    study = Study.create(tmp_path / "study", design())
    told = list(make(f"{fake}:run_trials").run(study))
    assert len(told) == len({(r.cell, r.seed) for r in told}) == 12
    lines = (tmp_path / "trace").read_text(encoding="utf-8").splitlines()
    assert len(lines) == len(set(lines)) == 12
    assert {line.split()[2] for line in lines} == {"4"}  # those of one image size came together
    assert set(Study.open(study.folder).states().values()) == {"finished"}
    assert list(LocalExecutor(f"{fake}:run_trials").run(study)) == []
    assert len((tmp_path / "trace").read_text(encoding="utf-8").splitlines()) == 12


def test_only_what_is_missing_is_run(make, fake, design, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACE", str(tmp_path / "trace"))
    sys.modules.pop(fake, None)
    study = Study.create(tmp_path / "study", design())
    list(LocalExecutor(f"{fake}:run_trials").run(study))
    (tmp_path / "trace").unlink()
    more = Study.create(tmp_path / "study", design(STUDY_MORE))
    told = list(make(f"{fake}:run_trials").run(more))
    assert {r.seed for r in told} == {1}
    assert len(told) == 12
    assert len((tmp_path / "trace").read_text(encoding="utf-8").splitlines()) == 12


STUDY_MORE = """\
name: sizes
question: Which matters more, the photos' size or the sketch's?
base: base
seeds: 2
axes:
  - {key: data.image_size, values: [224, 336, 448]}
  - {key: pooling.sketch_dim, values: [1024, 2048, 4096, 8192]}
"""


def test_a_failure_is_a_result_and_ends_nothing(make, fake, design, tmp_path):
    study = Study.create(tmp_path / "study", design())
    told = list(make(f"{fake}:raises").run(study))
    failed = [result for result in told if result.status == "failed"]
    assert len(told) == 12
    assert [result.reason for result in failed] == ["RuntimeError: out of memory"] * 4
    assert list(LocalExecutor(f"{fake}:raises").run(study)) == []


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("raises_at_once", "RuntimeError: no such device"),
        ("not_a_number", "`out_of_fold/top1` is nan."),
    ],
)
def test_what_fails_all_of_them_says_so_of_each(fake, design, tmp_path, function, reason):
    study = Study.create(tmp_path / "study", design())
    told = list(LocalExecutor(f"{fake}:{function}").run(study))
    assert [(result.status, result.reason) for result in told] == [("failed", reason)] * 12


def test_a_trial_without_an_outcome_is_a_failure(fake, design, tmp_path):
    study = Study.create(tmp_path / "study", design())
    told = list(LocalExecutor(f"{fake}:forgets").run(study))
    assert Counter(r.status for r in told) == {"finished": 9, "failed": 3}
    assert {r.reason for r in told if r.status == "failed"} == {"It was given no outcome."}


def test_a_sampler_that_learns_is_asked_until_it_has_had_its_trials(make, fake, design, tmp_path):
    text = """\
        name: rate
        question: Which rate?
        base: base
        axes:
          - {key: data.image_size, values: [224, 336]}
          - {key: stages.0.lr, space: {low: 0.01, high: 10, log: true}}
        search: {sampler: tpe, trials: 7, batch: 3}
        """
    study = Study.create(tmp_path / "study", design(text))
    told = list(make(f"{fake}:run_trials").run(study))
    study = Study.open(study.folder)
    assert study.plan().points == 14
    assert len(told) == study.plan().runs == study.plan().done == 14 - study.plan().duplicates
    assert list(LocalExecutor(f"{fake}:run_trials").run(study)) == []


def test_the_budget_ends_a_study(fake, design, tmp_path):
    study = Study.create(tmp_path / "study", design(STUDY_MORE, "budget={minutes: 0.1}"))
    told = list(LocalExecutor(f"{fake}:run_trials").run(study))
    assert len(told) == 8  # a group of 8 trials takes 8 s as it says, of 6
    study = Study.create(tmp_path / "study", design(STUDY_MORE, "budget={cells: 5}"))
    list(LocalExecutor(f"{fake}:run_trials").run(study))
    plan = study.plan()
    assert (plan.cells, plan.over_budget, plan.runs, plan.done) == (5, 7, 10, 10)


def test_what_can_not_run_is_refused(fake):
    with pytest.raises(SettingError, match="`workers` must be 1 or more, got 0"):
        LocalExecutor(f"{fake}:run_trials", workers=0)
    for path in ("fake_training", "no_such.module:f", "nothing:f"):
        with pytest.raises(SettingError, match=f"`run_trials` is an import path.*got '{path}'"):
            LocalExecutor(path)


@pytest.mark.slow
@posix
def test_a_group_that_kills_its_workers_is_given_up(fake, design, tmp_path):
    study = Study.create(tmp_path / "study", design(STUDY_MORE, "axes.0.values=[224]"))
    told = list(LocalExecutor(f"{fake}:kills_itself", workers=2, lapse=0.3).run(study))
    assert {r.status for r in told} == {"failed"}
    assert "5 workers in a row were lost at these trials" in told[0].reason


@posix
def test_workers_that_can_not_begin_end_the_study(fake, design, tmp_path):
    study = Study.create(tmp_path / "study", design())
    with pytest.raises(TrainingError, match=r"A worker of .* ended with exit code 1"):
        list(LocalExecutor(f"{fake}:no_such_function", workers=2).run(study))


def workers_of(pid):
    """The spawned workers among a process's children; the tracker of resources is none."""
    asked = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(pid)]
    lines = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if "spawn_main" in line]


PARENT = """
import sys
from pathlib import Path
from fieldmark.studies.executor import MOST_LOST, LocalExecutor, _Crew
from fieldmark.studies.study import Study
if __name__ == "__main__":
    executor = LocalExecutor("fake_training:run_trials", workers=int(sys.argv[2]), lapse=0.6)
    for result in executor.run(Study.open(Path(sys.argv[1]))):
        print(result.cell, result.seed, flush=True)
"""


def start(study, workers, **more):
    environment = {**os.environ, "PYTHONPATH": str(study.folder.parent / "modules"), **more}
    script = study.folder.parent / "parent.py"
    script.write_text(PARENT, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, str(script), str(study.folder), str(workers)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


@posix
def test_killed_workers_lose_nothing_and_repeat_nothing(fake, design, tmp_path):
    study = Study.create(tmp_path / "study", design(STUDY_MORE))
    draw, killed = random.Random(0), 0
    with start(study, 2, PAUSE="0.2") as parent:
        while killed < 8 and parent.poll() is None:
            time.sleep(draw.uniform(0.1, 0.8))
            if workers := workers_of(parent.pid):
                os.kill(draw.choice(workers), signal.SIGKILL)
                killed += 1
        told = [line.strip() for line in parent.stdout]
    assert parent.returncode == 0
    assert killed > 3
    assert len(told) == len(set(told)) == 24
    found = records(study)
    assert len(found) == 24
    assert all(results_of(statuses) == ["finished"] for statuses in found.values())


@posix
def test_a_killed_study_goes_on_where_it_was(fake, design, tmp_path):
    study = Study.create(tmp_path / "study", design(STUDY_MORE))
    before = []
    for _ in range(3):
        with start(study, 1, PAUSE="0.02") as parent:
            before += [parent.stdout.readline().strip() for _ in range(4)]
            parent.kill()
            before += [line.strip() for line in parent.stdout]
    with start(study, 1) as parent:
        after = [line.strip() for line in parent.stdout]
    assert len({*before, *after}) == len(before) + len(after)
    assert len(records(study)) == 24 >= len(before) + len(after) >= 21  # a kill may forestall news
    assert all(results_of(statuses) == ["finished"] for statuses in records(study).values())


@posix
def test_a_worker_that_wakes_up_after_losing_its_lease_records_nothing(fake, design, tmp_path):
    study = Study.create(tmp_path / "study", design(STUDY_MORE, "axes.0.values=[224]"))
    with start(study, 1, PAUSE="0.1") as sleeper:
        first = sleeper.stdout.readline().strip()
        sleeper.send_signal(signal.SIGSTOP)
        with start(study, 1) as other:
            told = [line.strip() for line in other.stdout]
        sleeper.send_signal(signal.SIGCONT)
        heard = [first, *(line.strip() for line in sleeper.stdout)]
    assert sleeper.returncode == other.returncode == 0
    assert len(told) >= 6  # all but what the sleeper had recorded
    assert len({*heard, *told}) == len(heard) + len(told) == 8
    found = records(study).values()
    assert all(results_of(statuses) == ["finished"] for statuses in found)
    assert sum("lost" in statuses for statuses in found) == len(told)


def test_a_worker_stopped_at_the_very_point_of_recording_is_fenced_off(fake, design, tmp_path):
    """The worst moment: it has looked, holds its lease, and has only the file to make."""

    class Blind(Lease):
        is_held = True

    study = Study.create(tmp_path / "study", design(STUDY_MORE, "axes.0.values=[224]"))
    (group,) = study.groups()
    slot = group.slots[0]
    lease = Leases(study.folder / "leases", "late").take(group.key)
    late = Study.open(study.folder).records
    assert len(list(LocalExecutor(f"{fake}:run_trials", lapse=0).run(study))) == 8
    before = records(study)
    trial = late.trial(slot, lease)
    outcome = Outcome(trial.folder, "finished", {"out_of_fold/top1": 1.0})
    blind = Blind(lease.folder, lease.token, (), "late", 30)
    assert late.record(slot, blind, outcome) is None
    assert records(study) == before
    assert all(results_of(statuses) == ["finished"] for statuses in before.values())


def test_workers_that_die_before_they_do_anything_are_not_replaced_for_ever():
    crew = _Crew(None, LocalExecutor("fieldmark.trials:run_trials", workers=2))
    bearable = 2 * (MOST_LOST + 1) * 2
    crew._check(bearable)
    said = rf"{bearable + 1} worker processes in a row were killed before any had a result\. Look"
    with pytest.raises(TrainingError, match=said):
        crew._check(bearable + 1)


TELLS = """\
from fake_training import run_trials as run_plainly


def run_trials(trials, tell):
    for done in range(3):
        tell("features", done, 2)
    yield from run_plainly(trials)
"""


@pytest.mark.parametrize(("workers", "parts"), [(1, {"features"}), (2, {"0", "1"})])
def test_who_looks_on_is_told_how_far_the_parts_are(
    fake, design, tmp_path, monkeypatch, workers, parts
):
    (tmp_path / "modules" / "tells.py").write_text(TELLS, encoding="utf-8")
    study = Study.create(tmp_path / "study", design())
    told = []
    executor = LocalExecutor("tells:run_trials", workers, 2, tell=lambda *part: told.append(part))
    assert len(list(executor.run(study))) == 12
    groups = len(study.groups())
    assert Counter((done, total) for _, done, total in told) == {(n, 2): groups for n in range(3)}
    names = {part for part, _, _ in told}
    if workers > 1:
        assert all(name.endswith(": features") for name in names)
        names = {name.removeprefix("worker ").removesuffix(": features") for name in names}
    assert names <= parts

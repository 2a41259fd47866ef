"""Who looks on may pause, stop and set going; what failed may be run again."""

import json
import sys
import threading
import time

import pytest

from fieldmark import durable
from fieldmark.errors import RecordError, SettingError
from fieldmark.studies import control
from fieldmark.studies.executor import LocalExecutor, load, work
from fieldmark.studies.study import Study


def wait_for(condition, seconds=20):
    """Until the condition holds; a test that waits in vain fails here."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_the_newest_wish_holds_and_says_who(tmp_path):
    assert control.newest(tmp_path) is None
    control.ask(tmp_path, "pause", "ada")
    control.ask(tmp_path, "stop", "grace <script>")
    order = control.newest(tmp_path)
    assert (order.wish, order.by, order.heeded) == ("stop", "grace <script>", False)
    assert order.describe() == "stopped by grace <script>"
    told = [record["by"] for record in durable.read(tmp_path / control.CONTROL)]
    assert told == ["ada", "grace <script>"]


def test_an_unknown_wish_is_refused(tmp_path):
    with pytest.raises(SettingError, match="one of pause, go on, stop, got 'explode'"):
        control.ask(tmp_path, "explode", "ada")
    assert not list(tmp_path.iterdir())


def test_starting_again_is_asking_to_go_on(tmp_path):
    control.begin(tmp_path)
    assert control.newest(tmp_path) is None  # there was nothing to take back
    control.ask(tmp_path, "stop", "ada")
    control.begin(tmp_path)
    control.begin(tmp_path)
    assert control.newest(tmp_path).wish == "go on"
    assert control.newest(tmp_path).by == control.this_person()
    assert len(durable.read(tmp_path / control.CONTROL)) == 2


def test_all_who_ask_at_once_are_heard(tmp_path):
    askers = [
        threading.Thread(target=control.ask, args=(tmp_path, "pause", f"reader {n}"))
        for n in range(12)
    ]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    heard = {record["by"] for record in durable.read(tmp_path / control.CONTROL)}
    assert heard == {f"reader {n}" for n in range(12)}


def test_a_journal_that_is_never_let_go_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "MOST_TRIES", 2)
    with (
        durable.Journal(tmp_path / control.CONTROL),
        pytest.raises(RecordError, match="written by another process"),
    ):
        control.ask(tmp_path, "pause", "ada")


def test_a_pause_lasts_until_somebody_lifts_it(tmp_path):
    said = []
    control.ask(tmp_path, "pause", "ada")
    orders = control.Orders(tmp_path)
    waiting = threading.Thread(target=orders.heed, args=(said.append,))
    waiting.start()
    wait_for(lambda: control.newest(tmp_path).heeded)
    assert waiting.is_alive()
    control.ask(tmp_path, "go on", "grace")
    waiting.join(20)
    assert not waiting.is_alive()
    assert said == ["paused by ada", "set going by grace"]
    assert orders.pending() is None


def test_a_study_pauses_between_results_and_goes_on(fake, design, tmp_path):
    sys.modules.pop(fake, None)
    study, told = Study.create(tmp_path / "study", design()), []

    def run():
        for result in work(study, load(f"{fake}:run_trials"), lapse=2):
            told.append(result)
            if len(told) == 2:
                control.ask(study.folder, "pause", "ada")

    worker = threading.Thread(target=run)
    worker.start()
    wait_for(lambda: (order := control.newest(study.folder)) and order.heeded)
    assert worker.is_alive()
    assert len(told) == 2
    control.ask(study.folder, "go on", "grace")
    worker.join(30)
    assert len(told) == 12


def test_a_stopped_study_keeps_its_results_and_starts_again(fake, design, tmp_path):
    sys.modules.pop(fake, None)
    study, executor = (
        Study.create(tmp_path / "study", design()),
        LocalExecutor(f"{fake}:run_trials"),
    )
    told = []
    for result in executor.run(study):
        told.append(result)
        if len(told) == 3:
            control.ask(study.folder, "stop", "ada")
    assert len(told) == 3
    states = Study.open(study.folder).states()
    assert sorted(states.values()) == ["finished"] * 3 + ["waiting"] * 9  # its lease is let go
    assert len(list(executor.run(Study.open(study.folder)))) == 9


def test_workers_in_processes_stop_too(fake, design, tmp_path, monkeypatch):
    monkeypatch.setenv("PAUSE", "0.2")
    study = Study.create(tmp_path / "study", design())
    told = 0
    for _ in LocalExecutor(f"{fake}:run_trials", workers=2).run(study):
        told += 1
        if told == 1:
            control.ask(study.folder, "stop", "ada")
    assert 1 <= told < 12
    states = Study.open(study.folder).states()
    assert set(states.values()) == {"finished", "waiting"}


def test_what_failed_is_run_again_when_taken_back(fake, design, tmp_path):
    sys.modules.pop(fake, None)
    study = Study.create(tmp_path / "study", design())
    list(LocalExecutor(f"{fake}:raises").run(study))
    failed = [slot for slot in study.slots() if study.records.of(slot).status == "failed"]
    assert len(failed) == 4
    looker = Study.open(study.folder)  # another process, which has read the failure
    looker.results()
    study.records.take_back(failed[0], "ada")
    assert looker.records.of(failed[0]) is None
    assert looker.states()[failed[0].key] == "waiting"
    left = json.loads(next(study.folder.glob("cells/*/*.taken-back")).read_bytes())
    assert left["by"] == "ada"
    (again,) = LocalExecutor(f"{fake}:run_trials").run(Study.open(study.folder))
    assert ((again.cell, again.seed), again.status) == (failed[0].key, "finished")
    assert looker.records.of(failed[0]).status == "finished"


def test_what_finished_or_waits_is_not_run_again(fake, design, tmp_path):
    sys.modules.pop(fake, None)
    study = Study.create(tmp_path / "study", design())
    slot = study.slots()[0]
    with pytest.raises(SettingError, match=r"Only what failed .* seed 0 is without a result"):
        study.records.take_back(slot, "ada")
    list(LocalExecutor(f"{fake}:run_trials").run(study))
    with pytest.raises(SettingError, match=r"Only what failed .* seed 0 is finished"):
        study.records.take_back(slot, "ada")

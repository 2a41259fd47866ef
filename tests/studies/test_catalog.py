"""What is found under a folder, while others write to it."""

import json
import shutil
import sys

import pytest

from fieldmark import durable
from fieldmark.studies import catalog, control
from fieldmark.studies.catalog import Catalog
from fieldmark.studies.executor import LocalExecutor
from fieldmark.studies.run import RunWriter
from fieldmark.studies.study import Study

RECIPE = "data: {folder: photos}\nstages: [{name: head, train: head, lr: 1, length: 9 steps}]\n"


def make_run(folder, *, top1=0.5, finish=True):
    writer = RunWriter.create(folder, RECIPE, {"class_names": ["a"], "counts": {"train": 9}})
    writer.record({"train/loss": 2.0}, step=3, stage="head")
    writer.record({"val/top1": top1 / 2, "val/loss": float("nan")}, step=3, stage="head")
    writer.record({"val/top1": top1}, step=6, stage="head")
    if finish:
        writer.finish()
    return writer


def test_runs_are_found_at_any_depth_in_short(tmp_path):
    make_run(tmp_path / "one")
    make_run(tmp_path / "a" / "b" / "two", top1=0.75)
    found = Catalog(tmp_path)
    assert found.look() == {"one", "a/b/two"}
    two = found.runs["a/b/two"]
    assert (two.status, two.study, two.progress) == ("finished", None, None)
    assert two.curve == (0.375, 0.75)
    assert two.latest["val/top1"] == 0.75
    assert two.latest["train/loss"] == 2.0


def test_a_folder_that_is_a_run_is_itself(tmp_path):
    make_run(tmp_path / "one")
    found = Catalog(tmp_path / "one")
    assert found.look() == {"."}
    assert found.runs["."].status == "finished"


def test_a_second_look_tells_what_changed_and_nothing_else(tmp_path):
    make_run(tmp_path / "old")
    found = Catalog(tmp_path)
    found.look()
    assert found.look() == set()
    with make_run(tmp_path / "new", finish=False) as writer:
        assert found.look() == {"new"}
        assert found.runs["new"].progress.step == 6
        assert found.look() == set()
        writer.record({"train/loss": 1.0}, step=7, stage="head")
        assert found.look() == {"new"}
        assert found.runs["new"].progress.step == 7
        control.ask(writer.folder, "pause", "ada")
        assert found.look() == {"new"}
        assert found.runs["new"].order.by == "ada"
        writer.finish()
    assert found.look() == {"new"}
    assert found.runs["new"].status == "finished"
    shutil.rmtree(tmp_path / "old")
    assert found.look() == {"old"}
    assert set(found.runs) == {"new"}


def test_a_half_written_line_is_waited_for(tmp_path):
    with make_run(tmp_path / "run", finish=False) as writer:
        found = Catalog(tmp_path)
        found.look()
        line = durable._encode(
            {"step": 8, "epoch": 1, "stage": "head", "metrics": {"val/top1": 1}, "time": 1}
        )
        for part, step in ((line[:20], 6), (line[20:], 8)):
            with (writer.folder / "metrics.jsonl").open("ab") as file:
                file.write(part)
            found.look()
            assert not found.damaged
            assert found.runs["run"].progress.step == step


def test_what_is_damaged_is_named_and_the_rest_is_there(tmp_path):
    make_run(tmp_path / "good")
    bad = make_run(tmp_path / "bad").folder
    manifest = (bad / "manifest.json").read_text()
    (bad / "manifest.json").write_text("{")
    odd = make_run(tmp_path / "odd").folder
    (odd / "manifest.json").write_text(json.dumps({"format": 1}))
    found = Catalog(tmp_path)
    found.look()
    assert set(found.runs) == {"good"}
    assert set(found.damaged) == {"bad", "odd"}
    assert "is damaged or not ours" in found.damaged["bad"]
    (bad / "manifest.json").write_text(manifest)
    assert found.look() == {"bad"}
    assert "bad" in found.runs
    assert "bad" not in found.damaged


def test_links_to_elsewhere_are_not_followed(tmp_path):
    outside = make_run(tmp_path / "outside" / "run").folder
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "folder").symlink_to(outside.parent)
    (inside / "run").symlink_to(outside)
    files = inside / "files"
    files.mkdir()
    for name in ("manifest.json", "recipe.yaml", "metrics.jsonl"):
        (files / name).symlink_to(outside / name)
    found = Catalog(inside)
    assert found.look() == set()
    assert not found.runs


def test_hidden_folders_and_those_too_deep_are_left_alone(tmp_path):
    make_run(tmp_path / ".trash" / "run")
    make_run(tmp_path.joinpath(*["deep"] * catalog.DEEPEST, "run"))
    make_run(tmp_path.joinpath(*["deep"] * (catalog.DEEPEST - 1), "run"))
    found = Catalog(tmp_path)
    assert len(found.look()) == 1


def test_a_study_and_its_runs(fake, design, tmp_path):
    sys.modules.pop(fake, None)
    study = Study.create(tmp_path / "studies" / "sizes", design())
    found = Catalog(tmp_path)
    assert found.look() == {"studies/sizes"}
    waiting = found.studies["studies/sizes"]
    assert waiting.question == "Which matters more, the photos' size or the sketch's?"
    assert (waiting.count("waiting"), waiting.best, waiting.seconds_left) == (12, None, None)
    for number, _ in enumerate(LocalExecutor(f"{fake}:run_trials").run(study), start=1):
        assert "studies/sizes" in found.look()
        assert found.studies["studies/sizes"].count("finished") == number
    assert found.studies["studies/sizes"].ended == 12
    assert found.studies["studies/sizes"].best == pytest.approx(0.448 + 0.08192)
    slot = study.slots()[0]
    make_run(study.folder / "cells" / slot.cell.hash / "seed-0.1")
    place = f"studies/sizes/cells/{slot.cell.hash}/seed-0.1"
    assert place in found.look()
    assert found.runs[place].study == "studies/sizes"
    assert found.seen().own_runs() == []


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_cells_of_a_worker_that_was_killed_stop_running_though_nothing_is_written(
    design, tmp_path, holding
):
    study = Study.create(tmp_path / "sizes", design())
    found = Catalog(tmp_path)
    found.look()
    with holding(study.folder / "leases", study.groups()[0].key) as holder:
        assert found.look() == {"sizes"}
        assert found.studies["sizes"].count("running") == 4
        assert found.look() == set()
        holder.kill()
        holder.wait()
        assert found.look() == {"sizes"}
        assert found.studies["sizes"].count("running") == 0
        assert found.look() == set()


def test_a_study_whose_failure_is_taken_back_waits_again(fake, design, tmp_path):
    sys.modules.pop(fake, None)
    study = Study.create(tmp_path / "sizes", design())
    list(LocalExecutor(f"{fake}:raises").run(study))
    found = Catalog(tmp_path)
    found.look()
    assert found.studies["sizes"].count("failed") == 4
    failed = next(s for s in study.slots() if study.records.of(s).status == "failed")
    study.records.take_back(failed, "ada")
    assert found.look() == {"sizes"}
    assert found.studies["sizes"].count("failed") == 3
    assert found.studies["sizes"].count("waiting") == 1


def test_a_study_is_opened_once_and_then_read_on(fake, design, tmp_path, monkeypatch):
    """Opening it checks every recipe of its design anew."""
    study = Study.create(tmp_path / "sizes", design())
    opened = []
    monkeypatch.setattr(catalog.Study, "open", lambda folder: opened.append(folder) or study)
    found = Catalog(tmp_path)
    found.look()
    next(LocalExecutor(f"{fake}:run_trials").run(study))
    assert "sizes" in found.look()
    assert found.studies["sizes"].count("finished") == 1
    assert opened == [tmp_path / "sizes"]

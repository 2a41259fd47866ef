"""A disk that fills leaves no lock, and a run that says so or none; with room again it goes on."""

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fieldmark import durable
from fieldmark.build import Task, build
from fieldmark.checked_yaml import check_text
from fieldmark.errors import DiskError
from fieldmark.ledger import Silent
from fieldmark.recipe import Recipe
from fieldmark.resume import resume
from fieldmark.studies.run import MANIFEST, METRICS, RECIPE, Run
from fieldmark.train import SPLIT, begin, train
from fieldmark.training.features import FeatureStore

TEXT = """\
data: {folder: "%s", image_size: 32}
backbone: {name: test_resnet, weights: none}
pooling: {name: average}
stages: [{name: head, train: head, lr: 1, length: 1 epoch}]
"""


class FullDisk(durable._Disk):
    """Has room for some writes, refuses some, and then has room again."""

    def __init__(self, room: int, refused: int = 10**9) -> None:
        self.writes, self.room, self.refused = 0, room, refused

    def write(self, file: int, content: bytes) -> None:
        self.writes += 1
        if 0 <= self.writes - 1 - self.room < self.refused:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(file, content)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, draw_squares) -> Task:
    photos = draw_squares(tmp_path_factory.mktemp("home") / "photos")
    return build(check_text(TEXT % photos, Recipe))


def begin_on(disk: FullDisk, folder: Path, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_disk", disk)
    try:
        begin(folder, task).close()
    finally:
        monkeypatch.undo()


def test_a_disk_that_stays_full_leaves_no_lock_and_no_run_or_one_to_go_on_with(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    counting = FullDisk(10**9)
    begin_on(counting, tmp_path / "whole", task, monkeypatch)
    assert counting.writes == 3  # recipe, manifest, split
    for room in range(counting.writes):
        folder = tmp_path / str(room)
        with pytest.raises(DiskError, match=r"is full.*Make room there and go on"):
            begin_on(FullDisk(room), folder, task, monkeypatch)
        if (folder / METRICS).exists():
            durable.Journal(folder / METRICS).close()  # nobody holds it
        if (folder / MANIFEST).exists():
            assert Run(folder).status == "running"  # no room to say that it failed: it is resumed
            assert not (folder / SPLIT).exists()
        else:  # and may begin again in the same place
            begin(folder, task).close()
            assert Run(folder).status == "running"


def test_a_disk_full_for_a_moment_leaves_a_run_marked_failed(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "run"
    with pytest.raises(DiskError, match=r"`split\.json` did not fit"):
        begin_on(FullDisk(2, refused=1), folder, task, monkeypatch)
    durable.Journal(folder / METRICS).close()
    assert Run(folder).status == "failed"
    assert "split.json" in Run(folder).reason
    assert (folder / RECIPE).read_text() == task.recipe.to_yaml()


WHOLE = """\
data: {folder: "%s", image_size: 32}
backbone: {name: test_resnet, weights: none}
pooling: {name: average}
threads: 1
stages:
  - {name: head, train: head, lr: 1, length: 2 steps, batch_size: 8}
  - {name: all, train: all, lr: 0.05, length: 3 steps, batch_size: 8, snapshot_every: 2 steps}
"""


@pytest.mark.slow
def test_a_disk_full_at_any_write_costs_nothing_once_there_is_room(
    tmp_path: Path, draw_squares, monkeypatch: pytest.MonkeyPatch
):
    recipe = check_text(WHOLE % draw_squares(tmp_path / "photos"), Recipe)

    def go_on(folder: Path, disk: durable._Disk) -> Run:
        settings = {"store": FeatureStore(folder.parent / "f"), "reporter": Silent()}
        monkeypatch.setattr(durable, "_disk", disk)
        try:
            if (folder / MANIFEST).exists():
                return resume(folder, checkpoint_seconds=0, **settings)
            return train(recipe, folder, checkpoint_seconds=0, **settings)
        finally:
            monkeypatch.undo()

    counting = FullDisk(10**9)
    whole = load_file(go_on(tmp_path / "whole" / "run", counting).weights_path)
    assert counting.writes > 20
    for room in range(0, counting.writes, 6):
        refused = 1 if room % 4 else 10**9  # full for a moment, or to the end
        folder = tmp_path / str(room) / "run"
        with pytest.raises(DiskError, match=r"is full.*Make room there and go on"):
            go_on(folder, FullDisk(room, refused))
        found = go_on(folder, durable._Disk())
        assert found.status == "finished"
        weights = load_file(found.weights_path)
        assert all(torch.equal(weights[key], value) for key, value in whole.items())

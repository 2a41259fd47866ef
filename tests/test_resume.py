"""A run killed anywhere and resumed ends bit for bit like one that never stopped."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from fieldmark import durable
from fieldmark.checked_yaml import check_text
from fieldmark.errors import DataError, FieldmarkError, RecordError, SettingError
from fieldmark.ledger import CHECKPOINT, Silent
from fieldmark.recipe import Recipe
from fieldmark.resume import resume
from fieldmark.studies.run import Run
from fieldmark.train import train
from fieldmark.training.features import FeatureStore

RECIPE = """\
name: squares
data: {folder: "%s", image_size: 32, resize_size: 36, mirror: true}
backbone: {name: test_resnet, weights: none}
pooling: {name: compact_bilinear, sketch_dim: 64}
head: {drop_rate: 0.2}
augment: {crop_area: [0.5, 1], hue: 0.05, policy: trivialaugment, erase: 0.3, mixup: 1, cutmix: 1}
threads: 1
stages:
  - {name: head, train: head, lr: 1, length: 2 epochs, batch_size: 8, schedule: cosine,
     label_smoothing: 0.1, class_weights: balanced}
  - {name: all, train: {"backbone.*": 0.1, "*": 1}, lr: 0.05, length: 8 steps, batch_size: 8,
     eval_every: 2 steps, batch_norm: train, average: 0.9, clip_norm: 2, stop_after: 4,
     schedule: {name: plateau, patience: 1, gamma: 0.5},
     accumulate: 2, sampling: balanced}
"""
DRIVER = """\
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_resume import load
from fieldmark.ledger import Silent
from fieldmark.resume import resume
from fieldmark.train import train
from fieldmark.training.features import FeatureStore
photos, folder = Path(sys.argv[1]), Path(sys.argv[2])
settings = dict(store=FeatureStore(folder.parent / "features"), reporter=Silent())
if (folder / "recipe.yaml").exists():
    resume(folder, checkpoint_seconds=0, open_test=True, **settings)
else:
    train(load(photos), folder, checkpoint_seconds=0, open_test=True, **settings)
"""


class PowerCut(BaseException):
    """Nothing may catch it: the machine is off."""


class DyingDisk(durable._Disk):
    """Works for a number of operations, then never again; the kernel closes what was open."""

    def __init__(self, operations: int) -> None:
        self.left = operations
        self.files: set[int] = set()

    def _spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            for file in self.files:
                os.close(file)
            self.files.clear()
            raise PowerCut

    def open(self, path: Path, *, new: bool) -> int:
        self._spend()
        file = super().open(path, new=new)
        self.files.add(file)
        return file

    def close(self, file: int) -> None:
        if file in self.files:
            self.files.remove(file)
            super().close(file)

    def write(self, file: int, content: bytes) -> None:
        if self.left == 0:  # the last operation of all is half a write
            super().write(file, content[: len(content) // 2])
        self._spend()
        super().write(file, content)

    def fsync(self, file: int) -> None:
        self._spend()
        super().fsync(file)

    def fsync_path(self, path: Path) -> None:
        self._spend()
        super().fsync_path(path)

    def rename(self, source: Path, target: Path) -> None:
        self._spend()
        super().rename(source, target)

    def truncate(self, file: int, size: int) -> None:
        self._spend()
        super().truncate(file, size)

    def unlink(self, path: Path) -> None:
        self._spend()
        super().unlink(path)

    def mkdir(self, path: Path) -> None:
        self._spend()
        super().mkdir(path)


def load(photos: Path, *overrides: str) -> Recipe:
    return check_text(RECIPE % photos, Recipe, overrides)


def begin(photos: Path, folder: Path, *, seconds: float = 0) -> Run:
    store = FeatureStore(folder.with_suffix(".features"))
    return train(
        load(photos),
        folder,
        store=store,
        reporter=Silent(),
        open_test=True,
        checkpoint_seconds=seconds,
    )


def go_on(photos: Path, folder: Path) -> Run:
    """What a user does after a power cut: resume, or begin again where nothing was begun."""
    store = FeatureStore(folder.with_suffix(".features"))
    if not (folder / "recipe.yaml").exists():
        return begin(photos, folder)
    return resume(folder, store=store, reporter=Silent(), open_test=True, checkpoint_seconds=0)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, draw_squares) -> Path:
    return draw_squares(tmp_path_factory.mktemp("squares"), ("amber", "olive"), per_class=18)


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return begin(photos, tmp_path_factory.mktemp("whole") / "run")


def assert_same(found: Run, expected: Run) -> None:
    assert found.status == "finished"
    assert numbers(found).equals(numbers(expected), null_equal=True)
    ours, theirs = load_file(found.weights_path), load_file(expected.weights_path)
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    for split in ("minitrain", "val", "test"):
        assert found.predictions(split).equals(expected.predictions(split))


def numbers(run: Run) -> pl.DataFrame:
    """All that was measured but for how long it took."""
    return run.metrics().drop("time").filter(~pl.col("key").str.ends_with("seconds"))


def operations(photos: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    disk = DyingDisk(10**9)
    monkeypatch.setattr(durable, "_disk", disk)
    begin(photos, folder)
    monkeypatch.undo()
    return 10**9 - disk.left


def kill_and_resume(
    photos: Path, folder: Path, points: list[int], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Cut the power after each of `points` operations in turn, then let it finish."""
    for point in points:
        monkeypatch.setattr(durable, "_disk", DyingDisk(point))
        with pytest.raises(PowerCut):
            go_on(photos, folder)
        monkeypatch.undo()
    return Run(folder) if is_finished(folder) else go_on(photos, folder)


def is_finished(folder: Path) -> bool:
    return (folder / "manifest.json").exists() and Run(folder).status == "finished"


def test_checkpoints_change_nothing(whole: Run, photos: Path, tmp_path: Path):
    assert_same(begin(photos, tmp_path / "run", seconds=1e9), whole)


def test_a_few_power_cuts_cost_nothing(
    whole: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    total = operations(photos, tmp_path / "count", monkeypatch)
    for number, share in enumerate((0.02, 0.3, 0.55, 0.8, 0.99)):
        folder = tmp_path / f"run{number}"
        assert_same(kill_and_resume(photos, folder, [int(share * total)], monkeypatch), whole)


def test_a_run_killed_again_and_again_arrives(
    whole: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "run"
    for point in (3, 60, 5, 70, 9, 80, 25, 60, 13, 40, 90, 30, 120, 200):
        monkeypatch.setattr(durable, "_disk", DyingDisk(point))
        with contextlib.suppress(PowerCut, RecordError):  # RecordError: finished already
            go_on(photos, folder)
        monkeypatch.undo()
    assert is_finished(folder)
    assert_same(Run(folder), whole)


@pytest.mark.slow
def test_power_cuts_at_sixty_points_cost_nothing(
    whole: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    total = operations(photos, tmp_path / "count", monkeypatch)
    points = sorted({*range(25), *(int(x) for x in np.linspace(25, total - 1, 40))})
    assert len(points) >= 60
    for point in points:
        folder = tmp_path / f"run{point}"
        assert_same(kill_and_resume(photos, folder, [point], monkeypatch), whole)


def test_a_recipe_of_the_users_own_is_not_taken_for_a_run(photos: Path, tmp_path: Path):
    mine = "# my notes\n" + RECIPE % photos
    (tmp_path / "recipe.yaml").write_text(mine)
    with pytest.raises(SettingError, match="is not empty"):
        begin(photos, tmp_path)
    assert (tmp_path / "recipe.yaml").read_text() == mine


@pytest.mark.slow
def test_kill_9_at_random_moments_costs_nothing(whole: Run, photos: Path, tmp_path: Path):
    generator = np.random.default_rng(0)
    folder = tmp_path / "run"
    command = [sys.executable, "-c", DRIVER, str(photos), str(folder), str(Path(__file__).parent)]
    kills = 0
    while kills < 6:
        process = subprocess.Popen(command)
        while process.poll() is None and not (folder / "metrics.jsonl").exists():
            time.sleep(0.01)
        time.sleep(float(generator.uniform(0, 1.0)))
        process.kill()
        process.wait()
        kills += 1
        if is_finished(folder):
            break
    if not is_finished(folder):
        subprocess.run(command, check=True)
    assert_same(Run(folder), whole)


def test_a_stop_by_hand_can_be_resumed(whole: Run, photos: Path, tmp_path: Path):
    class Impatient(Silent):
        def progress(self, task: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
            if task == "all" and done == 4:
                raise KeyboardInterrupt

    store = FeatureStore(tmp_path / "features")
    with pytest.raises(KeyboardInterrupt):
        train(
            load(photos),
            tmp_path / "run",
            store=store,
            reporter=Impatient(),
            open_test=True,
            checkpoint_seconds=0,
        )
    assert Run(tmp_path / "run").status == "failed"
    assert_same(go_on(photos, tmp_path / "run"), whole)


def test_a_finished_run_is_left_alone(whole: Run):
    with pytest.raises(RecordError, match="is finished; there is nothing to resume"):
        resume(whole.folder, store=FeatureStore(whole.folder), reporter=Silent())


def half_done(photos: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_disk", DyingDisk(150))
    with pytest.raises(PowerCut):
        begin(photos, folder)
    monkeypatch.undo()


def test_other_photos_are_refused(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    copy = tmp_path / "photos"
    for path in photos.rglob("*.png"):
        target = copy / path.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    half_done(copy, tmp_path / "run", monkeypatch)
    (copy / "amber" / "00.png").rename(copy / "amber" / "99.png")
    with pytest.raises(DataError, match=r"amber/(00|99)\.png"):
        resume(tmp_path / "run", store=FeatureStore(tmp_path / "f"), reporter=Silent())


def test_another_split_of_the_same_photos_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    half_done(photos, tmp_path / "run", monkeypatch)
    path = tmp_path / "run" / "split.json"
    written = json.loads(path.read_text())
    moved = next(key for key in written["train"] if key not in written["minitrain"])
    written["train"].remove(moved)
    written["val"].append(moved)
    path.write_text(json.dumps(written))
    with pytest.raises(DataError, match=r"would be split another way now than when .*/run began"):
        resume(tmp_path / "run", store=FeatureStore(tmp_path / "f"), reporter=Silent())


def test_a_table_changed_since_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    table = tmp_path / "corrections.csv"
    table.write_text("path,action,value\namber/00.png,relabel,olive\n")
    monkeypatch.setattr(durable, "_disk", DyingDisk(150))
    store = FeatureStore(tmp_path / "features")
    recipe = load(photos, f"data.corrections={table}")
    with pytest.raises(PowerCut):
        train(recipe, tmp_path / "run", store=store, reporter=Silent(), checkpoint_seconds=0)
    monkeypatch.undo()
    table.write_text("path,action,value\namber/00.png,relabel,amber\n")
    with pytest.raises(DataError, match=r"Changed since .*/run began: .*/corrections\.csv\. Put"):
        resume(tmp_path / "run", store=store, reporter=Silent())


def test_a_damaged_checkpoint_is_told(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    half_done(photos, tmp_path / "run", monkeypatch)
    path = tmp_path / "run" / CHECKPOINT
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RecordError, match="is damaged: its checksum differs"):
        resume(tmp_path / "run", store=FeatureStore(tmp_path / "f"), reporter=Silent())


def test_no_run_at_all_is_told(tmp_path: Path):
    with pytest.raises(FieldmarkError, match="is no run"):
        resume(tmp_path, store=FeatureStore(tmp_path), reporter=Silent())

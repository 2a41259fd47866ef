"""Two real processes, started by torchrun, train what one alone trains.

Sums over parts round otherwise than the sum over the whole: 1e-7 in the first step, which later
steps enlarge where the network is steep. The one here is smooth, so that it stays less than
`TOLERANCE`.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fieldmark.shards import read_shard
from fieldmark.studies.run import Run

TOLERANCE = 1e-5  # of a loss or a length; weights move by about 1e-2 in these steps

RECIPE = """\
name: squares
data: {folder: photos, image_size: 32, resize_size: 36, mirror: true, cache: 0.01}
augment: {erase: 0.3, mixup: 1, cutmix: 1}
backbone: {name: test_resnet, weights: none}
pooling: {name: average}
head: {signed_sqrt: false, drop_rate: 0.3}
threads: 1
precision: float32
stages:
  - {name: head, train: head, lr: 1, length: 2 epochs, batch_size: 8}
  - {name: all, train: {"backbone.*": 0.1, "*": 1}, lr: 0.01, length: 20 steps, batch_size: 5,
     accumulate: 2, eval_every: 7 steps, class_weights: balanced, average: 0.9, clip_norm: 1}
"""
KILLED = """\
import os, signal
from pathlib import Path
from fieldmark.ledger import Silent
from fieldmark.recipe import load_recipe
from fieldmark.train import train
from fieldmark.training.features import FeatureStore, cache_folder

class Impatient(Silent):
    def progress(self, task, done, total, metrics):
        if task == "all" and done == 9:
            os.kill(os.getpid(), signal.SIGKILL)

recipe = load_recipe(Path("recipe.yaml"))
store = FeatureStore(cache_folder())
train(recipe, Path("killed"), store=store, reporter=Impatient(), checkpoint_seconds=0)
"""


def start(home: Path, *arguments: str, processes: int = 0) -> subprocess.CompletedProcess[str]:
    """Run Python in `home`, alone or in several processes, with a cache of their own."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [sys.executable, *(launcher if processes else []), *arguments],
        cwd=home,
        env=os.environ | {"FIELDMARK_CACHE": str(home / f"cache-{processes}")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, draw_squares) -> Path:
    home = tmp_path_factory.mktemp("processes")
    draw_squares(home / "photos", per_class=17)
    (home / "recipe.yaml").write_text(RECIPE)
    (home / "killed.py").write_text(KILLED)
    return home


@pytest.fixture(scope="module")
def two(home: Path) -> Run:
    train = ("-m", "fieldmark", "train", "recipe.yaml", "--open-test")
    done = start(home, *train, "--out", "two", processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Curves:") == 1
    assert done.stdout.count("stage all:") == 1
    return Run(home / "two")


@pytest.mark.slow
def test_two_processes_train_what_one_trains(home: Path, two: Run):
    done = start(home, "-m", "fieldmark", "train", "recipe.yaml", "--open-test", "--out", "one")
    assert done.returncode == 0, done.stderr
    one = Run(home / "one")
    assert (one.manifest["processes"], two.manifest["processes"]) == (1, 2)
    assert one.manifest["recipe_hash"] == two.manifest["recipe_hash"]
    assert one.keys == two.keys
    for key in ("train/loss", "train/grad_norm", "val/loss", "minitrain/loss"):
        (steps, alone), (_, shared) = one.series(key), two.series(key)
        # The head's steps are taken by each process for itself, on the same features.
        head = steps <= one.stages[0].last_step
        assert list(shared[head][:-1]) == list(alone[head][:-1]), key
        assert list(shared) == pytest.approx(list(alone), rel=TOLERANCE), key
    for split in ("minitrain", "val", "test"):
        ours, theirs = two.predictions(split), one.predictions(split)
        assert list(ours["path"]) == list(theirs["path"])
        shares = [np.stack(table["probabilities"].to_list()) for table in (ours, theirs)]
        np.testing.assert_allclose(*shares, atol=TOLERANCE)
    ours, theirs = load_file(two.weights_path), load_file(one.weights_path)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=TOLERANCE * 0.1)


@pytest.mark.slow
def test_features_are_computed_once_by_both_and_are_those_of_one(home: Path, two: Run):
    shards = sorted((home / "cache-2" / "features").glob("*/*.safetensors"))
    rows = dict(row for path in shards for row in zip(*read_shard(path), strict=True))
    assert len(shards) > 1
    assert sum(len(read_shard(path)[0]) for path in shards) == len(rows)
    for path in (home / "cache-0" / "features").glob("*/*.safetensors"):
        names, maps = read_shard(path)
        assert all(torch.equal(rows[name], one) for name, one in zip(names, maps, strict=True))


@pytest.mark.slow
def test_two_killed_processes_go_on_bit_for_bit(home: Path, two: Run):
    done = start(home, "killed.py", processes=2)
    assert done.returncode != 0
    assert Run(home / "killed").status == "running"
    resume = ("-m", "fieldmark", "train", "--resume", "killed", "--open-test")
    done = start(home, *resume, processes=2)
    assert done.returncode == 0, done.stderr
    killed = Run(home / "killed")
    assert "resumed at step" in (killed.folder / "log.txt").read_text()
    for key in ("train/loss", "val/loss", "test/loss"):
        assert list(killed.series(key)[1]) == list(two.series(key)[1]), key
    ours, theirs = load_file(killed.weights_path), load_file(two.weights_path)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.slow
def test_what_several_processes_can_not_do_is_told(home: Path, two: Run):
    moving = ("-m", "fieldmark", "train", "recipe.yaml", "stages.all.batch_norm=train")
    done = start(home, *moving, processes=2)
    assert done.returncode != 0
    said = " ".join(done.stderr.split())
    assert "Stage all has `batch_norm: train`, and each of 2 processes would measure" in said
    done = start(home, "-m", "fieldmark", "recipes", processes=2)
    assert "Only `train` runs in several processes" in " ".join(done.stderr.split())

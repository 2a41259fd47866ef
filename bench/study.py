"""What a study of frozen features costs, beside running its cells one by one.

Twelve cells (224, 336, 448 px x sketch 8192, 4096, 2048, 1024) with the built-in backbone; 64 heads
beside one of torch's; 45 weight decays beside scikit-learn's L-BFGS on the same features. Without
CUB photos, toy drawings are used, and no time is judged. All threads; wall time.

    python bench/study.py --cub CUB_200_2011
    python bench/study.py --json
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import cast

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from fieldmark.build import Task
from fieldmark.checked_yaml import check_text
from fieldmark.data.toy import write_toy
from fieldmark.frozen_rows import frozen_rows
from fieldmark.layers.backbone import frozen_copy
from fieldmark.ledger import Silent
from fieldmark.predict import frozen_maps
from fieldmark.recipe import Recipe
from fieldmark.studies.trial import Trial
from fieldmark.train import prepare
from fieldmark.training.exact import decay_path
from fieldmark.training.features import FeatureStore
from fieldmark.training.heads import FrozenFeatures, HeadSettings
from fieldmark.training.many_heads import train_heads
from fieldmark.trials import run_trials

SIZES, SKETCHES = (224, 336, 448), (8192, 4096, 2048, 1024)
EPOCHS, BATCH, HEADS, DECAYS = 60, 32, 64, 45
SLICE = 128  # photos that the cost of a cell run alone is measured on
MOST = {
    "grid, cold, s": 75,
    "grid, warm, s": 15,
    "64 heads, s": 15,
    "64 heads over one of torch's": 10,
    "decay path over scikit-learn": 0.5,
    "decay path, loss above scikit-learn's": 1e-4,
}
LEAST = {"cell by cell over grid, cold": 100}

RECIPE = """\
data: {folder: "%s", split: %s, image_size: %d}
pooling: {sketch_dim: %d}
stages: [{name: head, train: head, lr: 1, length: %d epochs, batch_size: %d, schedule: cosine}]
"""


def recipe(photos: Path, split: str, size: int, sketch: int) -> Recipe:
    text = RECIPE % (photos, split, size, sketch, EPOCHS, BATCH)
    return check_text(text, Recipe, name="bench")


def grid(photos: Path, split: str, folder: Path, store: FeatureStore) -> float:
    trials = [
        Trial(recipe(photos, split, size, sketch), folder / f"{size}-{sketch}")
        for size in SIZES
        for sketch in SKETCHES
    ]
    started = time.perf_counter()
    outcomes = list(run_trials(trials, store=store))
    seconds = time.perf_counter() - started
    assert all(outcome.status == "finished" for outcome in outcomes), outcomes
    return seconds


def cell_by_cell(photos: Path, split: str, store: FeatureStore) -> float:
    """Seconds of the grid if each cell's every epoch, and evaluation, went through the backbone."""
    seconds = 0.0
    for size in SIZES:
        task = prepare(recipe(photos, split, size, SKETCHES[0]), store, Silent())
        eyes = frozen_copy(task.model.backbone, task.dtype)
        shown = task.part("train")[:SLICE]
        for _ in range(2):  # the first warms up
            started = time.perf_counter()
            for _ in frozen_maps(eyes, task.eval_view, shown, range(len(shown)), task.dtype):
                pass
            each = (time.perf_counter() - started) / len(shown)
        seen = sum(len(task.part(split)) for split in ("train", "minitrain", "val"))
        seconds += len(SKETCHES) * EPOCHS * seen * each
    return seconds


def features(photos: Path, split: str, sketch: int, store: FeatureStore) -> tuple[Task, Tensor]:
    task = prepare(recipe(photos, split, SIZES[0], sketch), store, Silent())
    network = nn.Sequential(*task.model.chain()[1:-1])
    (rows,) = frozen_rows(task, store, task.part("train"), [network], lambda *_: None)
    return task, rows


def many_heads(task: Task, rows: Tensor) -> tuple[float, float]:
    """Seconds of 64 heads together, and of one in torch."""
    labels = torch.tensor([photo.label for photo in task.part("train")])
    classes, N = len(task.photos.class_names), len(rows)
    orders = [torch.randperm(N, generator=torch.Generator().manual_seed(e)) for e in range(EPOCHS)]
    steps = [samples for order in orders for samples in order.split(BATCH)]

    def factor(step: int) -> float:
        return (1 + math.cos(math.pi * step / len(steps))) / 2

    start = cast("nn.Linear", task.model.head[-1]).weight.detach().clone()
    rates, decays = np.logspace(-2, 1, 8), [0, *np.logspace(-6, -2, 7)]
    settings = [
        HeadSettings(start, torch.zeros(classes), lr, lr, 0.9, weight_decay=decay, factor=factor)
        for lr in rates
        for decay in decays
    ]
    assert len(settings) == HEADS
    begun = time.perf_counter()
    train_heads([(FrozenFeatures(rows), settings)], torch.arange(N), labels, steps, lambda *_: None)
    together = time.perf_counter() - begun
    linear = nn.Linear(rows.shape[1], classes)
    optimizer = torch.optim.SGD(linear.parameters(), lr=1, momentum=0.9, fused=True)
    begun = time.perf_counter()
    for number, samples in enumerate(steps):
        optimizer.param_groups[0]["lr"] = factor(number)
        optimizer.zero_grad()
        F.cross_entropy(linear(rows[samples]), labels[samples]).backward()
        optimizer.step()
    return together, time.perf_counter() - begun


def decays(task: Task, rows: Tensor) -> tuple[float, float, float]:
    """Seconds of a path of decays, of scikit-learn's, and by how much its loss is lower at most."""
    labels = torch.tensor([photo.label for photo in task.part("train")])
    classes, values = len(task.photos.class_names), np.logspace(-6, -2, DECAYS)
    begun = time.perf_counter()
    ours = decay_path(rows, labels, values.tolist(), classes=classes)
    seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    peers = [
        LogisticRegression(C=1 / (value * len(rows)), max_iter=1000).fit(rows, labels)
        for value in values
    ]
    of_peer = time.perf_counter() - begun

    def loss(weight: Tensor, bias: Tensor, decay: float) -> float:
        logits = rows.double() @ weight.double().T + bias.double()
        decayed = decay / 2 * weight.double().square().sum()
        return float(F.cross_entropy(logits, labels) + decayed)

    above = max(
        loss(head.weight, head.bias, head.decay)
        - loss(torch.from_numpy(peer.coef_), torch.from_numpy(peer.intercept_), head.decay)
        for head, peer in zip(ours, peers, strict=True)
    )
    return seconds, of_peer, above


def measure(photos: Path, split: str, folder: Path) -> dict[str, float]:
    store = FeatureStore(folder / "features")
    figures = {
        "grid, cold, s": grid(photos, split, folder / "cold", store),
        "grid, warm, s": grid(photos, split, folder / "warm", store),
    }
    alone = cell_by_cell(photos, split, store)
    figures["cell by cell, s"] = alone
    figures["cell by cell over grid, cold"] = alone / figures["grid, cold, s"]
    figures["cell by cell over grid, warm"] = alone / figures["grid, warm, s"]
    together, one = many_heads(*features(photos, split, 8192, store))
    figures |= {
        "64 heads, s": together,
        "one of torch's, s": one,
        "64 heads over one of torch's": together / one,
    }
    ours, peer, above = decays(*features(photos, split, 1024, store))
    return figures | {
        "decay path, s": ours,
        "scikit-learn, s": peer,
        "decay path over scikit-learn": ours / peer,
        "decay path, loss above scikit-learn's": above,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cub", type=Path, default=os.environ.get("FIELDMARK_CUB"))
    parser.add_argument("--json", action="store_true", help="print one JSON object as well")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    with tempfile.TemporaryDirectory() as folder:
        photos = options.cub or Path(folder) / "toy"
        if not options.cub:
            write_toy(photos)
        figures = measure(photos, "official" if options.cub else "fractions", Path(folder))
    judged = options.cub is not None
    missed = [n for n, most in MOST.items() if judged and figures[n] > most]
    missed += [n for n, least in LEAST.items() if judged and figures[n] < least]
    for name, value in figures.items():
        bound = f"<= {MOST[name]:g}" if name in MOST else ""
        bound = f">= {LEAST[name]:g}" if name in LEAST else bound
        print(f"{name:40} {value:10.4g} {bound:9} {'MISSED' if name in missed else ''}")
    if not judged:
        print("\nToy drawings: nothing is judged.")
    if options.json:
        targets = {"most": MOST, "least": LEAST}
        print(json.dumps({"figures": figures, "targets": targets, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

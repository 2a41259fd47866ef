"""Does the range test's band hold a good rate where a stage trains the backbone?

Toy drawings at 112 px, EfficientNet-Lite0, four settings (two poolings, two optimisers). The head
is trained for 100 steps, as a rehearsal does; then all layers for 3 epochs, at each rate of a
ladder of half decades, judged by val top-1 over two seeds. A rate counts as good if it lies within
two standard errors of the highest. What is printed is logged; runs and curves are kept in a folder.

    python bench/backbone_rates.py --out FOLDER
    python bench/backbone_rates.py --out FOLDER --json
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

from diagnosis import bank_folder
from fieldmark.checked_yaml import check_text
from fieldmark.data.toy import write_toy
from fieldmark.errors import TrainingError
from fieldmark.ledger import Silent
from fieldmark.rates_tried import Losses, read_stage, try_rates
from fieldmark.recipe import Recipe
from fieldmark.studies.run import MANIFEST, Run
from fieldmark.throwaway import SHORT, Throwaway
from fieldmark.train import prepare, train
from fieldmark.training.features import FeatureStore, cache_folder
from parts.bands import LEAST, band_shares
from parts.outcome import conclude

SEEDS, TESTS = 2, 3
RECIPE = """\
data: {folder: "%s", image_size: 112, mirror: true, val_fraction: 0.4, test_fraction: 0.05}
pooling: %s
seed: %d
threads: 1
stages:
  - {name: head, train: head, lr: 1, length: %d steps, batch_size: 32}
  - name: all
    train: {"backbone.*": 0.1, "*": 1}
    optimizer: %s
    lr: %g
    length: 3 epochs
    batch_size: 16
    schedule: {name: cosine, warmup: 20 %%}
"""
SKETCH, AVERAGE = "{sketch_dim: 1024}", "{name: average}"
LADDERS = {
    (SKETCH, "sgd"): np.geomspace(2e-4, 2, 9),
    (AVERAGE, "sgd"): np.geomspace(2e-4, 2, 9),
    (SKETCH, "adamw"): np.geomspace(1e-4, 1, 9),
    (AVERAGE, "adamw"): np.geomspace(1e-4, 1, 9),
}


def recipe_of(photos, pooling, optimizer, lr, seed):
    return check_text(RECIPE % (photos, pooling, seed, SHORT, optimizer, lr), Recipe)


def rates_of(recipe, store, kept):
    """What a rehearsal finds of the last stage's rates; the losses are kept."""
    if not kept.is_file():
        task = prepare(recipe, store, Silent())
        losses = [
            try_rates(Throwaway(task, store, seed, Silent()), 1, Silent()) for seed in range(TESTS)
        ]
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(losses))
    repeats = [Losses(*repeat) for repeat in json.loads(kept.read_text())]
    return read_stage(recipe, 1, range(TESTS), repeats)


def top1(recipe, folder, store):
    """Val top-1 at the end of a run, which is kept; 0 where it diverged."""
    if not (folder / MANIFEST).is_file() or Run(folder).status == "running":
        shutil.rmtree(folder, ignore_errors=True)  # what an interruption left
        try:
            train(recipe, folder, store=store, reporter=Silent())
        except TrainingError:
            return 0.0
    run = Run(folder)
    values = run.series("val/top1")[1]
    return float(values[-1]) if run.status == "finished" else 0.0


def one_setting(photos, pooling, optimizer, store, folder):
    ladder = [float(f"{rate:.2g}") for rate in LADDERS[pooling, optimizer]]
    middle = recipe_of(photos, pooling, optimizer, ladder[len(ladder) // 2], 0)
    found = rates_of(middle, store, folder / "rates.json")
    count = len(prepare(middle, store, Silent()).part("val"))
    top = {
        rate: [
            top1(
                recipe_of(photos, pooling, optimizer, rate, seed), folder / f"{rate}-{seed}", store
            )
            for seed in range(SEEDS)
        ]
        for rate in ladder
    }
    return judged(found, {rate: float(np.mean(each)) for rate, each in top.items()}, count)


def judged(found, top, photos):
    """What the band says, beside what the ladder does."""
    best = max(top, key=top.get)
    enough = top[best] - 2 * (top[best] * (1 - top[best]) / photos) ** 0.5
    good = [rate for rate, value in top.items() if value >= enough]
    row = {
        "band": found["band"],
        "reason": found["reason"],
        "best": best,
        "good": good,
        "ladder": top,
    }
    if found["band"]:
        low, high = found["band"]
        row["holds a good rate"] = any(low <= rate <= high for rate in good)
        row["holds the very best"] = low <= best <= high
        row["upper end within the good ones"] = min(good) <= high <= max(good)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kept = bank_folder() / "backbone-rates"
    parser.add_argument("--out", type=Path, default=kept, help="where runs are kept")
    parser.add_argument("--only", type=int, help="number of the one setting, from 0")
    parser.add_argument("--json", action="store_true", help="print one JSON object as well")
    given = parser.parse_args()
    store, rows = FeatureStore(cache_folder()), {}
    photos = write_toy(given.out / "photos", size=128)
    for number, (pooling, optimizer) in enumerate(LADDERS):
        if given.only in (None, number):
            name = f"{pooling.strip('{}')}, {optimizer}"
            rows[name] = one_setting(photos, pooling, optimizer, store, given.out / str(number))
            print(f"{name}: {rows[name]}", flush=True)
    figures = band_shares(list(rows.values()))
    return conclude(figures, least=LEAST, as_json=given.json, settings=rows)


if __name__ == "__main__":
    raise SystemExit(main())

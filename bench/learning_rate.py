"""Does the band of the learning-rate range test hold the rate that is best in an actual ladder?

Frozen EfficientNet-Lite0 at 224 px, nine settings of a head (three poolings, three batch sizes).
Each is trained at eleven rates (0.01 to 1000, 20 epochs, cosine) and at both ends of its band, all
judged by 5-fold out-of-fold top-1. A rate counts as best if it lies within two standard errors of
the highest. Without CUB photos, toy drawings are used. No target: what is printed is logged.

    python bench/learning_rate.py --cub CUB_200_2011
    python bench/learning_rate.py --json
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np

from fieldmark.checked_yaml import check_text
from fieldmark.data.toy import write_toy
from fieldmark.ledger import Silent
from fieldmark.rates_tried import read_stage, try_rates
from fieldmark.recipe import Recipe
from fieldmark.studies.trial import OUT_OF_FOLD, Trial
from fieldmark.throwaway import Throwaway
from fieldmark.train import prepare
from fieldmark.training.features import FeatureStore, cache_folder
from fieldmark.training.lr_range import BELOW_MINIMUM
from fieldmark.trials import run_trials
from parts.bands import LEAST, band_shares
from parts.outcome import conclude

POOLINGS = ("{name: average}", "{sketch_dim: 1024}", "{sketch_dim: 8192}")
BATCHES, SEEDS, FOLDS = (16, 32, 128), 3, 5
LADDER = tuple(float(f"{rate:.4g}") for rate in np.geomspace(1e-2, 1e3, 11))

RECIPE = """\
data: {folder: "%s", split: %s, image_size: 224}
pooling: %s
threads: %d
stages: [{name: head, train: head, lr: 1, length: 20 epochs, batch_size: %d, schedule: cosine}]
"""


def range_test(recipe, store):
    """What the range test says, and how many photos a ladder is judged by."""
    task = prepare(recipe, store, Silent())
    repeats = [
        try_rates(Throwaway(task, store, seed, Silent()), 0, Silent()) for seed in range(SEEDS)
    ]
    found = read_stage(recipe, 0, range(SEEDS), repeats)
    return found, len(task.part("train")) + len(task.part("val"))


def ladder(recipe, rates, store, folder):
    """Out-of-fold top-1 of each rate; 0 where it diverged."""
    trials = [
        Trial(with_lr(recipe, rate), folder / str(number), FOLDS)
        for number, rate in enumerate(rates)
    ]
    outcomes = run_trials(trials, store=store)
    found = {int(outcome.folder.name): outcome.metrics for outcome in outcomes}
    return [found[number].get(f"{OUT_OF_FOLD}/top1", 0.0) for number in range(len(rates))]


def with_lr(recipe, rate):
    stage = recipe.stages[0].model_copy(update={"lr": rate})
    return recipe.model_copy(update={"stages": (stage,)})


def one_setting(recipe, store, folder):
    found, photos = range_test(recipe, store)
    ends = list(found["band"] or ())
    rates = [*LADDER, *ends]
    top = ladder(recipe, rates, store, folder)
    best = max(top[: len(LADDER)])
    enough = best - 2 * (best * (1 - best) / photos) ** 0.5
    row = {
        "band": found["band"],
        "reason": found["reason"],
        "lowest": found["lowest"],
        "best": LADDER[int(np.argmax(top[: len(LADDER)]))],
        "top1": best,
        "good": [rate for rate, value in zip(rates, top, strict=True) if value >= enough],
        "ladder": dict(zip(map(str, rates), top, strict=True)),
    }
    if found["band"]:
        low, high = found["band"]
        row["holds a good rate"] = any(low <= rate <= high for rate in row["good"])
        row["upper end is good"] = high in row["good"]
        row["lower end is good"] = low in row["good"]
        row["holds the very best"] = low <= row["best"] <= high
        lowest = high * BELOW_MINIMUM
        row["up to the lowest loss holds the very best"] = low <= row["best"] <= lowest
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cub", type=Path, default=os.environ.get("FIELDMARK_CUB") or None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON object as well")
    given = parser.parse_args()
    store, rows = FeatureStore(cache_folder()), {}
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        if not given.cub:
            write_toy(place / "toy")
        photos, split = (given.cub, "official") if given.cub else (place / "toy", "fractions")
        for pooling in POOLINGS:
            for batch in BATCHES:
                text = RECIPE % (photos, split, pooling, given.threads, batch)
                name = f"{pooling.strip('{}')}, batch {batch}"
                folder = place / str(len(rows))
                rows[name] = row = one_setting(check_text(text, Recipe), store, folder)
                told = {k: v for k, v in row.items() if k not in {"ladder", "lowest"}}
                print(f"{name}: {told}", flush=True)
    figures = band_shares(list(rows.values()))
    return conclude(figures, least=LEAST, as_json=given.json, settings=rows)


if __name__ == "__main__":
    raise SystemExit(main())

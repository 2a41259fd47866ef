"""Whether the interval that `fieldmark study plan` gives for the time holds the truth.

Small studies of toy drawings, drawn by chance: photo sizes, sketches, rates, batch sizes, lengths,
optimisers, photos kept resized, fractions of them; heads alone or all layers; cold or with features
at hand. Each is planned and then run in this process, one after the other. On a machine that others
use too, `--cpu` compares seconds of processor time instead; pin it to one core then.

    python bench/interval.py --studies 24
    python bench/interval.py --cpu --json
"""

import argparse
import os
import random
import sys
import tempfile
from math import exp, log
from pathlib import Path
from statistics import median

from scipy.stats import beta

from forecast import plan, run
from parts.outcome import conclude

PROMISED = 0.95  # of the times lie inside; missed where chance can not explain that fewer do

BASE = """\
data: {folder: "%s", image_size: %d, resize_size: %d, cache: %g}
pooling: {name: compact_bilinear, sketch_dim: %d}
stages:
  - {name: head, train: head, lr: 1, length: %d epochs, batch_size: %d, optimizer: %s}
  - {name: all, train: {"backbone.*": 0.1, "*": 1}, lr: 0.02, length: 2 epochs, batch_size: 16}
"""
STUDY = """\
name: drawn
question: How long?
base: "%s"
seeds: %d
axes:
  - %s
"""
AXES = (
    "{key: stages.head.lr, values: [0.3, 1, 3]}",
    "{key: stages.head.weight_decay, values: [0, 1e-4]}",
    "{key: pooling.sketch_dim, values: [512, 1024, 2048]}",
    "{key: data.image_size, values: [64, 96]}",
    "{key: data.train_fraction, values: [0.5, 1]}",
    "{key: stages.head.batch_size, values: [8, 32]}",
)


def draw(chance: random.Random, toy: Path, folder: Path) -> Path:
    """A study's file; it may be of heads alone or of all layers."""
    size = chance.choice((64, 96, 128))
    base = BASE % (
        toy,
        size,
        size * 8 // 7 + 64,  # room for the sizes of the axis
        chance.choice((0, 1)),
        chance.choice((512, 2048, 8192)),
        chance.choice((10, 30, 60)),
        chance.choice((8, 32)),
        chance.choice(("sgd", "sgd", "sgd", "adam")),
    )
    (folder / "base.yaml").write_text(base)
    head = "" if chance.random() < 0.25 else "@head"
    text = STUDY % (f"{folder / 'base.yaml'}{head}", chance.choice((1, 2)), chance.choice(AXES))
    (folder / "study.yaml").write_text(text)
    return folder / "study.yaml"


def measure(studies: int, seed: int, folder: Path, *, cpu: bool) -> list[dict[str, float]]:
    from fieldmark.data.toy import write_toy

    toy, found = folder / "toy", []
    write_toy(toy, per_class=20)
    print(f"{'foretold':>9} {'interval':>14} {'true':>8}", flush=True)
    for number in range(studies):
        chance = random.Random(f"{seed} {number}")
        home = folder / str(number)
        home.mkdir()
        study = draw(chance, toy, home)
        kept = folder / "cache" if number % 3 else home / "cache"  # every third is cold
        os.environ["FIELDMARK_CACHE"] = str(kept)
        told = plan(study, home / "out", cpu=cpu)
        true = run(study, home / "out", cpu=cpu)
        row = {
            "told": float(told["seconds"]),
            "low": float(told["seconds_low"]),
            "high": float(told["seconds_high"]),
            "true": float(true["seconds"]),
        }
        found.append(row)
        sign = "" if row["low"] <= row["true"] <= row["high"] else "OUTSIDE"
        between = f"{row['low']:6.1f} {row['high']:6.1f}"
        print(f"{row['told']:9.1f} {between:>14} {row['true']:8.1f} {sign}", flush=True)
        if sign:
            parts = {name: round(seconds, 1) for name, seconds in told["parts"].items()}
            print(f"{study.read_text()}{(home / 'base.yaml').read_text()}{parts}", file=sys.stderr)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpu", action="store_true", help="compare processor time")
    parser.add_argument("--json", action="store_true", help="print one JSON object as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.studies, options.seed, Path(folder), cpu=options.cpu)
    inside, count = sum(row["low"] <= row["true"] <= row["high"] for row in found), len(found)
    least, most = (
        float(beta.ppf(q, a, count + 1 - a)) if 0 < a <= count else q > 0.5
        for q, a in ((0.025, inside), (0.975, inside + 1))
    )
    logs = [log(row["told"] / row["true"]) for row in found]
    off = exp(median(abs(value) for value in logs))
    print(f"half of them are off by less than {off:.2f} times; {sum(logs) / count:+.0%} on average")
    covered = "true times inside, upper end of the share's interval"
    return conclude(
        {"true times inside, share": inside / count, covered: most},
        least={covered: PROMISED},
        as_json=options.json,
        studies=found,
        interval=[least, most],
    )


if __name__ == "__main__":
    sys.exit(main())

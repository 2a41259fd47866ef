"""How large a page is and how long it takes: that of a run, and the overview of 1,000 runs.

The runs are written here, 60 epochs each as a toy training records them. Built with torch never
loaded, as a reader would have it.

    python bench/report.py --json
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fieldmark.report.assets import asset
from fieldmark.report.content import folder_page, run_page
from fieldmark.report.render import render
from fieldmark.studies.run import Run, RunWriter
from parts.outcome import conclude

RUNS, EPOCHS, PHOTOS, CLASSES = 1000, 60, 300, 50
PARTS = ("gathered", "rendered")
MOST_SECONDS, MOST_MEGABYTES = 5, 3  # CPU, of the overview; of a page
NAMES = [f"class {n:03}" for n in range(CLASSES)]


def write_run(folder: Path, seed: int) -> None:
    lots = np.random.default_rng(seed)
    manifest = {
        "class_names": NAMES,
        "notes": [],
        "skipped": {},
        "counts": {"train": 1200, "minitrain": 300, "val": PHOTOS, "test": 300},
        "view": {"image_size": 224, "resize_size": 256},
        "stages": [{"name": "head", "seconds_preparing": 1.0, "seconds_training": 9.0}],
    }
    recipe = (
        "data: {folder: photos}\nstages:\n  - {name: head, train: head, lr: 1, length: 1 epoch}\n"
    )
    labels = np.arange(PHOTOS) % CLASSES
    with RunWriter.create(folder, recipe, manifest) as writer:
        for epoch in range(EPOCHS):
            for step in range(10):
                seen = {"train/loss": 3 / (1 + epoch + step / 10), "train/lr": 1.0}
                writer.record(seen, step=10 * epoch + step, stage="head", epoch=epoch + step / 10)
            shown = 1 - 0.9 / (1 + epoch / 8) + lots.normal(0, 0.01)
            found = {"val/top1": min(1.0, max(0.0, shown)), "val/loss": 3 / (1 + epoch)}
            found |= {"minitrain/top1": 1.0, "minitrain/loss": 2 / (1 + epoch)}
            writer.record(found, step=10 * epoch + 9, stage="head", epoch=epoch + 1.0)
        shares = lots.dirichlet(np.full(CLASSES, 0.1), PHOTOS)
        writer.predictions("val", [f"{n}.jpg" for n in range(PHOTOS)], labels, shares)
        writer.finish()


@contextmanager
def timed(what: str, figures: dict[str, float]) -> Iterator[None]:
    """Adds up CPU seconds, which another's load leaves alone; prints those on the clock too."""
    started = time.process_time(), time.perf_counter()
    yield
    cpu, clock = time.process_time() - started[0], time.perf_counter() - started[1]
    print(f"{what:<50}{cpu:6.2f} s CPU {clock:6.2f} s")
    figures[f"{what}, s"] = cpu


def measure() -> dict[str, float]:
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["FIELDMARK_CACHE"] = str(folder / "cache")
        write_run(folder / "runs" / "0000", 0)
        source = folder / "runs" / "0000"
        for number in range(1, RUNS):  # the same records: what is timed is reading them
            copy = folder / "runs" / f"{number:04}"
            copy.mkdir()
            for name in ("manifest.json", "metrics.jsonl", "recipe.yaml"):
                (copy / name).write_bytes((source / name).read_bytes())
        with timed("the charts' script", figures):
            asset("vega.js")
        for what, make in (
            ("overview", lambda: folder_page(folder)),
            ("page of a run", lambda: run_page(Run(source))),
        ):
            for attempt in ("first time", "again"):
                with timed(f"{what}, gathered, {attempt}", figures):
                    page = make()
                with timed(f"{what}, rendered, {attempt}", figures):
                    text = render(page)
            figures[f"{what}, MB"] = len(text.encode()) / 1e6
    return figures | {"torch is loaded": float("torch" in sys.modules)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object as well")
    options = parser.parse_args()
    figures = measure()
    whole = f"overview of {RUNS} runs, first time, s"
    figures[whole] = sum(figures[f"overview, {part}, first time, s"] for part in PARTS)
    most = {whole: MOST_SECONDS, "page of a run, MB": MOST_MEGABYTES, "torch is loaded": 0}
    return conclude(figures, most=most, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())

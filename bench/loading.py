"""Decoding, squashing and batching of photos, beside Pillow on the same photos in the same run.

Photos per core-second are photos per second of CPU time, all threads counted; each figure is the
best of several rounds, and the two ways take turns. Without CUB photos, toy drawings are loaded.

    python bench/loading.py
    python bench/loading.py --folder CUB_200_2011 --json
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fieldmark.data.dataset import Photo
from fieldmark.data.loader import batches, load_batches
from fieldmark.data.sources import read_photos
from fieldmark.data.toy import write_toy
from fieldmark.data.transform import View

SIZES = (224, 336, 448)
PHOTOS = 300
ROUNDS = 5
LEAST_PER_CORE_SECOND = 1500  # decode + squash at 224 px, CUB-sized JPEGs
MOST_DIFFERENCE = 0.1  # grey levels, mean over pixels, to Pillow's bilinear filter


def ours(photo: Photo, size: int) -> np.ndarray:
    return View(size, size, crop="centre").load(photo.path).permute(1, 2, 0).numpy()


def pillow(photo: Photo, size: int) -> np.ndarray:
    with Image.open(photo.path) as image:
        square = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(square)


def speeds(ways: Sequence[Callable[[Photo, int], np.ndarray]], photos: Sequence[Photo], size: int):
    best = [float("inf")] * len(ways)
    for _ in range(ROUNDS):
        for i, way in enumerate(ways):
            start = time.process_time()
            for photo in photos:
                way(photo, size)
            best[i] = min(best[i], time.process_time() - start)
    return [len(photos) / seconds for seconds in best]


def difference(photos: Sequence[Photo], size: int) -> float:
    pairs = ((ours(photo, size), pillow(photo, size)) for photo in photos)
    return float(np.mean([np.abs(a.astype(np.int16) - b).mean() for a, b in pairs]))


def loading(photos: Sequence[Photo], workers: int) -> tuple[float, float]:
    """Photos per second and per core-second of whole batches as a training asks for them."""
    view, cut = View(224, 256, mirror=True), batches(range(len(photos)), 32)
    rates = []
    for epoch in range(ROUNDS):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in load_batches(photos, view, cut, seed=0, epoch=epoch, workers=workers):
            pass
        cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
        rates.append((len(photos) / wall_s, len(photos) / cpu_s))
    return max(rates)


def measure(photos: Sequence[Photo]) -> dict[str, float]:
    figures: dict[str, float] = {}
    print(f"{'size':>6} {'ours':>8} {'Pillow':>8} {'ratio':>6} {'difference':>11}")
    for size in SIZES:
        mine, theirs = speeds((ours, pillow), photos, size)
        gap = difference(photos, size)
        print(f"{size:>6} {mine:>8.0f} {theirs:>8.0f} {mine / theirs:>6.2f} {gap:>11.3f}")
        figures |= {f"ours_{size}": mine, f"pillow_{size}": theirs}
        figures |= {f"ratio_{size}": mine / theirs, f"difference_{size}": gap}
    print(f"\n{'threads':>7} {'per second':>11} {'per core-s':>11}   (view 224 of 256, mirrored)")
    for workers in (0, 1, 2):
        wall, cpu = loading(photos, workers)
        print(f"{workers:>7} {wall:>11.0f} {cpu:>11.0f}")
        figures |= {f"loader_{workers}_per_s": wall, f"loader_{workers}_per_core_s": cpu}
    return figures


def default_folder() -> Path | None:
    above = Path(__file__).resolve().parents[1:3]
    return next((f for top in above if (f := top / "shared/data/cub50").is_dir()), None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=default_folder(), help="photos to load")
    parser.add_argument("--json", action="store_true", help="print one JSON object as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder
        if folder is None:
            folder = Path(scratch) / "toy"
            write_toy(folder, per_class=30, size=480)
        photos = read_photos(folder).photos
        chosen = photos[:: max(1, len(photos) // PHOTOS)][:PHOTOS]
        print(f"{len(chosen)} photos of {folder.name}, photos per core-second\n")
        figures = measure(chosen)

    targets = {"ours_224": LEAST_PER_CORE_SECOND, "difference_224": MOST_DIFFERENCE}
    missed = [
        name
        for name, bound in targets.items()
        if (figures[name] > bound if name.startswith("difference") else figures[name] < bound)
    ]
    print(
        f"\ntargets: at 224 px >= {LEAST_PER_CORE_SECOND} and difference <= {MOST_DIFFERENCE}: ",
        end="",
    )
    print(f"missed {', '.join(missed)}" if missed else "met")
    if options.json:
        print(json.dumps({"figures": figures, "targets": targets, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

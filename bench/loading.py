"""Checking, decoding, squashing and batching of photos, beside Pillow on the same photos.

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

from fieldmark import machine
from fieldmark.data.audit import check_photos
from fieldmark.data.cache import resized_photos
from fieldmark.data.dataset import Photo, content_hash
from fieldmark.data.decoding import decode
from fieldmark.data.loader import batches, load_batches
from fieldmark.data.sources import read_photos
from fieldmark.data.toy import write_toy
from fieldmark.data.transform import View

SIZES = (224, 336, 448)
PHOTOS = 300
ROUNDS = 5
LEAST_PER_CORE_SECOND = 1500  # decode + squash at 224 px, CUB-sized JPEGs
MOST_DIFFERENCE = 0.1  # grey levels, mean over pixels, to Pillow's bilinear filter
LARGE, LARGE_PHOTOS, GRAIN = (4000, 3000), 10, 2.5  # grain in grey levels, for about 2 MB a photo
LEAST_LARGE_PER_CORE_SECOND = 45  # likewise, of 12 megapixels
MOST_LARGE_DIFFERENCE = 0.5  # they are decoded at a fraction of their size
LEAST_CACHED_PER_CORE_SECOND = 53_000  # copied from the cache, 448 x 448, in random order


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


def enlarged(photos: Sequence[Photo], folder: Path) -> list[Photo]:
    """12-megapixel JPEGs made of smaller ones, with a camera's grain."""
    rng = np.random.default_rng(0)
    made = []
    for photo in photos[:: max(1, len(photos) // LARGE_PHOTOS)][:LARGE_PHOTOS]:
        with Image.open(photo.path) as image:
            large = np.asarray(image.convert("RGB").resize(LARGE, Image.Resampling.BICUBIC))
        grain = rng.normal(0, GRAIN, (*large.shape[:2], 1)).astype(np.float32)
        path = folder / f"{len(made)}.jpg"
        Image.fromarray(np.clip(large + grain, 0, 255).astype(np.uint8)).save(path, quality=90)
        made.append(Photo(path, photo.label, path.name))
    return made


def torchvision_whole(photo: Photo, size: int) -> np.ndarray:
    view = View(size, size, crop="centre")
    return view.apply(decode(photo.path)).permute(1, 2, 0).numpy()


def loading(photos: Sequence[Photo], workers: int, view: View, **options) -> tuple[float, float]:
    """Photos per second and per core-second of whole batches as a training asks for them."""
    cut = batches(range(len(photos)), 32)
    rates = []
    for epoch in range(ROUNDS):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in load_batches(photos, view, cut, seed=0, epoch=epoch, workers=workers, **options):
            pass
        cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
        rates.append((len(photos) / wall_s, len(photos) / cpu_s))
    return max(rates)


def checking(photos: Sequence[Photo], scratch: Path) -> float:
    """Milliseconds of a core for each photo that is checked for the first time."""
    best = float("inf")
    for number in range(ROUNDS):
        start = time.process_time()
        check_photos(photos, scratch / f"checked-{number}.json")
        best = min(best, time.process_time() - start)
    return 1000 * best / len(photos)


def copying(resized: Sequence[np.ndarray]) -> float:
    """Photos per core-second out of the cache, each copied once a round, in random order."""
    order = np.random.default_rng(0).permutation(len(resized))
    target, best = np.empty_like(resized[0]), float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for i in order:
            np.copyto(target, resized[i])
        best = min(best, time.process_time() - start)
    return len(resized) / best


def cached(photos: Sequence[Photo], scratch: Path) -> dict[str, float]:
    """The cache of resized photos: bare copies, and batches of crops beside decoding."""
    ids = [content_hash(photo.path) for photo in photos]
    figures: dict[str, float] = {}
    for size in (224, 448):
        view = View(size, size if size == 448 else 256, mirror=True)
        resized = resized_photos(scratch / "cache", view, photos, ids, most_bytes=1 << 30)
        bare = copying([resized[photo.key] for photo in photos])
        _, crops = loading(photos, 0, view, resized=resized)
        _, decoded = loading(photos, 0, view)
        print(f"{view.resize_size:>7} {bare:>11.0f} {crops:>11.0f} {decoded:>11.0f}")
        figures |= {f"cache_copy_{view.resize_size}": bare, f"cache_crops_{size}": crops}
    return figures


def compare(photos: Sequence[Photo], name: str = "") -> dict[str, float]:
    """Ours beside Pillow and beside torchvision on every pixel, at each size."""
    figures: dict[str, float] = {}
    for size in SIZES:
        ways = (ours, pillow, torchvision_whole)
        mine, theirs, whole = speeds(ways, photos, size)
        gap = difference(photos, size)
        print(
            f"{name or 'as they are':>12} {size:>5} {mine:>8.0f} {theirs:>8.0f} {whole:>12.0f} "
            f"{mine / theirs:>6.2f} {gap:>11.3f}"
        )
        end = f"{name}_{size}" if name else str(size)
        figures |= {f"ours_{end}": mine, f"pillow_{end}": theirs, f"torchvision_{end}": whole}
        figures |= {f"ratio_{end}": mine / theirs, f"difference_{end}": gap}
    return figures


def measure(photos: Sequence[Photo], large: Sequence[Photo], scratch: Path) -> dict[str, float]:
    titles = f"{'ours':>8} {'Pillow':>8} {'torchvision':>12} {'ratio':>6} {'difference':>11}"
    print(f"{'photos':>12} {'size':>5} {titles}")
    figures = compare(photos) | compare(large, "12_mp")
    print(f"\n{'threads':>7} {'per second':>11} {'per core-s':>11}   (view 224 of 256, mirrored)")
    for workers in (0, 1, 2):
        wall, cpu = loading(photos, workers, View(224, 256, mirror=True))
        print(f"{workers:>7} {wall:>11.0f} {cpu:>11.0f}")
        figures |= {f"loader_{workers}_per_s": wall, f"loader_{workers}_per_core_s": cpu}
    print(f"\n{'cached':>7} {'copies':>11} {'crops':>11} {'decoded':>11}   (per core-s, no thread)")
    figures |= cached(photos, scratch)
    figures["check_ms"] = checking(photos, scratch)
    print(f"\nfirst check of a file: {figures['check_ms']:.2f} ms of a core")
    return figures


def default_folder() -> Path | None:
    above = Path(__file__).resolve().parents[1:3]
    return next((f for top in above if (f := top / "shared/data/cub50").is_dir()), None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=default_folder(), help="photos to load")
    parser.add_argument("--json", action="store_true", help="print one JSON object as well")
    options = parser.parse_args()
    machine.tune_allocator()  # as every training does
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder
        if folder is None:
            folder = Path(scratch) / "toy"
            write_toy(folder, per_class=30, size=480)
        photos = read_photos(folder).photos
        chosen = photos[:: max(1, len(photos) // PHOTOS)][:PHOTOS]
        print(f"{len(chosen)} photos of {folder.name}, photos per core-second\n")
        large = enlarged(chosen, Path(scratch))
        figures = measure(chosen, large, Path(scratch))

    targets = {
        "ours_224": LEAST_PER_CORE_SECOND,
        "difference_224": MOST_DIFFERENCE,
        "ours_12_mp_224": LEAST_LARGE_PER_CORE_SECOND,
        "difference_12_mp_224": MOST_LARGE_DIFFERENCE,
        "cache_copy_448": LEAST_CACHED_PER_CORE_SECOND,
    }
    missed = [
        name
        for name, bound in targets.items()
        if (figures[name] > bound if name.startswith("difference") else figures[name] < bound)
    ]
    bounds = [
        f"{name} {'<=' if name.startswith('difference') else '>='} {bound:g}"
        for name, bound in targets.items()
    ]
    print(f"\ntargets: {', '.join(bounds)}: ", end="")
    print(f"missed {', '.join(missed)}" if missed else "met")
    if options.json:
        print(json.dumps({"figures": figures, "targets": targets, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

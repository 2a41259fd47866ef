"""Photos a frozen backbone turns into feature maps per second of one thread, and how exactly.

A row adds one step to the row above it, up to what `frozen_copy` gives. Seconds are CPU time of
the thread (wall time with all threads), the best of several rounds in which the ways take turns.

    python bench/backbone.py
    python bench/backbone.py --cub CUB_200_2011 --vgg vgg16_features_fp16.safetensors --json
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from fieldmark import machine
from fieldmark.data.sources import read_photos
from fieldmark.data.transform import View
from fieldmark.layers.backbone import Backbone, frozen_copy, make_backbone

LITE0 = "tf_efficientnet_lite0"
ROUNDS = 3
SIZES = (224, 336, 448)
LEAST_PER_THREAD = 95  # Lite0 at 224 px, where the CPU has bfloat16
MOST_LOST = 0.01  # of the accuracy of nearest class means, for bfloat16 in place of float32
LEAST_AGREEMENT = 0.97  # photos that both put in the same class
PHOTOS = 1000

Way = Callable[[Tensor], Tensor]
RGB = tuple[float, float, float]


def ways(backbone: Backbone) -> dict[str, tuple[Way, torch.dtype, torch.memory_format]]:
    """Name -> forward pass, type and memory format of its images; one step more in each."""
    plain = backbone.eval().requires_grad_(requires_grad=False)
    last, dtype = torch.channels_last, machine.fast_dtype()
    found: dict[str, tuple[Way, torch.dtype, torch.memory_format]] = {
        "float32": (plain, torch.float32, torch.contiguous_format),
        "+ channels last": (plain, torch.float32, last),
        "+ norms folded": (frozen_copy(backbone, torch.float32), torch.float32, last),
    }
    if dtype != torch.float32:
        found["+ bfloat16"] = (frozen_copy(backbone, dtype), dtype, last)
    return found


def per_second(backbone: Backbone, clock: Callable[[], float]) -> dict[str, float]:
    size = backbone.image_size
    batch = 4 if backbone.name == "vgg16" else 32 * 224**2 // size**2
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    best: dict[str, float] = {}
    chosen = {
        name: partial(way, images.to(dtype, memory_format=memory_format))
        for name, (way, dtype, memory_format) in ways(backbone).items()
    }
    with torch.inference_mode():
        for step in range(ROUNDS + 1):  # the first only warms up
            for name, run in chosen.items():
                start = clock()
                run()
                if step:
                    best[name] = max(best.get(name, 0), len(images) / (clock() - start))
    return best


def speeds(backbones: dict[str, Backbone]) -> dict[str, float]:
    figures = {}
    all_threads = machine.cores()
    print(f"{'photos per second':26} {'way':17} {'1 thread':>9} {f'{all_threads} threads':>10}")
    for label, backbone in backbones.items():
        torch.set_num_threads(1)
        single = per_second(backbone, time.thread_time)
        torch.set_num_threads(all_threads)
        many = per_second(backbone, time.perf_counter)
        for name in single:
            print(f"{label:26} {name:17} {single[name]:9.1f} {many[name]:10.1f}")
        figures[f"{label}, 1 thread"] = single[name]
        figures[f"{label}, {all_threads} threads"] = many[name]
    return figures


def agreement(folder: Path) -> dict[str, float]:
    """What the fast copy and plain float32 see in real photos, each by its own class means."""
    exact = make_backbone(LITE0, image_size=224).eval()
    fast = frozen_copy(exact, machine.fast_dtype())
    own = exact.preprocess
    mean, std = cast("RGB", own.mean), cast("RGB", own.std)
    view = View(224, 256, interpolation=own.interpolation, mean=mean, std=std, crop="centre")
    photos = read_photos(folder).photos
    photos = photos[:: max(1, len(photos) // PHOTOS)]
    vectors: list[tuple[Tensor, Tensor]] = []
    with torch.inference_mode():
        for start in range(0, len(photos), 32):
            pixels = torch.stack([view.load(photo.path) for photo in photos[start : start + 32]])
            pair = exact(view.normalize(pixels)), fast(view.normalize(pixels, machine.fast_dtype()))
            vectors.append(tuple(maps.float().mean((2, 3)) for maps in pair))
    labels = torch.tensor([photo.label for photo in photos])
    seen = [nearest_means(torch.cat(side), labels) for side in zip(*vectors, strict=True)]
    right = [(side == labels).double().mean().item() for side in seen]
    return {
        "photos": len(photos),
        "accuracy, float32": right[0],
        "accuracy, fast": right[1],
        "same class": (seen[0] == seen[1]).double().mean().item(),
    }


def nearest_means(vectors: Tensor, labels: Tensor) -> Tensor:
    """The class whose mean direction is nearest, each photo (N, C) left out of its own mean."""
    unit = functional.normalize(vectors)
    sums = functional.one_hot(labels).T.float() @ unit  # (K, C)
    scores = unit @ functional.normalize(sums).T  # (N, K)
    rows = torch.arange(len(labels))
    scores[rows, labels] = (functional.normalize(sums[labels] - unit) * unit).sum(1)
    return scores.argmax(1)


def shared(path: str) -> Path | None:
    above = Path(__file__).resolve().parents[1:3]
    return next((found for top in above if (found := top / "shared" / path).exists()), None)


def vgg16(path: Path | None) -> Backbone:
    weights = f"file:{path}" if path else "none"
    return make_backbone("vgg16", weights=weights, level="features.29", image_size=224)


def main() -> int:
    cub = Path(os.environ["FIELDMARK_CUB"]) if "FIELDMARK_CUB" in os.environ else None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cub", type=Path, default=cub or shared("data/cub50"), help="CUB photos")
    vgg = shared("weights/vgg16_features_fp16.safetensors")
    parser.add_argument("--vgg", type=Path, default=vgg, help="VGG16's trunk as safetensors")
    parser.add_argument("--json", action="store_true", help="print one JSON object as well")
    options = parser.parse_args()
    machine.tune_allocator()
    backbones = {f"Lite0, {s} px": make_backbone(LITE0, image_size=s) for s in SIZES}
    figures = speeds(backbones | {"VGG16 to relu5_3, 224 px": vgg16(options.vgg)})
    targets: dict[str, float] = {}
    if machine.has_native_bfloat16():
        targets["Lite0, 224 px, 1 thread"] = LEAST_PER_THREAD
    else:
        print("\nThis CPU does not multiply bfloat16: no target for speed.")
    if options.cub:
        figures |= (seen := agreement(options.cub))
        targets |= {
            "accuracy, fast": seen["accuracy, float32"] - MOST_LOST,
            "same class": LEAST_AGREEMENT,
        }
        print("\nnearest class means: " + ", ".join(f"{k} {v:.4g}" for k, v in seen.items()))
    missed = [name for name, least in targets.items() if figures[name] < least]
    wanted = "; ".join(f"{name} >= {least:.4g}" for name, least in targets.items())
    print(f"\ntargets: {wanted}: {'missed ' + ', '.join(missed) if missed else 'met'}")
    if options.json:
        print(json.dumps({"figures": figures, "targets": targets, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

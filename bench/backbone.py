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

import torch
from torch import Tensor

from fieldmark import machine
from fieldmark.data.dataset import read_photos
from fieldmark.data.transform import View
from fieldmark.layers.backbone import Backbone, frozen_copy, make_backbone

LITE0 = "tf_efficientnet_lite0"
ROUNDS = 4
BATCH = {224: 32, 336: 16, 448: 8}
LEAST_PER_THREAD = 95  # Lite0 at 224 px, where the CPU has bfloat16
LEAST_AGREEMENT = 0.99  # bfloat16 and float32 see the same ImageNet class
LEAST_NEIGHBOURS = 0.95  # or the same nearest photo among the others
PHOTOS = 400

Way = Callable[[Tensor], Tensor]


def ways(backbone: Backbone) -> dict[str, tuple[Way, torch.dtype, torch.memory_format]]:
    """Name -> forward pass, type and memory format of its images; one step more in each."""
    plain = backbone.eval().requires_grad_(requires_grad=False)
    last, dtype = torch.channels_last, machine.fast_dtype()
    found = {
        "float32": (plain, torch.float32, torch.contiguous_format),
        "+ channels last": (plain, torch.float32, last),
        "+ norms folded": (frozen_copy(backbone, torch.float32), torch.float32, last),
    }
    if dtype != torch.float32:
        found["+ bfloat16"] = (frozen_copy(backbone, dtype), dtype, last)
    return found


def per_second(backbone: Backbone, clock: Callable[[], float]) -> dict[str, float]:
    size = backbone.image_size
    images = torch.randn(BATCH[size], 3, size, size, generator=torch.Generator().manual_seed(0))
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
    """How often the fast copy and plain float32 see the same in real photos."""
    exact = make_backbone(LITE0, level="bn2", image_size=224).eval()
    fast = frozen_copy(exact, machine.fast_dtype())
    classifier = imagenet_classifier()
    own = exact.preprocess
    view = View(
        224, 256, interpolation=own.interpolation, mean=own.mean, std=own.std, crop="centre"
    )
    photos = read_photos(folder).photos
    photos = photos[:: max(1, len(photos) // PHOTOS)][:PHOTOS]
    vectors: list[tuple[Tensor, Tensor]] = []
    with torch.inference_mode():
        for start in range(0, len(photos), 32):
            pixels = torch.stack([view.load(photo.path) for photo in photos[start : start + 32]])
            pair = exact(view.normalize(pixels)), fast(view.normalize(pixels, machine.fast_dtype()))
            vectors.append(tuple(maps.float().mean((2, 3)) for maps in pair))
        a, b = (torch.cat(column) for column in zip(*vectors, strict=True))  # (N, 1280)
        same_class = classifier(a).argmax(1) == classifier(b).argmax(1)
        same_neighbour = nearest(a) == nearest(b)
    return {
        "same ImageNet class": same_class.float().mean().item(),
        "same nearest photo": same_neighbour.float().mean().item(),
        "cosine, least": torch.cosine_similarity(a, b).min().item(),
    }


def imagenet_classifier() -> torch.nn.Linear:
    from fieldmark.layers.weights import load_weights

    state = load_weights(LITE0, "package").state
    layer = torch.nn.Linear(1280, 1000)
    layer.load_state_dict({part: state[f"classifier.{part}"] for part in ("weight", "bias")})
    return layer


def nearest(vectors: Tensor) -> Tensor:
    unit = torch.nn.functional.normalize(vectors)
    return (unit @ unit.T).fill_diagonal_(-1).argmax(1)


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
    backbones = {f"Lite0, {s} px": make_backbone(LITE0, image_size=s) for s in BATCH}
    figures = speeds(backbones | {"VGG16 to relu5_3, 224 px": vgg16(options.vgg)})
    targets: dict[str, float] = {}
    if machine.has_native_bfloat16():
        targets["Lite0, 224 px, 1 thread"] = LEAST_PER_THREAD
    else:
        print("\nThis CPU does not multiply bfloat16: no target for speed.")
    if options.cub:
        figures |= (seen := agreement(options.cub))
        targets |= {"same ImageNet class": LEAST_AGREEMENT, "same nearest photo": LEAST_NEIGHBOURS}
        print(f"\nfast copy against float32, {PHOTOS} photos:", end=" ")
        print(", ".join(f"{name} {value:.4f}" for name, value in seen.items()))
    missed = [name for name, least in targets.items() if figures[name] < least]
    print(
        f"\ntargets: {', '.join(f'{name} >= {least}' for name, least in targets.items())}:", end=""
    )
    print(f" missed {', '.join(missed)}" if missed else " met")
    if options.json:
        print(json.dumps({"figures": figures, "targets": targets, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

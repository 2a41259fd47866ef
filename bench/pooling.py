"""Compact bilinear pooling beside the bare matrix product that bounds it.

The bound is `bmm(X, X^T)` forward and one such product more backward (two maps: two). Candidates
and bounds take turns in one loop, so that noise meets both; medians. One thread is timed in CPU
time; all threads in wall time, judged only when nothing else ran as the benchmark began.

    python bench/pooling.py
    python bench/pooling.py --quick --json
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from fieldmark import machine

machine.shorten_waits()  # as trainings do; before torch is loaded
machine.tune_allocator()

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from fieldmark.layers.pooling import (  # noqa: E402
    BilinearPooling,
    CompactBilinearPooling,
    Pooling,
)

BATCH = 8
LEAST_OVER_TRANSFORM = 10  # times faster than a Fourier transform at each position
LEAST_OVER_AUTOGRAD = 1.3  # full bilinear pooling's backward
MOST_MEGABYTES = 3  # forward, beyond input and before the next layer
WORK = 2e9  # multiplications a row is given, at least `ROUNDS` rounds
ROUNDS = (5, 31)


@dataclass
class Row:
    """One line of the table; times in milliseconds, ratios to the bound."""

    map: str
    channels: int
    sketch_dim: int
    threads: int
    forward: float
    both: float  # forward and backward
    bound_forward: float
    bound_both: float
    ratio_forward: float
    ratio_both: float
    target_forward: float
    target_both: float
    judged: bool = True

    @property
    def ok(self) -> bool:
        met = self.ratio_forward <= self.target_forward and self.ratio_both <= self.target_both
        return met or not self.judged

    def line(self) -> str:
        verdict = ("ok" if self.ok else "MISSED") if self.judged else "busy"
        return (
            f"{self.map:9} {self.channels:5} {self.sketch_dim:6} {self.threads:7} "
            f"{self.forward:8.2f} {self.both:9.2f} "
            f"{self.bound_forward:8.2f} {self.bound_both:9.2f} "
            f"{self.ratio_forward:6.2f} {self.ratio_both:6.2f}   "
            f"{self.target_forward:.2f} / {self.target_both:.2f}  {verdict}"
        )


HEADER = (
    f"{'map':9} {'C':>5} {'sketch':>6} {'threads':>7} {'fwd ms':>8} {'f+b ms':>9} "
    f"{'bound':>8} {'bound f+b':>9} {'ratio':>6} {'f+b':>6}   {'target':11}"
)


def draw(channels: int, size: int) -> Tensor:
    return torch.randn(BATCH, channels, size, size)


def medians(ways: dict[str, Callable[[], object]], work: float) -> dict[str, float]:
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    rounds = int(min(max(WORK / work, ROUNDS[0]), ROUNDS[1]))
    seen: dict[str, list[float]] = {name: [] for name in ways}
    shuffle = random.Random(0)
    for step in range(rounds + 2):  # the first two warm up
        # Another order each round, so that none always runs on the caches the same one left.
        for name in shuffle.sample(list(ways), len(ways)):
            start = clock()
            ways[name]()
            if step > 1:
                seen[name].append((clock() - start) * 1e3)
    return {name: statistics.median(times) for name, times in seen.items()}


def forward(pooling: Callable[..., Tensor], *maps: Tensor) -> Callable[[], object]:
    def run() -> None:
        with torch.inference_mode():
            pooling(*maps)

    return run


def both(pooling: Callable[..., Tensor], *maps: Tensor) -> Callable[[], object]:
    leaves = [m.detach().requires_grad_() for m in maps]
    with torch.no_grad():
        grad = torch.randn_like(pooling(*maps))

    def run() -> None:
        torch.autograd.grad(pooling(*leaves), leaves, grad)

    return run


def bounds(*maps: Tensor) -> dict[str, Callable[[], object]]:
    x, *rest = (m.flatten(2) for m in maps)
    y = rest[0] if rest else x
    G = torch.randn(len(x), x.shape[1], y.shape[1])

    def backward() -> None:
        torch.bmm(G, y)
        if rest:
            torch.bmm(G.mT, x)

    return {"bound": lambda: torch.bmm(x, y.mT), "bound backward": backward}


def compare(channels: int, size: int, sketch_dims: list[int], *, two: bool = False) -> list[Row]:
    maps = [draw(channels, size) for _ in range(1 + two)]
    ways = bounds(*maps)
    for sketch_dim in sketch_dims:
        pooling = CompactBilinearPooling(channels, sketch_dim, channels2=channels if two else None)
        ways[f"{sketch_dim}"] = forward(pooling, *maps)
        ways[f"{sketch_dim} both"] = both(pooling, *maps)
    took = medians(ways, channels**2 * size**2 * len(ways))
    least = took["bound"], took["bound"] + took["bound backward"]
    rows = []
    for sketch_dim in sketch_dims:
        ours = took[f"{sketch_dim}"], took[f"{sketch_dim} both"]
        ratios = ours[0] / least[0], ours[1] / least[1]
        name = f"{size}x{size}{' two' if two else ''}"
        rows.append(
            Row(
                name,
                channels,
                sketch_dim,
                torch.get_num_threads(),
                *ours,
                *least,
                *ratios,
                *targets(channels, size, two=two),
            )
        )
    return rows


def targets(channels: int, size: int, *, two: bool) -> tuple[float, float]:
    if two:
        return 1.15, 1.2
    if size < 14:
        return 1.6, 1.6
    return (0.8, 0.95) if (channels, size) == (512, 28) else (1.0, 1.1)


def cases(*, quick: bool) -> list[tuple[int, int, list[int], bool]]:
    dims = [8192, 4096, 1024]
    if quick:
        return [(512, 28, [8192], False), (512, 14, dims, False), (512, 7, dims, False)]
    found = [(c, size, dims, False) for size in (28, 14, 7) for c in (320, 512, 1280)]
    return [*found, (512, 28, dims, True), (512, 14, dims, True)]


def over_transform() -> dict[str, float]:
    """How many times faster than transforming each position and summing, 28x28, sketch 8192."""
    x = draw(512, 28)
    each = CompactBilinearPooling(512, 8192, pool=False)
    pooled = CompactBilinearPooling(512, 8192)

    def summed(x: Tensor) -> Tensor:
        return each(x).sum((2, 3))

    ways = {}
    for name, pooling in (("ours", pooled), ("each", summed)):
        ways |= {f"{name} forward": forward(pooling, x), f"{name} both": both(pooling, x)}
    took = medians(ways, WORK)
    return {kind: took[f"each {kind}"] / took[f"ours {kind}"] for kind in ("forward", "both")}


def over_autograd(size: int) -> float:
    """How many times faster full bilinear pooling's backward is than autograd's."""
    x = draw(512, size).requires_grad_()
    grad = torch.randn(BATCH, 512**2)
    plain = (x.flatten(2) @ x.flatten(2).mT).flatten(1)
    ours = BilinearPooling(512)(x)
    ways: dict[str, Callable[[], object]] = {
        name: lambda out=out: torch.autograd.grad(out, x, grad, retain_graph=True)
        for name, out in (("plain", plain), ("ours", ours))
    }
    took = medians(ways, 512**2 * size**2)
    return took["plain"] / took["ours"]


def peak_megabytes(pooling: Pooling, x: Tensor) -> float:
    """The most that torch's allocator held during a forward pass, output included."""
    with torch.inference_mode():
        pooling(x)
        with torch.profiler.profile(profile_memory=True) as profile:
            pooling(x)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    held = peak = 0
    for event in sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"]):
        held += event["args"]["Bytes"]
        peak = max(peak, held)
    return peak / 2**20


def memory() -> dict[str, float]:
    x = draw(512, 28)
    figures: dict[str, Pooling] = {"bilinear": BilinearPooling(512)}
    figures |= {f"sketch {d}": CompactBilinearPooling(512, d) for d in (8192, 4096, 1024)}
    return {name: peak_megabytes(pooling, x) for name, pooling in figures.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer sizes")
    parser.add_argument("--json", action="store_true", help="print one JSON object as well")
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    quiet = load < 0.25 * cores
    torch.manual_seed(0)
    rows: list[Row] = []
    print(HEADER)
    for threads in sorted({1, cores}):
        torch.set_num_threads(threads)
        for channels, size, dims, two in cases(quick=options.quick):
            for row in compare(channels, size, dims, two=two):
                row.judged = threads == 1 or quiet
                rows.append(row)
                print(row.line(), flush=True)
    torch.set_num_threads(1)
    figures = {f"x over a transform per position, {k}": v for k, v in over_transform().items()}
    least: dict[str, float] = dict.fromkeys(figures, LEAST_OVER_TRANSFORM)
    for size in (28, 14):
        name = f"x over autograd, bilinear backward, {size}x{size}"
        figures[name], least[name] = over_autograd(size), LEAST_OVER_AUTOGRAD
    extra = {f"MB forward, {name}": value for name, value in memory().items()}
    most = {name: MOST_MEGABYTES for name in extra if "sketch" in name}
    missed = [f"{r.map} C={r.channels} {r.sketch_dim} x{r.threads}" for r in rows if not r.ok]
    missed += [name for name, value in least.items() if figures[name] < value]
    missed += [name for name, value in most.items() if extra[name] > value]
    for name, value in (figures | extra).items():
        bound = f">= {least[name]}" if name in least else f"<= {most[name]}" if name in most else ""
        print(f"{name:52} {value:8.2f} {bound:7} {'MISSED' if name in missed else ''}")
    if not quiet:
        print(f"Something else ran on this machine (load {load:.1f}): expect ratios to be worse.")
    print("targets:", "missed " + "; ".join(missed) if missed else "met")
    if options.json:
        found = {"rows": [asdict(row) | {"ok": row.ok} for row in rows], "figures": figures | extra}
        print(json.dumps(found | {"targets": least | most, "quiet": quiet, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

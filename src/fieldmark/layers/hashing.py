"""The fixed vectors of a sketch, and the index tables that follow from them.

A count sketch sends channel `i` into bin `index_hash[i]` with sign `sign_hash[i]`. A Tensor
Sketch of two such sends the pair `(i, j)` into bin `(index_hash1[i] + index_hash2[j]) mod D`
with sign `sign_hash1[i] * sign_hash2[j]`, D = sketch_dim.

Drawn signs alone make products of sketches right on average, whatever the bins; how far they stray
depends on how often two pairs share a bin. With a uniform first hash any second will do that keeps
channels apart: `(i, j)` and `(k, l)` meet with chance 1/D where i and k differ, never where they
are the same. So the second is drawn only where there are fewer bins than channels, and else sends
channel `j` into bin `j`: then a row of pairs lies in consecutive bins. Where no feature is negative
(as after a ReLU) and D >= 2 channels, the variance is at most that of two drawn hashes; elsewhere
it can be the larger one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def draw_index_hash(channels: int, sketch_dim: int, generator: torch.Generator) -> Tensor:
    """Draw a bin for each channel, uniform over `sketch_dim`: `(channels,)` int64."""
    return torch.randint(sketch_dim, (channels,), generator=generator)


def draw_sign_hash(*shape: int, generator: torch.Generator) -> Tensor:
    """Draw signs, +1 or -1 with equal chance: `shape`, int8."""
    return torch.randint(2, shape, generator=generator, dtype=torch.int8) * 2 - 1


class CountSketch(NamedTuple):
    """A count sketch, as drawn and with its entries sorted by the bin they fall into."""

    bins: Tensor  # (entries,) int64: the bin of each entry
    sign: Tensor  # (entries,) int8
    order: Tensor  # (entries,) int64: entries, bin after bin
    offsets: Tensor  # (bins,) int64: where each bin starts in `order`
    sorted_sign: Tensor  # (entries,) int8: in the order of `order`

    @property
    def sketch_dim(self) -> int:
        """Number of bins."""
        return len(self.offsets)

    @classmethod
    def unpack(cls, tensors: Sequence[Tensor]) -> "tuple[CountSketch, CountSketch]":
        """Two count sketches from their tensors in a row, as operators pass them."""
        half = len(tensors) // 2
        return cls(*tensors[:half]), cls(*tensors[half:])

    @classmethod
    def build(cls, index: Tensor, sign: Tensor, sketch_dim: int) -> "CountSketch":
        """Sort the entries by bin; within a bin their order stays."""
        sorted_index, order = torch.sort(index, stable=True)
        offsets = torch.searchsorted(sorted_index, torch.arange(sketch_dim, device=index.device))
        return cls(index, sign, order, offsets, sign[order])

    def apply(self, rows: Tensor) -> Tensor:
        """Sum signed rows into bins, always in the same order: `(entries, n)` to `(bins, n)`."""
        return torch.nn.functional.embedding_bag(
            self.order,
            rows,
            self.offsets,
            mode="sum",
            per_sample_weights=self.sorted_sign.to(rows.dtype),
        )

    def transpose(self, sketch: Tensor) -> Tensor:
        """Read the bins back, signed: `(bins, ...)` to `(entries, ...)`."""
        rows = sketch.index_select(0, self.bins)
        return rows.mul_(self.sign.to(rows.dtype).view(-1, *[1] * (rows.dim() - 1)))

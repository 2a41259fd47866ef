"""The fixed random vectors of a sketch, and the index tables that follow from them.

A count sketch sends channel `i` into bin `index_hash[i]` with sign `sign_hash[i]`. A Tensor
Sketch of two such sends the pair `(i, j)` into bin `(index_hash1[i] + index_hash2[j]) mod D`
with sign `sign_hash1[i] * sign_hash2[j]`, D = sketch_dim.

A *signed bin* folds the sign into the bin: bins 0..D-1 add, bins D..2D-1 subtract. So a signed
sum is a plain sum into 2D bins and one subtraction, with no table of signs to read.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Below this the halves are too narrow for the matrix product to run at full speed.
_NARROWEST_BLOCK = 64
_MOST_LEVELS = 3


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


def signed_bins(
    index1: Tensor, sign1: Tensor, index2: Tensor, sign2: Tensor, sketch_dim: int
) -> Tensor:
    """Table the signed bin of each pair of channels: `(C1, C2)` int64 in 0..2D-1."""
    bins = (index1[:, None] + index2) % sketch_dim
    return bins + sketch_dim * (sign1[:, None] != sign2)


class Level(NamedTuple):
    """One level of halving a symmetric matrix: `pairs` of neighbouring ranges of `width`."""

    pairs: int
    width: int
    entries: slice  # of the folded table

    @property
    def is_diagonal(self) -> bool:
        """Whether this is the last level: the blocks on the diagonal, `pairs` of them."""
        return self.entries.stop is None


def halve(channels: int) -> Iterator[Level]:
    """Cover a symmetric `(C, C)` matrix by blocks on and above its diagonal, large ones first.

    The upper right quarter, then the upper right quarters of the two remaining squares, and so on;
    last the small squares left on the diagonal. At level l there are 2^l equal blocks, one
    batched product. Three levels compute 9/16 of the entries.
    """
    pairs, start = 1, 0
    while pairs < 1 << _MOST_LEVELS and channels % (2 * pairs) == 0:
        width = channels // (2 * pairs)
        if width < _NARROWEST_BLOCK:
            break
        yield Level(pairs, width, slice(start, start := start + pairs * width**2))
        pairs *= 2
    yield Level(pairs, channels // pairs, slice(start, None))


def fold_symmetric(table: Tensor) -> Tensor:
    """Lay out a `(C, C)` table in the order of `halve`: `(2, entries)`, blocks and their mirrors.

    Row 0 holds `table[i, j]`, row 1 `table[j, i]`, for the same `(i, j)` on or above the diagonal.
    """
    return torch.stack([_blocks(table), _blocks(table.T.contiguous())])


def _blocks(table: Tensor) -> Tensor:
    found = []
    for level in halve(len(table)):
        if level.is_diagonal:
            square = table.view(level.pairs, level.width, level.pairs, level.width)
            block = square.diagonal(dim1=0, dim2=2)  # (width, width, pairs)
        else:
            square = table.view(2 * (level.pairs, 2, level.width))
            block = square[:, 0, :, :, 1].diagonal(dim1=0, dim2=2)
        found.append(block.permute(2, 0, 1).flatten())
    return torch.cat(found)

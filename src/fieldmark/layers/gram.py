"""Tensor Sketch of one feature map through its Gram matrix, `G = X X^T`.

Sum pooling is linear, so a pooled Tensor Sketch is an exact linear map of the Gram matrix: entry
`G[i, j]` goes, signed, into one fixed bin. No Fourier transform is taken and nothing of size
positions x sketch_dim is made.

Where the second hash sends channel j into bin j, row i of G is added to consecutive bins, from
`index[i]` on: whole rows are added and read at the speed of memory, where a table of bins would
cost five times as much, and no table is needed. Bins that a row reaches beyond the last are kept
behind it and folded over at the end.

G is made a strip of rows at a time, from the diagonal on: what lies left of it is the mirror of
what was there before. Only X is kept for the backward: read the signed gradient, then one product.

All products are written with `out=` or in place: torch leaves such calls out of autocast, so
they stay in the input's precision whatever surrounds them.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fieldmark.layers.operators import keep_tensors, share_samples, transposed

# Samples are worked on in groups, so that what is made of them stays in the cache: strips, Gram
# matrices too small to cut, gradients of Gram matrices.
_STRIPS_BYTES, _WHOLE_BYTES, _GRADIENT_BYTES = 896 << 10, 4 << 20, 1792 << 10
# So many strips, or more where they would be higher.
_STRIPS, _MOST_ROWS = 4, 160
# Below this many multiplications a strip gains less than it costs to call for it.
_LEAST_STRIP = 4_000_000


def gram_sketch(x: Tensor, index: Tensor, signs: Tensor, sketch_dim: int) -> Tensor:
    """Tensor Sketch of `G = X X^T`, channel j's second bin being j: `(B, C, P)` to `(B, D)`.

    Args:
        x: One map.
        index: First bin of each channel, `(C,)` int64.
        signs: Sign of each pair of channels, `(C, C)`.
        sketch_dim: D, at least C.
    """
    sketch: Tensor = _gram_sketch(x.contiguous(), index, signs.to(x.dtype), sketch_dim)
    return sketch


def gram_sketches(
    x: Tensor, hashes: Sequence[tuple[Tensor, Tensor]], sketch_dims: Sequence[int]
) -> list[Tensor]:
    """Several Tensor Sketches of one `G = X X^T`, without gradients: `(B, C, P)` to each `(B, D)`.

    Args:
        x: One map, contiguous.
        hashes: `index` and `signs` of each, as `gram_sketch` takes them, in x's precision.
        sketch_dims: D of each.
    """
    sketches = [x.new_empty(len(x), D) for D in sketch_dims]
    C, P = x.shape[1:]
    strips = [_Strip.cut(rows, hashes) for rows in _cut_rows(C, P)]
    height = strips[0].rows.stop

    def add(share: slice) -> None:
        most_bytes = _STRIPS_BYTES if len(strips) > 1 else _WHOLE_BYTES
        for group in groups(share, height * C * x.element_size(), most_bytes):
            _add_strips(x[group], strips, [sketch[group] for sketch in sketches])

    share_samples(add, len(x), C * C * P)
    return sketches


def groups(share: slice, sample_bytes: int, most_bytes: int) -> Iterator[slice]:
    """Cut samples into groups as even as can be, of at most so many bytes or of one sample."""
    samples = share.stop - share.start
    count = -(-samples // max(most_bytes // sample_bytes, 1))
    for group in range(count):
        start, stop = (share.start + samples * edge // count for edge in (group, group + 1))
        yield slice(start, stop)


def unfolded(sketch: Tensor, channels: int) -> Tensor:
    """Zeros for the bins of `(n, D)` sketches, and behind them what rows reach beyond the last."""
    return sketch.new_zeros(len(sketch), sketch.shape[1] + channels)


def add_rows(block: Tensor, index: Tensor, bins: Tensor, first: int = 0) -> None:
    """Add rows of G, signed, into the unfolded bins `(n, D + C)`.

    Args:
        block: `(n, rows, columns)`.
        index: Bin of each row's column 0, `(rows,)`.
        bins: Where to.
        first: The column of G that the block begins with.
    """
    n, _, columns = block.shape
    length = bins.shape[1]
    # Every run of consecutive bins, as if it were a row. They overlap, which is safe as
    # `index_add_` adds one row after the other; only within a row it splits over threads.
    shape = n, length - first - columns + 1, columns
    runs = bins.as_strided(shape, (length, 1, 1), bins.storage_offset() + first)
    runs.index_add_(1, index, block)


def fold(bins: Tensor, sketch: Tensor, channels: int) -> None:
    """Add what lies behind the last bin to the first bins, and write the sketches `(n, D)`."""
    D = sketch.shape[1]
    bins[:, :channels] += bins[:, D:]
    sketch.copy_(bins[:, :D])


def read_rows(grad: Tensor, index: Tensor, columns: int) -> Tensor:
    """Read rows of dG, unsigned, from gradients `(n, D)`: `(n, rows, columns)`."""
    bins = torch.cat([grad, grad[:, :columns]], 1)  # what lies beyond the last bin is the first
    n, length = bins.shape
    runs = bins.as_strided((bins.numel() - columns + 1, columns), (1, 1))
    # As if all samples were one: `index_select` is slow along any dimension but the first.
    starts = index + length * torch.arange(n, device=index.device)[:, None]
    return torch.index_select(runs, 0, starts.flatten()).view(n, len(index), columns)


def _cut_rows(channels: int, positions: int) -> Iterator[slice]:
    """Cut the rows of G into strips; a small G is one."""
    worthwhile = channels**2 * positions >= _STRIPS * _LEAST_STRIP
    height = min(-(-channels // _STRIPS), _MOST_ROWS) if worthwhile else channels
    for start in range(0, channels, height):
        yield slice(start, min(start + height, channels))


class _Strip(NamedTuple):
    """Rows of G from the diagonal on, and what sketches take of the hashes for them."""

    rows: slice
    own: list[tuple[Tensor, Tensor]]  # index and signs of the rows themselves
    mirrored: list[tuple[Tensor, Tensor]]  # of the rows below, that hold the mirror's entries

    @classmethod
    def cut(cls, rows: slice, hashes: Sequence[tuple[Tensor, Tensor]]) -> "_Strip":
        rest = slice(rows.stop, None)
        own = [(index[rows], signs[rows, rows.start :]) for index, signs in hashes]
        mirrored = [(index[rest], signs[rest, rows]) for index, signs in hashes]
        return cls(rows, own, mirrored)


@torch.library.custom_op("fieldmark::gram_sketch", mutates_args=())
def _gram_sketch(x: Tensor, index: Tensor, signs: Tensor, sketch_dim: int) -> Tensor:
    return gram_sketches(x, [(index, signs)], [sketch_dim])[0]


def _add_strips(x: Tensor, strips: Sequence[_Strip], sketches: Sequence[Tensor]) -> None:
    """Strip by strip: multiply, add the rows, and as rows the columns right of the diagonal."""
    n, C, _ = x.shape
    bins = [unfolded(sketch, C) for sketch in sketches]
    for rows, own, mirrored in strips:
        first, height = rows.start, rows.stop - rows.start
        below = x[:, first:]
        strip = x.new_empty(n, height, C - first)
        torch.bmm(below[:, :height], below.mT, out=strip)
        blocks = [(strip, own)]
        if rows.stop < C:
            blocks.append((transposed(strip)[:, height:], mirrored))
        for block, hashes in blocks:
            for (index, signs), into in zip(hashes, bins, strict=True):
                # Signed in place where no other sketch needs the block.
                signed = block.mul_(signs) if len(bins) == 1 else block * signs
                add_rows(signed, index, into, first)
    for into, sketch in zip(bins, sketches, strict=True):
        fold(into, sketch, C)


@torch.library.custom_op("fieldmark::gram_sketch_backward", mutates_args=())
def _gram_sketch_backward(grad: Tensor, x: Tensor, index: Tensor, signs: Tensor) -> Tensor:
    """`dX = (dG + dG^T) X`, with `dG[i, j] = signs[i, j] * grad[index[i] + j]`."""
    dx = torch.empty_like(x)
    C = len(index)

    def multiply(share: slice) -> None:
        for group in groups(share, C * C * x.element_size(), _GRADIENT_BYTES):
            dG = read_rows(grad[group], index, C).mul_(signs)
            torch.bmm(transposed(dG).add_(dG), x[group], out=dx[group])

    share_samples(multiply, len(x), C * C * x.shape[2])
    return dx


@_gram_sketch.register_fake
def _(x: Tensor, _index: Tensor, _signs: Tensor, sketch_dim: int) -> Tensor:
    return x.new_empty(len(x), sketch_dim)


@_gram_sketch_backward.register_fake
def _(_grad: Tensor, x: Tensor, _index: Tensor, _signs: Tensor) -> Tensor:
    return torch.empty_like(x)


def _gram_sketch_grad(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    return _gram_sketch_backward(grad.contiguous(), *ctx.saved_tensors), None, None, None


_gram_sketch.register_autograd(_gram_sketch_grad, setup_context=keep_tensors)

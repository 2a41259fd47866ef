"""Sketches and products through the Gram matrix `G = X Y^T` of a feature map.

Sum pooling is linear, so a pooled Tensor Sketch is an exact linear map of the Gram matrix: entry
`G[i, j]` goes, signed, into one fixed bin. No Fourier transform is taken and nothing of size
positions x sketch_dim is made. G itself is made a block at a time, and with one input only
the blocks on and above its diagonal. The backward keeps the inputs alone: gather the signed
gradient into the same blocks, one product each.

All products are written with `out=` or in place: torch leaves such calls out of autocast, so
they stay in the input's precision whatever surrounds them.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fieldmark.layers.hashing import halve
from fieldmark.layers.operators import keep_tensors

# Samples taken together so that they stay in the cache between the levels of a Gram matrix.
_GROUP_BYTES = 2 << 20
_ROWS = 128


def _groups(*maps: Tensor) -> Iterator[slice]:
    sample_bytes = sum(m[0].numel() * m.element_size() for m in maps)
    size = max(_GROUP_BYTES // sample_bytes, torch.get_num_threads(), 1)
    for start in range(0, len(maps[0]), size):
        yield slice(start, start + size)


def _scatter(block: Tensor, bins: Tensor, into: Tensor) -> None:
    into.scatter_add_(1, bins.expand(len(into), -1), block.flatten(1))


def _gather(signed: Tensor, bins: Tensor) -> Tensor:
    if torch.get_num_threads() > 1:
        return signed.gather(1, bins.expand(len(signed), -1))
    # Always runs on one thread, and is a third quicker there.
    values = signed.new_empty(len(signed), len(bins))
    for sample, into in zip(signed, values, strict=True):
        torch.index_select(sample, 0, bins, out=into)
    return values


def gram_sketch(x: Tensor, folded_bins: Tensor, sketch_dim: int) -> Tensor:
    """Tensor Sketch of `G = X X^T`: `(B, C, P)` to `(B, D)`.

    Args:
        x: One map.
        folded_bins: Signed bins in the order of `fold_symmetric`.
        sketch_dim: D.
    """
    sketch: Tensor = _gram_sketch(x.contiguous(), folded_bins, sketch_dim)
    return sketch


def cross_gram_sketch(x: Tensor, y: Tensor, bins: Tensor, sketch_dim: int) -> Tensor:
    """Tensor Sketch of `G = X Y^T`: `(B, C1, P)` and `(B, C2, P)` to `(B, D)`.

    Args:
        x: First map.
        y: Second map.
        bins: Signed bins, `(C1, C2)`.
        sketch_dim: D.
    """
    sketch: Tensor = _cross_gram_sketch(x, y, bins, sketch_dim)
    return sketch


@torch.library.custom_op("fieldmark::gram_sketch", mutates_args=())
def _gram_sketch(x: Tensor, folded_bins: Tensor, sketch_dim: int) -> Tensor:
    B, C, P = x.shape
    sketch = x.new_zeros(B, 2 * sketch_dim)
    for group in _groups(x):
        n = len(x[group])
        for pairs, width, entries in halve(C):
            block = x.new_empty(n * pairs, width, width)
            if entries.stop is None:
                rows = x[group].view(n * pairs, width, P)
                torch.bmm(rows, rows.mT, out=block)
                _scatter(block.view(n, -1), folded_bins[0, entries], sketch[group])
                continue
            halves = x[group].view(n * pairs, 2, width, P)
            torch.bmm(halves[:, 0], halves[:, 1].mT, out=block)
            for bins in folded_bins[:, entries]:
                _scatter(block.view(n, -1), bins, sketch[group])
    return sketch[:, :sketch_dim] - sketch[:, sketch_dim:]


@torch.library.custom_op("fieldmark::gram_sketch_backward", mutates_args=())
def _gram_sketch_backward(grad: Tensor, x: Tensor, folded_bins: Tensor) -> Tensor:
    """`dX = (dG + dG^T) X`, with `dG[i, j] = sign * grad[bin]` gathered block by block."""
    _, C, P = x.shape
    signed = torch.cat([grad, -grad], 1)
    dx = torch.empty_like(x)
    for group in _groups(x):
        n = len(x[group])
        for pairs, width, entries in reversed(list(halve(C))):
            block = _gather(signed[group], folded_bins[0, entries])
            block += _gather(signed[group], folded_bins[1, entries])
            block = block.view(n * pairs, width, width)
            if entries.stop is None:
                shape = n * pairs, width, P
                torch.bmm(block, x[group].view(shape), out=dx[group].view(shape))
                continue
            halves, d = (m[group].view(n * pairs, 2, width, P) for m in (x, dx))
            d[:, 0].baddbmm_(block, halves[:, 1])
            d[:, 1].baddbmm_(block.mT, halves[:, 0])
    return dx


@_gram_sketch.register_fake
def _(x: Tensor, _folded_bins: Tensor, sketch_dim: int) -> Tensor:
    return x.new_empty(len(x), sketch_dim)


@_gram_sketch_backward.register_fake
def _(_grad: Tensor, x: Tensor, _folded_bins: Tensor) -> Tensor:
    return torch.empty_like(x)


def _gram_sketch_grad(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    return _gram_sketch_backward(grad.contiguous(), *ctx.saved_tensors), None, None


_gram_sketch.register_autograd(_gram_sketch_grad, setup_context=keep_tensors)


@torch.library.custom_op("fieldmark::cross_gram_sketch", mutates_args=())
def _cross_gram_sketch(x: Tensor, y: Tensor, bins: Tensor, sketch_dim: int) -> Tensor:
    sketch = x.new_zeros(len(x), 2 * sketch_dim)
    for group in _groups(x, y):
        for first in range(0, len(bins), _ROWS):
            rows = slice(first, first + _ROWS)
            left, right = x[group, rows], y[group]
            block = x.new_empty(len(left), left.shape[1], right.shape[1])
            torch.bmm(left, right.mT, out=block)
            _scatter(block, bins[rows].flatten(), sketch[group])
    return sketch[:, :sketch_dim] - sketch[:, sketch_dim:]


@torch.library.custom_op("fieldmark::cross_gram_sketch_backward", mutates_args=())
def _cross_gram_sketch_backward(
    grad: Tensor, x: Tensor, y: Tensor, bins: Tensor
) -> tuple[Tensor, Tensor]:
    """`dX = dG Y` and `dY = dG^T X`."""
    signed = torch.cat([grad, -grad], 1)
    dx, dy = torch.empty_like(x), torch.zeros_like(y)
    for group in _groups(x, y):
        for first in range(0, len(bins), _ROWS):
            rows = slice(first, first + _ROWS)
            block = _gather(signed[group], bins[rows].flatten()).view(-1, *bins[rows].shape)
            torch.bmm(block, y[group], out=dx[group, rows])
            dy[group].baddbmm_(block.mT, x[group, rows])
    return dx, dy


@_cross_gram_sketch.register_fake
def _(x: Tensor, _y: Tensor, _bins: Tensor, sketch_dim: int) -> Tensor:
    return x.new_empty(len(x), sketch_dim)


@_cross_gram_sketch_backward.register_fake
def _(_grad: Tensor, x: Tensor, y: Tensor, _bins: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(y)


def _cross_gram_sketch_grad(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
    dx, dy = _cross_gram_sketch_backward(grad.contiguous(), *ctx.saved_tensors)
    return dx, dy, None, None


_cross_gram_sketch.register_autograd(_cross_gram_sketch_grad, setup_context=keep_tensors)

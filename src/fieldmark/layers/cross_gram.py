"""Tensor Sketch through the Gram matrix of two feature maps, `G = X Y^T`; see `gram`."""

from typing import Any

import torch
from torch import Tensor

from fieldmark.layers.gram import gather, groups, scatter
from fieldmark.layers.operators import keep_tensors, share_samples

# Rows of the Gram matrix made at a time.
_ROWS = 512


def cross_gram_sketch(x: Tensor, y: Tensor, bins: Tensor, sketch_dim: int) -> Tensor:
    """Tensor Sketch of `G = X Y^T`: `(B, C1, P)` and `(B, C2, P)` to `(B, D)`.

    Args:
        x: First map.
        y: Second map.
        bins: Signed bins, `(C1, C2)` int32.
        sketch_dim: D.
    """
    sketch: Tensor = _cross_gram_sketch(x, y, bins, sketch_dim)
    return sketch


@torch.library.custom_op("fieldmark::cross_gram_sketch", mutates_args=())
def _cross_gram_sketch(x: Tensor, y: Tensor, bins: Tensor, sketch_dim: int) -> Tensor:
    sketch = x.new_zeros(len(x), 2 * sketch_dim)

    def add(share: slice) -> None:
        _add_rows(x[share], y[share], bins, sketch[share])

    share_samples(add, len(x), bins.numel() * x.shape[2])
    return sketch[:, :sketch_dim] - sketch[:, sketch_dim:]


def _add_rows(x: Tensor, y: Tensor, bins: Tensor, sketch: Tensor) -> None:
    """Group by group: make some rows of G, scatter them."""
    for group in groups(x, y):
        for first in range(0, len(bins), _ROWS):
            rows = slice(first, first + _ROWS)
            left, right = x[group, rows], y[group]
            block = x.new_empty(len(left), left.shape[1], right.shape[1])
            torch.bmm(left, right.mT, out=block)
            scatter(block, bins[rows].flatten(), sketch[group])


@torch.library.custom_op("fieldmark::cross_gram_sketch_backward", mutates_args=())
def _cross_gram_sketch_backward(
    grad: Tensor, x: Tensor, y: Tensor, bins: Tensor
) -> tuple[Tensor, Tensor]:
    """`dX = dG Y` and `dY = dG^T X`."""
    signed = torch.cat([grad, -grad], 1)
    dx, dy = torch.empty_like(x), torch.empty_like(y)

    def multiply(share: slice) -> None:
        _multiply_by_rows(signed[share], x[share], y[share], bins, dx[share], dy[share])

    share_samples(multiply, len(x), bins.numel() * x.shape[2])
    return dx, dy


def _multiply_by_rows(
    signed: Tensor, x: Tensor, y: Tensor, bins: Tensor, dx: Tensor, dy: Tensor
) -> None:
    """Group by group: gather some rows of dG, multiply both ways."""
    for group in groups(x, y):
        for first in range(0, len(bins), _ROWS):
            rows = slice(first, first + _ROWS)
            block = gather(signed[group], bins[rows].flatten()).view(-1, *bins[rows].shape)
            torch.bmm(block, y[group], out=dx[group, rows])
            dy[group].baddbmm_(block.mT, x[group, rows], beta=min(first, 1))


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

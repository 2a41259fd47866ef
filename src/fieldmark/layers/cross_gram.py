"""Tensor Sketch through the Gram matrix of two feature maps, `G = X Y^T`; see `gram`."""

from typing import Any

import torch
from torch import Tensor

from fieldmark.layers.gram import add_rows, fold, groups, read_rows, unfolded
from fieldmark.layers.operators import keep_tensors, share_samples

# Samples are worked on in groups whose blocks stay in the cache.
_BYTES = 2 << 20


def cross_gram_sketch(
    x: Tensor, y: Tensor, index: Tensor, signs: Tensor, sketch_dim: int
) -> Tensor:
    """Tensor Sketch of `G = X Y^T`, y's channel j having bin j: `(B, C, P)` each to `(B, D)`.

    Args:
        x: First map, `(B, C1, P)`.
        y: Second map, `(B, C2, P)`.
        index: Bin of each channel of x, `(C1,)` int64.
        signs: Sign of each pair of channels, `(C1, C2)`.
        sketch_dim: D, at least C2.
    """
    sketch: Tensor = _cross_gram_sketch(x, y, index, signs.to(x.dtype), sketch_dim)
    return sketch


@torch.library.custom_op("fieldmark::cross_gram_sketch", mutates_args=())
def _cross_gram_sketch(
    x: Tensor, y: Tensor, index: Tensor, signs: Tensor, sketch_dim: int
) -> Tensor:
    sketch = x.new_empty(len(x), sketch_dim)
    C1, C2 = signs.shape
    entries = max((C1 + C2) * x.shape[2], C1 * C2)

    def add(share: slice) -> None:
        for group in groups(share, entries * x.element_size(), _BYTES):
            bins = unfolded(sketch[group], C2)
            G = x.new_empty(len(bins), C1, C2)
            torch.bmm(x[group], y[group].mT, out=G)
            add_rows(G.mul_(signs), index, bins)
            fold(bins, sketch[group], C2)

    share_samples(add, len(x), signs.numel() * x.shape[2])
    return sketch


@torch.library.custom_op("fieldmark::cross_gram_sketch_backward", mutates_args=())
def _cross_gram_sketch_backward(
    grad: Tensor, x: Tensor, y: Tensor, index: Tensor, signs: Tensor
) -> tuple[Tensor, Tensor]:
    """`dX = dG Y` and `dY = dG^T X`."""
    dx, dy = torch.empty_like(x), torch.empty_like(y)
    C1, C2 = signs.shape

    def multiply(share: slice) -> None:
        for group in groups(share, C1 * C2 * x.element_size(), _BYTES):
            dG = read_rows(grad[group], index, C2).mul_(signs)
            torch.bmm(dG, y[group], out=dx[group])
            torch.bmm(dG.mT, x[group], out=dy[group])

    share_samples(multiply, len(x), signs.numel() * x.shape[2])
    return dx, dy


@_cross_gram_sketch.register_fake
def _(x: Tensor, _y: Tensor, _index: Tensor, _signs: Tensor, sketch_dim: int) -> Tensor:
    return x.new_empty(len(x), sketch_dim)


@_cross_gram_sketch_backward.register_fake
def _(_grad: Tensor, x: Tensor, y: Tensor, _index: Tensor, _signs: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(y)


def _cross_gram_sketch_grad(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
    dx, dy = _cross_gram_sketch_backward(grad.contiguous(), *ctx.saved_tensors)
    return dx, dy, None, None, None


_cross_gram_sketch.register_autograd(_cross_gram_sketch_grad, setup_context=keep_tensors)

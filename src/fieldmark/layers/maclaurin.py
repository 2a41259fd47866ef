"""Random Maclaurin sketch of second degree (Kar and Karnick 2012, arXiv 1201.6530).

    y[d] = (1 / sqrt(D)) sum_p (w1[d] . x_p) (w2[d] . y_p),   w1, w2: (D, C), entries +1 or -1

Two ways to the pooled sum, both exact: position by position, or through the Gram matrix,
`y[d] = w1[d]^T G w2[d]`. Per sketched number the first costs `2 C P` products, the second `C^2`.
Either way a block of sketched numbers is made at a time and only the inputs are kept.
"""

from typing import Any

import torch
from torch import Tensor

from fieldmark.layers.bilinear import product
from fieldmark.layers.operators import keep_tensors

_ROWS = 1024


def _through_gram(x: Tensor, y: Tensor) -> bool:
    return 2 * x.shape[2] > min(x.shape[1], y.shape[1])


@torch.library.custom_op("fieldmark::maclaurin_sketch", mutates_args=())
def _maclaurin_sketch(x: Tensor, y: Tensor, signs1: Tensor, signs2: Tensor) -> Tensor:
    sketch = x.new_empty(len(x), len(signs1))
    with torch.autocast(x.device.type, enabled=False):
        for left, right, into in zip(x, y, sketch, strict=True):
            G = left @ right.mT if _through_gram(x, y) else None
            for rows in _row_blocks(signs1):
                w1, w2 = signs1[rows].to(x.dtype), signs2[rows].to(x.dtype)
                product = (w1 @ left) * (w2 @ right) if G is None else (w1 @ G) * w2
                into[rows] = product.sum(1)
    return sketch.mul_(len(signs1) ** -0.5)


@torch.library.custom_op("fieldmark::maclaurin_sketch_backward", mutates_args=())
def _maclaurin_sketch_backward(
    grad: Tensor, x: Tensor, y: Tensor, signs1: Tensor, signs2: Tensor
) -> tuple[Tensor, Tensor]:
    """`dG = w1^T diag(grad) w2`, then `dX = dG Y` and `dY = dG^T X`, or the same unmultiplied."""
    dx, dy = torch.zeros_like(x), torch.zeros_like(y)
    grad = grad[:, :, None] * len(signs1) ** -0.5
    with torch.autocast(x.device.type, enabled=False):
        for left, right, dleft, dright, g in zip(x, y, dx, dy, grad, strict=True):
            dG = x.new_zeros(len(left), len(right)) if _through_gram(x, y) else None
            for rows in _row_blocks(signs1):
                w1, w2 = signs1[rows].to(x.dtype), signs2[rows].to(x.dtype)
                if dG is None:
                    dleft.addmm_(w1.mT, g[rows] * (w2 @ right))
                    dright.addmm_(w2.mT, g[rows] * (w1 @ left))
                else:
                    dG.addmm_(w1.mT, g[rows] * w2)
            if dG is not None:
                torch.mm(dG, right, out=dleft)
                torch.mm(dG.mT, left, out=dright)
    return dx, dy


def _row_blocks(signs: Tensor) -> list[slice]:
    return [slice(first, first + _ROWS) for first in range(0, len(signs), _ROWS)]


@_maclaurin_sketch.register_fake
def _(x: Tensor, _y: Tensor, signs1: Tensor, _signs2: Tensor) -> Tensor:
    return x.new_empty(len(x), len(signs1))


@_maclaurin_sketch_backward.register_fake
def _(
    _grad: Tensor, x: Tensor, y: Tensor, _signs1: Tensor, _signs2: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(y)


def _maclaurin_sketch_grad(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
    dx, dy = _maclaurin_sketch_backward(grad, *ctx.saved_tensors)
    return dx, dy, None, None


_maclaurin_sketch.register_autograd(_maclaurin_sketch_grad, setup_context=keep_tensors)


def maclaurin_sketch(x: Tensor, y: Tensor, signs1: Tensor, signs2: Tensor) -> Tensor:
    """Sketch and sum over positions.

    Args:
        x: First map, `(B, C1, P)`.
        y: Second map, `(B, C2, P)`; the same tensor as x for one input.
        signs1: `(D, C1)`, entries +1 or -1.
        signs2: `(D, C2)`.

    Returns:
        `(B, D)`.
    """
    sketch: Tensor = _maclaurin_sketch(x, y, signs1, signs2)
    return sketch


def maclaurin_positions(x: Tensor, y: Tensor, signs1: Tensor, signs2: Tensor) -> Tensor:
    """Sketch each position, no pooling: `(B, C1, P)`, `(B, C2, P)` to `(B, D, P)`."""
    left, right = (
        product(signs.to(m.dtype).expand(len(m), -1, -1), m)
        for signs, m in ((signs1, x), (signs2, y))
    )
    sketch: Tensor = left * right * len(signs1) ** -0.5
    return sketch

"""Tensor Sketch of each position by itself, unpooled: the original layer with pooling off."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fieldmark.layers.hashing import CountSketch
from fieldmark.layers.operators import keep_tensors
from fieldmark.layers.spectrum import chunks


def sketch_positions(x: Tensor, y: Tensor, first: CountSketch, second: CountSketch) -> Tensor:
    """Tensor Sketch of each position, `F^-1(F(a) F(b))` of its two count sketches a and b.

    Args:
        x: First map, `(B, C1, P)`.
        y: Second map, `(B, C2, P)`; x again for one map.
        first: Count sketch of x's channels.
        second: Count sketch of y's channels, with as many bins.

    Returns:
        `(B, D, P)`.
    """
    sketch: Tensor = _sketch_positions(x, y, [*first, *second])
    return sketch


@torch.library.custom_op("fieldmark::sketch_positions", mutates_args=())
def _sketch_positions(x: Tensor, y: Tensor, hashes: Sequence[Tensor]) -> Tensor:
    first, second = CountSketch.unpack(hashes)
    D = first.sketch_dim
    sketch = x.new_empty(len(x), D, x.shape[2])
    for chunk in _cuts(x, D):
        product = _half_spectrum(x[chunk], first).mul_(_half_spectrum(y[chunk], second))
        sketch[chunk] = torch.fft.irfft(product, n=D, dim=0).transpose(0, 1)
    return sketch


@torch.library.custom_op("fieldmark::sketch_positions_backward", mutates_args=())
def _sketch_positions_backward(
    grad: Tensor, x: Tensor, y: Tensor, hashes: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Correlate the gradient with the other count sketch: `da = F^-1(F(grad) conj F(b))`."""
    first, second = CountSketch.unpack(hashes)
    D = first.sketch_dim
    dx, dy = torch.empty_like(x), torch.empty_like(y)
    for chunk in _cuts(x, D):
        spectrum = torch.fft.rfft(grad[chunk].transpose(0, 1), dim=0)
        a, b = _half_spectrum(x[chunk], first), _half_spectrum(y[chunk], second)
        for d, sketch, other in ((dx, first, b), (dy, second, a)):
            bins = torch.fft.irfft(spectrum * other.conj_physical_(), n=D, dim=0)
            d[chunk] = sketch.transpose(bins).transpose(0, 1)
    return dx, dy


def _cuts(x: Tensor, sketch_dim: int) -> list[tuple[slice, slice, slice]]:
    return [(group, slice(None), span) for group, span in chunks(x, sketch_dim)]


def _half_spectrum(part: Tensor, sketch: CountSketch) -> Tensor:
    """Transform the count sketch of `(n, C, m)`: `(D / 2 + 1, n, m)`."""
    bins = sketch.apply(part.transpose(0, 1).flatten(1))
    spectrum: Tensor = torch.fft.rfft(bins.view(-1, part.shape[0], part.shape[2]), dim=0)
    return spectrum


@_sketch_positions.register_fake
def _(x: Tensor, _y: Tensor, hashes: Sequence[Tensor]) -> Tensor:
    return x.new_empty(len(x), CountSketch.unpack(hashes)[0].sketch_dim, x.shape[2])


@_sketch_positions_backward.register_fake
def _(_grad: Tensor, x: Tensor, y: Tensor, _hashes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(y)


def _sketch_positions_grad(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, y, *hashes = ctx.saved_tensors
    return *_sketch_positions_backward(grad, x, y, hashes), [None] * len(hashes)


_sketch_positions.register_autograd(_sketch_positions_grad, setup_context=keep_tensors)

"""Tensor Sketch by Fourier transform, summed over positions.

A Tensor Sketch is the circular convolution of two count sketches, a * b. The transform is linear,
so a pooled sketch needs one inverse transform in all: sum `F(a) F(b)` over positions first.

Neighbouring positions p and q share each complex transform. With `z = a_p + i a_q` and
`w = b_p + i b_q`, the inverse of `F(z) conj(D F^-1(w))` has the real part
`a_p * b_p + a_q * b_q`, so the pairs need not be told apart before the end either. Backward,
`F^-1(g D F^-1(w))`, g the gradient's spectrum, is the gradient of z in the same form.

Positions are taken in chunks that fit the cache, and only the inputs are kept for the backward.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fieldmark.layers.hashing import CountSketch
from fieldmark.layers.operators import keep_tensors, share_samples

# One count-sketched chunk; a handful of such arrays are alive at once.
_CHUNK_BYTES = 512 << 10
_FEWEST_COLUMNS = 16
_WORK = 300  # multiplications a bin and position, by the time three transforms take


def spectral_sketch(x: Tensor, y: Tensor | None, first: CountSketch, second: CountSketch) -> Tensor:
    """Tensor Sketch summed over positions: `(B, C1, P)` to `(B, D)`.

    Args:
        x: First map.
        y: Second map, `(B, C2, P)`; None: x again.
        first: Count sketch of x's channels.
        second: Count sketch of y's channels, with as many bins.
    """
    sketch: Tensor = _spectral_sketch(x, y, [*first, *second])
    return sketch


@torch.library.custom_op("fieldmark::spectral_sketch", mutates_args=())
def _spectral_sketch(x: Tensor, y: Tensor | None, hashes: Sequence[Tensor]) -> Tensor:
    first, second = CountSketch.unpack(hashes)
    if not len(x):
        return x.new_zeros(0, first.sketch_dim)  # MKL does not transform nothing
    spectra = x.new_zeros(first.sketch_dim, len(x), dtype=x.dtype.to_complex())

    def add(share: slice) -> None:
        _add_spectra(x[share], None if y is None else y[share], first, second, spectra[:, share])

    share_samples(add, len(x), _WORK * first.sketch_dim * x.shape[2])
    sketch: Tensor = torch.fft.ifft(spectra, dim=0).real.T.contiguous()
    return sketch


def _add_spectra(
    x: Tensor, y: Tensor | None, first: CountSketch, second: CountSketch, spectra: Tensor
) -> None:
    """Chunk by chunk: transform both count sketches, sum their products over positions."""
    D = first.sketch_dim
    for group, span in chunks(x, D):
        part = _cut(x[group, :, span])
        z = torch.fft.fft(_sketch_pairs(part, first), dim=0)  # (D, n m / 2)
        w = _sketch_pairs(part if y is None else _cut(y[group, :, span]), second)
        w = torch.fft.ifft(w, dim=0, norm="forward")
        # Not `conj`: inside an operator compiled for the first time torch drops the lazy flag.
        z *= w.conj_physical_()
        spectra[:, group] += z.view(D, part.shape[1], -1).sum(2)


@torch.library.custom_op("fieldmark::spectral_sketch_backward", mutates_args=())
def _spectral_sketch_backward(
    grad: Tensor, x: Tensor, y: Tensor | None, hashes: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    first, second = CountSketch.unpack(hashes)
    dx, dy = torch.empty_like(x), x.new_empty(0) if y is None else torch.empty_like(y)
    if not len(x):
        return dx, dy
    spectra = torch.fft.fft(grad.T, dim=0)[:, :, None]  # (D, B, 1)

    def correlate(share: slice) -> None:
        maps = (x[share], dx[share]), None if y is None else (y[share], dy[share])
        _correlate_chunks(*maps, first, second, spectra[:, share])

    share_samples(correlate, len(x), _WORK * first.sketch_dim * x.shape[2])
    return dx, dy


def _correlate_chunks(
    one: tuple[Tensor, Tensor],
    other: tuple[Tensor, Tensor] | None,
    first: CountSketch,
    second: CountSketch,
    spectra: Tensor,
) -> None:
    """Chunk by chunk: the gradients of one map, or two, each beside its map."""
    x, dx = one
    for group, span in chunks(x, first.sketch_dim):
        part = _cut(x[group, :, span])
        part2 = part if other is None else _cut(other[0][group, :, span])
        da = _correlate(_sketch_pairs(part2, second), spectra[:, group])
        db = _correlate(_sketch_pairs(part, first), spectra[:, group])
        da, db = first.transpose(da), second.transpose(db)  # (C1 or C2, n m)
        if other is None:
            da += db
        else:
            _paste(db, other[1][group, :, span])
        _paste(da, dx[group, :, span])


def chunks(x: Tensor, sketch_dim: int) -> Iterator[tuple[slice, slice]]:
    """Cut the samples and positions of `(B, C, P)` so that a sketched chunk fits the cache."""
    B, _, P = x.shape
    columns = max(_CHUNK_BYTES // (sketch_dim * x.element_size()), _FEWEST_COLUMNS) // 2 * 2
    samples = max(columns // P, 1)
    for b in range(0, B, samples):
        for p in range(0, P, columns):
            yield slice(b, b + samples), slice(p, p + columns)


def _cut(part: Tensor) -> Tensor:
    """Copy `(n, C, m)` to `(C, n, m)`, m made even by a position of zeros."""
    if part.shape[2] % 2:
        part = torch.nn.functional.pad(part, (0, 1))
    return part.transpose(0, 1).contiguous()


def _paste(part: Tensor, into: Tensor) -> None:
    """Copy `(C, n m)` to `(n, C, m)`, without the position of zeros."""
    into.copy_(part.view(len(part), len(into), -1).transpose(0, 1)[:, :, : into.shape[2]])


def _sketch_pairs(part: Tensor, sketch: CountSketch) -> Tensor:
    """Count-sketch `(C, n, m)` to complex `(D, n m / 2)`: two positions to a number."""
    bins = sketch.apply(part.flatten(1))
    return torch.view_as_complex(bins.view(len(bins), -1, 2))


def _correlate(pairs: Tensor, spectra: Tensor) -> Tensor:
    """Correlate complex `(D, n m / 2)` with the gradients of n samples; real `(D, n m)`."""
    reflected = torch.fft.ifft(pairs, dim=0, norm="forward")
    reflected.view(len(pairs), spectra.shape[1], -1).mul_(spectra)
    # The transform leaves bins innermost. A plain two-dimensional copy turns them back fastest.
    correlated = torch.fft.ifft(reflected, dim=0).contiguous()
    return torch.view_as_real(correlated).flatten(1)


@_spectral_sketch.register_fake
def _(x: Tensor, _y: Tensor | None, hashes: Sequence[Tensor]) -> Tensor:
    return x.new_empty(len(x), CountSketch.unpack(hashes)[0].sketch_dim)


@_spectral_sketch_backward.register_fake
def _(
    _grad: Tensor, x: Tensor, y: Tensor | None, _hashes: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(0) if y is None else torch.empty_like(y)


def _spectral_sketch_grad(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, y, *hashes = ctx.saved_tensors
    dx, dy = _spectral_sketch_backward(grad, x, y, hashes)
    return dx, None if y is None else dy, [None] * len(hashes)


_spectral_sketch.register_autograd(_spectral_sketch_grad, setup_context=keep_tensors)

"""Tensor Sketch of one feature map through its Gram matrix, `G = X X^T`.

Sum pooling is linear, so a pooled Tensor Sketch is an exact linear map of the Gram matrix: entry
`G[i, j]` goes, signed, into one fixed bin. No Fourier transform is taken and nothing of size
positions x sketch_dim is made. G itself is made a block at a time, and of its two equal halves
only one. Only X is kept for the backward: gather the signed gradient, then one product.

All products are written with `out=` or in place: torch leaves such calls out of autocast, so
they stay in the input's precision whatever surrounds them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fieldmark.layers.hashing import halve
from fieldmark.layers.operators import keep_tensors, share_samples

# Samples taken together so that they stay in the cache between the levels of a Gram matrix.
_GROUP_BYTES = 2 << 20
# Below this a whole square of products stays in the second-level cache.
_SQUARE_BYTES = 2 << 20


def gram_sketch(x: Tensor, bins: Tensor, folded_bins: Tensor, sketch_dim: int) -> Tensor:
    """Tensor Sketch of `G = X X^T`: `(B, C, P)` to `(B, D)`.

    Args:
        x: One map.
        bins: Signed bins, `(C, C)` int32.
        folded_bins: The same in the order of `fold_symmetric`.
        sketch_dim: D.
    """
    sketch: Tensor = _gram_sketch(x.contiguous(), bins, folded_bins, sketch_dim)
    return sketch


def gram_sketches(x: Tensor, tables: Sequence[Tensor], sketch_dims: Sequence[int]) -> list[Tensor]:
    """Several Tensor Sketches of one `G = X X^T`, without gradients: `(B, C, P)` to each `(B, D)`.

    Args:
        x: One map, contiguous.
        tables: Signed bins of each, in the order of `fold_symmetric`.
        sketch_dims: D of each.
    """
    sums = [x.new_zeros(len(x), 2 * D) for D in sketch_dims]

    def add(share: slice) -> None:
        _add_blocks(x[share], tables, [each[share] for each in sums])

    share_samples(add, len(x), x.shape[1] ** 2 * x.shape[2])
    return [each[:, :D] - each[:, D:] for each, D in zip(sums, sketch_dims, strict=True)]


def groups(*maps: Tensor) -> Iterator[slice]:
    """Cut a batch into groups of samples, few enough to stay in the cache."""
    sample_bytes = sum(m[0].numel() * m.element_size() for m in maps)
    size = max(_GROUP_BYTES // sample_bytes, 1)
    for start in range(0, len(maps[0]), size):
        yield slice(start, start + size)


def scatter(block: Tensor, bins: Tensor, into: Tensor) -> None:
    """Add each sample's entries `(n, ...)` into its signed bins `(n, 2D)`."""
    # Tables are int32, half as much to read. Torch widens them too, but after `expand`: n-fold.
    into.scatter_add_(1, bins.long().expand(len(into), -1), block.flatten(1))


def gather(signed: Tensor, bins: Tensor) -> Tensor:
    """Read each sample's signed bins: `(n, 2D)` to `(n, entries)`."""
    # On the one thread of a share, a third quicker than `gather`.
    values = signed.new_empty(len(signed), len(bins))
    for sample, into in zip(signed, values, strict=True):
        torch.index_select(sample, 0, bins, out=into)
    return values


@torch.library.custom_op("fieldmark::gram_sketch", mutates_args=())
# `bins` is what the backward needs.
def _gram_sketch(x: Tensor, bins: Tensor, folded_bins: Tensor, sketch_dim: int) -> Tensor:  # noqa: ARG001
    return gram_sketches(x, [folded_bins], [sketch_dim])[0]


def _add_blocks(x: Tensor, tables: Sequence[Tensor], sums: Sequence[Tensor]) -> None:
    """Group by group and level by level: make a block of G, scatter it and its mirror."""
    _, C, P = x.shape
    for group in groups(x):
        n = len(x[group])
        for pairs, width, entries in halve(C):
            block = x.new_empty(n * pairs, width, width)
            if entries.stop is None:
                rows = x[group].view(n * pairs, width, P)
                torch.bmm(rows, rows.mT, out=block)
            else:
                halves = x[group].view(n * pairs, 2, width, P)
                torch.bmm(halves[:, 0], halves[:, 1].mT, out=block)
            for folded_bins, into in zip(tables, sums, strict=True):
                mirrored = folded_bins[:1] if entries.stop is None else folded_bins
                for row in mirrored[:, entries]:
                    scatter(block.view(n, -1), row, into[group])


@torch.library.custom_op("fieldmark::gram_sketch_backward", mutates_args=())
def _gram_sketch_backward(grad: Tensor, x: Tensor, bins: Tensor, folded_bins: Tensor) -> Tensor:
    """`dX = (dG + dG^T) X`, with `dG[i, j] = sign * grad[bin]`."""
    signed, dx = torch.cat([grad, -grad], 1), torch.empty_like(x)
    in_cache = bins.numel() * x.element_size() <= _SQUARE_BYTES

    def multiply(share: slice) -> None:
        if in_cache:
            _multiply_by_squares(signed[share], x[share], bins, dx[share])
        else:
            _multiply_by_blocks(signed[share], x[share], folded_bins, dx[share])

    share_samples(multiply, len(x), bins.numel() * x.shape[2])
    return dx


def _multiply_by_squares(signed: Tensor, x: Tensor, bins: Tensor, dx: Tensor) -> None:
    """Sample by sample: gather dG whole, add its transpose, multiply."""
    dG, symmetric = x.new_empty(bins.shape), x.new_empty(bins.shape)
    for grad, sample, into in zip(signed, x, dx, strict=True):
        torch.index_select(grad, 0, bins.flatten(), out=dG.view(-1))
        # A copy that only transposes takes torch's tiled path; a transposed sum does not.
        symmetric.copy_(dG.T).add_(dG)
        torch.mm(symmetric, sample, out=into)


def _multiply_by_blocks(signed: Tensor, x: Tensor, folded_bins: Tensor, dx: Tensor) -> None:
    """Group by group and level by level: gather a block and its mirror, multiply both ways."""
    _, C, P = x.shape
    for group in groups(x):
        n = len(x[group])
        for pairs, width, entries in reversed(list(halve(C))):
            block = gather(signed[group], folded_bins[0, entries])
            block += gather(signed[group], folded_bins[1, entries])
            block = block.view(n * pairs, width, width)
            if entries.stop is None:
                shape = n * pairs, width, P
                torch.bmm(block, x[group].view(shape), out=dx[group].view(shape))
                continue
            halves, d = (m[group].view(n * pairs, 2, width, P) for m in (x, dx))
            d[:, 0].baddbmm_(block, halves[:, 1])
            d[:, 1].baddbmm_(block.mT, halves[:, 0])


@_gram_sketch.register_fake
def _(x: Tensor, _bins: Tensor, _folded_bins: Tensor, sketch_dim: int) -> Tensor:
    return x.new_empty(len(x), sketch_dim)


@_gram_sketch_backward.register_fake
def _(_grad: Tensor, x: Tensor, _bins: Tensor, _folded_bins: Tensor) -> Tensor:
    return torch.empty_like(x)


def _gram_sketch_grad(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    return _gram_sketch_backward(grad.contiguous(), *ctx.saved_tensors), None, None, None


_gram_sketch.register_autograd(_gram_sketch_grad, setup_context=keep_tensors)

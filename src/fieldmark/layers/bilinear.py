"""The Gram matrix of a feature map, and a signed sum into bins whose order never changes.

`gram`, or `product` of two maps, is full bilinear pooling (Lin et al. 2015, arXiv 1504.07889).
`sum_into_bins` after it is the Tensor Sketch for any hashes, and for devices where adding into
bins runs in no fixed order (CUDA). Products are written with `out=`: torch leaves such calls out of
autocast.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fieldmark.layers.hashing import CountSketch
from fieldmark.layers.operators import keep_tensors, transposed


def gram(x: Tensor) -> Tensor:
    """Multiply a map by its transpose, `G = X X^T`: `(B, C, P)` to `(B, C, C)`."""
    product: Tensor = _gram(x)
    return product


@torch.library.custom_op("fieldmark::gram", mutates_args=())
def _gram(x: Tensor) -> Tensor:
    product = x.new_empty(len(x), x.shape[1], x.shape[1])
    torch.bmm(x, x.mT, out=product)
    return product


@torch.library.custom_op("fieldmark::gram_backward", mutates_args=())
def _gram_backward(grad: Tensor, x: Tensor) -> Tensor:
    """`dX = (dG + dG^T) X`: one product where autograd takes two and a sum."""
    dx = torch.empty_like(x)
    if x.is_cuda:
        return torch.bmm(grad + grad.mT, x, out=dx)
    for sample, d, g in zip(x, dx, grad, strict=True):
        torch.mm(transposed(g[None])[0].add_(g), sample, out=d)
    return dx


@_gram.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(len(x), x.shape[1], x.shape[1])


@_gram_backward.register_fake
def _(_grad: Tensor, x: Tensor) -> Tensor:
    return torch.empty_like(x)


def _gram_grad(ctx: Any, grad: Tensor) -> Any:
    return _gram_backward(grad.contiguous(), *ctx.saved_tensors)


_gram.register_autograd(_gram_grad, setup_context=keep_tensors)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply matrices, `(B, n, k)` by `(B, k, m)`, also under autocast in their own precision."""
    c: Tensor = _product(a, b)
    return c


@torch.library.custom_op("fieldmark::product", mutates_args=())
def _product(a: Tensor, b: Tensor) -> Tensor:
    c = a.new_empty(len(a), a.shape[1], b.shape[2])
    torch.bmm(a, b, out=c)
    return c


@_product.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(len(a), a.shape[1], b.shape[2])


def _product_grad(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    a, b = ctx.saved_tensors
    return product(grad, b.mT), product(a.mT, grad)


_product.register_autograd(_product_grad, setup_context=keep_tensors)


def sum_into_bins(values: Tensor, sketch: CountSketch) -> Tensor:
    """Count-sketch each row, its bins summed in a fixed order: `(B, entries)` to `(B, D)`."""
    sums: Tensor = _sum_into_bins(values, list(sketch))
    return sums


@torch.library.custom_op("fieldmark::sum_into_bins", mutates_args=())
def _sum_into_bins(values: Tensor, hashes: Sequence[Tensor]) -> Tensor:
    return CountSketch(*hashes).apply(values.T.contiguous()).T.contiguous()


@torch.library.custom_op("fieldmark::sum_into_bins_backward", mutates_args=())
def _sum_into_bins_backward(grad: Tensor, hashes: Sequence[Tensor]) -> Tensor:
    return CountSketch(*hashes).transpose(grad.T).T.contiguous()


@_sum_into_bins.register_fake
def _(values: Tensor, hashes: Sequence[Tensor]) -> Tensor:
    return values.new_empty(len(values), CountSketch(*hashes).sketch_dim)


@_sum_into_bins_backward.register_fake
def _(grad: Tensor, hashes: Sequence[Tensor]) -> Tensor:
    return grad.new_empty(len(grad), len(CountSketch(*hashes).bins))


def _sum_into_bins_grad(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    _, *hashes = ctx.saved_tensors
    return _sum_into_bins_backward(grad, hashes), [None] * len(hashes)


_sum_into_bins.register_autograd(_sum_into_bins_grad, setup_context=keep_tensors)

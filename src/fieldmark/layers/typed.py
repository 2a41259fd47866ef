"""Layers without weights that have a type nevertheless, as `.half()` and its like set it."""

from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

_HALF = (torch.float16, torch.bfloat16)


def widened(x: Tensor) -> Tensor:
    """`x` in float32 at least, whose sums of squares float16 could not hold."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class TypedModule(nn.Module):
    """A layer that may be cast to float16 or bfloat16, and then gives that.

    A linear layer gives what its weights are. So does this one, though it has none, and a whole
    network may be cast by `.half()`, `.bfloat16()` or `.to(dtype)`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cast = torch.get_default_dtype()

    def as_cast(self, x: Tensor) -> Tensor:
        """`x` in the layer's own type where that is float16 or bfloat16, else as it is."""
        return x.to(self._cast) if self._cast in _HALF else x

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._cast = fn(torch.empty(0, dtype=self._cast)).dtype
        return self

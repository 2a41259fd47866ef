"""Tensor Sketch of a feature map, by whichever route is quickest at its sizes.

    y[d] = sum_p sum over (i, j) with (index_hash1[i] + index_hash2[j]) mod D = d of
           sign_hash1[i] sign_hash2[j] x[i, p] y[j, p]

Pham and Pagh 2013; as a pooling, Gao et al. 2016 (arXiv 1511.06062). All routes are exact and
agree to rounding:

    gram      strips of the Gram matrix, whose rows are added to consecutive bins
    spectrum  Fourier transforms of count sketches, summed over positions
    bags      the Gram matrix, each bin summed in a fixed order: for CUDA, where additions race,
              and for hashes from elsewhere, whose rows lie scattered
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from fieldmark.errors import WeightsError
from fieldmark.layers.bilinear import gram, product, sum_into_bins
from fieldmark.layers.cross_gram import cross_gram_sketch
from fieldmark.layers.gram import gram_sketch, gram_sketches
from fieldmark.layers.hashing import CountSketch, draw_index_hash, draw_sign_hash
from fieldmark.layers.maclaurin import maclaurin_positions, maclaurin_sketch
from fieldmark.layers.positions import sketch_positions
from fieldmark.layers.spectrum import spectral_sketch

Route = Literal["gram", "spectrum", "bags"]


class TensorSketch(nn.Module):
    """Compress the products of all pairs of channels to `sketch_dim` numbers.

    The four hash vectors are the only state. The tables that follow from them are rebuilt when
    hashes are loaded or the module moves, and are not part of the state.

    Args:
        channels: Channels of the first map, C1.
        sketch_dim: Length of a sketch, D.
        channels2: Channels of the second map, C2; None: one map, taken twice.
        seed: Draws the hashes, on a private generator; `index_hash2` only where D < C2, else it
            counts from 0, as `hashing` explains.
        pool: Sum over positions; False: a sketch for each position.
        route: Take this route on a processor; None: choose by size. On a GPU it is `bags`, as it
            is in place of `gram` where `index_hash2` does not count from 0.
    """

    index_hash1: Tensor  # (C1,) int64
    sign_hash1: Tensor  # (C1,) int8
    index_hash2: Tensor  # (C2,) int64
    sign_hash2: Tensor  # (C2,) int8

    def __init__(
        self,
        channels: int,
        sketch_dim: int,
        *,
        channels2: int | None = None,
        seed: int = 0,
        pool: bool = True,
        route: Route | None = None,
    ) -> None:
        super().__init__()
        self.sketch_dim = sketch_dim
        self.two_maps = channels2 is not None
        self.pool = pool
        self.route = route
        generator = torch.Generator().manual_seed(seed)
        for which, count in ((1, channels), (2, channels2 or channels)):
            drawn = which == 1 or sketch_dim < count
            index = draw_index_hash(count, sketch_dim, generator) if drawn else torch.arange(count)
            self.register_buffer(f"index_hash{which}", index)
            self.register_buffer(f"sign_hash{which}", draw_sign_hash(count, generator=generator))
        self._in_rows = not drawn
        self._build_tables()

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """`(B, C1, P)` and, with two maps, `(B, C2, P)` to `(B, D)`, or `(B, D, P)` unpooled."""
        if not self.pool:
            return sketch_positions(x, x if y is None else y, self._first, self._second)
        route = self._route_of(x)
        if route == "spectrum":
            return spectral_sketch(x, y, self._first, self._second)
        if route == "bags":
            G = gram(x) if y is None else product(x, y.mT)  # (B, C1, C2)
            return sum_into_bins(G.flatten(1), self._pairs)
        hashes = self.index_hash1, self._signs
        if y is None:
            return gram_sketch(x, *hashes, self.sketch_dim)
        return cross_gram_sketch(x, y, *hashes, self.sketch_dim)

    def takes_gram(self, x: Tensor) -> bool:
        """Whether `(B, C, P)` is sketched through its Gram matrix, which sketches may share."""
        return self.pool and not self.two_maps and self._route_of(x) == "gram"

    def _route_of(self, x: Tensor) -> Route:
        if x.is_cuda:
            return "bags"
        route = self.route or self._choose_route(x)
        return "bags" if route == "gram" and not self._in_rows else route

    def _choose_route(self, x: Tensor) -> Route:
        P, channels2 = x.shape[2], len(self.index_hash2)
        if self.sketch_dim < channels2:
            return "spectrum"
        # Nanoseconds a photo, forward and backward, fitted on one thread; only ratios matter. The
        # choice rests on sizes alone, so that grad mode and threads do not change the route.
        pairs = len(self.index_hash1) * channels2
        through_gram = pairs * (0.066 * P + 0.8 if self.two_maps else 0.037 * P + 1.8)
        through_spectrum = 12 * self.sketch_dim * P
        return "spectrum" if through_spectrum < through_gram else "gram"

    def _build_tables(self) -> None:
        hash1 = self.index_hash1, self.sign_hash1
        hash2 = self.index_hash2, self.sign_hash2
        self._first = CountSketch.build(*hash1, self.sketch_dim)
        self._second = CountSketch.build(*hash2, self.sketch_dim)
        signs = self.sign_hash1[:, None] * self.sign_hash2  # (C1, C2)
        always_spectrum = self.route == "spectrum" or (
            self.route is None and self.sketch_dim < len(self.index_hash2)
        )
        scattered = not self._in_rows and not always_spectrum
        if signs.is_cuda or self.route == "bags" or scattered:
            bins = (self.index_hash1[:, None] + self.index_hash2) % self.sketch_dim
            self._pairs = CountSketch.build(bins.flatten(), signs.flatten(), self.sketch_dim)
        elif self._in_rows:
            self._signs = signs.float()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._build_tables()
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for which in (1, 2):
            index = state_dict.get(f"{prefix}index_hash{which}")
            if (
                index is not None
                and len(index)
                and not 0 <= index.min() <= index.max() < self.sketch_dim
            ):
                raise WeightsError(
                    f"`{prefix}index_hash{which}` holds bins {index.min()} to {index.max()}, but "
                    f"this sketch has bins 0 to {self.sketch_dim - 1}. Build it with the "
                    f"`sketch_dim` the weights were saved with."
                )
        super()._load_from_state_dict(state_dict, prefix, *args)
        second = self.index_hash2
        self._in_rows = torch.equal(second, torch.arange(len(second), device=second.device))
        self._build_tables()


def sketches_of(x: Tensor, sketches: Sequence[TensorSketch]) -> list[Tensor]:
    """What sketches that take the Gram matrix make of one map, `(B, D)` each; no gradients.

    Args:
        x: The map, `(B, C, P)`.
        sketches: Those whose `takes_gram` is true of it.
    """
    hashes = [(sketch.index_hash1, sketch._signs.to(x.dtype)) for sketch in sketches]
    return gram_sketches(x.contiguous(), hashes, [sketch.sketch_dim for sketch in sketches])


class RandomMaclaurin(nn.Module):
    """Project pairs of channels on `sketch_dim` products of two random sign vectors.

    Args:
        channels: Channels of the first map, C1.
        sketch_dim: Length of a sketch, D.
        channels2: Channels of the second map, C2; None: one map, taken twice.
        seed: Draws the signs, on a private generator.
        pool: Sum over positions; False: a sketch for each position.
    """

    sign_hash1: Tensor  # (D, C1) int8
    sign_hash2: Tensor  # (D, C2) int8

    def __init__(
        self,
        channels: int,
        sketch_dim: int,
        *,
        channels2: int | None = None,
        seed: int = 0,
        pool: bool = True,
    ) -> None:
        super().__init__()
        self.pool = pool
        generator = torch.Generator().manual_seed(seed)
        for which, count in ((1, channels), (2, channels2 or channels)):
            signs = draw_sign_hash(sketch_dim, count, generator=generator)
            self.register_buffer(f"sign_hash{which}", signs)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """`(B, C1, P)` and, with two maps, `(B, C2, P)` to `(B, D)`, or `(B, D, P)` unpooled."""
        sketch = maclaurin_sketch if self.pool else maclaurin_positions
        return sketch(x, x if y is None else y, self.sign_hash1, self.sign_hash2)

"""Poolings: from a feature map `(B, C, H, W)` to one vector a photo, `(B, out_features)`.

All compute in float32 at least, whatever the map's type and under autocast, and treat each
photo alone. Bilinear poolings sum over positions, as the original layers do (average, max and
GeM do not grow with the map; normalising after a bilinear pooling takes the scale out again).

Vectors come in float32, of a float64 map in float64. A pooling that was cast, as by `.half()`,
gives float16 or bfloat16, but for the bilinear ones: their sums of products leave float16's range,
and stay in float32 until `L2Normalize`, cast likewise, has brought them back into it.
"""

import difflib
import inspect
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fieldmark.errors import SettingError
from fieldmark.layers.bilinear import gram, product
from fieldmark.layers.sketch import RandomMaclaurin, TensorSketch
from fieldmark.layers.typed import TypedModule, widened

METHODS = ("tensor_sketch", "random_maclaurin")


class Pooling(TypedModule):
    """What all poolings share: checks, precision, and the map as `(B, C, positions)`.

    Args:
        channels: Channels of the map.
        out_features: Length of the pooled vector.
        channels2: Channels of the second map; None: one map.
        problems: What is wrong with the other arguments.

    Attributes:
        sums_products: Whether the vector may leave the range of the map's type.

    Raises:
        SettingError: An argument is out of range; all such are named.
    """

    sums_products = False

    def __init__(
        self,
        channels: int,
        out_features: int,
        *,
        channels2: int | None = None,
        problems: tuple[str | None, ...] = (),
    ) -> None:
        super().__init__()
        _raise_all(
            _at_least_one("channels", channels), _at_least_one("channels2", channels2), *problems
        )
        self.channels = channels
        self.channels2 = channels2
        self.out_features = out_features

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Pool `(B, C, H, W)`, with a second map where two are taken, to `(B, out_features)`."""
        self._check(x, y)
        pooled = self._pool(*(widened(m).flatten(2) for m in (x, y) if m is not None))
        return pooled if self.sums_products else self.as_cast(pooled)

    def _pool(self, *maps: Tensor) -> Tensor:
        """Pool maps of `(B, C, positions)`, in float32 at least."""
        raise NotImplementedError

    def _check(self, x: Tensor, y: Tensor | None) -> None:
        if (y is None) != (self.channels2 is None):
            allowed = "one map" if self.channels2 is None else "two maps"
            raise SettingError(
                f"{type(self).__name__} was built for {allowed}, got {1 if y is None else 2}. "
                "Set `channels2` when it is built for two, leave it out for one."
            )
        for given, channels in ((x, self.channels), (y, self.channels2)):
            if given is not None and (given.dim() != 4 or given.shape[1] != channels):
                raise SettingError(
                    f"a map must be (batch, {channels}, height, width), got {tuple(given.shape)}. "
                    "Build the pooling with the backbone's number of channels."
                )
        if y is not None and (len(x) != len(y) or x.shape[2:] != y.shape[2:]):
            raise SettingError(
                "two maps must share batch, height and width, got "
                f"{tuple(x.shape)} and {tuple(y.shape)}. Resize one of them."
            )

    def extra_repr(self) -> str:
        """Sizes, and the constructor's other arguments."""
        shown = {"channels": self.channels, "channels2": self.channels2, **self._options()}
        return ", ".join(f"{name}={value}" for name, value in shown.items() if value is not None)

    def _options(self) -> dict[str, object]:
        return {}


class AveragePooling(Pooling):
    """Average over positions, `y[c] = mean_p x[c, p]` (Lin et al. 2014, arXiv 1312.4400).

    Args:
        channels: Channels of the map, C; out_features = C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def _pool(self, *maps: Tensor) -> Tensor:
        return maps[0].mean(2)


class MaxPooling(Pooling):
    """Take the largest over positions, `y[c] = max_p x[c, p]`; ties share the gradient.

    Args:
        channels: Channels of the map, C; out_features = C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def _pool(self, *maps: Tensor) -> Tensor:
        return maps[0].amax(2)


class GeMPooling(Pooling):
    """Generalised mean over positions (Radenovic et al. 2018, arXiv 1711.02512).

        y[c] = (mean_p max(x[c, p], eps)^p)^(1/p)

    p = 1 is the average of the positive part, a large p nears the maximum.

    Args:
        channels: Channels of the map, C; out_features = C.
        p: The exponent, at least 1; where training starts from when it is trained.
        trainable: Learn p, one for all channels.
        eps: Floor under the features, above 0.
    """

    def __init__(
        self, channels: int, *, p: float = 3.0, trainable: bool = True, eps: float = 1e-6
    ) -> None:
        problems = (
            None if p >= 1 else f"`p` must be at least 1, got {p}. Use 3.",
            None if eps > 0 else f"`eps` must be above 0, got {eps}. Use 1e-6.",
        )
        super().__init__(channels, channels, problems=problems)
        self.p = nn.Parameter(torch.tensor(float(p)), requires_grad=trainable)
        self.eps = eps

    def _pool(self, *maps: Tensor) -> Tensor:
        p = self.p.to(maps[0].dtype)
        return maps[0].clamp(min=self.eps).pow(p).mean(2).pow(1 / p)

    def _options(self) -> dict[str, object]:
        return {"p": round(self.p.item(), 4), "eps": self.eps}


class BilinearPooling(Pooling):
    """Sum of outer products over positions (Lin et al. 2015, arXiv 1504.07889).

        y[i, j] = sum_p x[i, p] y[j, p]

    Args:
        channels: Channels of the map, C1; out_features = C1 C2.
        channels2: Channels of the second map, C2; None: one map, taken twice.
    """

    sums_products = True

    def __init__(self, channels: int, *, channels2: int | None = None) -> None:
        super().__init__(channels, channels * (channels2 or channels), channels2=channels2)

    def _pool(self, *maps: Tensor) -> Tensor:
        if len(maps) == 1:
            return gram(maps[0]).flatten(1)
        return product(maps[0], maps[1].mT).flatten(1)


class CompactBilinearPooling(Pooling):
    """Bilinear pooling sketched to `sketch_dim` numbers (Gao et al. 2016, arXiv 1511.06062).

    The dot product of two sketches is an unbiased estimate of that of the two full bilinear
    vectors, its error falling as `1 / sqrt(sketch_dim)`. Summed over positions.

    Args:
        channels: Channels of the map, C1.
        sketch_dim: Length of the sketch; out_features = sketch_dim.
        method: `tensor_sketch`, or `random_maclaurin` (slower, as good).
        channels2: Channels of the second map; None: one map, taken twice.
        seed: Draws the hashes, on a private generator.
        pool: False: keep positions, `(B, sketch_dim, H, W)` out.
    """

    sums_products = True

    def __init__(
        self,
        channels: int,
        sketch_dim: int,
        *,
        method: Literal["tensor_sketch", "random_maclaurin"] = "tensor_sketch",
        channels2: int | None = None,
        seed: int = 0,
        pool: bool = True,
    ) -> None:
        problems = (
            _at_least_one("sketch_dim", sketch_dim),
            None if method in METHODS else f"unknown `method` {method!r}. {_hint(method, METHODS)}",
        )
        super().__init__(channels, sketch_dim, channels2=channels2, problems=problems)
        kind = TensorSketch if method == "tensor_sketch" else RandomMaclaurin
        self.sketch = kind(channels, sketch_dim, channels2=channels2, seed=seed, pool=pool)
        self.method = method
        self.seed = seed
        self.pool = pool

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Sketch `(B, C1, H, W)` to `(B, sketch_dim)`, or `(B, sketch_dim, H, W)` unpooled."""
        sketch = super().forward(x, y)
        return sketch if self.pool else sketch.reshape(*sketch.shape[:2], *x.shape[2:])

    def _pool(self, *maps: Tensor) -> Tensor:
        sketch: Tensor = self.sketch(*maps)
        return sketch

    def _options(self) -> dict[str, object]:
        return {
            "sketch_dim": self.out_features,
            "method": self.method,
            "seed": self.seed,
            "pool": self.pool,
        }


class CovariancePooling(Pooling):
    """Matrix square root of the channels' covariance, iSQRT-COV (Li et al. 2018, arXiv 1712.01034).

        S = (1/P) sum_p (x_p - mean)(x_p - mean)^T,   A = S / tr S,   Y_0 = A,   Z_0 = I
        T = (3 I - Z_k Y_k) / 2,   Y_k+1 = Y_k T,   Z_k+1 = T Z_k,   y = sqrt(tr S) triu(Y_N)

    Args:
        channels: Channels of the map, C; out_features = C (C + 1) / 2.
        iterations: Newton-Schulz steps N, at least 1. The paper takes 5.
    """

    def __init__(self, channels: int, *, iterations: int = 5) -> None:
        problems = (_at_least_one("iterations", iterations),)
        super().__init__(channels, channels * (channels + 1) // 2, problems=problems)
        self.iterations = iterations

    def _pool(self, *maps: Tensor) -> Tensor:
        x = maps[0]  # (B, C, P)
        covariance = gram(x - x.mean(2, keepdim=True)) / x.shape[2]  # (B, C, C)
        # A map with a single value has no covariance: the floor keeps its gradient finite.
        trace = covariance.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] + 1e-12
        root = _newton_schulz(covariance / trace, self.iterations) * trace.sqrt()
        row, column = torch.triu_indices(self.channels, self.channels, device=x.device)
        return root[:, row, column]

    def _options(self) -> dict[str, object]:
        return {"iterations": self.iterations}


def _newton_schulz(A: Tensor, iterations: int) -> Tensor:
    identity = torch.eye(A.shape[1], dtype=A.dtype, device=A.device)
    step = 1.5 * identity - 0.5 * A  # Z_0 = I
    Y, Z = product(A, step), step
    for _ in range(iterations - 1):
        step = 1.5 * identity - 0.5 * product(Z, Y)
        Y, Z = product(Y, step), product(step, Z)
    return Y


POOLINGS: dict[str, type[Pooling]] = {
    "average": AveragePooling,
    "max": MaxPooling,
    "gem": GeMPooling,
    "bilinear": BilinearPooling,
    "compact_bilinear": CompactBilinearPooling,
    "covariance": CovariancePooling,
}


def make_pooling(name: str, channels: int, *, seed: int, **options: Any) -> Pooling:
    """Build a pooling by its name in `POOLINGS`.

    Args:
        name: Which pooling.
        channels: Channels of the map.
        seed: For poolings that draw something; others don't take note.
        options: The pooling's own arguments.

    Raises:
        SettingError: Unknown name; or unknown, missing and invalid options, all at once.
    """
    if name not in POOLINGS:
        raise SettingError(f"unknown pooling {name!r}. {_hint(name, POOLINGS)}")
    kind = POOLINGS[name]
    parameters = inspect.signature(kind).parameters
    allowed = [p for p in parameters if p not in ("channels", "seed")]
    problems = [
        f"pooling `{name}` has no option {option!r}. {_hint(option, allowed)}"
        for option in options
        if option not in allowed
    ]
    known = {"channels": channels, "seed": seed, **options}
    arguments = {p: known[p] for p in parameters if p in known}
    missing = [
        p for p, spec in parameters.items() if spec.default is spec.empty and p not in arguments
    ]
    problems += [f"pooling `{name}` needs `{p}`. Add it to its options." for p in missing]
    if not missing:
        try:
            pooling = kind(**arguments)
        except SettingError as error:
            problems.append(str(error))
    _raise_all(*problems)
    return pooling


def _hint(given: str, allowed: Iterable[str]) -> str:
    names = list(allowed)
    if not names:
        return "It has none."
    nearest = difflib.get_close_matches(str(given), names, n=1)
    meant = f"Did you mean {nearest[0]!r}? " if nearest else ""
    return f"{meant}Allowed: {', '.join(names)}."


def _at_least_one(name: str, value: int | None) -> str | None:
    if value is None or (isinstance(value, int) and value >= 1):
        return None
    return f"`{name}` must be a whole number of at least 1, got {value!r}."


def _raise_all(*problems: str | None) -> None:
    found = [problem for problem in problems if problem]
    if found:
        raise SettingError("\n".join(found))

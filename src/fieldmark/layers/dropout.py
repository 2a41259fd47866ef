"""Dropout that hides the same entries of a sample however its batch is cut or shared out."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

_drawn: ContextVar[tuple[int, Tensor] | None] = ContextVar("_drawn", default=None)


@contextmanager
def drawn_for(seed: int, samples: Tensor) -> Iterator[None]:
    """Masks of `SampleDropout` inside are those of these samples.

    Args:
        seed: Of the step.
        samples: Their numbers, (B,) int64, in the order of the batch.
    """
    token = _drawn.set((seed % 2**64, samples))
    try:
        yield
    finally:
        _drawn.reset(token)


class SampleDropout(nn.Dropout):
    """Hide each entry of a sample with probability p and scale up the rest, in training only.

    Inside `drawn_for` a sample's mask follows from (seed, sample) alone; elsewhere it is drawn as
    torch's own. A network holds one such layer: a second would hide the same entries.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name for it
        """`(B, D)` to `(B, D)`."""
        drawn = _drawn.get()
        if drawn is None or not self.training:
            return super().forward(input)
        return hide(input, chances(*drawn, input[0].numel()).view(input.shape), self.p)


def chances(seed: int, samples: Tensor, width: int) -> Tensor:
    """What each entry of a sample's mask is drawn by, (B, width) float32 in [0, 1).

    Args:
        seed: Of the step, below 2^64.
        samples: Their numbers, (B,) int64.
        width: Entries of one sample.
    """
    each = [_uniform(seed, sample, width) for sample in samples.tolist()]
    return torch.from_numpy(np.stack(each))


def hide(samples: Tensor, drawn: Tensor, share: float) -> Tensor:
    """A share of the entries set to 0 by what they are drawn, the rest scaled up, (B, ...)."""
    return samples * (drawn >= share).to(samples).div_(1 - share)


def _uniform(seed: int, sample: int, count: int) -> npt.NDArray[np.float32]:
    """Numbers in [0, 1), `(count,)` float32, from a generator whose state is (seed, sample)."""
    key = np.array([seed, sample], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).random(count, dtype=np.float32)

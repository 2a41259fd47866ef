"""The learning-rate range test: losses under a rising rate, read as a band of usable rates.

L. N. Smith, "Cyclical learning rates", arXiv 1506.01186, and "A disciplined approach", arXiv
1803.09820: train for a short while as the rate rises, and see where the loss begins to fall, where
it is lowest and where it explodes. Two sources of noise are taken out. Each step's loss is held
against that of the untouched model on the same batch, since batches differ by far more than a stage
that begins with a trained head gains in a few steps. And the curve is read as the mean of several
repeats, since the lowest point of a single one is hardly defined; each must bear out the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

Curve = NDArray[np.float64]
Why = Literal["diverges", "rises", "falls", "flat", "plateau", "open", "noisy", "narrow"]

SMOOTHED = 4.0  # steps: the width (one sigma) losses are averaged over
CALMED = (2 * np.pi**0.5 * SMOOTHED) ** -0.5  # what that leaves of independent noise
BEGUN = 0.1  # of the whole fall: from here on the loss is falling
LEAST_FALL = 0.02  # of the loss at the start, and so many times the curve's own noise:
CERTAIN = 4.0
EDGE = 0.05  # of the test's length: what happens there may have begun before, or go on after
BELOW_MINIMUM = 3.0  # times: where the loss is lowest it is about to explode


@dataclass(frozen=True, eq=False)
class RangeTest:
    """What the curves of all repeats say together.

    Attributes:
        band: Lowest and highest rate worth trying, or None.
        why: Why there is no band, in a word; None where there is.
        reason: The same in a sentence with its numbers, and what to do.
        curves: Loss of each repeat, (R, N), smoothed, with the noise of batches taken out.
        lowest: The rate at which their mean is lowest; None where it only rises or never falls.
        rises: Where the loss hardly falls, the rate from which on it rises.
    """

    band: tuple[float, float] | None
    why: Why | None
    reason: str | None
    curves: Curve
    lowest: float | None = None
    rises: float | None = None


def rising(low: float, high: float, steps: int) -> Curve:
    """Rates from `low` to `high`, each the same factor above the one before, (S,)."""
    return np.geomspace(low, high, steps)


def smoothed(losses: Sequence[float] | Curve) -> Curve:
    """Losses (..., n) averaged over their neighbours, without the lag of a running mean."""
    found: Curve = gaussian_filter1d(np.asarray(losses, np.float64), SMOOTHED)
    return found


def read_range(
    lr: Curve, repeats: Sequence[Sequence[float]], untouched: Sequence[Sequence[float]]
) -> RangeTest:
    """The band in which rates are worth trying.

    From where the mean loss begins to fall to a third of the rate at which it is lowest.

    Args:
        lr: The rates, rising, (S,).
        repeats: The losses of each repeat, in nats, up to S of them: fewer where it diverged.
        untouched: The losses of the same batches before any step was taken, as many or more.
    """
    length = min(map(len, repeats))
    before = np.array([losses[:length] for losses in untouched])
    gained = np.array([losses[:length] for losses in repeats]) - before  # (R, N)
    return _Reading(lr, gained, before.mean(axis=1, keepdims=True)).answer()


class _Reading:
    """The mean of all repeats, and what each of them has to say to it."""

    def __init__(self, lr: Curve, gained: Curve, start: Curve) -> None:
        self.lr = lr
        self.start = float(start.mean())
        self.each = smoothed(gained)  # (R, N), from 0 down to its lowest
        self.edge = max(1, round(EDGE * len(lr)))
        self.curves = start + self.each
        if self.each.shape[1] > 2 * self.edge:
            self.mean = self.each.mean(axis=0)  # (N,)
            self.place = int(self.mean.argmin())
            self.fall = -float(self.mean[self.place])
            until = max(self.place, 2 * self.edge) + 1
            self.noise = CALMED * _noise(gained.mean(axis=0)[:until])

    def answer(self) -> RangeTest:
        """The band, or the first reason against one."""
        ends = f"lr {self.lr[0]:.2g} to {self.lr[-1]:.2g}"
        if self.each.shape[1] <= 2 * self.edge:
            return self._none("diverges", f"it diverges from the start ({ends}); begin far lower")
        if self.place < self.edge and self.mean[-self.edge :].mean() > 2 * self.noise:
            return self._none("rises", f"the loss rises from the start ({ends}); begin far lower")
        if self.fall < max(LEAST_FALL * self.start, CERTAIN * self.noise):
            return self._flat(ends)
        if self.place >= len(self.lr) - self.edge:
            return self._none("open", f"the loss still falls at the end ({ends}); go higher")
        still = np.flatnonzero(self.mean[: self.place + 1] >= -BEGUN * self.fall)
        return self._band(int(still.max(initial=-1)) + 1, ends)

    def _band(self, begins: int, ends: str) -> RangeTest:
        low, lowest = float(self.lr[begins]), float(self.lr[self.place])
        high = lowest / BELOW_MINIMUM
        if low >= high and begins < self.edge:
            told = f"the loss falls from the first steps on ({ends}); begin lower"
            return self._none("falls", told, lowest)
        if low >= high:
            told = f"the loss begins to fall at lr {low:.2g} and is lowest at {lowest:.2g}"
            told = f"too narrow: {told}; the test is too short for so steep a rise"
            return self._none("narrow", told, lowest)
        upper = int(np.searchsorted(self.lr, high))
        has_begun = self.each[:, upper] < -BEGUN * self.fall
        astray = int((~(has_begun & (self.each[:, self.place] < 0))).sum())
        if astray:
            told = (
                f"noisy: on average the loss falls at lr {high:.2g} and is lowest at {lowest:.2g}"
            )
            told += f", but not so in {astray} of {len(self.each)} repeats; use larger batches"
            return self._none("noisy", told, lowest)
        return RangeTest((low, high), None, None, self.curves, lowest)

    def _flat(self, ends: str) -> RangeTest:
        """Where the loss hardly falls: from where on it rises to stay there, if it does."""
        low = np.flatnonzero(self.mean <= 2 * self.noise)
        rise = int(low[-1]) + 1 if len(low) else 0
        told = f"flat: the loss hardly falls from {self.start:.2f} ({ends})"
        if rise == len(self.mean):
            return self._none("flat", f"{told} all along; go higher")
        rate = float(self.lr[rise])
        told += f" before it rises at lr {rate:.2g}; stay below a third of that"
        return self._none("plateau", told, rises=rate)

    def _none(
        self, why: Why, reason: str, lowest: float | None = None, rises: float | None = None
    ) -> RangeTest:
        return RangeTest(None, why, reason, self.curves, lowest, rises)


def _noise(losses: Curve) -> float:
    """Standard deviation of single losses about whatever trend they follow.

    From the median of |x(t) - 2 x(t+1) + x(t+2)|, which a trend hardly moves: 0.6745 sqrt(6) times
    the deviation where noise is normal.
    """
    return float(np.median(abs(np.diff(losses, 2)))) / (0.6745 * 6**0.5)

"""The learning-rate range test: losses under a rising rate, read as a band of usable rates.

L. N. Smith, "Cyclical learning rates", arXiv 1506.01186, and "A disciplined approach", arXiv
1803.09820: train for a short while as the rate rises, and see where the loss begins to fall, where
it is lowest and where it explodes. One curve is one draw of chance, and its steepest point hardly
defined, so several are read, and an answer is given only where they agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

Curve = NDArray[np.float64]
Why = Literal["diverges", "rises", "falls", "flat", "open", "noisy", "narrow"]

SMOOTHED = 4.0  # steps: the width (one sigma) losses are averaged over
BEGUN = 0.1  # of the whole fall: from here on the loss is falling
LEAST_FALL = 0.05  # of the loss at the start, and twice the noise of single steps
EDGE = 0.05  # of the test's length: what happens there may have begun before, or go on after
AGREE = 3.0  # times: how far repeats may lie apart
BELOW_MINIMUM = 3.0  # times: where the loss is lowest it is about to explode


@dataclass(frozen=True)
class Reading:
    """Where a curve's loss began to fall and where it was lowest, as rates; or why neither."""

    begin: float | None = None
    lowest: float | None = None
    why: Why | None = None
    reason: str | None = None


@dataclass(frozen=True)
class RangeTest:
    """What the curves of all repeats say together.

    Attributes:
        band: Lowest and highest rate worth trying, or None.
        why: Why there is no band, in a word; None where there is.
        reason: The same in a sentence with its numbers, and what to do.
        readings: Of each repeat.
    """

    band: tuple[float, float] | None
    why: Why | None
    reason: str | None
    readings: tuple[Reading, ...]


def rising(low: float, high: float, steps: int) -> Curve:
    """Rates from `low` to `high`, each the same factor above the one before, (S,)."""
    return np.geomspace(low, high, steps)


def smoothed(losses: Sequence[float] | Curve) -> Curve:
    """Losses (n,) averaged over their neighbours, without the lag of a running mean."""
    found: Curve = gaussian_filter1d(np.asarray(losses, np.float64), SMOOTHED)
    return found


def read_range(lr: Curve, repeats: Sequence[Sequence[float]]) -> RangeTest:
    """The band in which rates are worth trying.

    From where the loss begins to fall in every repeat to a third of the rate at which it is lowest
    in any.

    Args:
        lr: The rates, rising, (S,).
        repeats: The losses of each repeat, in nats, up to S of them: fewer where it diverged.
    """
    readings = tuple(_read(lr, np.asarray(losses, np.float64)) for losses in repeats)
    bad = [reading for reading in readings if reading.reason]
    if bad:
        count = f" (in {len(bad)} of {len(readings)} repeats)" if len(readings) > 1 else ""
        return RangeTest(None, bad[0].why, f"{bad[0].reason}{count}", readings)
    begins = [reading.begin for reading in readings if reading.begin]
    lowest = [reading.lowest for reading in readings if reading.lowest]
    for name, rates in (("begins to fall", begins), ("is lowest", lowest)):
        if max(rates) > AGREE * min(rates):
            reason = (
                f"noisy: repeats differ by {max(rates) / min(rates):.1f} times in where the loss "
                f"{name} (lr {min(rates):.2g} to {max(rates):.2g}); use larger batches"
            )
            return RangeTest(None, "noisy", reason, readings)
    low, high = max(begins), min(lowest) / BELOW_MINIMUM
    if low >= high:
        reason = (
            f"too narrow: the loss begins to fall at lr {low:.2g} and is lowest at "
            f"{min(lowest):.2g}; the test is too short for so steep a rise"
        )
        return RangeTest(None, "narrow", reason, readings)
    return RangeTest((low, high), None, None, readings)


def _read(lr: Curve, losses: Curve) -> Reading:
    """One curve's; it is flat, cut off on one side, or has a fall and a minimum."""
    edge = max(1, round(EDGE * len(lr)))
    ends = f"lr {lr[0]:.2g} to {lr[-1]:.2g}"
    if len(losses) <= 2 * edge:
        told = f"it diverges from the start ({ends}); begin far lower"
        return Reading(why="diverges", reason=told)
    curve = smoothed(losses)
    place = int(curve.argmin())
    first, start, next_to_it = (
        float(part.mean()) for part in (losses[:3], losses[:edge], losses[edge : 2 * edge])
    )
    fall = start - float(curve[place])
    noise = _noise(losses[: max(place, 2 * edge) + 1])
    if place < edge and losses[-edge:].mean() > start + 2 * noise:
        told = f"the loss rises from the start ({ends}); begin far lower"
        return Reading(why="rises", reason=told)
    still = np.flatnonzero(curve[: place + 1] >= start - BEGUN * fall)
    if first - next_to_it > max(LEAST_FALL * first, 2 * noise) or not len(still):
        told = f"the loss falls from the first steps on ({ends}); begin lower"
        return Reading(why="falls", reason=told)
    if fall < max(LEAST_FALL * start, 2 * noise):
        rises = losses[-edge:].mean() > start + 2 * noise
        then = "before it rises; use larger batches" if rises else "all along; go higher"
        told = f"flat: the loss hardly falls from {start:.2f} ({ends}) {then}"
        return Reading(why="flat", reason=told)
    if place >= len(lr) - edge:
        return Reading(why="open", reason=f"the loss still falls at the end ({ends}); go higher")
    return Reading(float(lr[min(still[-1] + 1, place)]), float(lr[place]))


def _noise(losses: Curve) -> float:
    """Standard deviation of single losses about whatever trend they follow.

    From the median of |x(t) - 2 x(t+1) + x(t+2)|, which a trend hardly moves: 0.6745 sqrt(6) times
    the deviation where noise is normal.
    """
    return float(np.median(abs(np.diff(losses, 2)))) / (0.6745 * 6**0.5)

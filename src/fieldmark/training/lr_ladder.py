"""Several learning rates from one start, on the same batches, read as a band of usable rates.

Where a stage begins with a trained head, that knows its training photos already, and the first
steps at the rate that wins cost something: a rising rate (`lr_range`) sees that cost and nothing of
the gain. So each of a few rates has a short training of its own, as in a grid search's first epoch,
and is judged by photos that none of them trained on.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fieldmark.training.lr_range import LEAST_FALL, RangeTest

Curve = NDArray[np.float64]

HALF = 0.5  # of the best rate's gain is enough
NEAR = 1  # rates of the ladder: how far a repeat's own best may lie from that of all


def read_ladder(lr: Curve, gained: Sequence[Sequence[float]] | Curve, start: float) -> RangeTest:
    """The rates that gain at least half of what the best one does, in between by interpolation.

    Args:
        lr: The rates, rising, each the same factor above the one before, (N,).
        gained: By how much the loss lies above that of the untouched model at the end of the
            training at each rate, in nats, by repeat (R, N): below 0 is a gain.
        start: The untouched model's loss.
    """
    each = np.asarray(gained, np.float64)
    mean = each.mean(axis=0)  # (N,)
    best = int(mean.argmin())
    fall, ends = -float(mean[best]), f"lr {lr[0]:.2g} to {lr[-1]:.2g}"
    curves, lowest = start + each, float(lr[best])
    if fall < LEAST_FALL * start:
        return _flat(lr, mean, curves, start)
    if best == len(lr) - 1:
        told = f"the loss still falls at the end ({ends}); go higher"
        return RangeTest(None, "open", told, curves, lowest)
    if best == 0:
        told = f"the loss falls most at the lowest rate ({ends}); begin lower"
        return RangeTest(None, "falls", told, curves, lowest)
    apart = abs(each.argmin(axis=1) - best) > NEAR
    astray = int((apart | (each[:, best] > -HALF * fall)).sum())
    if astray:
        told = f"noisy: on average the loss falls most at lr {lowest:.2g}"
        told += f", but not so in {astray} of {len(each)} repeats; use larger batches"
        return RangeTest(None, "noisy", told, curves, lowest)
    low = _crossing(lr[best::-1], mean[best::-1], -HALF * fall)
    high = _crossing(lr[best:], mean[best:], -HALF * fall)
    return RangeTest((low, high), None, None, curves, lowest)


def _flat(lr: Curve, mean: Curve, curves: Curve, start: float) -> RangeTest:
    """Where no rate gains: from which on it costs, if it does."""
    told = f"flat: the loss hardly falls from {start:.2f} (lr {lr[0]:.2g} to {lr[-1]:.2g})"
    fine = np.flatnonzero(mean <= LEAST_FALL * start)
    rise = int(fine[-1]) + 1 if len(fine) else 0
    if rise == len(lr):
        return RangeTest(None, "flat", f"{told} all along; go higher", curves)
    rate = float(lr[rise])
    told += f" before it rises at lr {rate:.2g}; stay below a third of that"
    return RangeTest(None, "plateau", told, curves, rises=rate)


def _crossing(lr: Curve, mean: Curve, level: float) -> float:
    """Going away from the best rate, where the mean first rises above `level`; else the last rate.

    Straight lines over the logarithm of the rate stand between those that were tried.
    """
    above = np.flatnonzero(mean > level)
    if not len(above):
        return float(lr[-1])
    place = int(above[0])
    share = (level - mean[place - 1]) / (mean[place] - mean[place - 1])
    return float(lr[place - 1] * (lr[place] / lr[place - 1]) ** share)

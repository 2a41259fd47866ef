"""A metric of one stage as it was recorded, and the few statistics that checks share."""

from dataclasses import dataclass, replace
from math import sqrt
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fieldmark.diagnosis.finding import Place

Values = NDArray[np.float64]

LATE = 0.25  # of a stage's steps: its last quarter
SUSTAINED = 0.1  # of its evaluations, and at least three: what lasts so long is no flicker
SMOOTHED = 3  # evaluations
STEADY = 0.1  # of its fall: how far a curve may have been lower before


@dataclass(frozen=True, eq=False)
class Curve:
    """One metric of one stage, finite values only.

    Attributes:
        key: As `val/loss`.
        stage: The stage's name.
        steps: int64 (N,), of the whole training, rising.
        values: float64 (N,).
    """

    key: str
    stage: str | None
    steps: NDArray[np.int64]
    values: Values

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, chosen: slice | NDArray[np.bool_]) -> Self:
        return replace(self, steps=self.steps[chosen], values=self.values[chosen])

    @property
    def first(self) -> float:
        """The first value."""
        return float(self.values[0])

    @property
    def last(self) -> float:
        """The last value."""
        return float(self.values[-1])

    @property
    def late(self) -> Self:
        """What was recorded in the stage's last quarter, the last record at least."""
        if not len(self):
            return self
        start = self.steps[-1] - LATE * (self.steps[-1] - self.steps[0])
        return self[self.steps >= start]

    @property
    def late_mean(self) -> float:
        """Mean of the last quarter: steadier than the last value, and chosen by nobody."""
        return float(self.late.values.mean())

    @property
    def smooth(self) -> Self:
        """Centred mean of three; at the ends of the two there are."""
        return replace(self, values=running_mean(self.values, SMOOTHED))

    @property
    def lasting(self) -> int:
        """How many evaluations in a row are no flicker."""
        return max(SMOOTHED, round(SUSTAINED * len(self)))

    @property
    def jitter(self) -> float:
        """Standard deviation around the trend, from the differences of neighbours."""
        return float(np.std(np.diff(self.values)) / sqrt(2)) if len(self) > 2 else 0.0

    @property
    def lowest(self) -> int:
        """Where the smoothed curve is lowest."""
        return int(self.smooth.values.argmin())

    def has_risen(self, margin: float) -> bool:
        """Whether it rose from its lowest by a margin for good.

        Its last quarter does on average, which chance moves little, and to its end no three looks
        come half of the way back. The lowest of many looks is low by chance too, the more they
        scatter: what they scatter is added to the margin.
        """
        smooth, scatter = self.smooth.values, self[self.lowest :].jitter
        stays = bool((smooth[-self.lasting :] > smooth.min() + margin / 2).all())
        return stays and self.late_mean > smooth.min() + margin + scatter

    def at(self, step: float) -> float:
        """The value at a step, on a straight line between records."""
        return float(np.interp(step, self.steps, self.values))

    def place(self, first: int = 0, last: int = -1) -> Place:
        """From one record to another, by their positions."""
        return Place(self.stage, int(self.steps[first]), int(self.steps[last]), self.key)


def running_mean(values: Values, width: int) -> Values:
    """Centred mean over an odd `width`, (N,) -> (N,); at the ends over what there is."""
    window = np.ones(width)
    half = width // 2
    total = np.convolve(values, window)[half : half + len(values)]
    count = np.convolve(np.ones_like(values), window)[half : half + len(values)]
    return np.asarray(total / count, dtype=np.float64)


def share_error(share: float, photos: int) -> float:
    """Standard error of a share seen in so many photos, never quite 0.

    sqrt(p (1 - p) / n) with p taken a step towards the middle (Agresti & Coull, The American
    Statistician 52 (1998)), since 0 wrong of 100 do not make it certain that none ever is.
    """
    p = (share * photos + 2) / (photos + 4)
    return sqrt(p * (1 - p) / (photos + 4))


def errors_together(first: float, second: float) -> float:
    """Standard error of the difference of two that know nothing of each other."""
    return sqrt(first**2 + second**2)


def fall_left(curve: Curve, progress: Values) -> float | None:
    """What share of a curve's whole fall came in the second half of its progress.

    0.5 of a straight line, which has far to go; near 0 of one that has arrived. None where it did
    not fall, was not seen in the first half, or had been lower halfway or higher than at first:
    what falls then is what a high rate had thrown up.

    Progress is the learning rate added up over steps, from 0 to 1: counted in it a schedule that
    ends at 0 does not make a curve look as if it had arrived.

    Args:
        curve: N values.
        progress: (N,), how far the stage was at each.
    """
    whole, halfway = curve.first - curve.last, middle(curve, progress)
    before = curve.values[progress <= 0.5]
    slack = STEADY * whole
    if whole <= 0 or not len(before):
        return None
    if before.min() < halfway - slack or before.max() > curve.first + slack:
        return None
    return (halfway - curve.last) / whole


def middle(curve: Curve, progress: Values) -> float:
    """A curve's value at half of its progress."""
    return float(np.interp(0.5, progress, curve.values))

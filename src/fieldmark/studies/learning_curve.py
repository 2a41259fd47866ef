"""How the error falls with the number of training photos, and what more of them would give."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fieldmark.errors import SettingError
from fieldmark.studies.answers import Answers, check_same_photos
from fieldmark.studies.spread import LEVEL

Numbers = NDArray[np.float64]

_POWERS = np.linspace(0.02, 2, 100)
_DRAWS = 500
LEAST_AMOUNTS = 3  # as many as the curve has numbers


@dataclass(frozen=True)
class LearningCurve:
    """error = floor + scale amount^-power, a power law with an offset.

    Attributes:
        floor: What no number of photos takes away; at least 0.
        scale: What one whole amount leaves above it.
        power: How fast that shrinks, up to 2.
        draws: Errors (D, 3) of resampled curves, as floor, scale, power.
    """

    floor: float
    scale: float
    power: float
    draws: Numbers

    def error(self, amount: float) -> tuple[float, float, float]:
        """The error at an amount, and its 95 % interval: fractions.

        The interval is of the photos judged and of seeds. That errors go on falling by this law,
        and that new photos are like these, is taken for granted.
        """
        tail = (1 - LEVEL) / 2
        drawn = self.draws[:, 0] + self.draws[:, 1] * amount ** -self.draws[:, 2]
        low, high = np.quantile(drawn, [tail, 1 - tail])
        return self.floor + self.scale * amount**-self.power, float(low), float(high)

    def describe(self, amount: float = 2) -> str:
        """What top-1 would become, in one sentence."""
        now, (error, low, high) = 1 - self.error(1)[0], self.error(amount)
        times = "Twice" if amount == 2 else f"{amount:g} times"
        return (
            f"{times} the training photos would bring top-1 from {now:.1%} to about "
            f"{1 - error:.1%} (95 % interval {1 - high:.1%} to {1 - low:.1%}), if new photos are "
            f"like these and errors go on falling as {self.floor:.3f} + {self.scale:.3f} / "
            f"amount^{self.power:.2f}."
        )


def fit_curve(amounts: Sequence[float], answers: Sequence[Answers]) -> LearningCurve:
    """Fit the curve to what models trained on several amounts said of the same photos.

    Least squares, weighted by the binomial variance of each error; this law is among those that
    extrapolate best (Viering and Loog, arXiv 2103.10948, `pow3`). Its interval: photos are drawn
    again, the same for all amounts, and of each amount its seeds.

    Args:
        amounts: Numbers or shares of photos trained on, three or more that differ.
        answers: For each amount, of photos that are the same for all.

    Raises:
        SettingError: there are too few amounts, or the photos differ.
    """
    if len(set(amounts)) < LEAST_AMOUNTS or len(amounts) != len(answers) or min(amounts) <= 0:
        raise SettingError(
            f"A curve needs {LEAST_AMOUNTS} amounts of photos or more, each above 0 with its "
            f"answers, got {list(amounts)}."
        )
    for other in answers[1:]:
        check_same_photos(answers[0], other)
    x = np.asarray(amounts, dtype=np.float64)
    seen = np.array([1 - each.top1 for each in answers])
    weights = 1 / np.maximum(seen * (1 - seen), 1 / answers[0].right.shape[1])
    floor, scale, power = _fit(x, seen[None], weights)[0]
    return LearningCurve(floor, scale, power, _fit(x, _resampled(answers), weights))


def _resampled(answers: Sequence[Answers]) -> Numbers:
    """Errors (D, A) of photos and seeds drawn with replacement."""
    generator = np.random.default_rng(0)
    photos = answers[0].right.shape[1]
    shares = generator.multinomial(photos, np.full(photos, 1 / photos), _DRAWS) / photos  # (D, N)
    errors = []
    for each in answers:
        of_seeds = 1 - shares @ each.right.T  # (D, S)
        seeds = of_seeds.shape[1]
        drawn = generator.multinomial(seeds, np.full(seeds, 1 / seeds), _DRAWS) / seeds
        errors.append((of_seeds * drawn).sum(1))
    return np.stack(errors, 1)


def _fit(x: Numbers, errors: Numbers, weights: Numbers) -> Numbers:
    """Floor, scale and power (D, 3) for errors (D, A): each power's best two, then the best."""
    best = np.full(len(errors), np.inf)
    found = np.zeros((len(errors), 3))
    w = weights / weights.sum()
    for power in _POWERS:
        z = x**-power
        mean_z, mean_e = w @ z, errors @ w  # (), (D,)
        scale = ((errors - mean_e[:, None]) * (w * (z - mean_z))).sum(1) / (w @ (z - mean_z) ** 2)
        floor = mean_e - scale * mean_z
        through_zero = errors @ (w * z) / (w @ z**2)
        scale = np.where(floor < 0, through_zero, np.maximum(scale, 0))
        floor = np.where(floor < 0, 0, mean_e - scale * mean_z)
        misfit = ((errors - floor[:, None] - scale[:, None] * z) ** 2) @ w
        better = misfit < best
        best[better] = misfit[better]
        found[better] = np.stack([floor, scale, np.full_like(floor, power)], 1)[better]
    return found

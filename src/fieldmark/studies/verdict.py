"""Real, noise, or cannot tell: what an interval says, and what it would take to say more."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import bdtr, ndtri

from fieldmark.errors import SettingError, count_of
from fieldmark.studies.spread import LEVEL, About, Estimate

Answer = Literal["real", "noise", "cannot tell"]
CARE = 0.01  # one point of top-1: what a person cares about, unless he says otherwise

_MOST_SEEDS, _MOST_PHOTOS = 50, 20  # in all; times as many
_ANSWERS = {"real": "Real", "noise": "Noise", "cannot tell": "Cannot tell"}


@dataclass(frozen=True)
class Needs:
    """What would decide in some four of five repeats, should the truth be the difference seen.

    Attributes:
        seeds: So many more of each recipe; None: no number of seeds alone would do.
        photos: So many more to judge by; None: no number of photos alone would do.
    """

    seeds: int | None
    photos: int | None

    def describe(self) -> str:
        """In words, as `about 3 more seeds each or 500 more photos`."""
        ways = []
        if self.seeds is not None:
            ways.append(f"{count_of(self.seeds, 'more seed')} each")
        if self.photos is not None:
            ways.append(f"{self.photos:,} more photos")
        return f"about {' or '.join(ways)}" if ways else "more seeds and more photos at once"


@dataclass(frozen=True)
class Verdict:
    """Whether B is better or worse than A, by the answers to the same photos.

    Attributes:
        answer: `real`; `noise`, a difference worth caring about is excluded; or `cannot tell`.
        difference: B - A in top-1, a fraction.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p: That chance alone makes such a difference, corrected where several were looked at.
        about: `models`, these two and no others; `one seed`, the recipes with it; or `recipes`.
        photos: How many judged.
        seeds: How many models of A, of B.
        care: The least difference worth caring about.
        folds: How many, each judged by a model trained on the others; 0: one model judged all.
        comparisons: How many were looked at together.
        needs: What would decide, where the answer is `cannot tell`.
    """

    answer: Answer
    difference: float
    low: float
    high: float
    p: float
    about: About
    photos: int
    seeds: tuple[int, int]
    care: float
    folds: int = 0
    comparisons: int = 1
    needs: Needs | None = None

    @property
    def rests_on_p(self) -> bool:
        """Whether p alone, exact or corrected, keeps it from being real: the interval would not."""
        return self.answer == "cannot tell" and not self.low <= 0 <= self.high

    @property
    def is_level(self) -> bool:
        """Whether a difference that is no noise would be told as 0.0 points."""
        return self.answer != "noise" and is_no_point(self.difference)

    def describe(self, a: str = "A", b: str = "B") -> str:
        """One sentence in plain words; differences in points, per cent of the photos."""
        points = 100 * self.difference
        what = (
            f"{b} names {abs(points):.1f} points {'more' if points >= 0 else 'fewer'} "
            f"photos rightly than {a}"
        )
        if self.answer == "noise":
            care = f"{100 * self.care:g} {'point' if self.care == 0.01 else 'points'}"
            what = f"{b} and {a} differ by less than {care}, {points:+.1f} seen"
        if self.is_level:
            what = f"{b} and {a} name equally many photos rightly, to 0.1 points"
        return self.sentence(what)

    def sentence(self, what: str) -> str:
        """`what` was found, with the answer before it, and interval and scope behind."""
        needs = f"; to decide takes {self.needs.describe()}" if self.needs else ""
        return (
            f"{_ANSWERS[self.answer]}: {what} (95 % interval {100 * self.low:+.1f} to "
            f"{100 * self.high:+.1f}; {self._counts()}){self._scope()}{needs}."
        )

    def _counts(self) -> str:
        a, b = self.seeds
        seeds = f"{a} and {b} seeds" if a != b else f"{count_of(a, 'seed')} each"
        words = [f"{self.photos:,} photos", seeds]
        if self.folds:
            words.append(f"{self.folds} folds")
        if self.comparisons > 1:
            words.append(f"one of {self.comparisons} comparisons")
        if self.rests_on_p:
            words.append(f"{'corrected' if self.comparisons > 1 else 'exact'} p = {self.p:.2g}")
        return ", ".join(words)

    def _scope(self) -> str:
        return {
            "models": ", for these trained models only, not other seeds",
            "one seed": ", for this seed only",
            "recipes": "",
        }[self.about]


def is_no_point(share: float) -> bool:
    """Whether a share of the photos would be told as 0.0 points."""
    return f"{abs(100 * share):.1f}" == "0.0"


def judge(
    found: Estimate,
    *,
    photos: int,
    seeds: tuple[int, int],
    folds: int = 0,
    care: float = CARE,
    interval: tuple[float, float] | None = None,
    p: float | None = None,
    p_care: float | None = None,
    comparisons: int = 1,
) -> Verdict:
    """The verdict on an estimated difference.

    Args:
        found: B - A.
        photos: How many.
        seeds: Of A, of B.
        folds: How many, 0 for none.
        care: The least difference worth caring about.
        interval: An exact one in place of the estimate's.
        p: An exact or corrected one in place of the estimate's.
        p_care: Likewise, that the truth is as far as `care`; by default the interval decides.
        comparisons: How many these p are corrected for.
    """
    check_care(care)
    half = found.half_width
    low, high = interval or (found.value - half, found.value + half)
    p = found.p_value() if p is None else p
    inside = -care < low and high < care if p_care is None else p_care <= 1 - LEVEL
    answer: Answer = "noise" if inside else "cannot tell"
    if not inside and p <= 1 - LEVEL and (comparisons > 1 or not low <= 0 <= high):
        answer = "real"
    needs = None
    if answer == "cannot tell":
        needs = _needs(found, photos, seeds, care, comparisons)
    low, high = max(low, -1.0), min(high, 1.0)
    return Verdict(
        answer,
        found.value,
        low,
        high,
        p,
        found.about,
        photos,
        seeds,
        care,
        folds,
        comparisons,
        needs,
    )


def check_care(care: float) -> None:
    """Hold the least difference worth caring about to be a fraction.

    Raises:
        SettingError: it is not.
    """
    if not 0 < care < 1:
        raise SettingError(
            f"`care` must be above 0 and below 1, as a fraction of the photos, got {care}. "
            "Use 0.01 for one point."
        )


def p_at_care(found: Estimate, care: float) -> float:
    """Two-sided, that the truth is as far from 0 as `care`; 1 where the estimate is farther."""
    edge = care if found.value >= 0 else -care
    return found.p_value(edge) if abs(found.value) < care else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for their number, whatever they have to do with one another.

    Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Stat. 6 (1979).
    """
    order = np.argsort(p)
    steps = np.asarray(p, dtype=np.float64)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(value) for value in corrected]


def exact_p(only_a: int, only_b: int) -> float:
    """McNemar's exact two-sided p, from the photos that one model alone named rightly."""
    both = only_a + only_b
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), both, 0.5)))


def score_interval(
    only_a: int, only_b: int, photos: int, level: float = LEVEL
) -> tuple[float, float]:
    """Interval of the difference of two paired shares, B - A: those that a score test lets stand.

    With x = only_b, y = only_a and q the likeliest share of `only_a` under a difference d,
    |x - y - n d| <= z sqrt(n (2 q + d (1 - d))).
    Tango, "Equivalence test and confidence interval ... for paired samples", Stat. Med. 17 (1998).
    """
    z2 = float(ndtri(0.5 + level / 2)) ** 2
    seen = (only_b - only_a) / photos

    def excess(d: float) -> float:
        linear = (2 * photos - only_b + only_a) * d - only_b - only_a
        root = max(linear**2 + 8 * photos * only_a * d * (1 - d), 0.0) ** 0.5
        variance = photos * (2 * (root - linear) / (4 * photos) + d * (1 - d))
        return float((only_b - only_a - photos * d) ** 2 - z2 * max(variance, 0.0))

    return _last_inside(excess, seen, -1.0), _last_inside(excess, seen, 1.0)


def _last_inside(excess: Callable[[float], float], inside: float, outside: float) -> float:
    for _ in range(50):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if excess(middle) <= 0 else (inside, middle)
    return inside


def _needs(
    found: Estimate, photos: int, seeds: tuple[int, int], care: float, comparisons: int
) -> Needs:
    """What it takes to see the difference, or that it is less than `care`, whichever is easier."""
    target = max(abs(found.value), care - abs(found.value))

    def enough(more_seeds: float, more_photos: float) -> bool:
        parts = tuple(p.with_more(seeds=more_seeds, photos=more_photos) for p in found.parts)
        return Estimate(found.value, found.about, parts).least_seen(comparisons) <= target

    count = min(seeds)
    more_seeds = range(1, _MOST_SEEDS - count)
    by_seeds = bisect_left(more_seeds, True, key=lambda more: enough(1 + more / count, 1))
    more_photos = range(10, (_MOST_PHOTOS - 1) * photos, 10)
    by_photos = bisect_left(more_photos, True, key=lambda more: enough(1, 1 + more / photos))
    return Needs(
        more_seeds[by_seeds] if found.about == "recipes" and by_seeds < len(more_seeds) else None,
        more_photos[by_photos] if by_photos < len(more_photos) else None,
    )

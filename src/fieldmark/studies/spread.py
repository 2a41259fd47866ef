"""How far chance may have moved a difference: photos, seeds and folds as its sources.

A difference, or any contrast of recipes, is one number for each seed s and photo i:

    y_si = mean + photo_i + seed_s + noise_si                        (crossed, both at random)

Its mean over both has the variance  V = photo / n + seed / S + noise / (n S), estimated from mean
squares (Searle, Casella & McCulloch, "Variance components", Wiley 1992, chapter 4). The parts V_j
know their own degrees of freedom df_j; those of their sum are Satterthwaite's (Biometrics Bulletin
2 (1946)), but for one thing:

    df = (sum a_j)² / sum a_j² / df_j,   a_j = V_j in his formula, here (t(df_j) / z)² V_j

A seed part that comes out small by chance makes his df large just where the interval is too short
as it is: he covers 92 % in place of 95 with three seeds and 87 % with two, at worst. Weighed by its
t quantile at the level asked for, a part is taken to be as large as it may well be. That is our
own; the tests integrate it over the seed part's chance: at any level it covers what it says or
more, 95 % becomes at most 95.7 from five seeds on, 97 with three and 99 with two.

With folds, photo i was judged by the model of fold k(i), and photos are trained on in all folds but
their own. The variance between folds beyond what photos and seeds explain is the models' own, and
fold models share training photos, so that it does not shrink with 1/K but with 1/K + 1/(K - 1)
(Nadeau & Bengio, Machine Learning 52 (2003), equation 9: 1/J + n_test / n_train).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri, stdtrit

from fieldmark.errors import SettingError
from fieldmark.studies.answers import Answers, check_same_photos

About = Literal["models", "one seed", "recipes"]
Row = NDArray[np.float64]
LEVEL = 0.95
_Z = float(ndtri(0.5 + LEVEL / 2))
_FARTHEST = 8.0  # standard errors: a p-value of 1e-15, beyond which levels round to 1
# Sum of squares added, so that few disagreements do not pass for certainty. Agresti & Min
# (Statistics in Medicine 24 (2005)) add 1 for two models; with several seeds that covers 98 to 99 %
# of rare differences, this 94 to 97 %.
_PSEUDO = 0.25


@dataclass(frozen=True)
class Part:
    """One source's share in the variance of an estimate.

    Attributes:
        source: Whose chance it is.
        variance: Of the estimate.
        df: Degrees of freedom the variance was estimated with.
        noise: How much of a seed part more photos would take away.
        pooled: Whether it was estimated on other trials as well, so more seeds give no more df, and
            all of a study's comparisons share its chance.
    """

    source: Literal["photos", "seeds", "folds"]
    variance: float
    df: float
    noise: float = 0.0
    pooled: bool = False

    @property
    def least(self) -> float:
        """What of its variance is sure: of a pooled seed part the noise, however it came out."""
        if self.source == "photos":
            return self.variance
        return self.noise if self.pooled else 0.0

    def with_more(self, *, seeds: float = 1, photos: float = 1) -> Self:
        """What it would be with so many times the seeds and photos."""
        if self.source == "photos":
            return replace(self, variance=self.variance / photos, df=self.df * photos)
        if self.source == "folds":
            return self
        noise = min(self.noise, self.variance)
        variance = (self.variance - noise + noise / photos) / seeds
        df = self.df if self.pooled else (self.df + 1) * seeds - 1
        return replace(self, variance=variance, df=df, noise=self.noise / photos / seeds)


@dataclass(frozen=True)
class SeedSpread:
    """How far seeds alone move a recipe's top-1, pooled over a study.

    Attributes:
        variance: Between seeds, of top-1 on the same photos, as a fraction squared.
        noise: The part of it that would go with more photos.
        df: Degrees of freedom, the sum of (seeds - 1).
    """

    variance: float
    noise: float
    df: float


@dataclass(frozen=True)
class Estimate:
    """A number, what it speaks of, and the sources of its chance."""

    value: float
    about: About
    parts: tuple[Part, ...]

    @property
    def error(self) -> float:
        """Standard error."""
        return float(np.sqrt(sum(part.variance for part in self.parts)))

    @property
    def half_width(self) -> float:
        """Of the 95 % interval."""
        return self._reach(_Z)

    def p_value(self, at: float = 0.0) -> float:
        """Two-sided, that the truth is `at`: of the interval that ends there."""
        distance = abs(self.value - at)
        if distance >= self._reach(_FARTHEST):
            return 2 * float(ndtr(-_FARTHEST))
        z = brentq(lambda z: self._reach(z) - distance, 0, _FARTHEST, xtol=1e-6)
        return 2 * float(ndtr(-z))

    def least_seen(self, comparisons: int = 1) -> float:
        """The least true difference that p <= 5 % shows in four of five repeats.

        Args:
            comparisons: How many are looked at together, p corrected for all (Bonferroni).
        """
        z = float(ndtri(1 - (1 - LEVEL) / 2 / comparisons))
        return self._reach(z) + float(ndtri(0.8)) * self.error

    def _reach(self, z: float) -> float:
        """Half an interval, of the level that a normal one of +-z standard errors has."""
        if z == 0:
            return 0.0
        upper = 1 - float(ndtr(-z))
        terms = [(float(stdtrit(p.df, upper) / z) ** 2 * p.variance, p.df) for p in self.parts]
        df = sum(a for a, _ in terms) ** 2 / sum(a**2 / df for a, df in terms)
        least = z * float(np.sqrt(sum(part.least for part in self.parts)))
        return max(float(stdtrit(df, upper)) * self.error, least)


def pooled_spread(recipes: Sequence[Answers]) -> SeedSpread:
    """The spread between seeds, taken to be alike in all recipes that have two or more of them.

    Raises:
        SettingError: no recipe has two seeds.
    """
    tables = [recipe for recipe in recipes if len(recipe.seeds) > 1]
    if not tables:
        raise SettingError("A seed spread needs a recipe with two seeds or more. Add seeds to one.")
    df = np.array([len(recipe.seeds) - 1 for recipe in tables], dtype=np.float64)
    parts = [_seed_part(recipe.right, _fold_sums(recipe)) for recipe in tables]
    seeds = df + 1
    variance = float((df * seeds * [part.variance for part in parts]).sum() / df.sum())
    noise = float((df * seeds * [part.noise for part in parts]).sum() / df.sum())
    return SeedSpread(variance, noise, float(df.sum()))


def estimate(
    weights: Sequence[float], recipes: Sequence[Answers], spread: SeedSpread | None = None
) -> Estimate:
    """The weighted sum of recipes' top-1, photo by photo, with all that chance does to it.

    Recipes with equal seeds are paired by them; else their seeds are independent. Weights that
    sum to 0 make a contrast.

    Args:
        weights: One a recipe.
        recipes: Answers about the same photos.
        spread: Between seeds, pooled over a study; takes the place of the recipes' own.

    Raises:
        SettingError: the photos or folds differ.
    """
    for recipe in recipes[1:]:
        check_same_photos(recipes[0], recipe)
    weighted = list(zip(weights, recipes, strict=True))
    folds = _fold_sums(recipes[0])
    row = np.sum([weight * recipe.right.mean(0) for weight, recipe in weighted], axis=0)
    seeds = _seed_parts(weighted, folds, spread)
    noise = sum(part.noise for part in seeds) * len(row)
    own = [] if spread else _terms(weighted)
    parts = (*_photo_parts(row, folds, noise, own), *seeds)
    one_seed: About = "models" if recipes[0].folds is None else "one seed"
    return Estimate(float(row.mean()), "recipes" if seeds else one_seed, parts)


def _terms(weighted: list[tuple[float, Answers]]) -> list[Row]:
    """Independent tables (seeds, photos) whose seed means add up to the contrast."""
    if min(len(recipe.seeds) for _, recipe in weighted) == 1:
        return []
    if len({recipe.seeds for _, recipe in weighted}) == 1:
        return [np.sum([weight * recipe.right for weight, recipe in weighted], axis=0)]
    return [weight * recipe.right for weight, recipe in weighted]


def _seed_parts(
    weighted: list[tuple[float, Answers]], folds: Row, spread: SeedSpread | None
) -> list[Part]:
    if spread is None:
        return [_seed_part(term, folds) for term in _terms(weighted)]
    scale = sum(weight**2 / len(recipe.seeds) for weight, recipe in weighted)
    variance, noise = scale * spread.variance, scale * spread.noise
    return [Part("seeds", variance, spread.df, noise, pooled=True)]


def _seed_part(table: Row, folds: Row) -> Part:
    """Variance of a (seeds, photos) table's mean that comes from its seeds."""
    seeds, photos = table.shape
    rest = table - table.mean(0)
    inside = rest - (rest @ folds.T / folds.sum(1)) @ folds
    noise = (inside**2).sum() / ((photos - len(folds)) * (seeds - 1))
    variance = rest.mean(1) @ rest.mean(1) / (seeds - 1)
    return Part("seeds", variance / seeds, seeds - 1, noise / (photos * seeds))


def _photo_parts(row: Row, folds: Row, noise: float, terms: list[Row]) -> list[Part]:
    """Variance of a contrast's mean that comes from its photos, and from the models of folds."""
    photos, count = len(row), len(folds)
    sizes = folds.sum(1)
    means = row @ folds.T / sizes
    inside = ((row - means @ folds) ** 2).sum() / (photos - count)
    own = (max(inside - noise, 0.0) + _PSEUDO / photos) / photos
    found = [Part("photos", own, photos - count)]
    if count == 1:
        return found
    between = sizes @ (means - row.mean()) ** 2 / (count - 1)
    excess = (
        between - inside - sum(_fold_by_seed(term, folds) for term in terms) + noise * bool(terms)
    )
    variance = max(excess, 0.0) * count / photos * (1 / count + 1 / (count - 1))
    return [*found, Part("folds", variance, count - 1)]


def _fold_by_seed(table: Row, folds: Row) -> float:
    """What fold models that differ by seed, and noise, add to the mean square between folds."""
    sizes = folds.sum(1)
    rest = table - table.mean(0)
    apart = rest @ folds.T / sizes - rest.mean(1, keepdims=True)  # (seeds, folds)
    return float((apart**2 @ sizes).sum() / ((len(table) - 1) * (len(sizes) - 1) * len(table)))


def _fold_sums(recipe: Answers) -> Row:
    """(folds, photos), 1 where a photo belongs to a fold; one fold of all where there are none."""
    if recipe.folds is None:
        return np.ones((1, recipe.right.shape[1]))
    folds: Row = np.eye(recipe.fold_count)[recipe.folds].T
    return folds

"""How large a difference must be to show: what a design can't answer, told before it runs.

A main effect is the mean over m pairs of cells of how often two settings are right, less how often
the other is. Its variance is foreseen by the model of `studies.spread`,

    V = photo / n + 2 (seed + noise / n) / (m S)

with n judged photos and S seeds. How often answers differ goes with how often they can: photo and
noise are shares of p (1 - p), which is what one answer varies by where p of the photos are named
rightly. The shares are those of other studies, of cub50 and of drawings, from 96 to 1,500 photos
and p = 0.11 to 0.78; docs/LOG.md says how far off they are. Before anything ran p is not known; a
half, where most answers differ, is the least rosy. `photo` is not divided by m: the photos a
setting wins at one setting of the other axes it tends to win at the others.

With K folds `studies.spread` also looks for what their models differ by. Where they differ by
nothing it still finds something by chance, on average as much as

    max(F - 1, 0), F = chi2(K - 1) / (K - 1):   P(chi2(K + 1) > K - 1) - P(chi2(K - 1) > K - 1)

times the variance of photos: 0.27 at five folds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil, comb, log, prod

from scipy.special import chdtrc

from fieldmark.studies.design import Design
from fieldmark.studies.spread import Estimate, Part
from fieldmark.studies.verdict import CARE

# Shares of p (1 - p).
PHOTO_OF_HEADS = 0.05  # two heads on the same features: what seeds do not do anew
PHOTO_OF_FEATURES = 0.7  # other photo sizes, poolings or backbones
NOISE = 0.2  # between seeds of one recipe, where the backbone stays as it is
NOISE_TRAINED = 0.6  # where it trains
SEED_TRAINED = 1e-4  # of top-1 itself: one point between seeds, however many photos
SAME_FEATURES = ("stages.", "head.", "pooling.sketch_dim", "pooling.method")
MOST_SEEDS, MOST_TIMES, GROWTH = 50, 100, 1.05  # the last a step in looking for photos


@dataclass(frozen=True)
class Power:
    """What a design can say of one axis.

    Attributes:
        axis: Which.
        least: The least difference between two of its settings that shows in four of five
            repeats, a fraction.
        seeds: So many seeds would show `care`; None: it shows, or no number of seeds would do.
        photos: Likewise, so many judged photos.
        care: The least difference worth caring about.
    """

    axis: str
    least: float
    seeds: int | None = None
    photos: int | None = None
    care: float = CARE

    def describe(self, name: str = "") -> str:
        """One sentence; the axis is called `name` where that is given."""
        told = (
            f"{name or self.axis}: a difference of {100 * self.least:.1f} points or more will show"
        )
        if self.least <= self.care:
            return f"{told}."
        ways = [f"{self.seeds} seeds"] if self.seeds else []
        ways += [f"{self.photos:,} judged photos"] if self.photos else []
        least = f"{100 * self.care:g} {'point' if self.care == 0.01 else 'points'}"
        would = f"; {least} would take about {' or '.join(ways)}" if ways else ""
        return f"{told}, no smaller one{would}."


def powers(design: Design, photos: int, *, top1: float = 0.5, care: float = CARE) -> list[Power]:
    """What can be said of each axis of a grid; spaces are searched, and not compared.

    Args:
        design: The study's.
        photos: How many judge each cell.
        top1: About the share of them that will be named rightly.
        care: The least difference worth caring about.
    """
    axes = [axis for axis in design.file.axes if len(axis.labels()) > 1]
    levels = [len(axis.labels()) for axis in axes]
    comparisons = sum(comb(count, 2) for count in levels)
    trained = any(design.recipe(point).trains_backbone for point in design.corners())
    found, varies = [], top1 * (1 - top1)
    for axis, count in zip(axes, levels, strict=True):
        keys = [key for change in axis.changes() for key in change]
        same = not trained and all(map(_leaves_features, keys))
        make = partial(
            foreseen,
            photo=varies * (PHOTO_OF_HEADS if same else PHOTO_OF_FEATURES),
            noise=varies * (NOISE_TRAINED if trained else NOISE),
            seed=SEED_TRAINED if trained else 0.0,
            pairs=prod(levels) // count,
            cells=prod(levels),
            folds=design.folds or 1,
        )
        found.append(_power(axis.name, make, design.file.seeds, photos, comparisons, care))
    return found


def foreseen(
    *,
    photo: float,
    noise: float,
    seed: float,
    photos: float,
    seeds: int,
    pairs: int,
    cells: int,
    folds: int = 1,
) -> Estimate:
    """A main effect as it may be estimated, with the chance foreseen for it.

    Args:
        photo: Variance of a photo's difference.
        noise: Variance of one seed's answer to a photo.
        seed: Variance between seeds of top-1 itself.
        photos: How many judge.
        seeds: Of each cell.
        pairs: Of cells, averaged over.
        cells: Whose seeds are pooled.
        folds: How many models judge, each its part of the photos.
    """
    of_noise = 2 * noise / photos / pairs / seeds
    of_photos = photo / photos
    if seeds == 1:  # what seeds do is then part of what photos seem to do
        seen = Part("photos", of_photos + of_noise, photos - folds)
        return Estimate(0.0, "one seed", (seen, *_of_folds(seen.variance, folds)))
    of_seeds = 2 * seed / pairs / seeds + of_noise
    df = cells * (seeds - 1)
    parts = (
        Part("photos", of_photos, photos - folds),
        Part("seeds", of_seeds, df, of_noise, pooled=True),
        *_of_folds(of_photos, folds),
    )
    return Estimate(0.0, "recipes", parts)


def _of_folds(of_photos: float, folds: int) -> tuple[Part, ...]:
    """What folds seem to add where their models are alike; see `studies.spread` for the factor."""
    if folds == 1:
        return ()
    df = folds - 1
    by_chance = float(chdtrc(df + 2, df) - chdtrc(df, df))
    return (Part("folds", by_chance * of_photos * folds * (1 / folds + 1 / df), df),)


def _leaves_features(key: str) -> bool:
    return key.startswith(SAME_FEATURES)


def _power(
    axis: str,
    make: Callable[..., Estimate],
    seeds: int,
    photos: int,
    comparisons: int,
    care: float,
) -> Power:
    def shows(photos: float, seeds: int) -> bool:
        return make(photos=photos, seeds=seeds).least_seen(comparisons) <= care

    least = make(photos=photos, seeds=seeds).least_seen(comparisons)
    if least <= care:
        return Power(axis, least, care=care)
    more = range(seeds + 1, MOST_SEEDS + 1) if seeds > 1 else ()
    enough_seeds = next((n for n in more if shows(photos, n)), None)
    larger = (photos * GROWTH**n for n in range(1, 1 + round(log(MOST_TIMES, GROWTH))))
    enough = next((n for n in larger if shows(n, seeds)), None)
    return Power(axis, least, enough_seeds, _rounded(enough) if enough else None, care)


def _rounded(photos: float) -> int:
    """To two digits, upwards: it is foreseen, not measured."""
    unit = int(10 ** max(0, len(str(int(photos))) - 2))
    return ceil(photos / unit) * unit

"""How large a difference must be to show: what a design can't answer, told before it runs.

A main effect is the mean over m pairs of cells of how often two settings are right, less how often
the other is. Its variance is foreseen by the model of `studies.spread`,

    V = photo / n + 2 (seed + noise / n) / (m S)

with n judged photos and S seeds. What a study is not run for is not known, so the three are those
of other studies: cub50 and the toy set, frozen and trained (docs/LOG.md). `photo` is not divided by
m: the photos a setting wins at one setting of the other axes it tends to win at the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, comb, prod

from fieldmark.studies.design import Design
from fieldmark.studies.spread import Estimate, Part
from fieldmark.studies.verdict import CARE

# Variances a photo, each answer being 0 or 1.
PHOTO_OF_HEADS = 0.004  # two heads on the same features: what seeds do not do anew
PHOTO_OF_FEATURES = 0.08  # other photo sizes, poolings or backbones: 8 % of photos change sides
NOISE = 0.035  # between seeds of one recipe, where the backbone stays as it is
NOISE_TRAINED = 0.09  # where it trains
SEED_TRAINED = 1e-4  # of top-1 itself: one point between seeds, however many photos
SAME_FEATURES = ("stages.", "head.", "pooling.sketch_dim", "pooling.method")
MOST_SEEDS, MOST_TIMES = 50, 100


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

    def describe(self) -> str:
        """One sentence."""
        told = f"{self.axis}: a difference of {100 * self.least:.1f} points or more will show"
        if self.least <= self.care:
            return f"{told}."
        ways = [f"{self.seeds} seeds"] if self.seeds else []
        ways += [f"{self.photos:,} judged photos"] if self.photos else []
        would = f"; for {100 * self.care:g} it takes about {' or '.join(ways)}" if ways else ""
        return f"{told}, a smaller one can't be told from chance{would}."


def powers(design: Design, photos: int, *, care: float = CARE) -> list[Power]:
    """What can be said of each axis of a grid; spaces are searched, and not compared.

    Args:
        design: The study's.
        photos: How many judge each cell.
        care: The least difference worth caring about.
    """
    axes = [axis for axis in design.file.axes if len(axis.labels()) > 1]
    levels = [len(axis.labels()) for axis in axes]
    comparisons = sum(comb(count, 2) for count in levels)
    trained = any(design.recipe(point).trains_backbone for point in design.corners())
    found = []
    for axis, count in zip(axes, levels, strict=True):
        keys = [key for change in axis.changes() for key in change]
        photo = PHOTO_OF_HEADS if all(map(_leaves_features, keys)) else PHOTO_OF_FEATURES
        estimate = foreseen(
            photo=PHOTO_OF_FEATURES if trained else photo,
            noise=NOISE_TRAINED if trained else NOISE,
            seed=SEED_TRAINED if trained else 0.0,
            photos=photos,
            seeds=design.file.seeds,
            pairs=prod(levels) // count,
            cells=prod(levels),
        )
        found.append(_power(axis.name, estimate, design.file.seeds, photos, comparisons, care))
    return found


def foreseen(
    *, photo: float, noise: float, seed: float, photos: int, seeds: int, pairs: int, cells: int
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
    """
    of_noise = 2 * noise / photos / pairs / seeds
    of_photos = photo / photos
    if seeds == 1:  # what seeds do is then part of what photos seem to do
        return Estimate(0.0, "one seed", (Part("photos", of_photos + of_noise, photos - 1),))
    of_seeds = 2 * seed / pairs / seeds + of_noise
    df = cells * (seeds - 1)
    parts = (
        Part("photos", of_photos, photos - 1),
        Part("seeds", of_seeds, df, of_noise, pooled=True),
    )
    return Estimate(0.0, "recipes", parts)


def _leaves_features(key: str) -> bool:
    return key.startswith(SAME_FEATURES)


def _power(
    axis: str, estimate: Estimate, seeds: int, photos: int, comparisons: int, care: float
) -> Power:
    least = estimate.least_seen(comparisons)
    if least <= care:
        return Power(axis, least, care=care)
    more_seeds = [n for n in range(seeds + 1, MOST_SEEDS + 1) if seeds > 1]
    times = [1.1**n for n in range(1, 50) if 1.1**n <= MOST_TIMES]
    enough_seeds = _first(
        more_seeds, [estimate.with_more(seeds=n / seeds) for n in more_seeds], comparisons, care
    )
    enough = _first(times, [estimate.with_more(photos=t) for t in times], comparisons, care)
    needed = _rounded(photos * enough) if enough else None
    return Power(axis, least, int(enough_seeds) if enough_seeds else None, needed, care)


def _first(
    sizes: Sequence[float], estimates: Sequence[Estimate], comparisons: int, care: float
) -> float | None:
    """The first size that is enough."""
    pairs = zip(sizes, estimates, strict=True)
    return next((size for size, each in pairs if each.least_seen(comparisons) <= care), None)


def _rounded(photos: float) -> int:
    """To two digits, upwards: it is foreseen, not measured."""
    unit = int(10 ** max(0, len(str(int(photos))) - 2))
    return ceil(photos / unit) * unit

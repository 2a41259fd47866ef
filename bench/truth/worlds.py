"""Models of photos and seeds under which the truth is known.

Photos, seeds and their noise act at once on a hidden score; a photo is named rightly where it is
above 0. So a photo's difficulty is common to all recipes, a seed moves all photos, and a recipe's
true top-1 is a normal integral.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

from fieldmark.studies.answers import Answers

FOLDS = 5


@dataclass(frozen=True)
class World:
    """Standard deviations on the hidden score; `photo` sets the scale.

    Attributes:
        photo: Difficulty, the same for both recipes.
        by_recipe: A photo's liking for a recipe.
        noise: A photo's chance with a single model.
        seed: A model's, on all photos; 0.05 is 0.9 points.
        shared: Part of a seed's variance that both recipes have in common.
        fold_model: Each fold model's own.
        fold_photos: What the photos of a fold's training are worth, alike to 1 / folds.
        classes: Of Zipf sizes where above 0, each with a difficulty and a liking of its own.
    """

    photo: float = 1.5
    by_recipe: float = 0.4
    noise: float = 0.7
    seed: float = 0.03
    shared: float = 0.0
    fold_model: float = 0.0
    fold_photos: float = 0.0
    classes: int = 0

    def class_sizes(self, photos: int) -> NDArray[np.int64]:
        """Largest remainders of shares 1, 1/2, 1/3, ..., so that nothing but photos is drawn."""
        if not self.classes:
            return np.array([photos])
        share = 1 / np.arange(1, self.classes + 1)
        ends = np.round(np.cumsum(share) / share.sum() * photos).astype(int)
        return np.diff(ends, prepend=0)


class Laboratory:
    """Draws answers of recipes with known top-1 in a world, for one number of photos and seeds."""

    def __init__(self, world: World, photos: int, tops: list[float], *, seed: int) -> None:
        self.world, self.photos = world, photos
        self.rng = np.random.default_rng(seed)
        sizes = world.class_sizes(photos)
        liking = self.rng.normal(size=(len(tops), len(sizes))) * (0.3 if world.classes else 0)
        hard = self.rng.normal(size=len(sizes)) * bool(world.classes)
        self.label = np.repeat(np.arange(len(sizes)), sizes)
        self.offsets = hard + liking  # (recipes, classes)
        self.share = sizes / photos
        self.folds = np.arange(photos) % FOLDS if world.fold_model else None
        self.level = [self._solve(i, top) for i, top in enumerate(tops)]

    def top1(self, recipe: int, level: float, *, seed_known: bool) -> float:
        """Of a recipe on all photos there could be, over all seeds or with that in `level`."""
        w = self.world
        others = (w.photo, w.by_recipe, w.noise, w.fold_model, w.fold_photos)
        scale = np.hypot(np.linalg.norm(others), 0 if seed_known else w.seed)
        return float(self.share @ ndtr((level + self.offsets[recipe]) / scale))

    def draw(self, seeds: int, *, apart: bool = False) -> tuple[list[Answers], list[float]]:
        """Answers of each recipe, and what its top-1 truly is: of its models, where seeds = 1."""
        w, rng, count = self.world, self.rng, len(self.level)
        photo = w.photo * rng.standard_normal(self.photos)
        shared = w.seed * np.sqrt(w.shared) * rng.standard_normal(seeds)
        answers, truths = [], []
        for i in range(count):
            own = w.seed * np.sqrt(1 - w.shared) * rng.standard_normal(seeds)
            moved = own + (0 if apart else shared)
            score = self.level[i] + self.offsets[i][self.label] + photo
            score = score + w.by_recipe * rng.standard_normal(self.photos) + moved[:, None]
            score = score + w.noise * rng.standard_normal((seeds, self.photos))
            if self.folds is not None:
                score += self._fold_effects(seeds)[:, self.folds]
            numbers = tuple(range(100 * i * apart, 100 * i * apart + seeds))
            answers.append(Answers(score > 0, numbers, self.folds))
            known = seeds == 1
            level = self.level[i] + (moved[0] if known else 0)
            truths.append(self.top1(i, level, seed_known=known))
        return answers, truths

    def _fold_effects(self, seeds: int) -> NDArray[np.float64]:
        w, rng = self.world, self.rng
        alike = np.sqrt(1 / FOLDS) * rng.standard_normal() + np.sqrt(
            1 - 1 / FOLDS
        ) * rng.standard_normal(FOLDS)
        return w.fold_model * rng.standard_normal((seeds, FOLDS)) + w.fold_photos * alike

    def _solve(self, recipe: int, top1: float) -> float:
        return brentq(lambda level: self.top1(recipe, level, seed_known=False) - top1, -9, 9)

"""What a design can answer, against closed forms and against drawn studies."""

from math import sqrt

import numpy as np
import pytest
from scipy import stats

from fieldmark.studies.answers import Answers
from fieldmark.studies.design import Design
from fieldmark.studies.power import (
    NOISE,
    PHOTO_OF_FEATURES,
    PHOTO_OF_HEADS,
    Power,
    foreseen,
    powers,
)
from fieldmark.studies.spread import Estimate, Part, estimate

BASE = """\
data: {folder: photos}
stages: [{name: head, train: head, lr: 1, length: 60 epochs}]
"""
STUDY = """\
name: sizes
question: Which matters more, the photos' size or the sketch's?
base: base
axes:
  - {key: data.image_size, values: [224, 336, 448]}
  - {key: pooling.sketch_dim, values: [1024, 2048, 4096, 8192]}
"""


def design(*overrides: str) -> Design:
    return Design.read(STUDY, lambda _: BASE, overrides)


def test_one_part_shows_at_the_sum_of_two_quantiles():
    found = Estimate(0.0, "models", (Part("photos", 1e-4, 1e9),))
    assert found.least_seen() == pytest.approx(0.01 * (stats.norm.isf(0.025) + stats.norm.ppf(0.8)))
    of_nine = 0.01 * (stats.norm.isf(0.025 / 9) + stats.norm.ppf(0.8))
    assert found.least_seen(9) == pytest.approx(of_nine)


def test_a_difference_so_large_shows_in_four_of_five():
    # Two models of one seed each, right on each photo by lots of their own: variance 2 p (1 - p).
    generator, n, p, shown = np.random.default_rng(0), 2000, 0.7, []
    photo = 2 * p * (1 - p)
    least = foreseen(photo=photo, noise=0, seed=0, photos=n, seeds=1, pairs=1, cells=2).least_seen()
    for _ in range(400):
        a, b = generator.random(n) < p, generator.random(n) < p + least
        shown.append(estimate((-1, 1), [Answers(a), Answers(b)]).p_value() <= 0.05)
    assert np.mean(shown) == pytest.approx(0.8, abs=3 * sqrt(0.8 * 0.2 / 400) + 0.01)


def test_parts_are_those_of_the_model():
    known = {"photo": 0.08, "noise": 0.04, "seed": 1e-4, "photos": 1000, "pairs": 4, "cells": 12}
    photos, seeds = foreseen(**known, seeds=3).parts
    assert photos.variance == pytest.approx(0.08 / 1000)
    assert seeds.variance == pytest.approx(2 * (1e-4 + 0.04 / 1000) / 12)
    assert (seeds.df, seeds.pooled) == (24, True)


def test_folds_add_what_chance_makes_of_models_that_are_alike():
    # One recipe's difference whose folds do not differ: what `estimate` sees of them, on average.
    generator, n, folds, found = np.random.default_rng(1), 1000, np.arange(1000) % 5, []
    for _ in range(300):
        a, b = generator.random((2, n)) < 0.5
        parts = estimate((-1, 1), [Answers(x, folds=folds) for x in (a, b)]).parts
        found.append([part.variance for part in parts])
    told = foreseen(photo=0.5, noise=0, seed=0, photos=n, seeds=1, pairs=1, cells=2, folds=5)
    assert [part.source for part in told.parts] == ["photos", "folds"]
    variances = [part.variance for part in told.parts]
    assert variances == pytest.approx(np.mean(found, axis=0), rel=0.15)
    assert [part.df for part in told.parts] == [995, 4]


def test_axes_that_keep_the_features_are_seen_more_sharply():
    size, sketch = powers(design("seeds=3"), 1500)
    assert (size.axis, sketch.axis) == ("image_size", "sketch_dim")
    common = {"noise": NOISE / 4, "seed": 0, "photos": 1500, "seeds": 3, "cells": 12, "folds": 5}
    of_size = foreseen(photo=PHOTO_OF_FEATURES / 4, pairs=4, **common)
    of_sketch = foreseen(photo=PHOTO_OF_HEADS / 4, pairs=3, **common)
    # 3 pairs of sizes and 6 of sketches are looked at together.
    assert size.least == pytest.approx(of_size.least_seen(9))
    assert sketch.least == pytest.approx(of_sketch.least_seen(9))
    assert sketch.least < size.least


def test_more_photos_and_seeds_show_less():
    def least(photos: int, *overrides: str) -> float:
        return powers(design(*overrides), photos)[1].least

    assert least(6000) == pytest.approx(least(1500) / 2, rel=0.02)
    assert least(1500, "seeds=5") < least(1500, "seeds=2")


@pytest.mark.parametrize("top1", [0.1, 0.9])
def test_less_shows_where_answers_vary_more(top1: float):
    # All variances are shares of p (1 - p): 0.25 at a half, 0.09 at a tenth and at nine.
    half, sharper = (powers(design("seeds=3"), 1500, top1=p) for p in (0.5, top1))
    for worst, found in zip(half, sharper, strict=True):
        assert found.least / worst.least == pytest.approx(sqrt(0.09 / 0.25))


def test_what_it_would_take_is_enough_and_little_more():
    def found(seeds: int, photos: int) -> Power:
        return powers(design(f"seeds={seeds}"), photos, top1=0.85)[1]

    told = found(2, 2400)
    assert told.least > told.care
    assert found(2, told.photos).least <= told.care
    assert found(2, int(told.photos / 1.25)).least > told.care
    assert told.seeds
    assert found(told.seeds, 2400).least <= told.care + 2e-4
    assert f"about {told.seeds} seeds or {told.photos:,} judged photos" in told.describe()


def test_what_shows_needs_nothing():
    found = powers(design("seeds=3"), 100_000)[1]
    assert (found.seeds, found.photos) == (None, None)
    assert found.describe().endswith("or more will show.")

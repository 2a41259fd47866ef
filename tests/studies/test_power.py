"""What a design can answer, against closed forms and against drawn studies."""

from math import sqrt

import numpy as np
import pytest
from scipy import stats

from fieldmark.studies.answers import Answers
from fieldmark.studies.design import Design
from fieldmark.studies.power import NOISE, PHOTO_OF_FEATURES, PHOTO_OF_HEADS, foreseen, powers
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
    found = foreseen(photo=0.08, noise=0.04, seed=1e-4, photos=1000, seeds=3, pairs=4, cells=12)
    photos, seeds = found.parts
    assert photos.variance == pytest.approx(0.08 / 1000)
    assert seeds.variance == pytest.approx(2 * (1e-4 + 0.04 / 1000) / 12)
    assert (seeds.df, seeds.pooled) == (24, True)


def test_axes_that_keep_the_features_are_seen_more_sharply():
    size, sketch = powers(design("seeds=3"), 1500)
    assert (size.axis, sketch.axis) == ("image_size", "sketch_dim")
    errors = [
        sqrt(PHOTO_OF_FEATURES / 1500 + 2 * NOISE / 1500 / 12),
        sqrt(PHOTO_OF_HEADS / 1500 + 2 * NOISE / 1500 / 9),
    ]
    reach = stats.norm.isf(0.025 / 9) + stats.norm.ppf(0.8)  # 3 + 6 comparisons
    assert [size.least, sketch.least] == pytest.approx([reach * e for e in errors], rel=0.1)


def test_more_photos_and_seeds_show_less():
    def least(photos: int, *overrides: str) -> float:
        return powers(design(*overrides), photos)[1].least

    assert least(6000) == pytest.approx(least(1500) / 2, rel=0.02)
    assert least(1500, "seeds=5") < least(1500, "seeds=2")


def test_what_it_would_take_is_enough_and_little_more():
    found = powers(design("seeds=2"), 1500)[1]
    assert found.least > found.care
    assert powers(design("seeds=2"), found.photos)[1].least <= found.care
    assert powers(design("seeds=2"), int(found.photos / 1.25))[1].least > found.care
    assert found.seeds
    assert powers(design(f"seeds={found.seeds}"), 1500)[1].least <= found.care + 2e-4
    assert f"about {found.seeds} seeds or {found.photos:,} judged photos" in found.describe()


def test_what_shows_needs_nothing():
    found = powers(design("seeds=3"), 100_000)[1]
    assert (found.seeds, found.photos) == (None, None)
    assert found.describe().endswith("or more will show.")

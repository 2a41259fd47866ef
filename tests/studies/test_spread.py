"""How far chance reaches: closed forms, a brute-force analysis of variance, integrated coverage."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import chdtri, ndtr

from fieldmark.errors import SettingError
from fieldmark.studies.answers import Answers
from fieldmark.studies.spread import Estimate, Part, SeedSpread, estimate, pooled_spread

HALF = (np.arange(1000) + 0.5) / 1000


def answers(seeds, photos, *, share=0.7, seed=0, folds=None):
    right = np.random.default_rng(seed).random((seeds, photos)) < share
    return Answers(right, folds=folds)


def part(found: Estimate, source: str) -> Part:
    return next(part for part in found.parts if part.source == source)


@pytest.mark.parametrize("of_seeds", np.linspace(0.02, 1, 12))
@pytest.mark.parametrize("seeds", [2, 3, 4, 5, 8, 20])
def test_the_interval_covers_what_it_says(seeds, of_seeds):
    # The seed mean square is chi-square, the photos' as good as known: integrate over the former.
    drawn = of_seeds * chdtri(seeds - 1, 1 - HALF) / (seeds - 1)
    photos = Part("photos", 1 - of_seeds, 1e6)
    reach = [
        Estimate(0, "recipes", (photos, Part("seeds", v, seeds - 1))).half_width for v in drawn
    ]
    covered = np.mean(1 - 2 * ndtr(-np.array(reach)))
    most = {2: 0.987, 3: 0.97, 4: 0.962}.get(seeds, 0.957)
    assert 0.9485 <= covered <= most


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("of_seeds", [0.2, 0.6, 0.95])
@pytest.mark.parametrize("level", [0.01, 0.001])
def test_small_p_values_are_not_too_small(seeds, of_seeds, level):
    # As above, with many points where the seed mean square is small: there it rejects.
    below, weight = HALF**3, 3 * HALF**2
    drawn = of_seeds * stats.chi2.ppf(below, seeds - 1) / (seeds - 1)
    photos, z = Part("photos", 1 - of_seeds, 1e6), stats.norm.isf(level / 2)
    reach = [Estimate(0, "recipes", (photos, Part("seeds", v, seeds - 1)))._reach(z) for v in drawn]
    assert np.mean(weight * 2 * ndtr(-np.array(reach))) <= 1.01 * level


def test_one_part_is_a_t_interval():
    found = Estimate(0.3, "recipes", (Part("seeds", 0.04, 4),))
    assert found.error == pytest.approx(0.2)
    assert found.half_width == pytest.approx(0.2 * stats.t.ppf(0.975, 4))
    assert found.p_value() == pytest.approx(2 * stats.t.sf(1.5, 4), rel=1e-4)
    assert found.p_value(0.3) == pytest.approx(1)


def test_the_p_value_is_five_per_cent_where_the_interval_ends():
    parts = (Part("photos", 1e-4, 299), Part("seeds", 3e-4, 2), Part("folds", 1e-5, 4))
    found = Estimate(0.02, "recipes", parts)
    assert found.p_value(0.02 + found.half_width) == pytest.approx(0.05, rel=1e-4)


def test_a_farther_value_has_a_smaller_p():
    parts = (Part("photos", 1e-4, 299), Part("seeds", 3e-4, 2))
    p = [Estimate(d, "recipes", parts).p_value() for d in (0, 0.01, 0.05, 0.2, 1, 1e6)]
    assert p == sorted(p, reverse=True)
    assert p[0] == pytest.approx(1)
    assert 0 < p[-1] < 1e-3


def test_parts_are_those_of_a_crossed_analysis_of_variance():
    a, b = answers(4, 50), answers(4, 50, seed=1)
    y = b.right - a.right
    s, n = y.shape
    total = y.mean()
    noise = sum(
        (y[i, j] - y[i].mean() - y[:, j].mean() + total) ** 2 for i in range(s) for j in range(n)
    ) / ((s - 1) * (n - 1))
    of_photos = s * sum((y[:, j].mean() - total) ** 2 for j in range(n)) / (n - 1)
    of_seeds = n * sum((y[i].mean() - total) ** 2 for i in range(s)) / (s - 1)
    found = estimate((-1, 1), (a, b))
    assert found.about == "recipes"
    assert found.value == pytest.approx(b.top1 - a.top1)
    assert part(found, "seeds").variance == pytest.approx(of_seeds / (n * s))
    assert part(found, "seeds").noise == pytest.approx(noise / (n * s))
    photos = max(of_photos - noise, 0) / (n * s) + 0.25 / n**2
    assert part(found, "photos").variance == pytest.approx(photos)
    assert (part(found, "seeds").df, part(found, "photos").df) == (s - 1, n - 1)


def test_other_seeds_are_independent():
    a = answers(3, 80)
    b = answers(4, 80, seed=1)
    found = estimate((-1, 1), (a, b))
    expected = [np.var(each.right.mean(1), ddof=1) / len(each.seeds) for each in (a, b)]
    parts = [each for each in found.parts if each.source == "seeds"]
    assert [each.variance for each in parts] == pytest.approx(expected)
    assert [each.df for each in parts] == [2, 3]


def test_equal_seeds_are_paired_so_that_what_they_share_cancels():
    rng = np.random.default_rng(0)
    level = np.array([0.1, 0.5, 0.9])  # a seed moves both recipes
    base = rng.random((3, 400)) < level[:, None]
    a, b = Answers(base), Answers(base ^ (rng.random((3, 400)) < 0.02))
    apart = Answers(b.right, seeds=(7, 8, 9))
    assert estimate((-1, 1), (a, b)).half_width < 0.1
    assert estimate((-1, 1), (a, apart)).half_width > 0.4


def test_one_seed_speaks_of_models_and_with_folds_of_that_seed():
    folds = np.arange(60) % 3
    models = estimate((-1, 1), (answers(1, 60), answers(1, 60, seed=1)))
    assert models.about == "models"
    assert [each.source for each in models.parts] == ["photos"]
    a, b = (answers(1, 60, seed=seed, folds=folds) for seed in (0, 1))
    assert estimate((-1, 1), (a, b)).about == "one seed"


def test_one_against_several_seeds_speaks_of_models():
    assert estimate((-1, 1), (answers(1, 60), answers(3, 60, seed=1))).about == "models"


def test_fold_models_add_what_nadeau_and_bengio_say():
    photos, count = 1000, 5
    folds = np.arange(photos) % count
    rng = np.random.default_rng(0)
    a = Answers(rng.random(photos) < 0.5, folds=folds)
    b = Answers(rng.random(photos) < 0.1 + 0.2 * folds, folds=folds)
    d = (b.right - a.right)[0]
    means = np.array([d[folds == k].mean() for k in range(count)])
    inside = sum(((d[folds == k] - means[k]) ** 2).sum() for k in range(count)) / (photos - count)
    between = np.var(means, ddof=1) - inside / (photos / count)
    found = part(estimate((-1, 1), (a, b)), "folds")
    assert found.variance == pytest.approx(between * (1 / 5 + 1 / 4))
    assert found.df == 4


def test_folds_that_are_alike_add_nothing():
    folds = np.arange(400) % 4
    a, b = np.zeros(400), np.zeros(400)
    b[:40] = 1  # ten photos of each fold
    found = estimate((-1, 1), (Answers(a, folds=folds), Answers(b, folds=folds)))
    assert part(found, "folds").variance == 0


def test_the_fold_models_own_seeds_are_not_counted_twice():
    photos, folds = 2000, np.arange(2000) % 5
    rng = np.random.default_rng(0)
    moved = 0.5 + 0.2 * rng.standard_normal((8, 5))  # by seed and fold, with no effect of folds
    a = Answers(rng.random((8, photos)) < 0.5, folds=folds)
    b = Answers(rng.random((8, photos)) < moved[:, folds], folds=folds)
    found = estimate((-1, 1), (a, b))
    assert part(found, "folds").variance < part(found, "seeds").variance / 2


def test_a_pooled_spread_is_the_mean_variance():
    recipes = [answers(3, 200), answers(5, 200, seed=1), answers(1, 200, seed=2)]
    spread = pooled_spread(recipes)
    of_seeds = [np.var(each.right.mean(1), ddof=1) for each in recipes[:2]]
    assert spread.df == 6
    assert spread.variance == pytest.approx((2 * of_seeds[0] + 4 * of_seeds[1]) / 6)
    assert spread.noise == pytest.approx(0.7 * 0.3 / 200, rel=0.1)


def test_a_pooled_spread_lets_one_seed_speak_of_recipes():
    spread = SeedSpread(variance=4e-4, noise=1e-4, df=10)
    found = estimate((-1, 1), (answers(1, 300), answers(1, 300, seed=1)), spread)
    assert found.about == "recipes"
    assert part(found, "seeds").variance == pytest.approx(8e-4)
    assert part(found, "seeds").df == 10
    row = answers(1, 300, seed=1).right - answers(1, 300).right
    photos = np.var(row, ddof=1) / 300 - 2e-4 + 0.25 / 300**2
    assert part(found, "photos").variance == pytest.approx(photos)


def test_a_pooled_spread_that_came_out_small_does_not_undo_the_noise_of_photos():
    # Three parts of the noise that both models' photos have for sure; none between seeds.
    a, b = answers(1, 300), answers(1, 300, seed=1)
    reach = [
        estimate((-1, 1), (a, b), SeedSpread(variance, 2e-4, 6)).half_width
        for variance in (0.0, 5e-5, 1e-4)
    ]
    row = (b.right - a.right)[0]
    alone = (np.var(row, ddof=1) + 0.25 / 300) / 300
    z = stats.norm.isf(0.025)
    assert reach == pytest.approx([z * alone**0.5] * 3)
    wider = estimate((-1, 1), (a, b), SeedSpread(8e-4, 2e-4, 6)).half_width
    assert wider > 1.1 * reach[0]


def test_a_comparisons_own_seeds_may_come_out_small():
    found = Estimate(0, "recipes", (Part("photos", 1e-4, 299), Part("seeds", 1e-6, 4, 9e-4)))
    assert found.half_width < 2.2e-2


def test_a_spread_needs_two_seeds_somewhere():
    with pytest.raises(SettingError, match="two seeds or more"):
        pooled_spread([answers(1, 20)])


def test_more_of_a_source_takes_its_part_away():
    seeds = Part("seeds", 5e-4, 2, noise=2e-4)
    less = pytest.approx(2e-4 / 3)
    assert seeds.with_more(seeds=3) == Part("seeds", pytest.approx(5e-4 / 3), 8, less)
    assert seeds.with_more(photos=2).variance == pytest.approx(4e-4)
    photos = Part("photos", 6e-4, 299)
    assert photos.with_more(photos=3).variance == pytest.approx(2e-4)
    assert photos.with_more(seeds=3) == photos
    folds = Part("folds", 1e-4, 4)
    assert folds.with_more(seeds=9, photos=9) == folds


def test_models_that_agree_are_no_certainty():
    right = np.ones((3, 300))
    found = estimate((-1, 1), (Answers(right), Answers(right)))
    assert 0.001 < found.half_width < 0.01

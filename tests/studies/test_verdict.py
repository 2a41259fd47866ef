"""Verdicts: exact tests against scipy, intervals against brute force, answers at their borders."""

import numpy as np
import pytest
from scipy import stats

from fieldmark.errors import SettingError
from fieldmark.metrics import wilson_interval
from fieldmark.studies.spread import Estimate, Part
from fieldmark.studies.verdict import Needs, exact_p, holm, judge, p_at_care, score_interval


def found(value, error, *, about="recipes", df=1e6):
    return Estimate(value, about, (Part("photos", error**2, df),))


def verdict(value, error, **given):
    return judge(found(value, error), **{"photos": 1000, "seeds": (3, 3), **given})


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 5), (3, 12), (20, 20), (41, 12)])
def test_the_exact_p_is_the_binomial_tests(only_a, only_b):
    both = only_a + only_b
    expected = stats.binomtest(only_b, both).pvalue if both else 1.0
    assert exact_p(only_a, only_b) == pytest.approx(expected)


def likeliest(d, only_a, only_b, photos):
    """Score statistic by a search over the share of `only_a`."""
    q = np.linspace(max(0, -d), (1 - d) / 2, 200_001)[1:-1]
    agree = photos - only_a - only_b
    with np.errstate(divide="ignore"):
        fit = only_a * np.log(q) + only_b * np.log(q + d) + agree * np.log(1 - 2 * q - d)
    q = q[np.argmax(fit)]
    return (only_b - only_a - photos * d) ** 2 / (photos * (2 * q + d - d * d))


@pytest.mark.parametrize("counts", [(3, 12, 60), (25, 10, 300), (1, 2, 50), (100, 130, 1389)])
def test_the_interval_ends_where_a_score_test_rejects(counts):
    low, high = score_interval(*counts)
    seen = (counts[1] - counts[0]) / counts[2]
    assert low < seen < high
    for end in (low, high):
        assert likeliest(end, *counts) == pytest.approx(1.96**2, rel=2e-3)


def test_the_interval_turns_with_the_sides():
    low, high = score_interval(3, 12, 60)
    assert score_interval(12, 3, 60) == pytest.approx((-high, -low))


def test_models_that_agree_may_still_differ_on_other_photos():
    low, high = score_interval(0, 0, 300)
    assert high == pytest.approx(1.96**2 / (300 + 1.96**2), rel=1e-3)
    assert low == pytest.approx(-high)


def test_where_models_never_agree_it_is_wilsons():
    low, high = score_interval(0, 20, 20)
    assert low == pytest.approx(2 * wilson_interval(1, 20)[0] - 1)
    assert high == pytest.approx(1)


@pytest.mark.parametrize(
    ("value", "error", "answer"),
    [
        (0.03, 0.01, "real"),
        (-0.03, 0.01, "real"),
        (0.0, 0.005, "noise"),
        (0.004, 0.001, "noise"),  # there, but too small to care about
        (0.0, 0.01, "cannot tell"),
        (0.02, 0.0103, "cannot tell"),
        (0.02, 0.0101, "real"),
    ],
)
def test_there_are_three_answers(value, error, answer):
    assert verdict(value, error).answer == answer


def test_how_much_is_cared_decides_what_is_noise():
    assert verdict(0.0, 0.01, care=0.05).answer == "noise"
    assert verdict(0.004, 0.001, care=0.002).answer == "real"


@pytest.mark.parametrize("care", [0, -1, 1, 5])
def test_care_is_a_fraction(care):
    with pytest.raises(SettingError, match=r"`care` must be above 0 and below 1.*Use 0.01"):
        verdict(0, 1, care=care)


def test_an_exact_p_has_the_last_word():
    close = verdict(0.02, 0.01, interval=(0.001, 0.04), p=0.06)
    assert close.answer == "cannot tell"
    assert "3 seeds each, exact p = 0.06)" in close.describe()  # or it would seem to be real
    many = verdict(0.02, 0.01, interval=(0.001, 0.04), p=0.0612, comparisons=9)
    assert "one of 9 comparisons, corrected p = 0.061)" in many.describe()
    assert "p =" not in verdict(0.02, 0.02).describe()


def test_only_an_open_question_names_its_needs():
    assert verdict(0.03, 0.01).needs is None
    assert verdict(0.0, 0.01).needs is not None


def test_photos_needed_decide_in_four_of_five_repeats():
    needs = verdict(0.02, 0.02).needs
    error = 0.02 / (stats.norm.ppf(0.975) + stats.norm.ppf(0.8))
    assert needs.seeds is None  # photos are all the chance there is
    assert needs.photos == pytest.approx(1000 * ((0.02 / error) ** 2 - 1), abs=12)


def test_seeds_needed_count_their_degrees_of_freedom():
    parts = (Part("seeds", 3e-4, 2),)
    needs = judge(Estimate(0.03, "recipes", parts), photos=300, seeds=(3, 3)).needs

    def least_seen(seeds):  # in four of five repeats
        return (stats.t.ppf(0.975, seeds - 1) + stats.norm.ppf(0.8)) * np.sqrt(9e-4 / seeds)

    assert least_seen(3 + needs.seeds) <= 0.03 < least_seen(2 + needs.seeds)
    assert needs.photos is None


def test_photos_needed_count_what_else_is_looked_at():
    """An interval that leaves out 0 once, and is one of many, took "about 10 more photos"."""
    found = Estimate(0.05, "one seed", (Part("photos", 0.02**2, 1499),))
    settings = {"photos": 1500, "seeds": (1, 1), "folds": 5}
    alone = judge(found, p=0.06, comparisons=1, **settings).needs
    among = judge(found, p=0.06, comparisons=21, **settings).needs
    z, power = stats.norm.ppf(1 - 0.025 / 21), stats.norm.ppf(0.8)
    assert among.photos == pytest.approx(1500 * ((z + power) * 0.02 / 0.05) ** 2 - 1500, abs=15)
    assert alone.photos < among.photos


def test_nothing_may_be_enough_alone():
    parts = (Part("folds", 1e-2, 4),)
    needs = judge(Estimate(0.03, "recipes", parts), photos=300, seeds=(3, 3)).needs
    assert needs == Needs(None, None)


def test_holm_against_numbers_worked_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_noise_has_a_p_value_too():
    assert p_at_care(found(0.0, 0.01 / 1.96), 0.01) == pytest.approx(0.05, rel=1e-3)
    assert p_at_care(found(0.02, 0.1), 0.01) == 1


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            (0.03, 0.01),
            "Real: gem names 3.0 points more photos rightly than average "
            "(95 % interval +1.0 to +5.0; 1,000 photos, 3 seeds each).",
        ),
        (
            (0.002, 0.003),
            "Noise: gem and average differ by less than 1 point, +0.2 seen "
            "(95 % interval -0.4 to +0.8; 1,000 photos, 3 seeds each).",
        ),
        (
            (-0.02, 0.02),
            "Cannot tell: gem names 2.0 points fewer photos rightly than average "
            "(95 % interval -5.9 to +1.9; 1,000 photos, 3 seeds each); "
            "to decide takes about 6,850 more photos.",
        ),
    ],
)
def test_a_verdict_is_one_sentence(given, sentence):
    assert verdict(*given).describe("average", "gem") == sentence


def test_a_sentence_says_what_it_speaks_of():
    one = judge(found(0.03, 0.01, about="models"), photos=300, seeds=(1, 1))
    assert one.describe().endswith("1 seed each), for these trained models only, not other seeds.")
    fold = judge(found(0.03, 0.01, about="one seed"), photos=300, seeds=(1, 1), folds=5)
    assert fold.describe().endswith("1 seed each, 5 folds), for this seed only.")
    uneven = judge(found(0.03, 0.01), photos=300, seeds=(2, 5), comparisons=4)
    assert "2 and 5 seeds, one of 4 comparisons)" in uneven.describe()


def test_needs_in_words():
    assert Needs(1, None).describe() == "about 1 more seed each"
    assert Needs(3, 1500).describe() == "about 3 more seeds each or 1,500 more photos"
    assert Needs(None, None).describe() == "more seeds and more photos at once"

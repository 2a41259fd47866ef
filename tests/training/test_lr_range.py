"""The range test on losses whose limits are known: gradient descent on a quadratic."""

import re

import numpy as np
import pytest

from fieldmark.training.lr_range import read_range, rising, smoothed

STEPS = 200


def descent(curvature, lr, *, start=2.0, floor=0.0):
    """Losses of gradient descent on floor + c w² / 2, which is stable below the rate 2 / c."""
    shrink = np.cumprod(1 - curvature * np.concatenate([[0], lr[:-1]]))
    with np.errstate(over="ignore"):
        losses = floor + start * shrink**2
    return losses[np.isfinite(losses) & (losses < 1e6)].tolist()


@pytest.mark.parametrize("curvature", [0.01, 1.0, 300.0])
def test_the_band_of_a_quadratic_lies_below_its_stable_limit(curvature):
    limit = 2 / curvature
    lr = rising(limit / 1e4, limit * 100, STEPS)
    found = read_range(lr, [descent(curvature, lr, floor=0.3)] * 3)
    low, high = found.band
    assert found.reason is None
    assert low < high < limit
    # Begun where a tenth of the fall is done: exp(-2 c Σ lr) = 0.9, and Σ lr = lr / (1 - 1 / r).
    ratio = lr[1] / lr[0]
    assert low == pytest.approx(-np.log(0.9) / 2 / curvature * (1 - 1 / ratio), rel=0.25)
    assert limit / 2 < found.readings[0].lowest < 1.5 * limit


def test_of_two_curvatures_the_sharper_sets_the_limit():
    lr = rising(1e-4, 1e2, STEPS)
    sharp, blunt = (np.array(descent(c, lr, start=1.0)) for c in (10.0, 0.5))
    losses = sharp + blunt[: len(sharp)]
    found = read_range(lr, [losses.tolist()] * 2)
    assert found.band[1] < 2 / 10
    assert 2 / 10 < found.readings[0].lowest < 3 * 2 / 10  # growth from nothing takes some steps


def test_the_band_moves_with_the_rates():
    lr = rising(1e-4, 1e2, STEPS)
    losses = [descent(1.0, lr, floor=0.3)] * 2
    low, high = read_range(lr, losses).band
    assert read_range(10 * lr, losses).band == pytest.approx((10 * low, 10 * high))


@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [
        (
            1e-8,
            1e-5,
            "flat: the loss hardly falls from 2.30 (lr 1e-08 to 1e-05) all along; go higher",
        ),
        (1e-4, 0.1, "the loss still falls at the end (lr 0.0001 to 0.1); go higher"),
        (0.3, 300, "the loss falls from the first steps on (lr 0.3 to 3e+02); begin lower"),
        (3, 30, "it diverges from the start (lr 3 to 30); begin far lower"),
    ],
)
def test_a_range_in_the_wrong_place_gives_no_band(low, high, reason):
    lr = rising(low, high, STEPS)
    found = read_range(lr, [descent(1.0, lr, floor=0.3)] * 3)
    assert found.band is None
    assert found.reason == f"{reason} (in 3 of 3 repeats)"


def test_a_loss_that_only_rises_is_told():
    lr = rising(1, 1e4, STEPS)
    rises = (2.0 + 0.01 * np.arange(STEPS)).tolist()
    found = read_range(lr, [rises, rises])
    assert found.band is None
    assert found.reason.startswith("the loss rises from the start (lr 1 to 1e+04)")


def test_a_loss_that_hardly_falls_before_it_rises_is_told():
    lr = rising(1e-3, 1e3, STEPS)
    noisy = np.random.default_rng(0).normal(0.4, 0.01, STEPS) + np.linspace(0, 2, STEPS) ** 8
    found = read_range(lr, [noisy.tolist()])
    assert found.band is None
    told = re.search(
        r"\(lr 0.001 to 1e\+03\) before it rises at lr (\S+); stay below", found.reason
    )
    # Two deviations above its start is where t ** 8 = 0.02, t from 0 to 2 over six decades.
    assert float(told[1]) == pytest.approx(1e-3 * 10 ** (6 * 0.02 ** (1 / 8) / 2), rel=0.25)


def test_a_plateau_is_not_called_a_fall_from_the_first_steps_on():
    """As of a head that was trained already: nothing to gain, and much to lose."""
    lr = rising(1e-5, 1e-1, 80)
    noise = np.random.default_rng(0).normal(0.5, 0.15, (3, 80))
    found = read_range(lr, (noise + np.linspace(0, 1.2, 80) ** 12).tolist())
    assert found.band is None
    assert found.reason.startswith("flat: the loss hardly falls from 0.")
    assert (found.why, found.rises) == ("plateau", min(one.rises for one in found.readings))


def test_noise_alone_gives_no_band():
    lr = rising(1e-3, 1e3, STEPS)
    for seed in range(50):
        noise = np.random.default_rng(seed).normal(3.9, 0.4, (3, STEPS))
        assert read_range(lr, noise.tolist()).band is None


def test_repeats_that_disagree_give_no_band():
    lr = rising(1e-4, 1e3, STEPS)
    losses = [descent(c, lr, floor=0.3) for c in (1.0, 1.2, 8.0)]
    found = read_range(lr, losses)
    assert found.band is None
    times = re.match(r"noisy: repeats differ by (\S+) times in where the loss begins", found.reason)
    assert 5 < float(times[1]) < 8  # of curvatures 8 apart, the sharpest smoothed the most
    assert read_range(lr, losses[:2]).band is not None


def test_one_bad_repeat_is_counted():
    lr = rising(1e-4, 1e2, STEPS)
    good = descent(1.0, lr, floor=0.3)
    found = read_range(lr, [good, good, [2.3] * STEPS])
    assert found.band is None
    assert found.reason.endswith("(in 1 of 3 repeats)")


def test_the_band_is_where_all_repeats_agree():
    lr = rising(1e-4, 1e2, STEPS)
    alone = [read_range(lr, [descent(c, lr, floor=0.3)]).band for c in (1.0, 1.5)]
    both = read_range(lr, [descent(c, lr, floor=0.3) for c in (1.0, 1.5)]).band
    assert both == (max(low for low, _ in alone), min(high for _, high in alone))


def test_smoothing_keeps_straight_lines_and_sums():
    line = np.linspace(3, 1, STEPS)
    np.testing.assert_allclose(smoothed(line)[20:-20], line[20:-20])
    spike = np.zeros(STEPS)
    spike[100] = 1
    found = smoothed(spike)
    assert found.sum() == pytest.approx(1)
    assert found.argmax() == 100
    assert np.sqrt((found * (np.arange(STEPS) - 100) ** 2).sum()) == pytest.approx(4, rel=0.02)

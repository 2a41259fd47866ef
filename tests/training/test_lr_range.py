"""The range test on losses whose limits are known: gradient descent on a quadratic."""

import re

import numpy as np
import pytest

from fieldmark.training.lr_range import CALMED, read_range, rising, smoothed

STEPS = 200


def descent(curvature, lr, *, start=2.0, floor=0.0):
    """Losses of gradient descent on floor + c w² / 2, which is stable below the rate 2 / c."""
    shrink = np.cumprod(1 - curvature * np.concatenate([[0], lr[:-1]]))
    with np.errstate(over="ignore"):
        losses = floor + start * shrink**2
    return losses[np.isfinite(losses) & (losses < 1e6)].tolist()


def read(lr, repeats, start=None):
    """The range test where every batch is as hard: the untouched model's loss is the first."""
    return read_range(lr, repeats, [[start or losses[0]] * len(lr) for losses in repeats])


@pytest.mark.parametrize("curvature", [0.01, 1.0, 300.0])
def test_the_band_of_a_quadratic_lies_below_its_stable_limit(curvature):
    limit = 2 / curvature
    lr = rising(limit / 1e4, limit * 100, STEPS)
    found = read(lr, [descent(curvature, lr, floor=0.3)] * 3)
    low, high = found.band
    assert found.reason is None
    assert low < high < limit
    # Begun where a tenth of the fall is done: exp(-2 c Σ lr) = 0.9, and Σ lr = lr / (1 - 1 / r).
    ratio = lr[1] / lr[0]
    assert low == pytest.approx(-np.log(0.9) / 2 / curvature * (1 - 1 / ratio), rel=0.25)
    assert limit / 2 < found.lowest < 1.5 * limit
    assert high == pytest.approx(found.lowest / 3)


def test_of_two_curvatures_the_sharper_sets_the_limit():
    lr = rising(1e-4, 1e2, STEPS)
    sharp, blunt = (np.array(descent(c, lr, start=1.0)) for c in (10.0, 0.5))
    losses = sharp + blunt[: len(sharp)]
    found = read(lr, [losses.tolist()] * 2)
    assert found.band[1] < 2 / 10
    assert 2 / 10 < found.lowest < 3 * 2 / 10  # growth from nothing takes some steps


def test_the_band_moves_with_the_rates():
    lr = rising(1e-4, 1e2, STEPS)
    losses = [descent(1.0, lr, floor=0.3)] * 2
    low, high = read(lr, losses).band
    assert read(10 * lr, losses).band == pytest.approx((10 * low, 10 * high))


@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [
        (
            1e-8,
            1e-5,
            "flat: the loss hardly falls from 2.30 (lr 1e-08 to 1e-05) all along; go higher",
        ),
        (1e-4, 0.1, "the loss still falls at the end (lr 0.0001 to 0.1); go higher"),
        (0.8, 800, "the loss falls from the first steps on (lr 0.8 to 8e+02); begin lower"),
        (3, 30, "it diverges from the start (lr 3 to 30); begin far lower"),
    ],
)
def test_a_range_in_the_wrong_place_gives_no_band(low, high, reason):
    lr = rising(low, high, STEPS)
    found = read(lr, [descent(1.0, lr, floor=0.3)] * 3)
    assert found.band is None
    assert found.reason == reason


def test_a_range_that_begins_within_the_band_gives_what_it_holds_of_it():
    wide, within = (rising(low, 300, STEPS) for low in (1e-4, 0.1))
    whole, part = (read(lr, [descent(1.0, lr, floor=0.3)] * 3).band for lr in (wide, within))
    assert whole[0] < 0.1
    assert 0.1 <= part[0] < part[1] < 2


def test_a_loss_that_only_rises_is_told():
    lr = rising(1, 1e4, STEPS)
    rises = (2.0 + 0.01 * np.arange(STEPS)).tolist()
    found = read(lr, [rises, rises])
    assert found.band is None
    assert found.reason.startswith("the loss rises from the start (lr 1 to 1e+04)")


def test_a_loss_that_hardly_falls_before_it_rises_is_told():
    lr = rising(1e-3, 1e3, STEPS)
    noisy = np.random.default_rng(0).normal(0.4, 0.01, STEPS) + np.linspace(0, 2, STEPS) ** 8
    found = read(lr, [noisy.tolist()], 0.4)
    assert found.band is None
    told = re.search(
        r"\(lr 0.001 to 1e\+03\) before it rises at lr (\S+); stay below", found.reason
    )
    # Two deviations above its start is where t ** 8 = 0.02 times what smoothing leaves of noise.
    place = (0.02 * CALMED) ** (1 / 8) / 2
    assert float(told[1]) == pytest.approx(1e-3 * 10 ** (6 * place), rel=0.65)


def test_a_plateau_is_not_called_a_fall_from_the_first_steps_on():
    """As of a head that was trained already: nothing to gain, and much to lose."""
    lr = rising(1e-5, 1e-1, 80)
    noise = np.random.default_rng(0).normal(0.5, 0.15, (3, 80))
    found = read(lr, (noise + np.linspace(0, 1.2, 80) ** 12).tolist(), 0.5)
    assert found.band is None
    assert found.reason.startswith("flat: the loss hardly falls from 0.50")
    assert found.why == "plateau"
    assert 1e-3 < found.rises < 1e-1


def test_what_batches_differ_by_is_taken_out():
    """A fall of 3 % beneath noise of 40 %, as of a second stage; the same batches tell it."""
    lr = rising(1e-4, 1.0, 80)
    t = np.linspace(0, 1, 80)
    curve = -0.04 * np.exp(-(((t - 0.5) / 0.15) ** 2)) + np.where(t > 0.7, 30 * (t - 0.7) ** 2, 0)
    batches = np.random.default_rng(0).normal(1.3, 0.5, (3, 80))
    found = read_range(lr, (batches + curve).tolist(), batches.tolist())
    assert found.lowest == pytest.approx(lr[curve.argmin()], rel=0.3)
    assert found.band[1] == pytest.approx(found.lowest / 3)
    assert read((lr), (batches + curve).tolist(), 1.3).band is None
    np.testing.assert_allclose(found.curves[0], smoothed(curve) + batches[0].mean())


def test_noise_alone_gives_no_band():
    lr = rising(1e-3, 1e3, STEPS)
    for seed in range(50):
        noise = np.random.default_rng(seed).normal(3.9, 0.4, (3, STEPS))
        assert read(lr, noise.tolist(), 3.9).band is None


def test_a_repeat_that_does_not_bear_it_out_is_counted():
    lr = rising(1e-4, 1e2, STEPS)
    good = descent(1.0, lr, floor=0.3)
    found = read(lr, [good, good, [2.3] * STEPS])
    assert found.band is None
    told = (
        r"noisy: on average the loss falls at lr (\S+) and is lowest at (\S+), but not so in 1 of 3"
    )
    high, lowest = map(float, re.match(told, found.reason).groups())
    assert lowest == pytest.approx(3 * high, rel=0.05)
    assert found.lowest == pytest.approx(lowest, rel=0.05)


def test_repeats_that_explode_at_other_rates_are_heeded():
    lr = rising(1e-4, 1e3, STEPS)
    losses = [descent(c, lr, floor=0.3) for c in (1.0, 1.2, 8.0)]
    low, high = read(lr, losses).band
    assert low < high < 2 / 8
    alone = [read(lr, [each]).band for each in losses[:2]]
    low, high = read(lr, losses[:2]).band
    assert alone[1][0] <= low <= alone[0][0]
    assert high == pytest.approx(alone[1][1], rel=0.1)


def test_smoothing_keeps_straight_lines_and_sums():
    line = np.linspace(3, 1, STEPS)
    np.testing.assert_allclose(smoothed(line)[20:-20], line[20:-20])
    spike = np.zeros(STEPS)
    spike[100] = 1
    found = smoothed(spike)
    assert found.sum() == pytest.approx(1)
    assert found.argmax() == 100
    assert np.sqrt((found * (np.arange(STEPS) - 100) ** 2).sum()) == pytest.approx(4, rel=0.02)

"""The ladder of rates on gains that are known."""

import numpy as np
import pytest

from fieldmark.training.lr_ladder import read_ladder

RATES = 10.0 ** np.arange(-3, 0.5, 0.5)  # seven, from 0.001 to 1
GAINED = np.array([-0.02, -0.05, -0.15, -0.3, -0.2, 0.1, 0.9])
START = 1.5


def test_the_band_reaches_to_where_half_is_gained():
    found = read_ladder(RATES, [GAINED - 0.01, GAINED + 0.01], START)
    # Half of 0.3 is gained at 0.01 itself, and 0.05 / 0.3 of the way from 0.1 to 10 ** -0.5.
    assert found.band == pytest.approx((1e-2, 10 ** (-1 + 0.5 / 6)))
    assert (found.lowest, found.reason) == (pytest.approx(10**-1.5), None)
    np.testing.assert_allclose(found.curves.mean(axis=0), START + GAINED)


def test_a_rate_alone_has_a_band_between_its_neighbours():
    alone = np.array([0, 0, 0, -0.3, 0.3, 0.5, 0.9])
    low, high = read_ladder(RATES, [alone], START).band
    assert low == pytest.approx(10**-1.75)
    assert high == pytest.approx(10 ** (-1.5 + 0.5 * 0.15 / 0.6))


@pytest.mark.parametrize(
    ("gained", "why", "reason"),
    [
        (GAINED / 40, "flat", "flat: the loss hardly falls from 1.50 (lr 0.001 to 1) all along"),
        (
            np.where(GAINED > 0, GAINED, 0),
            "plateau",
            "before it rises at lr 0.32; stay below a third of that",
        ),
        (-np.arange(7.0), "open", "the loss still falls at the end (lr 0.001 to 1); go higher"),
        (
            np.arange(7.0) - 1,
            "falls",
            "the loss falls most at the lowest rate (lr 0.001 to 1); begin lower",
        ),
    ],
)
def test_it_refuses_with_a_reason(gained, why, reason):
    found = read_ladder(RATES, [gained, gained], START)
    assert (found.band, found.why) == (None, why)
    assert reason in found.reason


def test_repeats_that_disagree_give_no_band():
    other = np.roll(GAINED, -3)
    found = read_ladder(RATES, [GAINED, GAINED, other], START)
    assert (found.band, found.why) == (None, "noisy")
    assert found.reason.endswith("but not so in 1 of 3 repeats; use larger batches")
    near = np.roll(GAINED, -1)
    assert read_ladder(RATES, [GAINED, GAINED, near], START).band is not None


def test_noise_alone_gives_hardly_ever_a_band():
    bands = 0
    for seed in range(300):
        noise = np.random.default_rng(seed).normal(0, 0.03, (3, 7))
        bands += read_ladder(RATES, noise, START).band is not None
    assert bands <= 9

import numpy as np
import pytest

from fieldmark.data.chance import Chance
from fieldmark.data.dataset import draw

CHANCE = Chance((3, 1, "a.jpg"))


def test_a_draw_is_known_by_its_key_and_its_name() -> None:
    assert CHANCE.below(10, "crop", "top") == draw(3, 1, "a.jpg", "crop", "top") % 10
    assert CHANCE.uniform(0, 1, "x") == (draw(3, 1, "a.jpg", "x") >> 11) / 2**53


def test_uniform_fills_its_range_and_stays_in_it() -> None:
    drawn = [CHANCE.uniform(-2, 6, "x", i) for i in range(4000)]
    assert -2 <= min(drawn) < -1.95
    assert 5.95 < max(drawn) < 6
    assert np.mean(drawn) == pytest.approx(2, abs=0.15)  # 4 standard errors of 8 / sqrt(12 n)


def test_what_never_or_always_happens() -> None:
    assert not any(CHANCE.happens(0, i) for i in range(200))
    assert all(CHANCE.happens(1, i) for i in range(200))
    assert 220 < sum(CHANCE.happens(0.25, i) for i in range(1000)) < 290


def test_shuffled_is_a_permutation_and_every_one_comes_up() -> None:
    seen = {tuple(CHANCE.shuffled("abc", i)) for i in range(100)}
    assert len(seen) == 6  # one is missed with probability 7e-8
    assert all(sorted(order) == ["a", "b", "c"] for order in seen)
    assert {CHANCE.choice("abc", i) for i in range(50)} == {"a", "b", "c"}


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_beta_has_the_moments_of_beta(alpha: float) -> None:
    drawn = np.array([CHANCE.beta(alpha, i) for i in range(3000)])
    assert drawn.mean() == pytest.approx(0.5, abs=0.04)
    assert drawn.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)
    assert CHANCE.beta(alpha, "x") == CHANCE.beta(alpha, "x")

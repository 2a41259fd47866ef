"""The curve is the one errors were made by, and its interval holds what it should."""

import numpy as np
import pytest

from fieldmark.errors import SettingError
from fieldmark.studies.answers import Answers
from fieldmark.studies.learning_curve import fit_curve

AMOUNTS = (0.15, 0.25, 0.4, 0.65, 1.0)
REPEATS = 40


def _exactly(errors: list[float], photos: int) -> list[Answers]:
    """Answers of which just these shares are wrong."""
    return [Answers(np.arange(photos) >= round(error * photos)) for error in errors]


@pytest.mark.parametrize(("floor", "scale", "power"), [(0.05, 0.2, 0.5), (0.0, 0.1, 0.3)])
def test_errors_of_a_law_give_the_law(floor: float, scale: float, power: float) -> None:
    answers = _exactly([floor + scale * amount**-power for amount in AMOUNTS], 20_000)
    curve = fit_curve(AMOUNTS, answers)
    assert curve.error(1)[0] == pytest.approx(floor + scale, abs=1e-3)
    assert curve.error(2)[0] == pytest.approx(floor + scale * 2**-power, abs=2e-3)
    assert (curve.floor, curve.power) == pytest.approx((floor, power), abs=0.03)


def test_errors_that_do_not_fall_promise_nothing() -> None:
    curve = fit_curve(AMOUNTS, _exactly([0.3] * 5, 1000))
    error, low, high = curve.error(2)
    assert error == pytest.approx(0.3, abs=1e-6)
    assert low <= error <= high
    assert "Twice the training photos would bring top-1 from 70.0% to about 70.0%" in (
        curve.describe()
    )


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    floor, scale, power = 0.08, 0.15, 0.5
    truth = floor + scale * 2**-power
    held = 0
    for _ in range(REPEATS):
        hard = np.sort(generator.random(400))  # a photo that is hard is so for every amount
        wrong = [floor + scale * amount**-power for amount in AMOUNTS]
        chance = [hard + 0.2 * generator.standard_normal((2, 400)) for _ in AMOUNTS]
        cuts = [np.quantile(c, 1 - w) for c, w in zip(_many(generator), wrong, strict=True)]
        answers = [Answers(c < cut) for c, cut in zip(chance, cuts, strict=True)]
        _, low, high = fit_curve(AMOUNTS, answers).error(2)
        held += low <= truth <= high
    assert held >= 0.85 * REPEATS


def _many(generator: np.random.Generator) -> list[np.ndarray]:
    """Very many photos of the same kind, to know which hardness just so many exceed."""
    return [generator.random(20_000) + 0.2 * generator.standard_normal(20_000) for _ in AMOUNTS]


def test_what_makes_no_curve_is_refused() -> None:
    answers = _exactly([0.3, 0.2, 0.1], 100)
    with pytest.raises(SettingError, match=r"needs 3 amounts of photos or more.*got \[1, 2, 2\]"):
        fit_curve([1, 2, 2], answers)
    with pytest.raises(SettingError, match="Only answers about the same photos"):
        fit_curve([1, 2, 3], [*answers[:2], *_exactly([0.1], 99)])

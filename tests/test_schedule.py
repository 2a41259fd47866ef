"""Learning rates over a stage, against closed forms and torch's own schedulers."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fieldmark.ledger import Ledger, Position
from fieldmark.schedule import OPTIONS, Schedule


def schedule(name: str, **options) -> Schedule:
    return Schedule.model_validate({"name": name, **options})


def factors(schedule: Schedule, total: int = 100, per_epoch: int = 10) -> list[float]:
    return [
        schedule.factor(step, total_steps=total, steps_per_epoch=per_epoch) for step in range(total)
    ]


def test_constant_is_constant():
    assert factors(schedule("constant")) == [1.0] * 100


def test_multistep_falls_at_each_milestone():
    chosen = Schedule.model_validate(
        {"name": "multistep", "milestones": ["3 epochs", "75 %"], "gamma": 0.5}
    )
    assert factors(chosen) == [1.0] * 30 + [0.5] * 45 + [0.25] * 25


def test_cosine_is_one_half_in_the_middle_and_ends_near_zero():
    found = factors(schedule("cosine"))
    assert found[0] == 1.0
    assert found[50] == pytest.approx(0.5)
    assert found[25] == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert 0 < found[99] < 3e-4


def test_warmup_rises_to_one_and_hands_over_without_a_jump():
    chosen = Schedule.model_validate({"name": "cosine", "warmup": "10 steps"})
    found = factors(chosen)
    assert found[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert found[10] == 1.0
    assert found[55] == pytest.approx(0.5)


def test_a_warmup_longer_than_the_stage_never_passes_one():
    chosen = Schedule.model_validate({"name": "cosine", "warmup": "500 steps"})
    assert max(factors(chosen)) == 1.0


def torch_factors(make, total: int = 100) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_step_is_torchs():
    found = factors(schedule("step", every="2 epochs", gamma=0.5))
    assert found == pytest.approx(
        torch_factors(lambda o: torch.optim.lr_scheduler.StepLR(o, 20, 0.5))
    )


def test_exponential_is_torchs():
    found = factors(schedule("exponential", every="1 step", gamma=0.97))
    expected = torch_factors(lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.97))
    assert found == pytest.approx(expected)


def test_polynomial_is_torchs():
    found = factors(schedule("polynomial", power=2))
    expected = torch_factors(lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 100, 2))
    assert found == pytest.approx(expected, abs=1e-12)


def test_inverse_is_caffes_formula():
    found = factors(schedule("inverse", gamma=0.01, power=0.75))
    assert found == pytest.approx([(1 + 0.01 * step) ** -0.75 for step in range(100)])


def test_one_cycle_rises_to_one_at_thirty_per_cent_and_falls_to_almost_nothing():
    found = factors(schedule("one_cycle"))
    assert found.index(max(found)) in (29, 30)
    assert max(found) == 1.0
    assert found[0] == pytest.approx(1 / 25 + (24 / 25) / 30)
    assert found[65] == pytest.approx(0.5, abs=1e-3)
    assert found[99] < 1e-3


def test_a_name_alone_stands_for_its_defaults():
    assert Schedule.model_validate("cosine") == schedule("cosine")


@pytest.mark.parametrize("name", OPTIONS)
def test_every_schedule_survives_being_written_and_read(name: str):
    given = {"milestones": ["50 %"], "every": "1 epoch"}
    wanted = {key: given[key] for key, value in OPTIONS[name].items() if value is None}
    chosen = schedule(name, **wanted)
    assert Schedule.model_validate(chosen.model_dump(mode="json")) == chosen
    assert all(0 < factor <= 1 for factor in factors(chosen))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"name": "cosine", "gamma": 0.5},
            "`gamma` is no option of cosine, which takes only",
        ),
        ({"name": "step"}, "step needs `every`"),
        ({"name": "multistep", "milestones": []}, "multistep needs `milestones`"),
        (
            {"name": "inverse", "patience": 2},
            "`patience` is no option of inverse, which takes",
        ),
    ],
)
def test_options_that_do_not_belong_are_refused(options: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        Schedule.model_validate(options)


@pytest.mark.parametrize(("total", "per_epoch"), [(97, 7), (100, 10), (13, 13), (1, 1)])
def test_cosine_and_warmup_are_torchs_at_every_step(total: int, per_epoch: int):
    lr = torch.optim.lr_scheduler
    found = factors(schedule("cosine"), total, per_epoch)
    expected = torch_factors(lambda o: lr.CosineAnnealingLR(o, total), total)
    assert found == pytest.approx(expected, abs=1e-12)
    found = factors(schedule("cosine", warmup="20 %"), total, per_epoch)
    first = max(1, math.floor(total / 5 + 0.5))
    parts = lambda o: [  # noqa: E731
        lr.LambdaLR(o, lambda step: (step + 1) / first),
        lr.CosineAnnealingLR(o, max(1, total - first)),
    ]
    expected = torch_factors(lambda o: lr.SequentialLR(o, parts(o), [first]), total)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("patience", [1, 2, 3, 5])
def test_plateau_falls_where_torchs_does(patience: int):
    """Torch counts the evaluations that it lets pass, we those until the rate falls."""
    ledger, gamma = SimpleNamespace(at=Position()), 0.5
    chosen = schedule("plateau", patience=patience, gamma=gamma)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=gamma, patience=patience - 1, threshold=0, eps=0
    )
    for loss in np.random.default_rng(0).normal(0, 1, 200).cumsum().tolist():
        ledger.at.latest = {"val/loss": loss}
        Ledger.judge(ledger, chosen)
        torchs.step(loss)
        assert gamma**ledger.at.drops == optimizer.param_groups[0]["lr"]
    assert ledger.at.drops > 3

"""Checks of steps, rates and decay, on records whose answer is known."""

import math

import numpy as np
import pytest

from fieldmark.diagnosis.advice import next_experiments
from fieldmark.diagnosis.diagnose import diagnose_run
from fieldmark.language import Words
from fieldmark.report.render import finding_text

LN10 = math.log(10)
LOOKS = np.arange(31)


def spiked(at: int, to: float, *, stays: bool = False) -> np.ndarray:
    """A running loss that jumps at one of its thirty records, and comes back unless it stays."""
    values = np.linspace(LN10, 0.5, 30)
    values[at : None if stays else at + 1] = to
    return values


@pytest.mark.parametrize(
    ("name", "outcome", "loss"),
    [
        ("diverged_early", "does not", np.linspace(LN10, 0.5, 30)),
        ("diverged_early", "fires", spiked(0, math.nan)),
        ("diverged_early", "fires", spiked(0, math.inf)),
        ("diverged_midway", "fires", spiked(15, math.nan)),
        ("diverged_midway", "fires", spiked(15, 3.01 * LN10, stays=True)),
        ("diverged_midway", "does not", spiked(15, 2.99 * LN10, stays=True)),
        ("diverged_midway", "does not", spiked(15, 3.01 * LN10)),
        ("loss_spikes", "fires", spiked(15, 3.01 * LN10)),
        ("loss_spikes", "does not", spiked(15, 2.99 * LN10)),
        ("loss_spikes", "does not", spiked(15, 3.01 * LN10, stays=True)),
        ("diverged_early", "fires", spiked(0, 9 * LN10, stays=True)),
        ("diverged_early", "does not", spiked(15, math.nan)),
        ("diverged_midway", "does not", spiked(0, math.nan)),
    ],
)
def test_losses_that_blow_up(look, well, name, outcome, loss):
    found = look(name, ({}, well(**{"train/loss": loss})))
    assert found.outcome == outcome
    if outcome == "fires":
        assert found.place.first_step == (10 if name == "diverged_early" else 160)


def test_a_warm_up_is_still_early(look, well):
    warm = {"schedule": {"name": "cosine", "warmup": "60 %"}}
    curves = well(**{"train/loss": spiked(15, math.nan)})
    assert look("diverged_early", (warm, curves)).outcome == "fires"


@pytest.mark.parametrize(("step", "name"), [(2, "diverged_early"), (150, "diverged_midway")])
def test_a_run_that_stopped_itself_says_where(look, step, name):
    reason = f"TrainingError: The loss became nan at step {step} of the stage, at lr 1, on a.jpg."
    found = look(name, reason=reason)
    assert (found.outcome, found.numbers["step"]) == ("fires", step)
    assert look(name, reason="TrainingError: no memory").outcome == "does not"


def down_then(end: float, turn: int = 12) -> np.ndarray:
    """Falls to 0.5 nats until a record, then goes to `end` in a straight line."""
    noise = 0.005 * np.cos(np.arange(30))
    return np.concatenate([np.linspace(LN10, 0.5, turn), np.linspace(0.5, end, 30 - turn)]) + noise


@pytest.mark.parametrize(
    ("name", "outcome", "loss"),
    [
        ("train_loss_rises", "does not", down_then(0.4)),
        ("train_loss_rises", "fires", down_then(1.0)),
        ("train_loss_rises", "does not", down_then(0.55)),  # too little to act on
        ("train_loss_rises", "does not", down_then(1.0, turn=25)),  # too late to call it lasting
        ("train_loss_rises", "does not", np.linspace(LN10, 3, 30)),  # it never fell
    ],
)
def test_running_loss_that_rises(look, well, name, outcome, loss):
    found = look(name, ({}, well(**{"train/loss": loss})))
    assert found.outcome == outcome


def test_a_loss_may_rise_while_lr_does(look, well):
    curves = well(**{"train/loss": down_then(1.0), "train/lr": np.linspace(0, 1, 30)})
    assert look("train_loss_rises", ({}, curves)).outcome == "does not"


def jumping(size: float) -> np.ndarray:
    """Val top-1 around 80 %, up and down from look to look."""
    return 0.8 + size * np.where(LOOKS % 2, 1, -1)


@pytest.mark.parametrize(
    ("name", "outcome", "top1"),
    [  # se of 80 % in 200 photos: 2.8 points; jumps of +-s have a spread of sqrt(2) s
        ("restless_val", "does not", jumping(0.01)),
        ("restless_val", "does not", jumping(0.029)),
        ("restless_val", "fires", jumping(0.032)),
        ("periodic_val", "fires", 0.8 + 0.04 * np.sin(2 * np.pi * LOOKS / 3)),
        ("periodic_val", "does not", 0.8 + 0.005 * np.sin(2 * np.pi * LOOKS / 3)),
        ("periodic_val", "does not", np.linspace(0.1, 0.8, 31)),
    ],
)
def test_val_that_moves(look, well, name, outcome, top1):
    assert look(name, ({}, well(**{"val/top1": top1}))).outcome == outcome


def test_chance_alone_has_no_rhythm(look, well):
    fired = 0
    for seed in range(60):
        noise = np.random.default_rng(seed).normal(0.8, 0.03, 31)
        fired += look("periodic_val", ({}, well(**{"val/top1": noise}))).outcome == "fires"
    assert fired <= 1


STRAIGHT = np.linspace(LN10, 0.51 * LN10, 31)
CONSTANT = {"schedule": "constant"}
RATE = np.ones(30)


@pytest.mark.parametrize(
    ("name", "outcome", "loss", "settings"),
    [
        ("lr_too_low", "fires", STRAIGHT, {}),
        ("lr_too_low", "does not", np.linspace(LN10, 0.49 * LN10, 31), {}),  # it got somewhere
        ("lr_too_low", "does not", np.r_[np.linspace(LN10, 1.7, 11), np.full(20, 1.69)], {}),
        ("lr_too_low", "does not", STRAIGHT[:8], {"length": "7 epochs"}),  # short before slow
    ],
)
def test_rates_too_low(look, well, name, outcome, loss, settings):
    curves = well(len(loss), **{"minitrain/loss": loss, "train/lr": RATE[: len(loss) - 1]})
    assert look(name, (settings | CONSTANT, curves)).outcome == outcome


@pytest.mark.parametrize(
    ("rehearsed", "outcome", "advice"),
    [
        ({}, "fires", "Raise lr to 10, then again, or find a band with `fieldmark rehearse`."),
        (
            {"head": {"band": [0.8, 4.0]}},
            "fires",
            "Raise lr to 4, the upper end of the band that its rehearsal found (0.8 to 4).",
        ),
        ({"all": {"band": [0.8, 4.0]}, "head": {"band": None}}, "fires", "Raise lr to 10, then"),
        ({"head": {"band": [0.1, 0.9]}}, "does not", ""),  # above it the loss would explode
    ],
)
def test_a_rehearsal_that_gave_a_band_says_how_high(record, well, rehearsed, outcome, advice):
    curves = well(**{"minitrain/loss": STRAIGHT, "val/loss": STRAIGHT, "train/lr": RATE})
    run = record((CONSTANT, curves), rehearsal={"range": rehearsed})
    (found,) = [one for one in diagnose_run(run) if one.check == "lr_too_low"]
    assert (found.outcome, found.advice[: len(advice)]) == (outcome, advice)
    for one in next_experiments(run, [found]):
        assert f"stages.head.lr={found.numbers['higher']:g}" in one.command
        assert f"{found.numbers['higher']:g}" in finding_text(found, "advice", Words("zh"))
    assert bool(next_experiments(run, [found])) == (outcome == "fires")


def test_what_a_high_rate_threw_up_is_no_slow_fall(look, well):
    loss = np.r_[np.linspace(LN10, 1.8, 6), np.linspace(1.9, 2.2, 10), np.linspace(2.2, 1.8, 15)]
    curves = well(**{"minitrain/loss": loss, "val/loss": loss, "train/lr": RATE})
    assert look("lr_too_low", (CONSTANT, curves)).outcome == "does not"
    assert look("too_short", (CONSTANT, curves)).outcome == "does not"


def test_a_cosine_does_not_hide_a_rate_too_low(look, well):
    """In steps the curve flattens at the end, in progress by lr it is straight."""
    reached = np.concatenate([[0], np.cumsum(well()["train/lr"])])
    loss = LN10 * (1 - 0.2 * reached / reached[-1])
    assert loss[-6] - loss[-1] < 0.05 * (loss[0] - loss[-1])
    assert look("lr_too_low", ({}, well(**{"minitrain/loss": loss}))).outcome == "fires"


def over(peak: float, end: float) -> np.ndarray:
    """Up at first, then down, the last third at one level."""
    return np.r_[LN10, np.full(4, peak), np.linspace(peak, end, 15), np.full(10, end)]


JITTER = 1.6 + 0.2 * np.cos(3 * np.arange(30))


@pytest.mark.parametrize(
    ("name", "outcome", "loss", "move"),
    [
        ("lr_too_high", "does not", over(1.2 * LN10, 0.6 * LN10), 1e-3),
        ("lr_too_high", "fires", over(1.4 * LN10, 0.51 * LN10), 1e-3),
        ("lr_too_high", "does not", over(1.4 * LN10, 0.49 * LN10), 1e-3),  # made good
        ("lr_too_high", "fires", np.r_[LN10, JITTER[1:]], 2e-2),  # a level held, far from 0
        ("lr_too_high", "does not", np.r_[LN10, JITTER[1:]], 0.9e-2),  # steps are usual
        ("lr_too_high", "does not", np.linspace(LN10, 0.2, 30), 2e-2),  # it falls
    ],
)
def test_rates_too_high(look, well, name, outcome, loss, move):
    curves = {"train/loss": loss, "train/update_ratio": move * RATE, "train/lr": RATE}
    assert look(name, (CONSTANT, well(**curves))).outcome == outcome


def steps_down(*epochs: int) -> np.ndarray:
    """A tenth of the rate after each of these."""
    return np.array([10.0 ** -sum(epoch >= e for e in epochs) for epoch in range(1, 31)])


FALLING = np.r_[np.linspace(LN10, 1.6, 6), np.linspace(1.58, 1.5, 25)]
TOPS = np.full(31, 0.7)


@pytest.mark.parametrize(
    ("name", "outcome", "rates", "loss", "top1"),
    [
        ("decayed_too_early", "fires", steps_down(5, 6), FALLING, 0.7),
        ("decayed_too_early", "fires", steps_down(5), FALLING, 0.7),  # at 10 % for over 60 %
        ("decayed_too_early", "does not", steps_down(20), FALLING, 0.7),
        ("decayed_too_early", "does not", steps_down(20, 27), FALLING, 0.7),  # 1 % for 10 %
        ("decayed_too_early", "does not", steps_down(5, 6), FALLING, 0.99),  # nothing left
        ("decayed_too_early", "does not", np.cos(np.linspace(0, 1.57, 30)) ** 2, FALLING, 0.7),
    ],
)
def test_rates_lowered_too_early(look, well, name, outcome, rates, loss, top1):
    curves = {"train/lr": rates, "minitrain/loss": loss, "minitrain/top1": np.full(31, top1)}
    assert look(name, ({}, well(**curves))).outcome == outcome


def test_without_recorded_rates_the_recipe_tells_them(look, well):
    early = {"schedule": {"name": "multistep", "milestones": ["5 epochs", "6 epochs"]}}
    curves = well(**{"train/lr": None, "minitrain/loss": FALLING, "minitrain/top1": TOPS})
    assert look("decayed_too_early", (early, curves)).outcome == "fires"
    assert look("decayed_too_early", ({}, curves)).outcome == "does not"


def test_a_loss_that_falls_only_after_is_still_falling(look, well):
    """What the first steps threw up comes down at a rate too low to get anywhere."""
    loss = np.r_[LN10, np.full(5, 3.5), np.linspace(3.4, 1.7, 25)]
    curves = {"train/lr": steps_down(5, 6), "minitrain/loss": loss, "minitrain/top1": TOPS}
    assert look("decayed_too_early", ({}, well(**curves))).outcome == "fires"


def test_nothing_was_learned_before_the_rate_was_gone(look, well):
    stuck = np.full(31, 0.99 * LN10)
    curves = {"train/lr": steps_down(1, 2, 3), "minitrain/loss": stuck, "minitrain/top1": TOPS}
    assert look("decayed_too_early", ({}, well(**curves))).outcome == "fires"


@pytest.mark.parametrize(
    ("name", "outcome", "schedule"),
    [
        (
            "milestone_beyond_the_end",
            "does not",
            {"name": "multistep", "milestones": ["29 epochs"]},
        ),
        ("milestone_beyond_the_end", "fires", {"name": "multistep", "milestones": ["30 epochs"]}),
        ("milestone_beyond_the_end", "fires", {"name": "step", "every": "31 epochs"}),
        ("milestone_beyond_the_end", "does not", {"name": "step", "every": "10 epochs"}),
        ("milestone_beyond_the_end", "does not", "cosine"),
    ],
)
def test_milestones(look, well, name, outcome, schedule):
    assert look(name, ({"schedule": schedule}, well())).outcome == outcome


ARRIVED = np.r_[np.linspace(LN10, 1.5, 6), np.full(25, 1.5)]


@pytest.mark.parametrize(
    ("name", "outcome", "decay", "loss"),
    [  # 300 steps at lr 1, momentum 0.9: decay d undoes a step within 0.1 / d; a quarter is 75
        ("decay_too_strong", "fires", 2e-3, ARRIVED),
        ("decay_too_strong", "fires", 0.1 / 74, ARRIVED),
        ("decay_too_strong", "does not", 0.1 / 76, ARRIVED),
        ("decay_too_strong", "does not", 0, ARRIVED),
        ("decay_too_strong", "does not", 2e-3, np.linspace(LN10, 1.5, 31)),  # still falling
        ("decay_too_strong", "does not", 2e-3, ARRIVED - 0.9 * (ARRIVED < 2)),  # low enough
    ],
)
def test_decay(look, well, name, outcome, decay, loss):
    curves = well(**{"minitrain/loss": loss, "train/lr": RATE})
    assert look(name, ({"weight_decay": decay} | CONSTANT, curves)).outcome == outcome


def test_decoupled_decay_knows_no_momentum(look, well):
    adamw = {"weight_decay": 0.02, "optimizer": "adamw"} | CONSTANT  # within 50 of 300 steps
    curves = well(**{"minitrain/loss": ARRIVED, "train/lr": RATE})
    found = look("decay_too_strong", (adamw, curves))
    assert (found.outcome, found.numbers["memory"]) == ("fires", pytest.approx(50))

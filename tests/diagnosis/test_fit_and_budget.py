"""Checks of fit and length, on records whose answer is known."""

import math

import numpy as np
import pytest

from fieldmark.diagnosis.curve import Curve, fall_left

LN10 = math.log(10)
LOOKS = np.arange(31)


def peaked(best: float, end: float, at: int = 8) -> np.ndarray:
    """Rises to its best at a look, then falls to its end and stays for the last ten looks."""
    return np.r_[np.linspace(0.1, best, at), np.linspace(best, end, 21 - at), np.full(10, end)]


@pytest.mark.parametrize(
    ("name", "outcome", "end"),
    [  # 80 % of 200 photos: se 2.8 points, two of them 5.6; smoothing takes the peak down by 0.2
        ("overfitting", "does not", 0.80),
        ("overfitting", "does not", 0.75),
        ("overfitting", "fires", 0.73),
    ],
)
def test_overfitting_by_val_error(look, well, name, outcome, end):
    found = look(name, ({}, well(**{"val/top1": peaked(0.8, end)})))
    assert found.outcome == outcome
    if outcome == "fires":
        assert 70 <= found.place.first_step <= 100


def test_overfitting_needs_to_last(look, well):
    top1 = np.full(31, 0.8)
    top1[-1] = 0.6
    assert look("overfitting", ({}, well(**{"val/top1": top1}))).outcome == "does not"


def test_overfitting_needs_train_to_go_on(look, well):
    fallen = peaked(0.9, 0.6)
    curves = well(**{"val/top1": peaked(0.8, 0.6), "minitrain/top1": fallen})
    assert look("overfitting", ({}, curves)).outcome == "does not"


def test_chance_alone_is_no_overfitting(look, well):
    """Looks scatter as much as new photos each time would make them; the best is picked of 30."""
    fired = 0
    for seed in range(100):
        top1 = np.random.default_rng(seed).binomial(200, 0.8, 31) / 200
        fired += look("overfitting", ({}, well(**{"val/top1": top1}))).outcome == "fires"
    assert fired <= 1


RISING = np.r_[np.linspace(LN10, 0.8, 8), np.linspace(0.8, 1.1, 23)]


@pytest.mark.parametrize(
    ("name", "outcome", "loss", "top1"),
    [
        ("overconfident", "fires", RISING, peaked(0.8, 0.79)),
        ("overconfident", "does not", RISING, peaked(0.8, 0.70)),  # that is overfitting
        ("overconfident", "does not", np.minimum(RISING, 0.83), peaked(0.8, 0.79)),
        ("overconfident", "fires", np.minimum(RISING, 0.87), peaked(0.8, 0.79)),
    ],
)
def test_overconfidence(look, well, name, outcome, loss, top1):
    found = look(name, ({}, well(**{"val/loss": loss, "val/top1": top1})))
    assert found.outcome == outcome


@pytest.mark.parametrize(
    ("name", "outcome", "loss", "top1"),
    [
        ("worse_than_guessing", "does not", 2.5 * LN10 - 0.01, 0.6),
        ("worse_than_guessing", "fires", 2.5 * LN10 + 0.01, 0.6),
        ("worse_than_guessing", "does not", 2.5 * LN10 + 0.01, 0.13),  # it knows nothing yet
    ],
)
def test_certain_and_wrong(look, well, name, outcome, loss, top1):
    curves = well(**{"val/loss": np.full(31, loss), "val/top1": np.full(31, top1)})
    assert look(name, ({}, curves)).outcome == outcome


@pytest.mark.parametrize(
    ("name", "outcome", "train", "val"),
    [
        ("memorised", "fires", 1.00, 0.80),
        ("memorised", "fires", 0.991, 0.80),
        ("memorised", "does not", 0.985, 0.80),
        ("memorised", "fires", 1.00, 0.89),
        ("memorised", "does not", 1.00, 0.91),
        # 80 and 76 % of 200: se 2.8 and 3.0 points, two of both together 8.2
        ("underfitting", "fires", 0.80, 0.76),
        ("underfitting", "does not", 0.80, 0.71),
        ("underfitting", "does not", 0.91, 0.90),
        ("underfitting", "fires", 0.89, 0.88),
    ],
)
def test_known_by_heart_or_not_even_known(look, well, name, outcome, train, val):
    curves = well(**{"minitrain/top1": np.full(31, train), "val/top1": np.full(31, val)})
    assert look(name, ({}, curves)).outcome == outcome


@pytest.mark.parametrize(
    ("name", "share", "train"),
    [("memorised", 161, 1.0), ("underfitting", 161, 0.81), ("overconfident", 161, 1.0)],
)
def test_a_level_is_that_of_the_last_look_as_tables_have_it(look, well, name, share, train):
    """160 of 200 at most looks, 161 at the last: 80.5 %, which no mean of several is."""
    top1 = np.r_[np.full(30, 160), share] / 200
    curves = {"minitrain/top1": np.full(31, train), "val/top1": top1}
    curves |= {"val/loss": RISING} if name == "overconfident" else {}
    found = look(name, ({}, well(**curves)))
    assert found.outcome == "fires"
    assert "80.5%" in found.title


def test_a_stage_of_one_epoch_is_not_told_to_be_cut_to_one(look, well):
    curves = well(**{"val/top1": np.full(31, 0.8)})
    stage = {"batch_size": 1, "length": "300 steps"}, curves
    for photos, epochs, outcome in ((150, 2, "fires"), (300, 1, "does not")):
        counts = {"train": photos, "minitrain": 200, "val": 200}
        found = look("too_long", stage, manifest={"counts": counts})
        assert (found.numbers["epochs"], found.numbers["cut"]) == (epochs, 1)
        assert found.outcome == outcome


@pytest.mark.parametrize(
    ("name", "outcome", "train", "val"),
    [  # 2.5 standard errors of 60 and 71 % of 200 photos each: 11.8 points
        ("val_above_train", "does not", 0.60, 0.71),
        ("val_above_train", "fires", 0.60, 0.73),
        ("val_above_train", "does not", 0.80, 0.80),
    ],
)
def test_val_above_clean_train(look, well, name, outcome, train, val):
    curves = well(**{"minitrain/top1": np.full(31, train), "val/top1": np.full(31, val)})
    assert look(name, ({}, curves)).outcome == outcome


def test_wrong_labels_in_train_show_before_they_are_known_by_heart(look, well):
    """Three in ten labels are wrong: val leads until the model has learned them too."""
    train = np.r_[np.linspace(0.1, 0.55, 5), np.full(8, 0.56), np.linspace(0.6, 1.0, 18)]
    val = np.r_[np.linspace(0.1, 0.78, 5), np.full(26, 0.78)]
    found = look("val_above_train", ({}, well(**{"minitrain/top1": train, "val/top1": val})))
    assert found.outcome == "fires"
    assert found.place.last_step <= 200


def test_one_early_look_can_tell_of_wrong_labels(look, well):
    train = np.r_[0.1, 0.45, np.linspace(0.85, 1.0, 29)]
    val = np.r_[0.1, np.full(30, 0.8)]
    found = look("val_above_train", ({}, well(**{"minitrain/top1": train, "val/top1": val})))
    assert found.outcome == "fires"
    assert (found.place.first_step, found.place.last_step) == (10, 10)


def test_chance_alone_rarely_puts_val_above_train(look, well):
    fired = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        shared = {split: rng.binomial(200, 0.6) / 200 for split in ("minitrain/top1", "val/top1")}
        curves = {
            key: np.full(31, share) + rng.normal(0, 0.01, 31) for key, share in shared.items()
        }
        fired += look("val_above_train", ({}, well(**curves))).outcome == "fires"
    assert fired <= 3


@pytest.mark.parametrize(
    ("name", "outcome", "running", "clean"),
    [
        ("val_above_running_train", "fires", 1.2, 0.5),
        ("val_above_running_train", "does not", 0.6, 0.5),
        ("val_above_running_train", "does not", 1.2, 1.0),  # that is no harm of augmentation
    ],
)
def test_val_above_the_running_loss(look, well, name, outcome, running, clean):
    curves = {
        "train/loss": np.full(30, running),
        "val/loss": np.r_[LN10, np.full(30, 0.8)],
        "minitrain/loss": np.full(31, clean),
    }
    assert look(name, ({}, well(**curves))).outcome == outcome


RATE = np.ones(30)
CONSTANT = {"schedule": "constant"}


def bent(first_half: float, end: float) -> np.ndarray:
    """A val loss from ln 10 in two straight lines."""
    return np.r_[np.linspace(LN10, first_half, 16), np.linspace(first_half, end, 16)[1:]]


RISES = np.linspace(0.1, 0.8, 31)
HOLDS = np.r_[np.linspace(0.1, 0.75, 16), np.linspace(0.75, 0.77, 15)]  # se of 77 %: 3.0 points


@pytest.mark.parametrize(
    ("outcome", "loss", "top1"),
    [  # of the whole fall, 1.3 nats, 0.39 is 30 %
        ("fires", bent(1.41, 1.0), RISES),
        ("does not", bent(1.37, 1.0), RISES),
        ("does not", bent(1.41, 1.0), HOLDS),  # which decides no better
        ("fires", bent(1.41, 1.0), None),  # that is not known
        ("does not", np.r_[bent(1.41, 1.0)[:20], np.full(11, 1.35)], RISES),  # best is early
        ("does not", np.linspace(LN10, LN10 - 0.05, 31), RISES),  # nothing worth having
        ("does not", np.r_[LN10, np.linspace(3.0, 1.0, 30)], RISES),  # a high rate's doing
    ],
)
def test_too_short(look, well, outcome, loss, top1):
    curves = well(**{"val/loss": loss, "val/top1": top1, "train/lr": RATE})
    found = look("too_short", (CONSTANT, curves))
    assert found.outcome == outcome
    if outcome == "fires":
        assert found.numbers["longer"] == "60 epochs"


@pytest.mark.parametrize(
    ("name", "outcome", "end", "epochs"),
    [
        ("too_short", "fires", 0.51 * LN10, 7),
        ("too_short", "does not", 0.49 * LN10, 7),
        ("too_short", "does not", 0.51 * LN10, 8),  # that is a rate too low
    ],
)
def test_a_few_epochs_that_val_tells_nothing_of(look, well, name, outcome, end, epochs):
    curves = {
        "val/loss": np.full(epochs + 1, LN10),
        "minitrain/loss": np.linspace(LN10, end, epochs + 1),
        "train/lr": np.ones(epochs),
    }
    settings = CONSTANT | {"length": f"{epochs} epochs"}
    assert look(name, (settings, well(epochs + 1, **curves))).outcome == outcome


def test_a_run_that_was_ended_early_is_not_called_short(record, well):
    from fieldmark.diagnosis.diagnose import diagnose_run
    from fieldmark.studies.run import Run, RunWriter

    curves = well(**{"val/loss": bent(1.22, 1.0), "train/lr": RATE})
    run = record((CONSTANT, curves))
    with RunWriter.open(run.folder) as writer:
        writer.fail("worse than the median", status="pruned")
    found = {f.check: f for f in diagnose_run(Run(run.folder))}["too_short"]
    assert found.why_not == "the run was ended early: worse than the median"


def settled(after: int) -> np.ndarray:
    """80 % on val, reached in one go after so many epochs."""
    return np.r_[np.full(after, 0.1), np.full(31 - after, 0.8)]


@pytest.mark.parametrize(
    ("name", "outcome", "top1"),
    [  # within a standard error, 2.8 points, of the end
        ("too_long", "fires", settled(2)),
        ("too_long", "does not", settled(3)),
        ("too_long", "does not", np.linspace(0.1, 0.8, 31)),
        ("second_half_idle", "does not", settled(2)),  # which is told as too long
        ("second_half_idle", "fires", settled(14)),
        ("second_half_idle", "does not", settled(18)),
    ],
)
def test_too_long(look, well, name, outcome, top1):
    assert look(name, ({}, well(**{"val/top1": top1}))).outcome == outcome


def test_a_loss_that_still_falls_is_not_idle(look, well):
    curves = well(**{"val/top1": settled(2), "val/loss": bent(1.4, 1.0), "train/lr": RATE})
    assert look("too_long", (CONSTANT, curves)).outcome == "does not"


ALL = {"name": "all", "train": "all"}


@pytest.mark.parametrize(
    ("name", "outcome", "stage", "waited"),
    [  # 30 records of 1 s
        ("input_bound", "fires", ALL, 0.31),
        ("input_bound", "does not", ALL, 0.29),
        ("input_bound", "does not", {}, 0.9),  # features are at hand
    ],
)
def test_waiting_for_photos(look, well, name, outcome, stage, waited):
    curves = {"train/data_seconds": waited * RATE, "train/compute_seconds": (1 - waited) * RATE}
    found = look(name, (stage, well(**curves)))
    assert found.outcome == outcome
    assert found.numbers["share"] == pytest.approx(waited)


def test_a_fall_whose_first_half_was_not_seen_has_no_second():
    loss = Curve("val/loss", "head", np.array([10, 20, 30]), np.array([2.0, 1.5, 1.0]))
    assert fall_left(loss, np.array([0.6, 0.8, 1.0])) is None
    assert fall_left(loss, np.array([0.0, 0.5, 1.0])) == 0.5


@pytest.mark.parametrize(("end", "risen"), [((1.0, 1.0, 1.0), True), ((0.0, 0.0, 0.0), False)])
def test_a_curve_has_risen_if_it_stays_up(end, risen):
    """Its last quarter lies above the lowest by margin and scatter in both; one comes back."""
    values = np.array([1, 0.6, 0.3, 0, 0, 0, 0, 0.1, 0.5, 0.9, *[1.0] * 17, *end])
    curve = Curve("val/loss", "head", np.arange(len(values)), values)
    assert curve.late_mean > 0.4 + curve[curve.lowest :].jitter
    assert curve.has_risen(0.4) == risen

"""Checks before training and between stages, on records whose answer is known."""

import math

import numpy as np
import pytest

LN10 = math.log(10)  # of ten classes
OVERFIT = {"images": 20, "steps": 120, "top1": 1.0, "loss": 0.01, "trainable": 16050}
BLANK = {"real_top1": 0.4, "blank_top1": 0.1, "images": 300, "steps": 60}
LEAD = {"loss_lead": 0.1, "loss_lead_error": 0.049, "guess_loss": 2.3}
BLIND = BLANK | {"real_top1": 0.15} | LEAD
RANGE = {"seeds": [0, 1], "lr": [0.1, 1], "loss": [[2, 1], [2, 1]], "reason": None}
HIGH = RANGE | {"lr": [0.02, 2], "why": "plateau", "rises": None}


@pytest.mark.parametrize(
    ("name", "outcome", "start"),
    [
        ("loss_at_start", "does not", LN10),
        ("loss_at_start", "does not", 1.09 * LN10),
        ("loss_at_start", "fires", 1.11 * LN10),
        ("loss_at_start", "fires", 0.89 * LN10),
        ("loss_at_start", "does not", 0.91 * LN10),
    ],
)
def test_loss_before_the_first_step(look, well, name, outcome, start):
    curves = well()
    curves["minitrain/loss"][0] = start
    found = look(name, ({}, curves))
    assert found.outcome == outcome
    assert found.numbers["expected"] == pytest.approx(LN10)
    assert found.place is None or (found.place.first_step, found.place.last_step) == (0, 0)


def test_loss_at_start_is_not_guessed_from_later_looks(look, well):
    curves = {"train/loss": well()["train/loss"]}  # first recorded after ten steps
    found = look("loss_at_start", ({}, curves))
    assert found.outcome == "cannot tell"
    assert found.why_not == "the record has no `train/loss before the first step`"


def test_a_minimum_found_in_one_step_is_not_where_a_loss_begins(look):
    exact = {"solver": "lbfgs", "weight_decay": 1e-8, "schedule": "constant"}
    found = look("loss_at_start", (exact, {"train/loss": [0.001], "val/loss": [0.8]}))
    assert found.outcome == "cannot tell"
    assert found.why_not == "stage head finds its minimum and takes no steps"


@pytest.mark.parametrize(
    ("name", "outcome", "rehearsal"),
    [
        ("cannot_overfit_few", "does not", {"overfit": OVERFIT}),
        ("cannot_overfit_few", "fires", {"overfit": OVERFIT | {"top1": 0.75}}),
        ("cannot_overfit_few", "does not", {"overfit": OVERFIT | {"top1": 0.8, "loss": 0.9}}),
        ("cannot_overfit_few", "fires", {"overfit": OVERFIT | {"loss": None}}),
        ("cannot_overfit_few", "cannot tell", {"blank": BLANK}),
        ("blank_photos_do_as_well", "does not", {"blank": BLANK}),
        # se of 30 in 300 and 44 in 300: 1.76 and 2.06 points, together 2.71
        ("blank_photos_do_as_well", "fires", {"blank": BLANK | {"real_top1": 0.15}}),
        ("blank_photos_do_as_well", "does not", {"blank": BLANK | {"real_top1": 0.16}}),
        ("blank_photos_do_as_well", "does not", {"blank": BLIND}),
        ("blank_photos_do_as_well", "fires", {"blank": BLIND | {"loss_lead_error": 0.051}}),
        ("blank_photos_do_as_well", "fires", {"blank": BLIND | {"guess_loss": 11.0}}),
        ("blank_photos_do_as_well", "cannot tell", {"blank": None}),
        ("photos_off_scale", "does not", {"fed": {"mean": -0.4, "spread": 0.9}}),
        ("photos_off_scale", "fires", {"fed": {"mean": -0.4, "spread": 0.02}}),
        ("photos_off_scale", "fires", {"fed": {"mean": 118.0, "spread": 9.0}}),
        ("photos_off_scale", "cannot tell", {"overfit": OVERFIT}),
        # The recorded run's own lr is 1.
        ("rate_far_above_range", "does not", {"range": {"head": HIGH | {"lowest": 0.021}}}),
        ("rate_far_above_range", "fires", {"range": {"head": HIGH | {"lowest": 0.02}}}),
        ("rate_far_above_range", "fires", {"range": {"head": HIGH | {"lowest": [0.01, 0.02]}}}),
        ("rate_far_above_range", "fires", {"range": {"head": HIGH | {"why": "diverges"}}}),
        ("rate_far_above_range", "does not", {"range": {"head": HIGH | {"why": "rises"}}}),
        ("rate_far_above_range", "does not", {"range": {"head": RANGE | {"band": [0.1, 1.0]}}}),
        ("rate_far_above_range", "cannot tell", {}),
        ("no_band_of_rates", "does not", {"range": {"head": RANGE | {"band": [0.1, 1.0]}}}),
        ("no_band_of_rates", "fires", {"range": {"head": RANGE | {"band": None}}}),
        ("no_band_of_rates", "cannot tell", {}),
    ],
)
def test_what_was_rehearsed(look, name, outcome, rehearsal):
    found = look(name, rehearsal=rehearsal)
    assert found.outcome == outcome, found
    if outcome == "cannot tell":
        assert "`fieldmark rehearse " in found.why_not


def test_a_rate_is_held_against_the_run_that_is_spoken_of(look, well):
    high = {"range": {"head": HIGH | {"stage_lr": 1, "lowest": 0.02}}}
    found = look("rate_far_above_range", rehearsal=high)
    assert found.numbers == {"stage": "head", "lr": 1, "times": 50, "lower": 0.02 / 3}
    assert found.title == (
        "Stage head trains at lr 1, 50 times or more above where the loss of its range test was "
        "lowest."
    )
    gentle = look("rate_far_above_range", ({"lr": 0.9}, well()), rehearsal=high)
    assert gentle.outcome == "does not"


def test_a_training_that_broke_off_tells_nothing_of_its_photos(look):
    broken = {"blank": BLANK | {"real_top1": 0.0, "reason": "The loss became nan."}}
    found = look("blank_photos_do_as_well", rehearsal=broken)
    assert found.outcome == "cannot tell"
    assert found.why_not == "its training broke off when it was rehearsed: The loss became nan"


def test_a_rehearsal_may_lie_elsewhere(record, tmp_path):
    from fieldmark.diagnosis.diagnose import diagnose_run

    (tmp_path / "rehearsal.json").write_text(
        '{"range": {"head": {"band": null, "reason": "flat"}}}'
    )
    found = {f.check: f for f in diagnose_run(record(), tmp_path)}["no_band_of_rates"]
    assert found.title == "The range test of stage head gives no band of learning rates: flat."


ALL_STAGE = {"name": "all", "train": "all", "lr": 0.01, "length": "5 epochs"}


def second(begins: float, *later: float) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """A second stage with these top-1 on val."""
    tops = np.array([begins, *later])
    return ALL_STAGE, {"val/top1": tops, "val/loss": 3 * (1 - tops)}


@pytest.mark.parametrize(
    ("name", "outcome", "begins", "later"),
    [
        ("handover_differs", "does not", 0.80, (0.81, 0.82)),
        ("handover_differs", "fires", 0.74, (0.81, 0.82)),
        ("handover_differs", "fires", 0.84, (0.84, 0.85)),
        ("stage_collapses", "does not", 0.80, (0.81, 0.82)),
        ("stage_collapses", "fires", 0.80, (0.10, 0.12)),  # and stays there
        ("stage_collapses", "fires", 0.80, (0.60, 0.82)),  # and recovers
        ("stage_collapses", "fires", 0.80, (0.79, 0.60)),  # later
        ("stage_collapses", "does not", 0.80, (0.71, 0.82)),  # nine points
        ("stage_collapses", "fires", 0.80, (0.69, 0.82)),  # eleven
    ],
)
def test_second_stages(look, well, name, outcome, begins, later):
    curves = well()
    curves["val/top1"][-1] = 0.80
    found = look(name, ({}, curves), second(begins, *later))
    assert found.outcome == outcome
    if outcome == "fires":
        assert found.place.stage == "all"
        assert found.place.first_step == 300


@pytest.mark.parametrize("name", ["handover_differs", "stage_collapses"])
def test_one_stage_hands_nothing_over(look, name):
    found = look(name)
    assert (found.outcome, found.why_not) == ("cannot tell", "it takes two stages, there is 1")


@pytest.mark.parametrize(
    ("name", "outcome", "note"),
    [
        ("frozen_moved", "does not", {"frozen_hash": "ab" * 32, "frozen_hash_after": "ab" * 32}),
        ("frozen_moved", "fires", {"frozen_hash": "ab" * 32, "frozen_hash_after": "cd" * 32}),
        ("frozen_moved", "does not", {"frozen_hash": "ab" * 32}),
        ("frozen_moved", "cannot tell", {}),
    ],
)
def test_hashes_of_what_is_frozen(look, name, outcome, note):
    found = look(name, manifest={"stages": [{"name": "head", **note}]})
    assert found.outcome == outcome
    if outcome == "fires":
        assert "hash abababababab became cdcdcdcdcdcd" in found.title


def test_a_run_that_stopped_itself_for_it_tells_the_hashes(look):
    reason = "TrainingError: Stage head moved parameters it had frozen (12ab became 34cd). This is"
    found = look("frozen_moved", reason=reason)
    assert found.outcome == "fires"
    assert "hash 12ab became 34cd" in found.title


@pytest.mark.parametrize(
    ("name", "outcome", "changed"),
    [
        ("biases_decayed", "does not", {"weight_decay": 1e-4}),
        ("biases_decayed", "fires", {"weight_decay": 1e-4, "train": {"*": {"lr": 1, "decay": 1}}}),
        ("biases_decayed", "does not", {"train": {"*": {"lr": 1, "decay": 1}}}),
        ("biases_decayed", "does not", {"weight_decay": 1, "train": {"*": {"lr": 1, "decay": 0}}}),
    ],
)
def test_decay_of_biases(look, well, name, outcome, changed):
    assert look(name, (changed, well())).outcome == outcome

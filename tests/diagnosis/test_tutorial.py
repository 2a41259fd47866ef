"""The tutorial's three curves: not the same trouble, and so not the same advice.

Their shapes are those of the tutorial's figures, on 200 photos of 10 classes: the last layer
trained alone, then all layers, and the same with a hundred times the decay.
"""

import numpy as np
import pytest

from fieldmark.diagnosis.advice import next_experiments
from fieldmark.diagnosis.diagnose import diagnose_run, firing

LN10 = np.log(10)
FULL = {"train/lr": np.ones(30)}
CONSTANT = {"schedule": "constant"}


def scattered(values: np.ndarray, size: float, seed: int = 0) -> np.ndarray:
    return values + np.random.default_rng(seed).normal(0, size, len(values))


def rise(end: float, speed: float, looks: int = 31) -> np.ndarray:
    return end + (0.1 - end) * np.exp(-speed * np.arange(looks))


@pytest.fixture
def last_layer(record, well):
    """Train goes to 100 %, val stops at 76 % and holds; its loss turns and rises."""
    loss = np.r_[np.linspace(LN10, 0.95, 6), np.linspace(0.95, 1.2, 25)]
    curves = {
        "minitrain/top1": np.minimum(1.0, rise(1.01, 0.5)),
        "minitrain/loss": 0.02 + (LN10 - 0.02) * np.exp(-0.4 * np.arange(31)),
        "val/top1": scattered(rise(0.76, 0.6), 0.006),
        "val/loss": scattered(loss, 0.01),
    }
    return record((CONSTANT, well(**(FULL | curves))))


@pytest.fixture
def fine_tuning(record, well):
    """A second stage whose val still rises at its end, from 76 to 84 %."""
    looks = 9
    head = well(**{"val/top1": np.r_[well()["val/top1"][:-1], 0.76]})
    curves = {
        "val/top1": scattered(np.linspace(0.76, 0.84, looks), 0.004),
        "val/loss": scattered(np.linspace(0.95, 0.62, looks), 0.005),
        "minitrain/top1": np.linspace(0.9, 0.97, looks),
        "minitrain/loss": np.linspace(0.5, 0.2, looks),
        "train/loss": np.linspace(0.7, 0.3, looks - 1),
        "train/lr": np.full(looks - 1, 0.01),
        "train/update_ratio": np.full(looks - 1, 1e-3),
    }
    curves["val/top1"][0] = 0.76
    stage = {"name": "all", "train": "all", "lr": 0.01, "length": "8 epochs"} | CONSTANT
    return record(({}, head), (stage, curves))


@pytest.fixture
def strong_decay(record, well):
    """Decay 1e-3 at lr 1: arrived after a few epochs, train and val lower than they could be."""
    curves = {
        "minitrain/top1": scattered(rise(0.84, 0.9), 0.006),
        "minitrain/loss": scattered(1.25 + (LN10 - 1.25) * np.exp(-0.9 * np.arange(31)), 0.01),
        "val/top1": scattered(rise(0.68, 0.9), 0.006, seed=1),
        "val/loss": scattered(1.45 + (LN10 - 1.45) * np.exp(-0.9 * np.arange(31)), 0.01, seed=1),
    }
    curves["minitrain/loss"][0] = LN10
    settings = {"weight_decay": 1e-3, "length": "60 epochs"} | CONSTANT
    return record((settings, well(**(FULL | curves))))


def told(run):
    return {finding.check: finding for finding in firing(diagnose_run(run))}


def test_the_last_layer_overfits_and_keeps_its_accuracy(last_layer):
    found = told(last_layer)
    assert {"overconfident", "memorised"} <= found.keys()
    assert "overfitting" not in found
    assert all(finding.severity == "note" for finding in found.values())
    assert "Do not call it overfitting" in found["overconfident"].advice


def test_fine_tuning_still_gains(fine_tuning):
    found = told(fine_tuning)
    assert "too_short" in found
    assert found["too_short"].place.stage == "all"
    assert not {"overfitting", "memorised", "overconfident", "stage_collapses"} & found.keys()
    assert found["too_short"].advice.startswith("Double the length to 16 epochs")


def test_strong_decay_arrives_early_and_lower(strong_decay):
    found = told(strong_decay)
    assert next(iter(found)) == "decay_too_strong"
    assert not {"overfitting", "memorised", "lr_too_low", "too_short"} & found.keys()
    assert "Lower `weight_decay` to 0.0001" in found["decay_too_strong"].advice


def test_each_has_advice_of_its_own(last_layer, fine_tuning, strong_decay):
    commands = []
    for run in (last_layer, fine_tuning, strong_decay):
        findings = diagnose_run(run)
        commands.append(next_experiments(run, findings)[0].command.partition("recipe.yaml ")[2])
    assert commands == [
        "stages.head.label_smoothing=0.1",
        "'stages.all.length=16 epochs'",
        "stages.head.weight_decay=0.0001",
    ]

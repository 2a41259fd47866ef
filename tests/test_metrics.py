"""Numbers from logits, against values worked out by hand."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, log_loss, top_k_accuracy_score

from fieldmark.metrics import (
    calibration_error,
    classification_metrics,
    cross_entropy,
    mean_class_top1,
    top1,
    top5,
    wilson_interval,
)


def test_uniform_logits_lose_ln_k():
    logits = np.zeros((4, 50), dtype=np.float32)
    assert cross_entropy(logits, np.arange(4)) == pytest.approx(np.log(50))


def test_cross_entropy_agrees_with_scikit_learn():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(40, 7)).astype(np.float32)
    labels = generator.integers(0, 7, size=40)
    shares = np.exp(logits.astype(np.float64))
    shares /= shares.sum(axis=1, keepdims=True)
    expected = log_loss(labels, shares, labels=range(7))
    assert cross_entropy(logits, labels) == pytest.approx(expected, rel=1e-9)


def test_huge_logits_do_not_overflow():
    logits = np.array([[1e30, 0.0], [0.0, 1e4]], dtype=np.float32)
    assert cross_entropy(logits, np.array([0, 1])) == 0.0


def test_top1_counts_the_largest_and_breaks_ties_to_the_first():
    logits = np.array([[1.0, 2.0], [3.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    assert top1(logits, np.array([1, 0, 0, 1])) == 0.75


def test_top5_agrees_with_scikit_learn():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(200, 12))
    labels = generator.integers(0, 12, size=200)
    expected = top_k_accuracy_score(labels, logits, k=5, labels=range(12))
    assert top5(logits, labels) == pytest.approx(expected)


def test_mean_class_top1_is_balanced_accuracy():
    generator = np.random.default_rng(0)
    labels = np.array([0] * 50 + [1] * 5 + [3] * 2)
    logits = generator.normal(size=(57, 4))
    logits[:, 2] = -9  # never guessed and never there
    expected = balanced_accuracy_score(labels, logits.argmax(axis=1))
    assert mean_class_top1(logits, labels) == pytest.approx(expected)


def test_calibration_error_of_a_hand_made_table():
    # Two photos at confidence 0.8, one right: gap 0.3. Two at 0.6, both right: gap 0.4.
    shares = np.array([[0.8, 0.2], [0.8, 0.2], [0.4, 0.6], [0.4, 0.6]])
    found = calibration_error(np.log(shares), np.array([0, 1, 1, 1]))
    assert found == pytest.approx(0.5 * 0.3 + 0.5 * 0.4)


@pytest.mark.parametrize("seed", range(8))
def test_calibration_error_is_that_of_bins_counted_one_by_one(seed: int):
    generator = np.random.default_rng(seed)
    count, classes, bins = 300, 2 + seed, 15
    logits = generator.normal(0, 3, (count, classes)).astype(np.float32)
    labels = generator.integers(0, classes, count)
    shares = torch.from_numpy(logits).double().softmax(1)
    confidence, guess = shares.max(1)
    right = (guess == torch.from_numpy(labels)).double()
    expected = 0.0
    for low in range(bins):
        inside = (confidence > low / bins) & (confidence <= (low + 1) / bins)
        if inside.any():
            gap = right[inside].mean() - confidence[inside].mean()
            expected += float(inside.double().mean() * gap.abs())
    assert calibration_error(logits, labels) == pytest.approx(expected, rel=1e-9)


def test_a_model_sure_and_right_is_calibrated():
    assert calibration_error(np.array([[50.0, 0.0]]), np.array([0])) == pytest.approx(0.0)


def test_classification_metrics_are_all_there():
    found = classification_metrics(np.zeros((1, 2)), np.array([0]))
    assert found["loss"] == pytest.approx(np.log(2))
    assert sorted(found) == ["calibration_error", "loss", "mean_class_top1", "top1"]
    assert "top5" in classification_metrics(np.zeros((1, 6)), np.array([0]))


def test_wilson_interval_of_a_worked_example():
    # Wilson's score interval for 8 of 10, as printed in textbooks: 0.490 to 0.943.
    low, high = wilson_interval(0.8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)


def test_wilson_interval_of_none_right_stays_above_zero_width():
    low, high = wilson_interval(0.0, 40)
    assert str(low) == "0.0"  # not -0.0 nor -1e-17, which a page would show as -0.0%
    assert 0.08 < high < 0.1

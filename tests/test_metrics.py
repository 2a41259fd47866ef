"""Numbers from logits, against values worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from fieldmark.metrics import classification_metrics, cross_entropy, top1, wilson_interval


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


def test_classification_metrics_are_both():
    logits = np.array([[0.0, 0.0]])
    assert classification_metrics(logits, np.array([0])) == {
        "loss": pytest.approx(np.log(2)),
        "top1": 1.0,
    }


def test_wilson_interval_of_a_worked_example():
    # Wilson's score interval for 8 of 10, as printed in textbooks: 0.490 to 0.943.
    low, high = wilson_interval(0.8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)


def test_wilson_interval_of_none_right_stays_above_zero_width():
    low, high = wilson_interval(0.0, 20)
    assert low == pytest.approx(0.0)
    assert 0.1 < high < 0.2

"""Exact heads are where scikit-learn and the gradient say the minimum is."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from fieldmark.errors import SettingError
from fieldmark.training.exact import decay_path

CLASSES = 4


def _photos(count: int, length: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(count)
    labels = torch.arange(count) % CLASSES
    centres = torch.randn(CLASSES, length, generator=generator)
    rows = centres[labels] + 2 * torch.randn(count, length, generator=generator)
    return F.normalize(rows), labels


def _loss(rows: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, decay: float) -> float:
    logits = rows.double() @ weight.double().T + bias.double()
    loss = F.cross_entropy(logits, labels) + decay / 2 * weight.double().square().sum()
    return float(loss)


@pytest.mark.parametrize(("count", "length"), [(80, 12), (40, 100)])
def test_the_loss_is_scikit_learns(count: int, length: int) -> None:
    rows, labels = _photos(count, length)
    decays = [1e-4, 1e-2, 1.0, 1e-3]
    for head in decay_path(rows, labels, decays, classes=CLASSES, tolerance=1e-5):
        peer = LogisticRegression(C=1 / (head.decay * count), tol=1e-8, max_iter=10_000)
        peer.fit(rows.double().numpy(), labels.numpy())
        weight, bias = torch.from_numpy(peer.coef_), torch.from_numpy(peer.intercept_)
        best = _loss(rows, labels, weight, bias, head.decay)
        ours = _loss(rows, labels, head.weight, head.bias, head.decay)
        assert head.converged
        assert ours == pytest.approx(best, abs=3e-5)
        assert ours == pytest.approx(head.loss, abs=1e-5)
        np.testing.assert_allclose(
            (rows @ head.weight.T + head.bias).softmax(1),
            peer.predict_proba(rows.double().numpy()),
            atol=0.02,
        )


def test_heads_come_in_the_order_asked_for() -> None:
    rows, labels = _photos(40, 10)
    decays = [0.1, 0.001, 0.1, 0.01]
    heads = decay_path(rows, labels, decays, classes=CLASSES)
    assert [head.decay for head in heads] == decays
    assert heads[1].loss < heads[3].loss < heads[0].loss


def test_with_next_to_no_decay_the_minimum_is_the_same_from_anywhere() -> None:
    """The whole loss is 1e-4 nats there: within a tolerance of 1e-4 lies almost any classifier."""
    rows, labels = _photos(40, 100)
    path = decay_path(rows, labels, [1e-3, 1e-5, 1e-8], classes=CLASSES)
    (alone,) = decay_path(rows, labels, [1e-8], classes=CLASSES)
    others, _ = _photos(60, 100)
    of_path, of_alone = ((others @ h.weight.T + h.bias).softmax(1) for h in (path[-1], alone))
    assert path[-1].loss < 1e-4
    assert alone.gap <= 1e-3 * alone.loss
    np.testing.assert_allclose(of_path, of_alone, atol=0.1)


def test_without_decay_there_is_no_minimum() -> None:
    rows, labels = _photos(40, 10)
    with pytest.raises(SettingError, match="needs decays above 0, got 0"):
        decay_path(rows, labels, [0.1, 0], classes=CLASSES)

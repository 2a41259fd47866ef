"""Heads trained together are what torch makes of each of them alone."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fieldmark.training import heads as heads_module
from fieldmark.training.heads import (
    DualHeads,
    FrozenFeatures,
    Heads,
    HeadSettings,
    PrimalHeads,
    train_heads,
)

PHOTOS, TRAINED, CLASSES, BATCH = 60, 40, 5, 8
FORMS = [PrimalHeads, DualHeads]


def _halved(step: int) -> float:
    return 0.5 ** (step // 20)


def _cosine(step: int) -> float:
    return 0.5 + 0.5 * math.cos(math.pi * step / 100)


def _settings(weight: Tensor) -> list[HeadSettings]:
    other, bias = weight.flip(0).contiguous(), torch.zeros(CLASSES)
    return [
        HeadSettings(weight, bias, lr=0.5, bias_lr=0.5),
        HeadSettings(weight, bias, lr=1, bias_lr=0.1, momentum=0.9, weight_decay=1e-3),
        HeadSettings(other, bias + 0.1, lr=1, bias_lr=1, momentum=0.95, factor=_cosine),
        HeadSettings(
            weight, bias, lr=0.3, bias_lr=0.3, momentum=0.9, nesterov=True, weight_decay=0.01
        ),
        HeadSettings(weight, bias, lr=0.2, bias_lr=0.2, weight_decay=0.1, bias_decay=0.1),
        HeadSettings(other, bias, lr=2, bias_lr=2, momentum=0.3, label_smoothing=0.2),
        HeadSettings(other, bias, lr=1, bias_lr=0, momentum=0.8, nesterov=True, factor=_halved),
    ]


@pytest.fixture
def features() -> FrozenFeatures:
    generator = torch.Generator().manual_seed(0)
    return FrozenFeatures(F.normalize(torch.randn(PHOTOS, 70, generator=generator)))


@pytest.fixture
def labels() -> Tensor:
    return torch.arange(TRAINED) % CLASSES


@pytest.fixture
def train() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randperm(PHOTOS, generator=generator)[:TRAINED]


@pytest.fixture
def settings() -> list[HeadSettings]:
    generator = torch.Generator().manual_seed(2)
    return _settings(torch.randn(CLASSES, 70, generator=generator) / 8)


def _steps(epochs: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    orders = (torch.randperm(TRAINED, generator=generator) for _ in range(epochs))
    return [samples for order in orders for samples in order.split(BATCH - 1)]


def _alone(
    head: HeadSettings, rows: Tensor, labels: Tensor, steps: list[Tensor]
) -> tuple[nn.Linear, list[float]]:
    """What torch's own optimiser makes of one head, in float64."""
    linear = nn.Linear(rows.shape[1], CLASSES).double()
    with torch.no_grad():
        linear.weight.copy_(head.weight)
        linear.bias.copy_(head.bias)
    optimizer = torch.optim.SGD(
        [
            {"params": [linear.weight], "lr": head.lr, "weight_decay": head.weight_decay},
            {"params": [linear.bias], "lr": head.bias_lr, "weight_decay": head.bias_decay},
        ],
        momentum=head.momentum,
        nesterov=head.nesterov,
    )
    losses = []
    for number, samples in enumerate(steps):
        for group, lr in zip(optimizer.param_groups, (head.lr, head.bias_lr), strict=True):
            group["lr"] = lr * head.factor(number)
        optimizer.zero_grad()
        loss = F.cross_entropy(
            linear(rows[samples].double()), labels[samples], label_smoothing=head.label_smoothing
        )
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return linear, losses


@pytest.mark.parametrize("form", FORMS)
def test_each_head_is_what_torch_makes_of_it_alone(
    form: Callable[..., Heads],
    features: FrozenFeatures,
    train: Tensor,
    labels: Tensor,
    settings: list[HeadSettings],
) -> None:
    steps = _steps(epochs=20)
    together = form(features, train, labels, settings)
    losses = torch.stack([together.step(number, rows) for number, rows in enumerate(steps)])
    logits = together.logits(torch.arange(PHOTOS))
    for number, head in enumerate(settings):
        linear, alone = _alone(head, features.rows[train], labels, steps)
        np.testing.assert_allclose(losses[:, number].numpy(), alone, rtol=2e-5, atol=2e-6)
        expected = linear(features.rows.double()).detach().float()
        torch.testing.assert_close(logits[:, number], expected, rtol=1e-4, atol=1e-4)
        weight = linear.weight.detach().float()
        torch.testing.assert_close(together.weight(number), weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_a_sample_drawn_twice_counts_twice(
    form: Callable[..., Heads], features: FrozenFeatures, train: Tensor, labels: Tensor
) -> None:
    head = HeadSettings(torch.zeros(CLASSES, 70), torch.zeros(CLASSES), lr=1, bias_lr=1)
    steps = [torch.tensor([3, 3, 7]), torch.tensor([7, 3, 7])]
    together = form(features, train, labels, [head])
    for number, samples in enumerate(steps):
        together.step(number, samples)
    linear, _ = _alone(head, features.rows[train], labels, steps)
    torch.testing.assert_close(together.weight(0), linear.weight.detach().float())


@pytest.mark.parametrize("photos", [20, 40])
def test_chunks_change_nothing_but_the_time(
    photos: int,
    features: FrozenFeatures,
    train: Tensor,
    labels: Tensor,
    settings: list[HeadSettings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = [samples % photos for samples in _steps(epochs=2)]
    seen: dict[str, list[tuple[int, int, int]]] = {}

    def run(name: str) -> Tensor:
        def watch(first: int, step: int, heads: Heads) -> None:
            seen.setdefault(name, []).append((first, step, len(heads.heads)))

        part = train[:photos], labels[:photos]
        return train_heads(features, *part, settings, steps, watch, watch_after={0, 3})

    whole = run("whole")
    monkeypatch.setattr(heads_module, "_CACHED_BYTES", 3 * 4 * 2 * photos * CLASSES)
    torch.testing.assert_close(run("chunks"), whole)
    assert seen["whole"] == [(0, step, 7) for step in (0, 3, len(steps))]
    assert seen["chunks"] == [
        (first, step, count)
        for first, count in ((0, 3), (3, 3), (6, 1))
        for step in (0, 3, len(steps))
    ]


def test_a_head_that_diverges_leaves_the_others_alone(
    features: FrozenFeatures, train: Tensor, labels: Tensor, settings: list[HeadSettings]
) -> None:
    wild = HeadSettings(
        settings[0].weight, settings[0].bias, lr=1e30, bias_lr=1e30, momentum=0.99, weight_decay=1
    )
    steps = _steps(epochs=10)
    for form in FORMS:
        alone = form(features, train, labels, settings[:2])
        beside = form(features, train, labels, [*settings[:2], wild])
        for number, samples in enumerate(steps):
            alone.step(number, samples)
            losses = beside.step(number, samples)
        assert not losses[2].isfinite()
        photos = torch.arange(PHOTOS)
        torch.testing.assert_close(beside.logits(photos)[:, :2], alone.logits(photos))

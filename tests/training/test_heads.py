"""Heads trained together are what torch makes of each of them alone."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fieldmark.layers.dropout import SampleDropout, drawn_for
from fieldmark.training import dual_heads, many_heads
from fieldmark.training.dual_heads import DualHeads
from fieldmark.training.heads import (
    DropoutHeads,
    FrozenFeatures,
    Heads,
    HeadSettings,
    PrimalHeads,
)
from fieldmark.training.many_heads import train_heads

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
        with drawn_for(head.drop_seed + number, samples):
            shown = SampleDropout(head.drop_rate)(rows[samples].double())
        loss = F.cross_entropy(linear(shown), labels[samples], label_smoothing=head.label_smoothing)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return linear, losses


@pytest.mark.parametrize("form", [*FORMS, DropoutHeads])
def test_each_head_is_what_torch_makes_of_it_alone(
    form: Callable[..., Heads],
    features: FrozenFeatures,
    train: Tensor,
    labels: Tensor,
    settings: list[HeadSettings],
) -> None:
    steps = _steps(epochs=20)
    if form is DropoutHeads:
        drops = [(0.0, 3), (0.5, 3), (0.2, 4), (0.5, 3), (0.5, 4), (0.2, 3), (0.9, 0)]
        settings = [
            replace(head, drop_rate=rate, drop_seed=seed)
            for head, (rate, seed) in zip(settings, drops, strict=True)
        ]
    together = form([features], train, labels, settings)
    losses = torch.stack([together.step(number, rows) for number, rows in enumerate(steps)])
    logits = together.logits(torch.arange(PHOTOS))
    for number, head in enumerate(settings):
        linear, alone = _alone(head, features.rows[train], labels, steps)
        np.testing.assert_allclose(losses[:, number].numpy(), alone, rtol=2e-5, atol=2e-6)
        expected = linear(features.rows.double()).detach().float()
        torch.testing.assert_close(logits[:, number], expected, rtol=1e-4, atol=1e-4)
        weight = linear.weight.detach().float()
        torch.testing.assert_close(together.weight(number), weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("most", [BATCH, 3 * BATCH, 1000])
def test_steps_seen_ahead_are_those_taken_one_by_one(
    most: int,
    features: FrozenFeatures,
    train: Tensor,
    labels: Tensor,
    settings: list[HeadSettings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where samples come again, others come than were foreseen, or heads are looked at."""
    monkeypatch.setattr(dual_heads, "MOST_AHEAD", most)
    monkeypatch.setattr(dual_heads, "LEAST_TIMES", 0.1)
    steps = _steps(epochs=10)
    steps[3] = steps[2]
    one_by_one, ahead = (DualHeads([features], train, labels, settings) for _ in range(2))
    for number, samples in enumerate(steps):
        ahead.foresee(steps, number)
        taken = steps[0] if number == 7 else samples
        expected = one_by_one.step(number, taken)
        torch.testing.assert_close(ahead.step(number, taken), expected, rtol=2e-5, atol=2e-6)
        if number in {4, 17}:
            photos = torch.arange(PHOTOS)
            logits = one_by_one.logits(photos)
            torch.testing.assert_close(ahead.logits(photos), logits, rtol=1e-4, atol=1e-4)
    for head in range(len(settings)):
        expected = one_by_one.weight(head)
        torch.testing.assert_close(ahead.weight(head), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_a_sample_drawn_twice_counts_twice(
    form: Callable[..., Heads], features: FrozenFeatures, train: Tensor, labels: Tensor
) -> None:
    head = HeadSettings(torch.zeros(CLASSES, 70), torch.zeros(CLASSES), lr=1, bias_lr=1)
    steps = [torch.tensor([3, 3, 7]), torch.tensor([7, 3, 7])]
    together = form([features], train, labels, [head])
    for number, samples in enumerate(steps):
        together.step(number, samples)
    linear, _ = _alone(head, features.rows[train], labels, steps)
    torch.testing.assert_close(together.weight(0), linear.weight.detach().float())


@pytest.mark.parametrize("photos", [20, 40])
@pytest.mark.parametrize("room", [1, 3, 4, 100])
def test_chunks_change_nothing_but_the_time(
    photos: int,
    room: int,
    features: FrozenFeatures,
    train: Tensor,
    labels: Tensor,
    settings: list[HeadSettings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Features of three lengths, the shortest in the primal form, and groups of several sizes."""
    steps = [samples % photos for samples in _steps(epochs=2)]
    train, labels = train[:photos], labels[:photos]
    short = FrozenFeatures(features.rows[:, :8].contiguous())
    longer = FrozenFeatures(features.rows[:, :50].contiguous())
    weight = settings[0].weight
    groups = [
        (features, settings[:2]),
        (longer, [replace(head, weight=weight[:, :50]) for head in settings[2:4]]),
        (short, [replace(head, weight=weight[:, :8]) for head in settings[:3]]),
        (features, settings[4:]),
        (longer, [replace(settings[5], weight=weight[:, :50])]),
    ]
    size = room * 4 * 2 * photos * CLASSES
    monkeypatch.setattr(many_heads, "MOST_BYTES", dict.fromkeys(FORMS, size))
    seen: dict[tuple[int, int], Tensor] = {}

    def watch(numbers: list[int], step: int, heads: Heads) -> None:
        logits = heads.logits(torch.arange(PHOTOS))
        seen.update({(number, step): logits[:, i] for i, number in enumerate(numbers)})

    losses = train_heads(groups, train, labels, steps, watch, watch_after={0, 3})
    flat = [(kind, head) for kind, heads in groups for head in heads]
    assert set(seen) == {(n, step) for n in range(len(flat)) for step in (0, 3, len(steps))}
    for number, (kind, head) in enumerate(flat):
        linear, alone = _alone(head, kind.rows[train], labels, steps)
        np.testing.assert_allclose(losses[:, number].numpy(), alone, rtol=2e-5, atol=2e-6)
        expected = linear(kind.rows.double()).detach().float()
        torch.testing.assert_close(seen[number, len(steps)], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("taken", "form"), [(None, PrimalHeads), (10**6, DualHeads)])
def test_the_first_steps_of_a_long_training_take_the_form_of_the_long_one(
    taken: int | None,
    form: type[Heads],
    features: FrozenFeatures,
    train: Tensor,
    labels: Tensor,
    settings: list[HeadSettings],
) -> None:
    """Products of all pairs do not pay for a single step, but for many."""
    seen: list[type[Heads]] = []
    steps = _steps(epochs=1)[:1]
    watched = ([(features, settings)], train, labels, steps, lambda *a: seen.append(type(a[2])))
    train_heads(*watched, taken=taken)
    assert seen == [form]


def test_a_head_that_diverges_leaves_the_others_alone(
    features: FrozenFeatures, train: Tensor, labels: Tensor, settings: list[HeadSettings]
) -> None:
    wild = HeadSettings(
        settings[0].weight, settings[0].bias, lr=1e30, bias_lr=1e30, momentum=0.99, weight_decay=1
    )
    steps = _steps(epochs=10)
    for form in FORMS:
        alone = form([features], train, labels, settings[:2])
        beside = form([features], train, labels, [*settings[:2], wild])
        for number, samples in enumerate(steps):
            alone.step(number, samples)
            losses = beside.step(number, samples)
        assert not losses[2].isfinite()
        photos = torch.arange(PHOTOS)
        torch.testing.assert_close(beside.logits(photos)[:, :2], alone.logits(photos))

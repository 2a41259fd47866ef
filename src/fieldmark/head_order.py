"""Heads of trials under way, those that take the same samples at each step together."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldmark.build import seed_for
from fieldmark.data.dataset import Photo
from fieldmark.data.loader import batches
from fieldmark.inputs import sample_order
from fieldmark.metrics import log_softmax
from fieldmark.recipe import Recipe, Stage
from fieldmark.schedule import Schedule
from fieldmark.studies.trial import Trial
from fieldmark.training.heads import FrozenFeatures, Heads, HeadSettings
from fieldmark.training.many_heads import train_heads

MEASURED = 10  # times in a stage: enough to see a curve's shape


@dataclass
class Head:
    """One trial under way, and what was seen of it so far."""

    trial: Trial
    settings: HeadSettings
    losses: list[Tensor] = field(default_factory=list)  # of each step, one for each fold
    curve: dict[int, dict[str, list[NDArray[np.float64]]]] = field(default_factory=dict)
    """Steps done -> split -> for each fold (photos, sum of losses, photos named rightly)."""
    logits: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Split -> logits (N, K) after the last step, in the order of train + val."""
    folds: NDArray[np.int64] | None = None
    """The fold each photo was left out with, (N,)."""

    @property
    def recipe(self) -> Recipe:
        """The trial's."""
        return self.trial.recipe

    @property
    def stage(self) -> Stage:
        """The only one."""
        return self.recipe.stages[0]

    def see(
        self,
        split: str,
        step: int,
        logits: NDArray[np.float32],
        positions: list[int],
        photos: Sequence[Photo],
    ) -> None:
        """Note what the head says of photos after a step; of the last step, every logit."""
        labels = np.array([photos[position].label for position in positions])
        with np.errstate(all="ignore"):  # of a head that diverged, which is told at the end
            losses = -log_softmax(logits)[np.arange(len(labels)), labels]
        right = float((logits.argmax(1) == labels).sum())
        seen = np.array([len(labels), losses.sum(), right])
        self.curve.setdefault(step, {}).setdefault(split, []).append(seen)
        empty = np.full((len(photos), logits.shape[1]), np.nan, np.float32)
        self.logits.setdefault(split, empty)[positions] = logits

    def features_key(self) -> tuple[object, ...]:
        """Heads with one key see the same features."""
        pooling, head = self.recipe.pooling, self.recipe.head
        seed = self.recipe.seed if pooling.name == "compact_bilinear" else None
        return pooling.model_dump_json(), head.signed_sqrt, head.l2_normalize, seed

    def order_key(self) -> tuple[object, ...]:
        """Heads with one key take the same samples at each step."""
        stage, length = self.stage, (str(self.stage.length), str(self.stage.eval_every))
        return self.recipe.seed, stage.samples_per_step, stage.sampling, *length


@dataclass(frozen=True)
class Order:
    """Heads that take the same samples at each step, on one cut of the photos.

    Attributes:
        parts: Features, and the heads over them.
        photos: All of them.
        train: Positions in `photos` that are trained on.
        judged: Split -> positions.
    """

    parts: Sequence[tuple[FrozenFeatures, Sequence[Head]]]
    photos: Sequence[Photo]
    train: list[int]
    judged: dict[str, list[int]]

    @property
    def heads(self) -> list[Head]:
        """Of all parts, in their order."""
        return [head for _, heads in self.parts for head in heads]

    @cached_property
    def labels(self) -> Tensor:
        """Of the photos trained on, (N,)."""
        return torch.tensor([self.photos[position].label for position in self.train])

    @cached_property
    def steps(self) -> list[Tensor]:
        """The samples of every step, as a run of its own would draw them."""
        stage, seed = self._stage, seed_for(self.heads[0].recipe.seed, "stage", 0)
        total = stage.length.steps(steps_per_epoch=self._per_epoch)
        labels = self.labels.tolist()
        steps: list[Tensor] = []
        for epoch in range(-(-total // self._per_epoch)):
            order = sample_order(labels, sampling=stage.sampling, seed=seed, epoch=epoch)
            steps += [torch.as_tensor(part) for part in batches(order, stage.samples_per_step)]
        return steps[:total]

    @property
    def measured_after(self) -> range:
        """Numbers of steps after which the heads are measured; after the last they always are."""
        total = len(self.steps)
        every = self._stage.eval_every.steps(steps_per_epoch=self._per_epoch, stage_steps=total)
        return range(0, total, max(every, total // MEASURED))

    def take(self, steps: Sequence[Tensor], measured_after: Collection[int]) -> Tensor:
        """Train through some of the steps, and note what is measured; the losses (S, H)."""
        group = self.heads

        def watch(numbers: list[int], step: int, part: Heads) -> None:
            for split, positions in self.judged.items():
                logits = part.logits(torch.tensor(positions)).numpy()
                for place, number in enumerate(numbers):
                    group[number].see(split, step, logits[:, place], positions, self.photos)

        settings = [
            (features, _settings(heads, len(self.steps), self._per_epoch))
            for features, heads in self.parts
        ]
        train = torch.tensor(self.train)
        return train_heads(settings, train, self.labels, steps, watch, measured_after)

    @property
    def _stage(self) -> Stage:
        return self.heads[0].stage

    @property
    def _per_epoch(self) -> int:
        return self._stage.steps_per_epoch(len(self.train))


def orders(
    parts: Sequence[tuple[FrozenFeatures, Sequence[Head]]],
    photos: Sequence[Photo],
    train: list[int],
    judged: dict[str, list[int]],
) -> Iterator[Order]:
    """The heads by the order of samples they take."""
    for key in dict.fromkeys(head.order_key() for _, heads in parts for head in heads):
        alike = [(rows, [h for h in heads if h.order_key() == key]) for rows, heads in parts]
        yield Order([part for part in alike if part[1]], photos, train, judged)


def _settings(heads: Sequence[Head], total: int, per_epoch: int) -> list[HeadSettings]:
    """Each head's, with its schedule; what is equal between heads is one object.

    Initial weights of one seed are one tensor, the factors of one schedule are computed once.
    """
    weights: dict[int, Tensor] = {}
    factors: dict[Schedule, list[float]] = {}
    for schedule in {head.stage.schedule for head in heads}:
        factors[schedule] = [
            schedule.factor(step, total_steps=total, steps_per_epoch=per_epoch)
            for step in range(total)
        ]
    return [
        replace(
            head.settings,
            weight=weights.setdefault(head.recipe.seed, head.settings.weight),
            factor=factors[head.stage.schedule].__getitem__,
        )
        for head in heads
    ]

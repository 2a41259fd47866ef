"""Heads of trials under way, those that take the same samples at each step together."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from fieldmark.build import seed_for
from fieldmark.data.dataset import Photo
from fieldmark.data.loader import batches
from fieldmark.head_run import Head
from fieldmark.inputs import drawn_views, sample_order
from fieldmark.recipe import Stage
from fieldmark.schedule import Schedule
from fieldmark.training.heads import FrozenFeatures, Heads, HeadSettings
from fieldmark.training.many_heads import Watch, train_heads

MEASURED = 10  # times in a stage: enough to see a curve's shape


@dataclass(frozen=True)
class Order:
    """Heads that take the same samples at each step, on one cut of the photos.

    Attributes:
        parts: Features, and the heads over them.
        photos: All of them, N; features of view v of photo n stand in row v N + n.
        train: Positions in `photos` that are trained on.
        judged: Split -> positions.
    """

    parts: Sequence[tuple[FrozenFeatures, Sequence[Head]]]
    photos: Sequence[Photo]
    train: list[int]
    judged: dict[str, list[int]]

    @cached_property
    def heads(self) -> list[Head]:
        """Of all parts, in their order."""
        return [head for _, heads in self.parts for head in heads]

    @cached_property
    def labels(self) -> Tensor:
        """Of the photos trained on, (N,)."""
        return torch.tensor([self.photos[position].label for position in self.train])

    @cached_property
    def steps(self) -> list[Tensor]:
        """The samples of every step, as a run of its own would draw them.

        A sample is a photo in a view: number v n + i for view v of photo i of n trained on.
        """
        stage, seed = self._stage, seed_for(self.heads[0].recipe.seed, "stage", 0)
        total = stage.length.steps(steps_per_epoch=self._per_epoch)
        labels, photos = self.labels.tolist(), [self.photos[position] for position in self.train]
        steps: list[Tensor] = []
        for epoch in range(-(-total // self._per_epoch)):
            order = sample_order(labels, sampling=stage.sampling, seed=seed, epoch=epoch)
            views = drawn_views(photos, stage.views, seed=seed, epoch=epoch)
            shown = batches(order + len(labels) * views[order], stage.samples_per_step)
            steps += [torch.as_tensor(part) for part in shown]
        return steps[:total]

    @cached_property
    def rows(self) -> Tensor:
        """Where the features of the photos trained on stand, view after view, (V n,)."""
        return all_views(self.train, self._stage.views, len(self.photos))

    @property
    def measured_after(self) -> range:
        """Numbers of steps after which the heads are measured; after the last they always are."""
        total = len(self.steps)
        every = self._stage.eval_every.steps(steps_per_epoch=self._per_epoch, stage_steps=total)
        return range(0, total, max(every, total // MEASURED))

    def take(self, steps: Sequence[Tensor], measured_after: Collection[int]) -> Tensor:
        """Train through some of the steps, and note what is measured; the losses (S, H)."""

        def watch(numbers: list[int], step: int, part: Heads) -> None:
            self.measure(numbers, step, part)
            if step == len(steps):
                self._keep_classifiers(numbers, part)

        return self.train_heads(steps, watch, measured_after)

    def train_heads(
        self, steps: Sequence[Tensor], watch: Watch, watch_after: Collection[int]
    ) -> Tensor:
        """Train through some of the steps, watched as `many_heads.train_heads` says."""
        settings = [
            (features, _settings(heads, len(self.steps), self._per_epoch))
            for features, heads in self.parts
        ]
        labels = self.labels.repeat(self._stage.views)
        taken = sum(map(len, self.steps))
        return train_heads(settings, self.rows, labels, steps, watch, watch_after, taken)

    def measure(self, numbers: list[int], step: int, part: Heads) -> None:
        """Note what some of the heads, by their numbers, say of the judged photos."""
        for split, positions in self.judged.items():
            logits = part.logits(torch.tensor(positions)).numpy()
            for place, number in enumerate(numbers):
                self.heads[number].see(split, step, logits[:, place], positions, self.photos)

    def _keep_classifiers(self, numbers: list[int], part: Heads) -> None:
        for place, number in enumerate(numbers):
            if self.heads[number].keeps_classifiers:
                kept = part.weight(place).clone(), part.bias[place].clone()
                self.heads[number].classifiers.append(kept)

    @property
    def _stage(self) -> Stage:
        return self.heads[0].stage

    @property
    def _per_epoch(self) -> int:
        return self._stage.steps_per_epoch(len(self.train))


def all_views(positions: list[int], views: int, count: int) -> Tensor:
    """Where the features of some of `count` photos stand, view after view."""
    return torch.cat([torch.tensor(positions) + number * count for number in range(views)])


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

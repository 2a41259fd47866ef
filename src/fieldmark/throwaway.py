"""A model that nothing keeps: put before any stage of its recipe, tried, and put back."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from fieldmark.augmentation import Augment
from fieldmark.build import Task, build, seed_for
from fieldmark.inputs import (
    PhotoInputs,
    StageInputs,
    make_inputs,
    sample_order,
    stage_loss,
    training_steps,
)
from fieldmark.layers.backbone import frozen_copy
from fieldmark.layers.dropout import drawn_for
from fieldmark.layers.model import split_frozen
from fieldmark.ledger import Reporter
from fieldmark.metrics import cross_entropy
from fieldmark.predict import photo_logits
from fieldmark.recipe import Stage
from fieldmark.training.features import FeatureStore
from fieldmark.training.optim import make_optimizer, parameter_plan
from fieldmark.training.stage import Batch, seeded, set_trainable, train_steps

SHORT = 100  # steps of each stage before the one that is tried


class Throwaway:
    """The task's model as one seed would begin it, for experiments that are undone.

    Args:
        task: Of a recipe, its files checked; its own model is left alone.
        store: Of frozen feature maps.
        seed: Of initial weights, sketch hashes and the order of photos, as in a run.
        reporter: Is told how many photos of a pass are done.
    """

    def __init__(self, task: Task, store: FeatureStore, seed: int, reporter: Reporter) -> None:
        recipe = task.recipe.model_copy(update={"seed": seed})
        self.task = replace(task, recipe=recipe, model=build(recipe).model)
        self.model = self.task.model
        self._labels = [photo.label for photo in task.part("train")]
        self._store, self._reporter = store, reporter
        self._begins = [self._state()]  # of each stage
        self._inputs: dict[int, StageInputs] = {}

    def enter(self, number: int) -> StageInputs:
        """Put the model where stage `number` begins: after `SHORT` steps of each stage before it.

        Returns:
            what the stage is fed.
        """
        while len(self._begins) <= number:
            before = len(self._begins) - 1
            for _ in self.steps(before, islice(self.batches(before), SHORT), count=SHORT):
                pass
            self._begins.append(self._state())
        stage = self.task.recipe.stages[number]
        self.model.load_state_dict(self._begins[number])
        plan = parameter_plan(self.model, stage.train)
        set_trainable(self.model, plan, train_batch_norm=stage.batch_norm == "train")
        if number not in self._inputs:
            told = self._reporter
            photos = partial(_photos_told, told)
            self._inputs[number] = make_inputs(self.task, self._store, photos, told.say)
        self.model.to(self._inputs[number].device)
        return self._inputs[number]

    def network(self, number: int) -> Callable[[Tensor], Tensor]:
        """From what stage `number` is fed to logits, with the weights as they are now."""
        return self._inputs[number].network

    def trainable(self, number: int) -> int:
        """How many numbers stage `number` moves."""
        plan = parameter_plan(self.model, self.task.recipe.stages[number].train)
        return sum(group.count for group in plan.trained)

    def batches(self, number: int) -> Iterator[list[Batch]]:
        """The batches of each step as stage `number` of a run would draw them, without end."""
        stage = self.task.recipe.stages[number]
        return training_steps(
            self.enter(number),
            self._labels,
            batch_size=stage.batch_size,
            accumulate=stage.accumulate,
            seed=self._seed(number),
            sampling=stage.sampling,
        )

    def fixed_batch(self, number: int, size: int) -> Batch:
        """So many training photos in one batch, without augmentation."""
        inputs = self.enter(number)
        if isinstance(inputs, PhotoInputs):
            inputs = self._plain()
        return self._some(inputs, size, self._seed(number))

    def photos(self, size: int) -> Tensor:
        """So many training photos as the network is fed those of `val`, (B, 3, S, S)."""
        return self._some(self._plain(), size, self.task.recipe.seed).inputs

    def blank(self, number: int) -> Tensor:
        """What stage `number` is fed of a photo that is nothing but zeros, (1, ...)."""
        device = self.enter(number).device
        side = self.task.recipe.data.image_size
        prefix, _ = split_frozen(self.model)
        image = torch.zeros(1, 3, side, side)
        if len(prefix) == 0:
            return image.to(device)
        with torch.no_grad():
            eyes = frozen_copy(self.model.backbone, self.task.dtype)
            row: Tensor = prefix[1:](eyes(image.to(self.task.dtype)).float())
        return row

    def steps(
        self,
        number: int,
        batches: Iterable[Sequence[Batch]],
        *,
        count: int = 1,
        factor: Callable[[int], float] | None = None,
        regularised: bool = True,
    ) -> Iterator[float]:
        """Take steps from where stage `number` begins, and yield the loss of each before it.

        Args:
            number: Of the stage, from 0.
            batches: Of each step.
            count: How many steps the stage is taken to have, where its schedule is followed.
            factor: Step to multiplier of the rates, in place of the schedule.
            regularised: Whether with weight decay, label smoothing and dropout, where they are.

        Raises:
            TrainingError: loss or gradient is no longer finite.
        """
        self.enter(number)
        stage = self.task.recipe.stages[number]
        if not regularised:
            stage = _unregularised(stage)
            for module in self.model.modules():
                module.training &= not isinstance(module, nn.Dropout)
        plan = parameter_plan(self.model, stage.train)
        return train_steps(
            self.network(number),
            batches,
            make_optimizer(self.model, plan, stage),
            model=self.model,
            factor=factor or _schedule(stage, count, stage.steps_per_epoch(len(self._labels))),
            seed=self._seed(number),
            loss=stage_loss(self.task, stage),
            clip_norm=stage.clip_norm,
        )

    def losses(self, number: int, batches: Iterable[Sequence[Batch]]) -> Iterator[float]:
        """The loss of each step's batches where stage `number` begins; no step is taken."""
        self.enter(number)
        network, seed = self.network(number), self._seed(number)
        device = self._inputs[number].device
        loss = stage_loss(self.task, self.task.recipe.stages[number])
        for step, parts in enumerate(batches):
            total = 0.0
            with torch.no_grad(), seeded(seed + step, device):  # as `train_steps` does
                for part in parts:
                    with drawn_for(seed + step, part.indices):
                        total += loss.total(network(part.inputs), part.labels).item()
            yield total / sum(loss.weight(part.labels) for part in parts)

    def loss_on_val(self, most: int) -> float:
        """The mean loss of at most so many val photos as the model is now; of train without val."""
        photos = self.task.part("val") or self.task.part("train")
        some = photos[:: -(-len(photos) // most)]
        logits = photo_logits(self.model, self.task.eval_view, some, self.task.dtype)
        return cross_entropy(logits, np.array([photo.label for photo in some]))

    def _plain(self) -> PhotoInputs:
        """The training photos seen as those of `val` are."""
        recipe = self.task.recipe.model_copy(update={"augment": Augment()})
        return PhotoInputs(replace(self.task, recipe=recipe, train_view=self.task.eval_view))

    def _some(self, inputs: StageInputs, size: int, seed: int) -> Batch:
        order = sample_order(self._labels, sampling="shuffled", seed=seed, epoch=0)[:size]
        return next(iter(inputs.epoch([order.tolist()], seed=seed, epoch=0, first=0)))

    def _seed(self, number: int) -> int:
        return seed_for(self.task.recipe.seed, "stage", number)

    def _state(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}


def _unregularised(stage: Stage) -> Stage:
    return stage.model_copy(
        update={"weight_decay": 0.0, "l1": 0.0, "label_smoothing": 0.0, "class_weights": None}
    )


def _photos_told(reporter: Reporter, done: int, total: int) -> None:
    reporter.progress("features", done, total, {})


def _schedule(stage: Stage, steps: int, per_epoch: int) -> Callable[[int], float]:
    return lambda step: stage.schedule.factor(step, total_steps=steps, steps_per_epoch=per_epoch)

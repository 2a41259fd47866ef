"""Training, from a recipe to a finished run folder. Reads from top to bottom."""

import json
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import save_file

from fieldmark import durable, machine
from fieldmark.build import SplitName, Task, build, seed_for
from fieldmark.errors import TrainingError
from fieldmark.inputs import StageInputs, make_inputs, training_steps
from fieldmark.metrics import classification_metrics, log_softmax
from fieldmark.recipe import Recipe, Stage
from fieldmark.studies.run import WEIGHTS, Run, RunWriter
from fieldmark.training.features import FeatureStore
from fieldmark.training.optim import ParameterPlan, lr_factor, make_optimizer, parameter_plan
from fieldmark.training.stage import frozen_hash, set_trainable, train_steps

SPLIT = "split.json"
RECORDS_A_STAGE = 200  # running loss: enough for a smooth curve, few enough to read at once
HANDOVER_DROP = 0.02  # of top-1; the two ways to the same numbers differ by rounding alone


class Reporter(Protocol):
    """Who is told how it goes."""

    def say(self, line: str) -> None:
        """A line worth keeping."""

    def progress(self, task: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """How far `task` is."""


def train(
    recipe: Recipe,
    folder: Path,
    *,
    store: FeatureStore,
    reporter: Reporter,
    open_test: bool = False,
) -> Run:
    """Train `recipe` into `folder` and return the finished run.

    Args:
        recipe: what to do.
        folder: new or empty; becomes the run.
        store: where features of frozen backbones are kept between runs.
        reporter: is told of each plan, stage and measurement.
        open_test: measure the finished model on `test`, which is counted and reported.

    Raises:
        FieldmarkError: something the user can mend; the run is marked failed, with the reason.
    """
    machine.tune_allocator()
    torch.set_num_threads(recipe.threads or machine.cores())
    task = build(recipe)
    plans = [parameter_plan(task.model, stage.train) for stage in recipe.stages]
    writer = RunWriter.create(folder, recipe.to_yaml(), _manifest(task))
    split = json.dumps(task.split.to_json(task.photos), ensure_ascii=False, indent=1)
    durable.replace(folder / SPLIT, split.encode())
    training = Training(task, writer, store, reporter)
    with writer:
        for index, (stage, plan) in enumerate(zip(recipe.stages, plans, strict=True)):
            training.run_stage(index, stage, plan)
        training.conclude(open_test=open_test)
        writer.finish()
    return Run(folder)


class Training:
    """One training under way: where it is, and where it is written down."""

    def __init__(
        self, task: Task, writer: RunWriter, store: FeatureStore, reporter: Reporter
    ) -> None:
        self.task = task
        self.model = task.model
        self.writer = writer
        self.store = store
        self.reporter = reporter
        self.step = 0  # optimiser steps of all stages so far
        self.epoch = 0.0  # passes over the training photos so far
        self.stages: list[dict[str, Any]] = []
        self.latest: dict[str, float] = {}
        self.inputs: StageInputs | None = None

    # -- a stage ------------------------------------------------------------------------------

    def run_stage(self, index: int, stage: Stage, plan: ParameterPlan) -> None:
        """Freeze, train, measure, and check that what was frozen stayed so."""
        started = time.perf_counter()
        set_trainable(self.model, plan, train_batch_norm=stage.batch_norm == "train")
        self._say(f"stage {stage.name}: {stage.length} at batch {stage.batch_size}")
        for line in plan.describe(stage.lr, stage.weight_decay):
            self._say(f"  {line}")
        before = frozen_hash(self.model)
        inputs = make_inputs(self.task, self.store, self._on_features)
        prepared = time.perf_counter()
        self._hand_over(inputs, stage)
        self._take_steps(index, stage, plan, inputs)
        after = frozen_hash(self.model)
        if before != after:
            raise TrainingError(
                f"stage {stage.name} moved parameters it had frozen ({before[:12]} became "
                f"{after[:12]}). This is a defect of Fieldmark or of the backbone; please report it."
            )
        self.inputs = inputs
        self._note_stage(stage, plan, before, prepared - started, time.perf_counter() - prepared)

    def _hand_over(self, inputs: StageInputs, stage: Stage) -> None:
        """Measure before the first step: it must be where the stage before ended."""
        ended = self.latest.get("val/top1")
        self._measure(inputs, stage)
        begins = self.latest.get("val/top1")
        if ended is None or begins is None:
            return
        self._say(f"  hand-over: val top-1 {ended:.1%} at the end, {begins:.1%} at the start")
        if abs(begins - ended) > HANDOVER_DROP:
            raise TrainingError(
                f"stage {stage.name} starts at {begins:.1%} val top-1, the stage before ended at "
                f"{ended:.1%}. Nothing was trained in between, so the two do not see the same "
                "photos or weights. Try `precision: float32`; if it stays, please report it."
            )

    def _take_steps(
        self, index: int, stage: Stage, plan: ParameterPlan, inputs: StageInputs
    ) -> None:
        count = len(self.task.split.train)
        per_epoch = -(-count // (stage.batch_size * stage.accumulate))
        total = stage.length.steps(steps_per_epoch=per_epoch)
        evaluate_every = stage.eval_every.steps(steps_per_epoch=per_epoch, stage_steps=total)
        record_every = max(1, total // RECORDS_A_STAGE)
        seed = seed_for(self.task.recipe.seed, "stage", index)
        optimizer = make_optimizer(
            self.model, plan, lr=stage.lr, momentum=stage.momentum, weight_decay=stage.weight_decay
        )
        losses = train_steps(
            inputs.network,
            training_steps(
                inputs,
                count,
                batch_size=stage.batch_size,
                accumulate=stage.accumulate,
                seed=seed,
            ),
            optimizer,
            factor=lambda step: lr_factor(
                stage.schedule, step, total_steps=total, steps_per_epoch=per_epoch
            ),
            seed=seed,
            name=lambda position: self.task.part("train")[position].key,
        )
        running: list[float] = []
        for done, loss in enumerate(islice(losses, total), start=1):
            running.append(loss)
            self.step += 1
            self.epoch += 1 / per_epoch
            if done % record_every == 0 or done == total:
                rate = optimizer.param_groups[0]["lr"]
                mean = sum(running) / len(running)
                self._record({"train/loss": mean, "train/lr": rate}, stage)
                self.reporter.progress(stage.name, done, total, self.latest)
                running.clear()
            if done % evaluate_every == 0 or done == total:
                self._measure(inputs, stage)

    # -- measuring and writing down -------------------------------------------------------------

    def _measure(self, inputs: StageInputs, stage: Stage) -> None:
        """Loss and top-1 on `minitrain` and `val`; never on `test`."""
        found: dict[str, float] = {}
        splits: tuple[SplitName, ...] = ("minitrain", "val")
        for split in splits:
            if len(self.task.part(split)):
                found |= self._metrics(inputs, split)
        self._record(found, stage)

    def _metrics(self, inputs: StageInputs, split: SplitName) -> dict[str, float]:
        labels = [photo.label for photo in self.task.part(split)]
        return {
            f"{split}/{name}": value
            for name, value in classification_metrics(
                inputs.logits(split), np.array(labels)
            ).items()
        }

    def _record(self, metrics: dict[str, float], stage: Stage) -> None:
        self.latest |= metrics
        self.writer.record(metrics, step=self.step, stage=stage.name, epoch=self.epoch)

    def _say(self, line: str) -> None:
        self.writer.log(line)
        self.reporter.say(line)

    def _on_features(self, done: int, total: int) -> None:
        self.reporter.progress("features", done, total, {})

    def _note_stage(
        self, stage: Stage, plan: ParameterPlan, frozen: str, preparing: float, training: float
    ) -> None:
        self.stages.append(
            {
                "name": stage.name,
                "plan": plan.describe(stage.lr, stage.weight_decay),
                "frozen_hash": frozen,
                "seconds_preparing": round(preparing, 3),
                "seconds_training": round(training, 3),
                "last_step": self.step,
            }
        )
        self.writer.update_manifest(stages=self.stages)
        shown = ", ".join(
            f"{split} top-1 {self.latest[f'{split}/top1']:.1%}"
            for split in ("minitrain", "val")
            if f"{split}/top1" in self.latest
        )
        self._say(f"  {shown} after {preparing:.1f} + {training:.1f} s")

    # -- the end --------------------------------------------------------------------------------

    def conclude(self, *, open_test: bool) -> None:
        """Keep the weights and what the finished model says of every photo it may see."""
        assert self.inputs is not None
        weights = {key: tensor.contiguous() for key, tensor in self.model.state_dict().items()}
        with durable.replacing(self.writer.folder / WEIGHTS) as temporary:
            save_file(weights, temporary)
        splits: list[SplitName] = ["minitrain", "val"]
        if open_test:
            self.writer.count_test_opening()
            splits.append("test")
        for split in splits:
            self._keep_predictions(self.inputs, split)

    def _keep_predictions(self, inputs: StageInputs, split: SplitName) -> None:
        photos = self.task.part(split)
        if not photos:
            return
        labels = [photo.label for photo in photos]
        logits = inputs.logits(split)
        self.writer.predictions(
            split,
            paths=[photo.key for photo in photos],
            labels=labels,
            probabilities=np.exp(log_softmax(logits)),
        )
        if split == "test":
            found = classification_metrics(logits, np.array(labels))
            last = self.task.recipe.stages[-1]
            self._record({f"test/{name}": value for name, value in found.items()}, last)


def _manifest(task: Task) -> dict[str, Any]:
    """All that the run's numbers depend on and its recipe does not say."""
    return {
        "recipe_hash": task.recipe.hash(),
        "class_names": list(task.photos.class_names),
        "counts": {name: len(task.part(name)) for name in ("train", "minitrain", "val", "test")},
        "view": task.eval_view.to_dict(),
        "train_view": task.train_view.describe(),
        "backbone": task.model.backbone.origin,
        "precision": str(task.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "machine": machine.describe(),
    }

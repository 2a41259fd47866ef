"""Training, from a recipe to a finished run folder. Reads from top to bottom."""

import json
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch.optim import Optimizer

from fieldmark import durable, machine
from fieldmark.build import SplitName, Task, build, seed_for
from fieldmark.errors import TrainingError
from fieldmark.inputs import StageInputs, make_inputs, training_steps
from fieldmark.ledger import Ledger, Position, Reporter
from fieldmark.metrics import classification_metrics, log_softmax
from fieldmark.recipe import Recipe, Stage
from fieldmark.studies.run import WEIGHTS, Run, RunWriter
from fieldmark.training.checkpoint import Checkpoint, restore
from fieldmark.training.features import FeatureStore
from fieldmark.training.optim import ParameterPlan, make_optimizer, parameter_plan
from fieldmark.training.stage import frozen_hash, set_trainable, train_steps

CHECKPOINT_SECONDS = 30.0
SPLIT = "split.json"
RECORDS_A_STAGE = 200  # running loss: enough for a smooth curve, few enough to read at once
HANDOVER_DROP = 0.02  # of top-1; the two ways to the same numbers differ by rounding alone


def train(
    recipe: Recipe,
    folder: Path,
    *,
    store: FeatureStore,
    reporter: Reporter,
    open_test: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Run:
    """Train `recipe` into `folder` and return the finished run.

    Args:
        recipe: what to do.
        folder: new or empty; becomes the run.
        store: where features of frozen backbones are kept between runs.
        reporter: is told of each plan, stage and measurement.
        open_test: measure the finished model on `test`, which is counted and reported.
        checkpoint_seconds: how much work an interruption may cost, at most.

    Raises:
        FieldmarkError: something the user can mend; the run is marked failed, with the reason.
    """
    task = prepare(recipe)
    writer = RunWriter.create(folder, recipe.to_yaml(), _manifest(task))
    durable.replace(folder / SPLIT, split_text(task).encode())
    ledger = Ledger(writer, reporter, Position(), checkpoint_seconds=checkpoint_seconds)
    return Training(task, ledger, store).run(open_test=open_test)


def prepare(recipe: Recipe) -> Task:
    """Build the task, and check all that can be checked before the first step."""
    machine.tune_allocator()
    torch.set_num_threads(recipe.threads or machine.cores())
    task = build(recipe)
    for stage in recipe.stages:  # a mistake in the last stage is told before the first begins
        parameter_plan(task.model, stage.train)
    return task


class Training:
    """One training under way: where it is, and where it is written down."""

    def __init__(
        self, task: Task, ledger: Ledger, store: FeatureStore, kept: Checkpoint | None = None
    ) -> None:
        self.task = task
        self.model = task.model
        self.ledger = ledger
        self.at = ledger.at
        self.store = store
        self.kept = kept

    def run(self, *, open_test: bool) -> Run:
        """Every stage from where the training is, then the end."""
        with self.ledger.writer:
            for stage in self.task.recipe.stages[self.at.stage :]:
                self.run_stage(stage)
            self.conclude(open_test=open_test)
            self.ledger.writer.finish()
        return Run(self.ledger.writer.folder)

    # -- a stage ------------------------------------------------------------------------------

    def run_stage(self, stage: Stage) -> None:
        """Freeze, train, measure, and check that what was frozen stayed so."""
        started = time.perf_counter()
        plan, inputs = self.enter(stage)
        self.ledger.say(f"stage {stage.name}: {stage.length} at batch {stage.batch_size}")
        for line in plan.describe(stage.lr, stage.weight_decay):
            self.ledger.say(f"  {line}")
        before = frozen_hash(self.model)
        prepared = time.perf_counter()
        if self.at.stage_step == 0:
            self.hand_over(inputs, stage)
        self.take_steps(stage, plan, inputs)
        after = frozen_hash(self.model)
        if before != after:
            raise TrainingError(
                f"Stage {stage.name} moved parameters it had frozen ({before[:12]} became "
                f"{after[:12]}). This is a defect of Fieldmark or of the backbone; report it."
            )
        self.ledger.note_stage(
            stage, plan, before, prepared - started, time.perf_counter() - prepared
        )
        self.ledger.checkpoint(self.model, None)

    def enter(self, stage: Stage) -> tuple[ParameterPlan, StageInputs]:
        """Put the model into the stage's state, and find out what it is fed."""
        plan = parameter_plan(self.model, stage.train)
        set_trainable(self.model, plan, train_batch_norm=stage.batch_norm == "train")
        return plan, make_inputs(self.task, self.store, partial(self.ledger.progress, "features"))

    def hand_over(self, inputs: StageInputs, stage: Stage) -> None:
        """Measure before the first step: it must be where the stage before ended."""
        ended = self.at.latest.get("val/top1")
        self.measure(inputs, stage)
        begins = self.at.latest.get("val/top1")
        if ended is None or begins is None:
            return
        self.ledger.say(f"  hand-over: val top-1 {ended:.1%} at the end, {begins:.1%} at the start")
        if abs(begins - ended) > HANDOVER_DROP:
            raise TrainingError(
                f"Stage {stage.name} starts at {begins:.1%} val top-1, the stage before ended at "
                f"{ended:.1%}. Nothing was trained in between, so the two do not see the same "
                "photos or weights. Try `precision: float32`; if it stays, please report it."
            )

    def take_steps(self, stage: Stage, plan: ParameterPlan, inputs: StageInputs) -> None:
        """Every optimiser step of the stage, with what is measured and kept between them."""
        at, count = self.at, len(self.task.split.train)
        per_epoch = -(-count // (stage.batch_size * stage.accumulate))
        total = stage.length.steps(steps_per_epoch=per_epoch)
        evaluate_every = stage.eval_every.steps(steps_per_epoch=per_epoch, stage_steps=total)
        record_every = max(1, total // RECORDS_A_STAGE)
        optimizer = make_optimizer(
            self.model, plan, lr=stage.lr, momentum=stage.momentum, weight_decay=stage.weight_decay
        )
        if at.stage_step and self.kept:
            restore(self.kept, self.model, optimizer)
        for loss in self.losses(stage, inputs, optimizer, per_epoch, total):
            at.step += 1
            at.stage_step += 1
            at.epoch = at.epochs_before + at.stage_step / per_epoch
            at.running.append(loss)
            last = at.stage_step == total
            if last or at.stage_step % record_every == 0:
                self.ledger.record_running(stage, optimizer)
                self.ledger.progress(stage.name, at.stage_step, total)
            if last or at.stage_step % evaluate_every == 0:
                self.measure(inputs, stage)
            if not last and self.ledger.checkpoint_is_due():
                self.ledger.checkpoint(self.model, optimizer)

    def losses(
        self,
        stage: Stage,
        inputs: StageInputs,
        optimizer: Optimizer,
        per_epoch: int,
        total: int,
    ) -> Iterator[float]:
        """The mean loss of each step that is left of the stage, once it is taken."""
        done = self.at.stage_step
        seed = seed_for(self.task.recipe.seed, "stage", self.at.stage)
        train_photos = self.task.part("train")
        steps = training_steps(
            inputs,
            len(train_photos),
            batch_size=stage.batch_size,
            accumulate=stage.accumulate,
            seed=seed,
            first=done,
        )
        return train_steps(
            inputs.network,
            islice(steps, total - done),
            optimizer,
            factor=lambda step: stage.schedule.factor(
                step, total_steps=total, steps_per_epoch=per_epoch
            ),
            seed=seed,
            first=done,
            name=lambda position: train_photos[position].key,
        )

    # -- measuring and writing down -------------------------------------------------------------

    def measure(self, inputs: StageInputs, stage: Stage) -> None:
        """Loss and top-1 on `minitrain` and `val`; never on `test`."""
        splits: tuple[SplitName, ...] = ("minitrain", "val")
        found: dict[str, float] = {}
        for split in splits:
            if photos := self.task.part(split):
                labels = np.array([photo.label for photo in photos])
                metrics = classification_metrics(inputs.logits(split), labels)
                found |= {f"{split}/{name}": value for name, value in metrics.items()}
        self.ledger.record(found, stage)

    # -- the end --------------------------------------------------------------------------------

    def conclude(self, *, open_test: bool) -> None:
        """Keep the weights and what the finished model says of every photo it may see."""
        _, inputs = self.enter(self.task.recipe.stages[-1])
        weights = {key: tensor.contiguous() for key, tensor in self.model.state_dict().items()}
        with durable.replacing(self.ledger.writer.folder / WEIGHTS) as temporary:
            save_file(weights, temporary)
        splits: list[SplitName] = ["minitrain", "val"]
        if open_test:
            self.ledger.writer.count_test_opening()
            splits.append("test")
        for split in splits:
            self.keep_predictions(inputs, split)

    def keep_predictions(self, inputs: StageInputs, split: SplitName) -> None:
        """Write down the probabilities of each photo of a split."""
        photos = self.task.part(split)
        if not photos:
            return
        labels = [photo.label for photo in photos]
        logits = inputs.logits(split)
        self.ledger.writer.predictions(
            split,
            paths=[photo.key for photo in photos],
            labels=labels,
            probabilities=np.exp(log_softmax(logits)),
        )
        if split == "test":
            found = classification_metrics(logits, np.array(labels))
            last = self.task.recipe.stages[-1]
            self.ledger.record({f"test/{name}": value for name, value in found.items()}, last)


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


def split_text(task: Task) -> str:
    """The split as it is written into the run, by photo keys."""
    return json.dumps(task.split.to_json(task.photos), ensure_ascii=False, indent=1)

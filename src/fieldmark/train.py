"""Training, from a recipe to a finished run folder. Reads from top to bottom."""

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fieldmark import durable, machine
from fieldmark.build import SplitName, Task, build, changed_photos, check_files
from fieldmark.errors import SettingError, TrainingError
from fieldmark.exact_stage import exact_decay, solve
from fieldmark.forecast import forecast
from fieldmark.frozen_rows import are_kept
from fieldmark.inputs import StageInputs, make_inputs, stage_loss
from fieldmark.layers.weights import tensors_hash
from fieldmark.ledger import Ledger, Position, Reporter, Silent, keep_predictions
from fieldmark.looked import keep_looks
from fieldmark.metrics import classification_metrics
from fieldmark.recipe import Recipe, Stage
from fieldmark.rehearsed import keep_what_holds
from fieldmark.steps import StageSteps, check_judged
from fieldmark.studies.onlooker import Onlooker
from fieldmark.studies.run import WEIGHTS, Run, RunWriter, check_room_for_a_run
from fieldmark.studies.trial import PrunedError, Watch, after_stage
from fieldmark.training.checkpoint import Checkpoint
from fieldmark.training.features import FeatureStore
from fieldmark.training.nonfinite import bad_logits
from fieldmark.training.optim import ParameterPlan, parameter_plan
from fieldmark.training.stage import frozen_hash, set_trainable
from fieldmark.training.world import world

CHECKPOINT_SECONDS = 30.0
SPLIT = "split.json"
CHECKED = "checked"  # beside the features: which photos were decoded before
HANDOVER_DROP = 0.02  # of top-1; the two ways to the same numbers differ by rounding alone


def train(
    recipe: Recipe,
    folder: Path,
    *,
    store: FeatureStore,
    reporter: Reporter,
    open_test: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    watch: Watch | None = None,
    rehearsals: Path | None = None,
) -> Run:
    """Train `recipe` into `folder` and return the finished run.

    Where a launcher started several processes, all of them call this; the first one writes.

    Args:
        recipe: what to do.
        folder: new or empty; becomes the run.
        store: where features of frozen backbones are kept between runs.
        reporter: is told of each plan, stage and measurement.
        open_test: measure the finished model on `test`, which is counted and reported.
        checkpoint_seconds: how much work an interruption may cost, at most.
        watch: is asked whether to end early, at each evaluation of the last stage.
        rehearsals: where rehearsals lie; what holds of them for this recipe goes into the run.

    Raises:
        PrunedError: `watch` ended it; the run is marked so, with the reason.
        FieldmarkError: something the user can mend; the run is marked failed, with the reason.
    """
    recipe = settled(recipe)
    if world().leads:  # before a photo is read; of two at once `begin` decides who may
        check_room_for_a_run(folder, recipe.to_yaml())
    reporter = reporter if world().leads else Silent()
    task = prepare(recipe, store, reporter, open_test=open_test)
    check_judged(task)
    with begin(world().heard(folder), task) as writer:
        if rehearsals and world().leads:
            keep_what_holds(task.recipe, rehearsals, writer.folder)
        ledger = Ledger(writer, reporter, Position(), checkpoint_seconds=checkpoint_seconds)
        for note in task.notes:
            ledger.say(note)
        return Training(task, ledger, store, watch=watch).run(open_test=open_test)


def settled(recipe: Recipe) -> Recipe:
    """The recipe with what `auto` means on this machine, for its numbers depend on that."""
    device = machine.device_of(recipe.device).type
    precision = str(machine.fast_dtype(recipe.precision, device)).removeprefix("torch.")
    threads = recipe.threads or machine.cores()
    found = {"precision": precision, "threads": threads, "device": device}
    return recipe.model_copy(update=found)


def prepare(
    recipe: Recipe, store: FeatureStore, reporter: Reporter, *, open_test: bool = False
) -> Task:
    """Build the task, and check all that can be checked before the first step."""
    machine.tune_allocator()
    torch.set_num_threads(recipe.threads or machine.cores())
    task = build(recipe)
    if recipe.data.cache:
        task.train_view.uncropped()  # which raises where there is none
    for stage in recipe.stages:  # a mistake in the last stage is told before the first begins
        if stage.batch_norm == "train" and world().size > 1:
            raise SettingError(
                f"Stage {stage.name} has `batch_norm: train`, and each of {world().size} processes "
                "would measure its own part of a batch. Use `batch_norm: frozen`, or one process."
            )
        parameter_plan(task.model, stage.train)
        stage_loss(task, stage)
        if stage.solver == "lbfgs":
            exact_decay(task.model, stage)
    return check_files(
        task,
        store.folder / CHECKED,
        open_test=open_test,
        progress=lambda done, total: reporter.progress("photos", done, total, {}),
    )


def begin(folder: Path, task: Task) -> RunWriter:
    """Make the run's folder, with all that is known before the first step."""
    manifest = run_manifest(task)
    if not world().leads:
        return Onlooker(folder, manifest)
    writer = RunWriter.create(folder, task.recipe.to_yaml(), manifest)
    with ExitStack() as stack:
        stack.push(writer)  # fails the run where this is not to be written
        durable.replace(folder / SPLIT, split_text(task).encode())
        stack.pop_all()
    return writer


class Training:
    """One training under way: where it is, and where it is written down."""

    def __init__(
        self,
        task: Task,
        ledger: Ledger,
        store: FeatureStore,
        kept: Checkpoint | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.task = task
        self.model = task.model
        self.ledger = ledger
        self.at = ledger.at
        self.store = store
        self.kept = kept
        self.watch = watch

    def run(self, *, open_test: bool) -> Run:
        """Every stage from where the training is, then the end."""
        left = self.task.recipe.stages[self.at.stage :]
        self.foresee(left)
        for stage in left:
            self.run_stage(stage)
        self.conclude(open_test=open_test)
        self.ledger.writer.finish()
        world().wait()  # for the one that writes
        return Run(self.ledger.writer.folder)

    def foresee(self, stages: Sequence[Stage]) -> None:
        """Say how much memory each stage will take, and what to change where there is less."""
        on_gpu = self.task.device.type != "cpu"  # whose memory is another
        available = None if on_gpu else machine.available_memory()
        for stage in stages:
            if found := forecast(self.task, stage, kept=are_kept(self.task, self.store)):
                self.ledger.say(found.line(stage, available))

    # -- a stage ------------------------------------------------------------------------------

    def run_stage(self, stage: Stage) -> None:
        """Freeze, train, measure, and check that what was frozen stayed so."""
        started = time.perf_counter()
        plan, inputs = self.enter(stage)
        how = f"{stage.length.words} at batch {stage.batch_size}"
        self.ledger.say(f"stage {stage.name}: {'exact' if stage.solver == 'lbfgs' else how}")
        for line in plan.describe(stage.lr, stage.weight_decay):
            self.ledger.say(f"  {line}")
        before = frozen_hash(self.model)
        prepared = time.perf_counter()
        if self.at.stage_step == 0:
            self.hand_over(inputs, stage)
        self.take(stage, plan, inputs)
        after = frozen_hash(self.model)
        if before != after:
            raise TrainingError(
                f"Stage {stage.name} moved parameters it had frozen ({before[:12]} became "
                f"{after[:12]}). This is a defect of Fieldmark or of the backbone; report it."
            )
        self.check_agreement()
        if stage is not self.task.recipe.stages[-1]:  # to be compared with the next, by photo
            self.keep_predictions(inputs, "val", after_stage(stage.name))
        self.ledger.note_stage(
            stage, plan, (before, after), prepared - started, time.perf_counter() - prepared
        )
        self.ledger.checkpoint(self.model, None)

    def take(self, stage: Stage, plan: ParameterPlan, inputs: StageInputs) -> None:
        """All steps of a stage, or the one to the exact minimum."""
        measure = partial(self.measure, inputs, stage)
        if stage.solver == "lbfgs":
            solve(self.model, stage, inputs, self.ledger, measure)
            return
        StageSteps(
            self.task, stage, plan, inputs, self.ledger, kept=self.kept, measure=measure
        ).run()

    def check_agreement(self) -> None:
        """Prove that all processes hold the same weights."""
        if world().size > 1:
            held = world().all_said(tensors_hash(self.model.state_dict().items()))
            if len(set(held)) > 1:
                raise TrainingError(
                    "The processes no longer hold the same weights. Run them on machines alike, "
                    "with the same versions, or train in one process."
                )

    def enter(self, stage: Stage) -> tuple[ParameterPlan, StageInputs]:
        """Put the model into the stage's state, and find out what it is fed."""
        plan = parameter_plan(self.model, stage.train)
        set_trainable(self.model, plan, train_batch_norm=stage.batch_norm == "train")
        ledger = self.ledger
        progress = partial(ledger.progress, "features")
        return plan, make_inputs(self.task, self.store, progress, ledger.say, stage.views)

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

    # -- measuring and writing down -------------------------------------------------------------

    def measure(self, inputs: StageInputs, stage: Stage) -> None:
        """Loss and top-1 on `minitrain` and `val`; never on `test`."""
        splits: tuple[SplitName, ...] = ("minitrain", "val")
        found: dict[str, float] = {}
        for split in splits:
            if photos := self.task.part(split):
                labels = np.array([photo.label for photo in photos])
                logits = inputs.logits(split)
                if bad := bad_logits(self.model, logits, lambda row: photos[row].key):
                    raise TrainingError(f"At step {self.at.step} of the training, {bad}")
                metrics = classification_metrics(logits, labels)
                found |= {f"{split}/{name}": value for name, value in metrics.items()}
        self.ledger.record(found, stage)
        if self.watch and self.at.stage_step and stage is self.task.recipe.stages[-1]:
            self.ask_whether_to_end(self.watch, found, stage)

    def ask_whether_to_end(self, watch: Watch, found: dict[str, float], stage: Stage) -> None:
        """End here if `watch` says so, but neither in the warm-up nor where it is over anyway."""
        per_epoch = stage.steps_per_epoch(len(self.task.split.train))
        total = stage.length.steps(steps_per_epoch=per_epoch)
        every, warmup = (
            length.steps(steps_per_epoch=per_epoch, stage_steps=total) if length else 0
            for length in (stage.eval_every, stage.schedule.warmup)
        )
        reason = watch(-(-total // every), found)
        if reason and warmup < self.at.stage_step < total:
            self.ledger.say(f"  ended early by {reason}")
            self.ledger.writer.fail(reason, status="pruned")
            raise PrunedError(reason, found)

    # -- the end --------------------------------------------------------------------------------

    def conclude(self, *, open_test: bool) -> None:
        """Keep the weights and what the finished model says of every photo it may see."""
        _, inputs = self.enter(self.task.recipe.stages[-1])
        if told := changed_photos(self.task, self.store.folder / CHECKED):
            self.ledger.note(told)
        self.ledger.keep_weights(WEIGHTS, self.model.state_dict())
        splits: list[SplitName] = ["minitrain", "val"]
        if open_test:
            self.ledger.writer.count_test_opening()
            splits.append("test")
        for split in splits:
            self.keep_predictions(inputs, split)
        if world().leads:
            run, view = Run(self.ledger.writer.folder), self.task.eval_view
            keep_looks(run, self.model, view, self.task.part("val"), self.task.dtype)

    def keep_predictions(
        self, inputs: StageInputs, split: SplitName, name: str | None = None
    ) -> None:
        """Write down the probabilities of each photo of a split, under its name or another."""
        photos = self.task.part(split)
        if not photos:
            return
        found = keep_predictions(self.ledger.writer, name or split, photos, inputs.logits(split))
        if split == "test":
            last = self.task.recipe.stages[-1]
            self.ledger.record({f"test/{name}": value for name, value in found.items()}, last)


def run_manifest(task: Task) -> dict[str, Any]:
    """All that the run's numbers depend on and its recipe does not say."""
    return {
        "recipe_hash": task.recipe.hash(),
        "class_names": list(task.photos.class_names),
        "counts": {name: len(task.part(name)) for name in ("train", "minitrain", "val", "test")},
        "class_counts": {name: _class_counts(task, name) for name in ("train", "val")},
        "skipped": {finding.key: finding.reason for finding in task.skipped},
        "notes": list(task.notes),
        "view": task.eval_view.to_dict(),
        "train_view": task.train_view.describe(),
        "backbone": task.model.backbone.origin,
        "precision": str(task.dtype).removeprefix("torch."),
        "device": machine.name_of(task.device),
        "threads": torch.get_num_threads(),
        "processes": world().size,
        "files": task.recipe.file_hashes(),
        "machine": machine.describe(),
    }


def _class_counts(task: Task, split: SplitName) -> list[int]:
    """Photos of each class, in the order of the logits."""
    labels = [photo.label for photo in task.part(split)]
    return np.bincount(labels, minlength=len(task.photos.class_names)).tolist() if labels else []


def split_text(task: Task) -> str:
    """The split as it is written into the run, by photo keys, with what was in each file."""
    written = task.split.to_json(task.photos) | {"contents": task.contents}
    return json.dumps(written, ensure_ascii=False, indent=1)

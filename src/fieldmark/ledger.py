"""Where a training is, and how that is told and written down."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from fieldmark import durable
from fieldmark.data.dataset import Photo
from fieldmark.errors import TrainingError
from fieldmark.metrics import classification_metrics, log_softmax
from fieldmark.recipe import Stage
from fieldmark.schedule import Schedule
from fieldmark.studies.control import Orders
from fieldmark.studies.onlooker import Onlooker
from fieldmark.studies.run import RunWriter
from fieldmark.studies.trial import Tell
from fieldmark.training.checkpoint import save_checkpoint
from fieldmark.training.optim import ParameterPlan
from fieldmark.training.world import world

CHECKPOINT = "last.safetensors"
BEST = "best.safetensors"


class Reporter(Protocol):
    """Who is told how it goes."""

    def say(self, line: str) -> None:
        """A line worth keeping."""

    def progress(self, task: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """How far `task` is."""

    def record(self, metrics: Mapping[str, float], step: int) -> None:
        """What was measured after so many steps of all stages."""


class Silent:
    """A reporter that keeps to itself."""

    def say(self, line: str) -> None:
        """Nothing."""

    def progress(self, task: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def record(self, metrics: Mapping[str, float], step: int) -> None:
        """Nothing."""


class Teller(Silent):
    """A reporter of how far it is, and of nothing else."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def progress(self, task: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """Tell of it, not of the metrics."""
        del metrics
        self._tell(task, done, total)


@dataclass
class Position:
    """Where a training is: all that a checkpoint needs besides tensors."""

    stage: int = 0
    stage_step: int = 0
    step: int = 0
    """Optimiser steps of all stages so far."""
    epoch: float = 0.0
    """Passes over the training photos so far."""
    epochs_before: float = 0.0
    """Those of the stages before this one."""
    records: int = 0
    """Lines of metrics written so far."""
    running: list[float] = field(default_factory=list)
    """Losses since the last record of the running loss."""
    latest: dict[str, float] = field(default_factory=dict)
    lowest: float | None = None
    """Lowest loss on `val` in this stage."""
    waited: int = 0
    """Evaluations since then."""
    drops: int = 0
    """How often a `plateau` schedule has lowered the rate."""
    pass_size: int | None = None
    """Samples that go through the network at once, where this stage's batch did not fit."""
    best: float | None = None
    """Highest top-1 on `val` in the whole training."""
    stages: list[dict[str, Any]] = field(default_factory=list)
    """What is noted of each stage that ended."""


class Ledger:
    """Tells and writes down what a training does, and keeps checkpoints.

    Args:
        writer: of the run's folder.
        reporter: whoever looks on.
        at: where the training is; kept up to date here and by the training.
        checkpoint_seconds: how much work an interruption may cost, at most.
    """

    def __init__(
        self, writer: RunWriter, reporter: Reporter, at: Position, *, checkpoint_seconds: float
    ) -> None:
        self.writer = writer
        self._writes = not isinstance(writer, Onlooker)
        self.reporter = reporter
        self.at = at
        self._checkpoint_seconds = checkpoint_seconds
        self._saved = time.monotonic()
        self._best: dict[str, Tensor] | None = None
        self._orders = Orders(writer.folder, heard=world().heard, notes=self._writes)

    def say(self, line: str) -> None:
        """Tell whoever looks on, and the run's log."""
        self.writer.log(line)
        self.reporter.say(line)

    def note(self, line: str) -> None:
        """Tell it, and keep it among the notes that the run's pages show."""
        self.say(line)
        self.writer.update_manifest(notes=[*self.writer.manifest.get("notes", ()), line])

    def progress(self, task: str, done: int, total: int) -> None:
        """Tell how far a part of the work is."""
        self.reporter.progress(task, done, total, self.at.latest)

    def record(self, metrics: Mapping[str, float], stage: Stage) -> None:
        """Write metrics down at the step where the training is."""
        self.at.latest |= metrics
        self.writer.record(metrics, step=self.at.step, stage=stage.name, epoch=self.at.epoch)
        self.at.records += 1
        self.reporter.record(metrics, self.at.step)

    def record_running(
        self, stage: Stage, optimizer: Optimizer, observed: Mapping[str, float]
    ) -> None:
        """The mean loss since the last time, the highest learning rate, what else was seen."""
        running = self.at.running
        rate = max(group["lr"] for group in optimizer.param_groups)
        loss = sum(running) / len(running)
        self.record({"train/loss": loss, "train/lr": rate, **observed}, stage)
        running.clear()

    def judge(self, schedule: Schedule) -> None:
        """Count evaluations without a lower loss on `val`, and lower a `plateau` schedule."""
        at, loss = self.at, self.at.latest.get("val/loss")
        if loss is None:
            return
        if at.lowest is None or loss < at.lowest:
            at.lowest, at.waited = loss, 0
            return
        at.waited += 1
        if schedule.name == "plateau" and at.waited % (schedule.patience or 1) == 0:
            at.drops += 1

    def note_stage(
        self,
        stage: Stage,
        plan: ParameterPlan,
        frozen: tuple[str, str],
        preparing: float,
        training: float,
    ) -> None:
        """Add what became of the stage to the manifest, and move on to the next.

        `frozen` are the hashes of what it must not move, before and after.
        """
        at = self.at
        at.stages.append(
            {
                "name": stage.name,
                "plan": plan.describe(stage.lr, stage.weight_decay),
                "frozen_hash": frozen[0],
                "frozen_hash_after": frozen[1],
                "seconds_preparing": round(preparing, 3),
                "seconds_training": round(training, 3),
                "last_step": at.step,
                "pass_size": at.pass_size,
            }
        )
        self.writer.update_manifest(stages=at.stages)
        at.stage, at.stage_step, at.epochs_before = at.stage + 1, 0, at.epoch
        at.lowest, at.waited, at.drops, at.pass_size = None, 0, 0, None
        tops = {split: at.latest.get(f"{split}/top1") for split in ("minitrain", "val")}
        shown = [f"{split} top-1 {top:.1%}" for split, top in tops.items() if top is not None]
        self.say(f"  {', '.join(shown)} after {preparing:.1f} + {training:.1f} s")

    def checkpoint_is_due(self) -> bool:
        """Whether more work than `checkpoint_seconds` would be lost now."""
        return time.monotonic() - self._saved >= self._checkpoint_seconds

    def is_asked_to_stop(self) -> bool:
        """Whether somebody wishes that it pauses or stops; all processes ask at once."""
        return self._orders.pending() is not None

    def heed(self) -> float:
        """Pause or stop if somebody wishes so; returns the seconds waited.

        Raises:
            TrainingError: it is to stop.
        """
        started = time.monotonic()
        order = self._orders.heed(lambda line: self.say(f"  {line}"))
        if order:
            raise TrainingError(
                f"It was {order.describe()} at step {self.at.step}. "
                f"Go on with: fieldmark train --resume {self.writer.folder}"
            )
        return time.monotonic() - started

    def hold_best(self, model: nn.Module) -> None:
        """Hold on to the weights if no others did better on `val`; the first of equals stays."""
        top = self.at.latest.get("val/top1")
        if top is not None and (self.at.best is None or top > self.at.best):
            self.at.best = top
            self._best = {key: value.clone() for key, value in model.state_dict().items()}

    def checkpoint(
        self,
        model: nn.Module,
        optimizer: Optimizer | None,
        average: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Keep all that is needed to go on from here, and the best weights."""
        if self._best is not None:  # first, so that a checkpoint never promises what is not there
            self.keep_weights(BEST, self._best)
            self._best = None
        if self._writes:
            path = self.writer.folder / CHECKPOINT
            save_checkpoint(path, model, optimizer, asdict(self.at), average)
        self._saved = time.monotonic()

    def snapshot(self, model: nn.Module) -> None:
        """Keep the weights of this step for good."""
        self.keep_weights(f"snapshots/step-{self.at.step:07}.safetensors", model.state_dict())

    def keep_weights(self, name: str, state: Mapping[str, Tensor]) -> None:
        """Write a model's state into the run, in place of what is there."""
        if not self._writes:
            return
        path = self.writer.folder / name
        tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
        size = sum(value.nbytes for value in tensors.values())
        durable.make_folder(path.parent)
        with durable.replacing(path, size=size) as temporary:
            save_file(tensors, temporary)


def keep_predictions(
    writer: RunWriter,
    split: str,
    photos: Sequence[Photo],
    logits: NDArray[np.float32],
    folds: Sequence[int] | None = None,
) -> dict[str, float]:
    """Write down what a model says of each photo of a split; returns the split's metrics.

    Args:
        writer: of the run's folder.
        split: name of the split.
        photos: N of them.
        logits: (N, K).
        folds: the fold each photo was left out with, where it was.
    """
    labels = np.array([photo.label for photo in photos])
    keys = [photo.key for photo in photos]
    writer.predictions(split, keys, labels, np.exp(log_softmax(logits)), folds)
    return classification_metrics(logits, labels)

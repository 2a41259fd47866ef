"""One trial of a head under way, what was seen of it, and the run it becomes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldmark.build import Task
from fieldmark.data.dataset import Photo
from fieldmark.ledger import keep_predictions
from fieldmark.metrics import cross_entropies
from fieldmark.recipe import Recipe, Stage
from fieldmark.studies.run import RunWriter
from fieldmark.studies.trial import Outcome, Trial
from fieldmark.train import run_manifest
from fieldmark.training.heads import HeadSettings


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
    keeps_classifiers: bool = False
    """Whether `classifiers` is filled; a study's are too many to keep."""
    classifiers: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """For each fold weight (K, D) and bias (K,) after the last step."""
    problem: str | None = None
    """Why it failed, beside a loss that is not finite."""

    @property
    def recipe(self) -> Recipe:
        """What it is to do."""
        return self.trial.recipe

    @property
    def stage(self) -> Stage:
        """Its one stage."""
        return self.recipe.stages[0]

    @property
    def views(self) -> int:
        """How many of each photo it sees."""
        return self.stage.views

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
            losses = cross_entropies(logits, labels)
        right = float((logits.argmax(1) == labels).sum())
        seen = np.array([len(labels), losses.sum(), right])
        self.curve.setdefault(step, {}).setdefault(split, []).append(seen)
        empty = np.full((len(photos), logits.shape[1]), np.nan, np.float32)
        self.logits.setdefault(split, empty)[positions] = logits

    def features_key(self) -> tuple[object, ...]:
        """Heads with one key see the same features."""
        pooling, head = self.recipe.pooling, self.recipe.head
        seed = self.recipe.seed if pooling.name == "compact_bilinear" else None
        return pooling.model_dump_json(), head.signed_sqrt, head.l2_normalize, self.views, seed

    def order_key(self) -> tuple[object, ...]:
        """Heads with one key take the same samples at each step, all of them whole, or none."""
        stage, length = self.stage, (str(self.stage.length), str(self.stage.eval_every))
        order = (self.recipe.seed, stage.samples_per_step, stage.sampling, self.views, *length)
        return *order, bool(self.settings.drop_rate)


def write_head(task: Task, head: Head, photos: Sequence[Photo]) -> Outcome:
    """Make a run of what was seen of a head."""
    task = replace(task, recipe=head.recipe)
    more = {"folds": head.trial.folds, "weights": "not kept; `fieldmark refit` makes them"}
    losses = torch.stack(head.losses).mean(0)  # (S,)
    recipe, folder = head.recipe.to_yaml(), head.trial.folder
    with RunWriter.create(folder, recipe, run_manifest(task) | more) as writer:
        _record_curve(writer, head, losses)
        if reason := head.problem or _not_finite(losses):
            writer.fail(reason)
            return Outcome(folder, "failed", reason=reason)
        metrics: dict[str, float] = {}
        for split, logits in head.logits.items():
            there = np.flatnonzero(~np.isnan(logits[:, 0])).tolist()
            chosen = [photos[position] for position in there]
            folds = None if head.folds is None else head.folds[there].tolist()
            found = keep_predictions(writer, split, chosen, logits[there], folds)
            metrics |= {f"{split}/{name}": value for name, value in found.items()}
        writer.record(metrics, step=len(losses), stage=head.stage.name)
        writer.finish()
    return Outcome(folder, "finished", metrics)


def _not_finite(losses: Tensor) -> str | None:
    if losses.isfinite().all():
        return None
    step = int(losses.isfinite().logical_not().nonzero()[0])
    return f"The loss became {float(losses[step])} at step {step + 1} of the stage."


def _record_curve(writer: RunWriter, head: Head, losses: Tensor) -> None:
    before = 0
    for step, splits in sorted(head.curve.items()):
        found = {"train/loss": float(losses[before:step].mean())} if step else {}
        for split, folds in splits.items():
            count, loss, right = np.sum(folds, axis=0)
            found |= {f"{split}/loss": loss / count, f"{split}/top1": right / count}
        writer.record(found, step=step, stage=head.stage.name)
        before = step

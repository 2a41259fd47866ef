"""Trials that train only a classifier on frozen features: all of them for one pass over photos."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from fieldmark.build import Task, make_model
from fieldmark.data.dataset import Photo
from fieldmark.data.portion import deal, first_part
from fieldmark.head_order import Head, orders
from fieldmark.inputs import Progress, frozen_rows
from fieldmark.layers.model import Model
from fieldmark.ledger import keep_predictions
from fieldmark.recipe import Recipe
from fieldmark.scratch import most_bytes
from fieldmark.studies.run import RunWriter
from fieldmark.studies.trial import OUT_OF_FOLD, Outcome, Trial
from fieldmark.train import run_manifest
from fieldmark.training.features import FeatureStore
from fieldmark.training.heads import FrozenFeatures, HeadSettings
from fieldmark.training.optim import parameter_plan

CLASSIFIER = "head.classifier."


def run_head_trials(
    task: Task, heads: Sequence[Head], store: FeatureStore, progress: Progress
) -> Iterator[Outcome]:
    """Train the classifiers of all trials, and yield each trial's outcome once its run is written.

    Args:
        task: with the photos, split, view and backbone that all of them share.
        heads: as `start_head` gives them, all judged alike.
        store: of the frozen feature maps.
        progress: is told how many photos of the pass are done.
    """
    photos = [*task.part("train"), *task.part("val")]
    folds = heads[0].trial.folds
    fold_of = np.zeros(len(photos), np.int64)
    for part in loads(heads, len(photos)):
        networks = [up_to_classifier(task, part_heads[0].recipe) for part_heads in part]
        rows = frozen_rows(task, store, photos, networks, progress)
        features = [FrozenFeatures(rows_of_part) for rows_of_part in rows]
        for fold, (train, judged) in enumerate(_cuts(task, photos, folds)):
            for kept, alike in _by_fraction(task, train, part, folds):
                _train(list(zip(features, alike, strict=True)), photos, kept, judged)
            fold_of[judged.get(OUT_OF_FOLD, [])] = fold
        for head in chain(*part):
            head.folds = fold_of if folds else None
            yield write(task, head, photos)


def _model(task: Task, recipe: Recipe) -> Model:
    return make_model(recipe, task.model.backbone, classes=len(task.photos.class_names))


def up_to_classifier(task: Task, recipe: Recipe) -> nn.Sequential:
    """From feature maps to what the classifier sees."""
    return nn.Sequential(*_model(task, recipe).chain()[1:-1])


def start_head(task: Task, trial: Trial) -> Head | None:
    """A trial of one linear classifier, ready to go; None if `training.heads` can't train it."""
    stage = trial.recipe.stages[0]
    plain = stage.optimizer in {"sgd", "nesterov"} and stage.schedule.name != "plateau"
    more = (stage.l1, stage.clip_norm, stage.average, stage.stop_after, stage.snapshot_every)
    if not plain or any(more) or stage.class_weights is not None:
        return None
    if len(trial.recipe.stages) != 1 or trial.recipe.head.drop_rate:
        return None
    model = _model(task, trial.recipe)
    plan = parameter_plan(model, stage.train)
    trained = [name for group in plan.trained for name in group.names]
    if not trained or not all(name.startswith(CLASSIFIER) for name in trained):
        return None
    rates = {name: (g.multiplier, g.decay) for g in plan.groups for name in g.names}
    (of_weight, decay), (of_bias, bias_decay) = (
        rates[f"{CLASSIFIER}{name}"] for name in ("weight", "bias")
    )
    settings = HeadSettings(
        weight=model.get_parameter(f"{CLASSIFIER}weight").detach(),
        bias=model.get_parameter(f"{CLASSIFIER}bias").detach(),
        lr=stage.lr * of_weight,
        bias_lr=stage.lr * of_bias,
        momentum=stage.momentum,
        nesterov=stage.optimizer == "nesterov",
        weight_decay=stage.weight_decay * decay,
        bias_decay=stage.weight_decay * bias_decay,
        label_smoothing=stage.label_smoothing,
    )
    return Head(trial, settings)


def loads(heads: Sequence[Head], photos: int) -> Iterator[list[list[Head]]]:
    """Heads by their features, as many features at a time as memory may hold."""
    by_features = defaultdict(list)
    for head in heads:
        by_features[head.features_key()].append(head)
    load: list[list[Head]] = []
    size = 0
    for part in by_features.values():
        needed = 4 * photos * part[0].settings.weight.shape[1]
        if load and size + needed > most_bytes():
            yield load
            load, size = [], 0
        load.append(part)
        size += needed
    yield load


Cut = tuple[list[int], dict[str, list[int]]]


def _cuts(task: Task, photos: Sequence[Photo], folds: int | None) -> Iterator[Cut]:
    """Who is trained on and who is judged, as positions in `photos`: once, or once a fold."""
    if folds is None:
        count, minitrain = len(task.split.train), task.split.minitrain_in_train
        yield list(range(count)), {"minitrain": minitrain, "val": list(range(count, len(photos)))}
        return
    row = {p: number for number, p in enumerate((*task.split.train, *task.split.val))}
    pool = sorted(row)  # as a run of one fold has them
    for held in deal(task.photos, pool, folds, seed=task.recipe.data.split_seed):
        out = set(held)
        yield [row[p] for p in pool if p not in out], {OUT_OF_FOLD: [row[p] for p in held]}


def _by_fraction(
    task: Task, train: list[int], part: Sequence[Sequence[Head]], folds: int | None
) -> Iterator[tuple[list[int], list[list[Head]]]]:
    """The photos that are trained on for each fraction of them, and the heads that ask for it.

    Without folds the task's split has seen to it.
    """
    everyone = (*task.split.train, *task.split.val)
    row = {everyone[number]: number for number in train}
    for fraction in dict.fromkeys(head.recipe.data.train_fraction for head in chain(*part)):
        kept = first_part(
            task.photos, list(row), fraction if folds else 1, seed=task.recipe.data.split_seed
        )
        alike = [[h for h in heads if h.recipe.data.train_fraction == fraction] for heads in part]
        yield [row[position] for position in kept], alike


def _train(
    parts: Sequence[tuple[FrozenFeatures, Sequence[Head]]],
    photos: Sequence[Photo],
    train: list[int],
    judged: dict[str, list[int]],
) -> None:
    """Train the heads on one cut of the photos, those with the same order of samples together."""
    for order in orders(parts, photos, train, judged):
        losses = order.take(order.steps, order.measured_after)
        for head, of_head in zip(order.heads, losses.T, strict=True):
            head.losses.append(of_head)


def write(task: Task, head: Head, photos: Sequence[Photo]) -> Outcome:
    """Make a run of what was seen of a head."""
    task = replace(task, recipe=head.recipe)
    more = {"folds": head.trial.folds, "weights": "not kept; `fieldmark refit` makes them"}
    losses = torch.stack(head.losses).mean(0)  # (S,)
    recipe, folder = head.recipe.to_yaml(), head.trial.folder
    with RunWriter.create(folder, recipe, run_manifest(task) | more) as writer:
        _record_curve(writer, head, losses)
        if not losses.isfinite().all():
            step = int(losses.isfinite().logical_not().nonzero()[0])
            reason = f"The loss became {float(losses[step])} at step {step + 1} of the stage."
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


def _record_curve(writer: RunWriter, head: Head, losses: Tensor) -> None:
    before = 0
    for step, splits in sorted(head.curve.items()):
        found = {"train/loss": float(losses[before:step].mean())} if step else {}
        for split, folds in splits.items():
            count, loss, right = np.sum(folds, axis=0)
            found |= {f"{split}/loss": loss / count, f"{split}/top1": right / count}
        writer.record(found, step=step, stage=head.stage.name)
        before = step

"""Trials that train only a classifier on frozen features: all of them for one pass over photos."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fieldmark.build import Task, make_model, seed_for
from fieldmark.data.dataset import Photo
from fieldmark.data.loader import batches
from fieldmark.data.portion import deal, first_part
from fieldmark.inputs import Progress, frozen_rows, sample_order
from fieldmark.layers.model import Model
from fieldmark.ledger import keep_predictions
from fieldmark.metrics import log_softmax
from fieldmark.recipe import Recipe, Stage
from fieldmark.schedule import Schedule
from fieldmark.studies.run import RunWriter
from fieldmark.studies.trial import OUT_OF_FOLD, Outcome, Trial
from fieldmark.train import run_manifest
from fieldmark.training.features import FeatureStore
from fieldmark.training.heads import FrozenFeatures, Heads, HeadSettings
from fieldmark.training.many_heads import train_heads
from fieldmark.training.optim import parameter_plan

MOST_BYTES = 2 << 30  # of features in memory at a time
MEASURED = 10  # times in a stage: enough to see a curve's shape
CLASSIFIER = "head.classifier."


@dataclass
class _Head:
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
        return self.trial.recipe

    @property
    def stage(self) -> Stage:
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


def is_head_trial(task: Task, recipe: Recipe) -> bool:
    """Whether a recipe trains one linear classifier in the way `training.heads` does."""
    if len(recipe.stages) != 1 or recipe.head.drop_rate:
        return False
    stage = recipe.stages[0]
    plain = stage.optimizer in {"sgd", "nesterov"} and stage.schedule.name != "plateau"
    without = (stage.l1, stage.clip_norm, stage.average, stage.stop_after, stage.snapshot_every)
    if not plain or any(without) or stage.class_weights is not None:
        return False
    plan = parameter_plan(_model(task, recipe), stage.train)
    names = [name for group in plan.trained for name in group.names]
    return bool(names) and all(name.startswith(CLASSIFIER) for name in names)


def run_head_trials(
    task: Task, trials: Sequence[Trial], store: FeatureStore, progress: Progress
) -> Iterator[Outcome]:
    """Train the classifiers of all trials, and yield each trial's outcome once its run is written.

    Args:
        task: with the photos, split, view and backbone that all of them share.
        trials: each as `is_head_trial` wants it, all judged alike.
        store: of the frozen feature maps.
        progress: is told how many photos of the pass are done.
    """
    photos = [*task.part("train"), *task.part("val")]
    heads = [_start(task, trial) for trial in trials]
    fold_of = np.zeros(len(photos), np.int64)
    for part in _loads(heads, len(photos)):
        networks = [_up_to_classifier(task, part_heads[0].recipe) for part_heads in part]
        rows = frozen_rows(task, store, photos, networks, progress)
        features = [FrozenFeatures(rows_of_part) for rows_of_part in rows]
        for fold, (train, judged) in enumerate(_cuts(task, photos, trials[0].folds)):
            for kept, alike in _by_fraction(task, train, part, trials[0].folds):
                _train(list(zip(features, alike, strict=True)), photos, kept, judged)
            fold_of[judged.get(OUT_OF_FOLD, [])] = fold
        for head in chain(*part):
            head.folds = fold_of if trials[0].folds else None
            yield _write(task, head, photos)


def _model(task: Task, recipe: Recipe) -> Model:
    return make_model(recipe, task.model.backbone, classes=len(task.photos.class_names))


def _up_to_classifier(task: Task, recipe: Recipe) -> nn.Sequential:
    """From feature maps to what the classifier sees."""
    return nn.Sequential(*_model(task, recipe).chain()[1:-1])


def _start(task: Task, trial: Trial) -> _Head:
    model = _model(task, trial.recipe)
    stage = trial.recipe.stages[0]
    plan = parameter_plan(model, stage.train)
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
    return _Head(trial, settings)


def _loads(heads: Sequence[_Head], photos: int) -> Iterator[list[list[_Head]]]:
    """Heads by their features, as many features at a time as memory may hold."""
    by_features = defaultdict(list)
    for head in heads:
        by_features[head.features_key()].append(head)
    load: list[list[_Head]] = []
    size = 0
    for part in by_features.values():
        needed = 4 * photos * part[0].settings.weight.shape[1]
        if load and size + needed > MOST_BYTES:
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
    task: Task, train: list[int], part: Sequence[Sequence[_Head]], folds: int | None
) -> Iterator[tuple[list[int], list[list[_Head]]]]:
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
    parts: Sequence[tuple[FrozenFeatures, Sequence[_Head]]],
    photos: Sequence[Photo],
    train: list[int],
    judged: dict[str, list[int]],
) -> None:
    """Train the heads on one cut of the photos, those with the same order of samples together."""
    labels = torch.tensor([photos[position].label for position in train])
    for order in dict.fromkeys(head.order_key() for _, heads in parts for head in heads):
        alike = [
            (features, [head for head in heads if head.order_key() == order])
            for features, heads in parts
        ]
        alike = [(features, heads) for features, heads in alike if heads]
        group = [head for _, heads in alike for head in heads]
        steps, per_epoch = _steps(group[0], labels)
        stage = group[0].stage
        every = stage.eval_every.steps(steps_per_epoch=per_epoch, stage_steps=len(steps))

        def watch(numbers: list[int], step: int, part: Heads, group: list[_Head] = group) -> None:
            for split, positions in judged.items():
                logits = part.logits(torch.tensor(positions)).numpy()
                for place, number in enumerate(numbers):
                    group[number].see(split, step, logits[:, place], positions, photos)

        losses = train_heads(
            [(features, _settings(heads, len(steps), per_epoch)) for features, heads in alike],
            torch.tensor(train),
            labels,
            steps,
            watch,
            watch_after=range(0, len(steps), max(every, len(steps) // MEASURED)),
        )
        for head, of_head in zip(group, losses.T, strict=True):
            head.losses.append(of_head)


def _settings(heads: Sequence[_Head], total: int, per_epoch: int) -> list[HeadSettings]:
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


def _steps(head: _Head, labels: Tensor) -> tuple[list[Tensor], int]:
    """The samples of every step as a run of its own would draw them, and how many an epoch has."""
    stage, seed = head.stage, seed_for(head.recipe.seed, "stage", 0)
    per_epoch = stage.steps_per_epoch(len(labels))
    total = stage.length.steps(steps_per_epoch=per_epoch)
    steps: list[Tensor] = []
    for epoch in range(-(-total // per_epoch)):
        order = sample_order(labels.tolist(), sampling=stage.sampling, seed=seed, epoch=epoch)
        steps += [torch.as_tensor(samples) for samples in batches(order, stage.samples_per_step)]
    return steps[:total], per_epoch


def _write(task: Task, head: _Head, photos: Sequence[Photo]) -> Outcome:
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


def _record_curve(writer: RunWriter, head: _Head, losses: Tensor) -> None:
    before = 0
    for step, splits in sorted(head.curve.items()):
        found = {"train/loss": float(losses[before:step].mean())} if step else {}
        for split, folds in splits.items():
            count, loss, right = np.sum(folds, axis=0)
            found |= {f"{split}/loss": loss / count, f"{split}/top1": right / count}
        writer.record(found, step=step, stage=head.stage.name)
        before = step

"""Trials that train only a classifier on frozen features: all of them for one pass over photos."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from fieldmark.build import Task, make_model, seed_for
from fieldmark.data.dataset import Photo
from fieldmark.data.portion import deal, first_part
from fieldmark.exact_stage import TOLERANCE, exact_decay, not_converged
from fieldmark.frozen_rows import Progress, frozen_rows
from fieldmark.head_order import all_views, orders
from fieldmark.head_run import Head, write_head
from fieldmark.layers.model import Model
from fieldmark.recipe import Recipe
from fieldmark.scratch import most_bytes
from fieldmark.studies.trial import OUT_OF_FOLD, Outcome, Trial
from fieldmark.training.exact import decay_path
from fieldmark.training.features import FeatureStore
from fieldmark.training.heads import FrozenFeatures, HeadSettings
from fieldmark.training.optim import parameter_plan

CLASSIFIER = "head.classifier."


def run_head_trials(
    task: Task, heads: Sequence[Head], store: FeatureStore, progress: Progress
) -> Iterator[Outcome]:
    """Train the classifiers of all trials, and yield each trial's outcome once its run is written.

    Args as for `trained_heads`.
    """
    photos = photos_of(task)
    for head in trained_heads(task, heads, store, progress):
        yield write_head(task, head, photos)


def photos_of(task: Task) -> list[Photo]:
    """All photos outside `test`, in the order heads are told of them."""
    return [*task.part("train"), *task.part("val")]


def trained_heads(
    task: Task, heads: Sequence[Head], store: FeatureStore, progress: Progress
) -> Iterator[Head]:
    """Train the classifiers of all trials, and yield each with what was seen of it.

    Args:
        task: with the photos, split, view and backbone that all of them share.
        heads: as `start_head` gives them, all judged alike.
        store: of the frozen feature maps.
        progress: is told how many photos of the pass are done.
    """
    photos = photos_of(task)
    folds = heads[0].trial.folds
    fold_of = np.zeros(len(photos), np.int64)
    for part in loads(heads, len(photos)):
        features = _features(task, store, photos, [heads[0] for heads in part], progress)
        for fold, (train, judged) in enumerate(_cuts(task, photos, folds)):
            for kept, alike in _by_fraction(task, train, part, folds):
                _train(list(zip(features, alike, strict=True)), photos, kept, judged)
            fold_of[judged.get(OUT_OF_FOLD, [])] = fold
        for head in chain(*part):
            head.folds = fold_of if folds else None
            yield head


def _model(task: Task, recipe: Recipe) -> Model:
    return make_model(recipe, task.model.backbone, classes=len(task.photos.class_names))


def up_to_classifier(task: Task, recipe: Recipe) -> nn.Sequential:
    """From feature maps to what the classifier sees, nothing of it hidden by dropout."""
    return nn.Sequential(*_model(task, recipe).chain()[1:-1]).eval()


def _features(
    task: Task,
    store: FeatureStore,
    photos: Sequence[Photo],
    heads: Sequence[Head],
    progress: Progress,
) -> list[FrozenFeatures]:
    """What each head sees of N photos: view after view, (V N, D)."""
    networks = [up_to_classifier(task, head.recipe) for head in heads]
    rows: list[list[Tensor]] = [[] for _ in heads]
    for number in range(max(head.views for head in heads)):
        wanting = [place for place, head in enumerate(heads) if head.views > number]
        chosen = [networks[place] for place in wanting]
        seen = frozen_rows(task, store, photos, chosen, progress, number=number)
        for place, rows_of_view in zip(wanting, seen, strict=True):
            rows[place].append(rows_of_view)
    return [FrozenFeatures(torch.cat(views) if len(views) > 1 else views[0]) for views in rows]


def start_head(task: Task, trial: Trial) -> Head | None:
    """A trial of one linear classifier, ready to go; None if `training.heads` can't train it."""
    stage = trial.recipe.stages[0]
    plain = stage.optimizer in {"sgd", "nesterov"} and stage.schedule.name != "plateau"
    more = (stage.l1, stage.clip_norm, stage.average, stage.stop_after, stage.snapshot_every)
    if not plain or any(more) or stage.class_weights is not None:
        return None
    # Masks belong to photos, and here each view of one is a sample of its own.
    drops_of_views = stage.views > 1 and trial.recipe.head.drop_rate
    if len(trial.recipe.stages) != 1 or drops_of_views:
        return None
    model = _model(task, trial.recipe)
    if stage.solver == "lbfgs":
        exact_decay(model, stage)
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
        drop_rate=trial.recipe.head.drop_rate,
        drop_seed=seed_for(trial.recipe.seed, "stage", 0),
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
        needed = 4 * photos * part[0].views * part[0].settings.weight.shape[1]
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
    for features, heads in parts:
        if exact := [head for head in heads if head.stage.solver == "lbfgs"]:
            _solve(features, exact, photos, train, judged)
    stepping = [
        (features, [head for head in heads if head.stage.solver == "steps"])
        for features, heads in parts
    ]
    for order in orders(stepping, photos, train, judged):
        losses = order.take(order.steps, order.measured_after)
        for head, of_head in zip(order.heads, losses.T, strict=True):
            head.losses.append(of_head)


def _solve(
    features: FrozenFeatures,
    heads: Sequence[Head],
    photos: Sequence[Photo],
    train: list[int],
    judged: dict[str, list[int]],
) -> None:
    """The exact heads of one kind of features, down the path of their decays."""
    views = heads[0].views
    labels = torch.tensor([photos[position].label for position in train])
    found = decay_path(
        features.rows[all_views(train, views, len(photos))],
        labels.repeat(views),
        [head.settings.weight_decay for head in heads],
        classes=len(heads[0].settings.bias),
        tolerance=TOLERANCE,
    )
    for head, exact in zip(heads, found, strict=True):
        head.losses.append(torch.tensor([exact.loss]))
        head.problem = head.problem or not_converged(exact)
        if head.keeps_classifiers:
            head.classifiers.append((exact.weight, exact.bias))
        for split, positions in judged.items():
            logits = features.rows[positions] @ exact.weight.T + exact.bias
            head.see(split, 1, logits.numpy(), positions, photos)

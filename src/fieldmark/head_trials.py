"""Trials that train only a classifier on frozen features: all of them for one pass over photos."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from fieldmark.build import Task, make_model, seed_for
from fieldmark.data.dataset import Photo
from fieldmark.data.loader import batches
from fieldmark.data.portion import deal, first_part
from fieldmark.exact_stage import TOLERANCE, exact_decay, not_converged
from fieldmark.head_run import HeadTrial, write_head
from fieldmark.inputs import Progress, drawn_views, frozen_rows, sample_order
from fieldmark.layers.model import Model
from fieldmark.recipe import Recipe
from fieldmark.schedule import Schedule
from fieldmark.studies.trial import OUT_OF_FOLD, Outcome, Trial
from fieldmark.training.exact import decay_path
from fieldmark.training.features import FeatureStore
from fieldmark.training.heads import FrozenFeatures, Heads, HeadSettings
from fieldmark.training.many_heads import train_heads
from fieldmark.training.optim import parameter_plan

MOST_BYTES = 2 << 30  # of features in memory at a time
MEASURED = 10  # times in a stage: enough to see a curve's shape
CLASSIFIER = "head.classifier."


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
    if stage.solver == "lbfgs":
        exact_decay(_model(task, recipe), stage)
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
        features = _features(task, store, photos, [heads[0] for heads in part], progress)
        for fold, (train, judged) in enumerate(_cuts(task, photos, trials[0].folds)):
            for kept, alike in _by_fraction(task, train, part, trials[0].folds):
                _train(list(zip(features, alike, strict=True)), photos, kept, judged)
            fold_of[judged.get(OUT_OF_FOLD, [])] = fold
        for head in chain(*part):
            head.folds = fold_of if trials[0].folds else None
            yield write_head(task, head, photos)


def _model(task: Task, recipe: Recipe) -> Model:
    return make_model(recipe, task.model.backbone, classes=len(task.photos.class_names))


def _up_to_classifier(task: Task, recipe: Recipe) -> nn.Sequential:
    """From feature maps to what the classifier sees."""
    return nn.Sequential(*_model(task, recipe).chain()[1:-1])


def _features(
    task: Task,
    store: FeatureStore,
    photos: Sequence[Photo],
    heads: Sequence[HeadTrial],
    progress: Progress,
) -> list[FrozenFeatures]:
    """What each head sees of N photos: view after view, (V N, D)."""
    networks = [_up_to_classifier(task, head.recipe) for head in heads]
    rows: list[list[Tensor]] = [[] for _ in heads]
    for number in range(max(head.views for head in heads)):
        wanting = [place for place, head in enumerate(heads) if head.views > number]
        chosen = [networks[place] for place in wanting]
        seen = frozen_rows(task, store, photos, chosen, progress, number)
        for place, rows_of_view in zip(wanting, seen, strict=True):
            rows[place].append(rows_of_view)
    return [FrozenFeatures(torch.cat(views) if len(views) > 1 else views[0]) for views in rows]


def _start(task: Task, trial: Trial) -> HeadTrial:
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
    return HeadTrial(trial, settings)


def _loads(heads: Sequence[HeadTrial], photos: int) -> Iterator[list[list[HeadTrial]]]:
    """Heads by their features, as many features at a time as memory may hold."""
    by_features = defaultdict(list)
    for head in heads:
        by_features[head.features_key()].append(head)
    load: list[list[HeadTrial]] = []
    size = 0
    for part in by_features.values():
        needed = 4 * photos * part[0].views * part[0].settings.weight.shape[1]
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
    task: Task, train: list[int], part: Sequence[Sequence[HeadTrial]], folds: int | None
) -> Iterator[tuple[list[int], list[list[HeadTrial]]]]:
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
    parts: Sequence[tuple[FrozenFeatures, Sequence[HeadTrial]]],
    photos: Sequence[Photo],
    train: list[int],
    judged: dict[str, list[int]],
) -> None:
    """Train the heads on one cut of the photos, those with the same order of samples together."""
    labels = torch.tensor([photos[position].label for position in train])
    for features, heads in parts:
        exact = [head for head in heads if head.stage.solver == "lbfgs"]
        if exact:
            _solve(features, exact, photos, train, labels, judged)
    stepping = [
        (features, [head for head in heads if head.stage.solver == "steps"])
        for features, heads in parts
    ]
    for order in dict.fromkeys(head.order_key() for _, heads in stepping for head in heads):
        alike = [
            (features, [head for head in heads if head.order_key() == order])
            for features, heads in stepping
        ]
        alike = [(features, heads) for features, heads in alike if heads]
        group = [head for _, heads in alike for head in heads]
        steps, per_epoch = _steps(group[0], labels, [photos[position] for position in train])
        stage = group[0].stage
        every = stage.eval_every.steps(steps_per_epoch=per_epoch, stage_steps=len(steps))

        def watch(
            numbers: list[int], step: int, part: Heads, group: list[HeadTrial] = group
        ) -> None:
            for split, positions in judged.items():
                logits = part.logits(torch.tensor(positions)).numpy()
                for place, number in enumerate(numbers):
                    group[number].see(split, step, logits[:, place], positions, photos)

        losses = train_heads(
            [(features, _settings(heads, len(steps), per_epoch)) for features, heads in alike],
            _all_views(train, stage.views, len(photos)),
            labels.repeat(stage.views),
            steps,
            watch,
            watch_after=range(0, len(steps), max(every, len(steps) // MEASURED)),
        )
        for head, of_head in zip(group, losses.T, strict=True):
            head.losses.append(of_head)


def _all_views(positions: list[int], views: int, count: int) -> Tensor:
    """Where the features of some of `count` photos stand, view after view."""
    return torch.cat([torch.tensor(positions) + number * count for number in range(views)])


def _solve(
    features: FrozenFeatures,
    heads: Sequence[HeadTrial],
    photos: Sequence[Photo],
    train: list[int],
    labels: Tensor,
    judged: dict[str, list[int]],
) -> None:
    """The exact heads of one kind of features, down the path of their decays."""
    views = heads[0].views
    found = decay_path(
        features.rows[_all_views(train, views, len(photos))],
        labels.repeat(views),
        [head.settings.weight_decay for head in heads],
        classes=len(heads[0].settings.bias),
        tolerance=TOLERANCE,
    )
    for head, exact in zip(heads, found, strict=True):
        head.losses.append(torch.tensor([exact.loss]))
        head.problem = head.problem or not_converged(exact)
        for split, positions in judged.items():
            logits = features.rows[positions] @ exact.weight.T + exact.bias
            head.see(split, 1, logits.numpy(), positions, photos)


def _settings(heads: Sequence[HeadTrial], total: int, per_epoch: int) -> list[HeadSettings]:
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


def _steps(head: HeadTrial, labels: Tensor, photos: Sequence[Photo]) -> tuple[list[Tensor], int]:
    """The samples of every step as a run of its own would draw them, and how many an epoch has.

    A sample is a photo in a view: number v N + n for view v of photo n of N.
    """
    stage, seed = head.stage, seed_for(head.recipe.seed, "stage", 0)
    per_epoch = stage.steps_per_epoch(len(labels))
    total = stage.length.steps(steps_per_epoch=per_epoch)
    steps: list[Tensor] = []
    for epoch in range(-(-total // per_epoch)):
        order = sample_order(labels.tolist(), sampling=stage.sampling, seed=seed, epoch=epoch)
        shown = order + len(labels) * drawn_views(photos, head.views, seed=seed, epoch=epoch)[order]
        steps += [torch.as_tensor(samples) for samples in batches(shown, stage.samples_per_step)]
    return steps[:total], per_epoch

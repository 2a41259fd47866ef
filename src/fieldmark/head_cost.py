"""What classifiers on frozen features will take: a few of their real steps, on features made up."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from fieldmark import probe
from fieldmark.cost import Cost, Pass, own_memory, size_of
from fieldmark.exact_stage import TOLERANCE
from fieldmark.head_order import MEASURED, Order, orders
from fieldmark.head_run import Head, write_head
from fieldmark.head_trials import loads, up_to_classifier
from fieldmark.probe import Timed, time_networks
from fieldmark.scratch import most_bytes
from fieldmark.studies.judged import MISTAKEN, PAIRS, PHOTOS
from fieldmark.studies.trial import OUT_OF_FOLD
from fieldmark.training.exact import decay_path
from fieldmark.training.features import SHARD_BYTES
from fieldmark.training.heads import FrozenFeatures, Heads

FEW, MORE = 8, 64  # steps to warm up, and those whose time is looked at, so often
TRIES = 3
MORE_DECAYS = 3  # that are solved to see what one takes
WRITTEN = 3  # runs
SEEING = "seeing where the best cell looked"
MOST_LOOKS = 2 * PHOTOS + PAIRS * (MISTAKEN + 2)
RECORD = 1000  # bytes a study writes of a run beside it


def add_heads(cost: Cost, shared: Pass, heads: Sequence[Head]) -> None:
    """Add what `head_trials.run_head_trials` takes for these trials.

    Args:
        cost: Is added to.
        shared: What all trials see.
        heads: As `head_trials.start_head` gives them.
    """
    parts = _add_training(cost, shared, heads)
    _add_runs(cost, shared, heads[0], len(heads))
    cost.memory = max(cost.memory, _memory(shared, parts))


def add_looks(cost: Cost, shared: Pass, head: Head) -> None:
    """Add what `head_looks.add_looks` takes for one of them: it is trained again, by itself."""
    again = Cost()
    _add_training(again, shared, [head])
    cost.add(SEEING, shared.building)
    cost.shares += [replace(share, what=SEEING) for share in again.shares]
    positions = shared.maps[0, 0].numel()
    cost.disk += 2 * positions * MOST_LOOKS


def _add_training(cost: Cost, shared: Pass, heads: Sequence[Head]) -> list[list[list[Head]]]:
    """Add the features and steps of heads; the loads they come in."""
    parts = list(loads(heads, len(shared.photos)))
    for load in parts:
        _add_features(cost, shared, [part[0] for part in load])
    taken: dict[object, _OrderTime] = {}
    for load in parts:
        _add_load(cost, shared, load, taken)
    return parts


def _add_features(cost: Cost, shared: Pass, heads: Sequence[Head]) -> None:
    """Add what the features of one load take, of which each head sees others."""
    started = probe.clock()
    networks = [up_to_classifier(shared.task, head.recipe) for head in heads]
    cost.add("building", probe.clock() - started)
    pooled: dict[int, Timed] = {}  # by how many of them see a view
    for number in range(max(head.views for head in heads)):
        shared.look(cost)
        wanting = [n for n, head in zip(networks, heads, strict=True) if head.views > number]
        if len(wanting) not in pooled:
            pooled[len(wanting)] = time_networks(wanting, shared.maps)
        cost.add(f"{shared.side}: pooling", pooled[len(wanting)], len(shared.photos))


@dataclass(frozen=True)
class _OrderTime:
    """Seconds of one order's parts on one cut of the photos."""

    products: Timed
    beginning: Timed
    step: Timed
    measuring: Timed


def _add_load(
    cost: Cost, shared: Pass, load: Sequence[Sequence[Head]], taken: dict[object, _OrderTime]
) -> None:
    """Add what the heads of one load take, over all folds."""
    folds = load[0][0].trial.folds
    everyone, judged = _cut(shared, folds)
    parts = [
        (FrozenFeatures(rows), part) for rows, part in zip(_rows(shared, load), load, strict=True)
    ]
    for fraction in dict.fromkeys(_fraction(head) for part in load for head in part):
        # Without folds the task's split has seen to it.
        train = everyone[: round(fraction * len(everyone)) if folds else None]
        alike = [(rows, [h for h in heads if _fraction(h) == fraction]) for rows, heads in parts]
        for rows, heads in alike:
            if exact := [head for head in heads if head.stage.solver == "lbfgs"]:
                _add_exact(cost, shared, rows, exact, train)
        stepping = [
            (rows, [h for h in heads if h.stage.solver == "steps"]) for rows, heads in alike
        ]
        for order in orders(stepping, shared.photos, train, judged):
            _add_order(cost, shared, order, taken, folds or 1)


def _add_order(
    cost: Cost, shared: Pass, order: Order, taken: dict[object, _OrderTime], folds: int
) -> None:
    started = probe.clock()
    steps = order.steps
    cost.add("drawing samples", probe.clock() - started, folds)
    kinds = [(rows.rows.shape[1], len(heads)) for rows, heads in order.parts]
    likeness = (tuple(kinds), len(steps[0]), len(order.train))
    if likeness not in taken:
        taken[likeness] = _time_order(order, steps)
    found = taken[likeness]
    what = f"{shared.side}: training heads"
    cost.add(what, found.products)
    cost.add(what, found.beginning, folds)
    cost.add(what, found.step, folds * len(steps))
    cost.add(what, found.measuring, folds * (len(order.measured_after) + 1))


def _add_exact(
    cost: Cost, shared: Pass, features: FrozenFeatures, heads: Sequence[Head], train: list[int]
) -> None:
    """Add exact heads of one kind of features, from a beginning of the path of their decays."""
    views, classes = heads[0].views, len(heads[0].settings.bias)
    labels = torch.tensor([shared.photos[position].label for position in train]).repeat(views)
    rows = features.rows[: len(labels)]
    decays = sorted({head.settings.weight_decay for head in heads}, reverse=True)

    def solving(count: int) -> float:
        path = partial(decay_path, rows, labels, decays[:count], classes=classes)
        return probe.seconds(partial(path, tolerance=TOLERANCE))

    tried, folds = min(MORE_DECAYS, len(decays)), heads[0].trial.folds or 1
    first = solving(1)
    each = max(0.0, solving(tried) - first) / max(1, tried - 1)
    what = f"{shared.side}: solving heads"
    cost.add(what, first, folds)
    cost.add(what, each, folds * (len(decays) - 1))


def _fraction(head: Head) -> float:
    return head.recipe.data.train_fraction


def _cut(shared: Pass, folds: int | None) -> tuple[list[int], dict[str, list[int]]]:
    """A cut of the photos as large as the real ones."""
    count = len(shared.photos)
    if folds:
        return (
            [n for n in range(count) if n % folds],
            {OUT_OF_FOLD: list(range(0, count, folds))},
        )
    split = shared.task.split
    judged = {"minitrain": split.minitrain_in_train, "val": range(len(split.train), count)}
    return list(range(len(split.train))), {name: list(part) for name, part in judged.items()}


def _rows(shared: Pass, load: Sequence[Sequence[Head]]) -> list[Tensor]:
    """Features as many and as long as the real ones; what they hold does not count."""
    shapes = [(part[0].views * len(shared.photos), _length(part)) for part in load]
    generator = torch.Generator().manual_seed(0)
    most, longest = (max(sizes) for sizes in zip(*shapes, strict=True))
    drawn = torch.randn(most, longest, generator=generator)
    drawn /= drawn.norm(dim=1, keepdim=True)
    return [drawn[:count, :length].contiguous() for count, length in shapes]


def _time_order(order: Order, steps: Sequence[Tensor]) -> _OrderTime:
    """Take some of the steps, looking at the clock now and then, and measure in the end.

    A step is too short to be told from the beginning of two trainings that differ by a few.
    """
    steps = steps[: FEW + TRIES * MORE]
    products, begun = (
        probe.seconds(lambda: order.train_heads(steps[:1], _nobody, ())) for _ in "12"
    )
    seen: dict[int, list[float]] = defaultdict(list)
    measuring: list[float] = []

    def watch(numbers: list[int], step: int, part: Heads) -> None:
        seen[numbers[0]].append(probe.clock())
        if step == len(steps):
            measuring.append(probe.seconds(lambda: order.measure(numbers, step, part)))

    ends = [*range(min(FEW, len(steps) - 1), len(steps), MORE), len(steps)]
    order.train_heads(steps, watch, ends)
    each = [
        sum(times[n + 1] - times[n] for times in seen.values()) / (ends[n + 1] - ends[n])
        for n in range(len(ends) - 1)
    ]
    step = Timed(tuple(each))
    beginning = max(0.0, begun - step.seconds)
    kept = max(0.0, products - begun)  # they are there from then on
    return _OrderTime(Timed((kept,)), Timed((beginning,)), step, Timed((sum(measuring),)))


def _nobody(numbers: list[int], step: int, part: Heads) -> None:
    """Nothing is noted."""


def _add_runs(cost: Cost, shared: Pass, head: Head, runs: int) -> None:
    """Add the writing of runs, and their size."""
    photos, classes = len(shared.photos), len(head.settings.bias)
    folds, generator = head.trial.folds, np.random.default_rng(0)
    judged = {OUT_OF_FOLD: list(range(photos))} if folds else _cut(shared, None)[1]
    logits = {split: np.full((photos, classes), np.nan, np.float32) for split in judged}
    for split, positions in judged.items():
        logits[split][positions] = generator.random((len(positions), classes))
    seen = {split: [np.array([len(p), 1.23456789, len(p) / 3])] for split, p in judged.items()}
    with TemporaryDirectory() as folder:
        done = [
            replace(
                head,
                trial=replace(head.trial, folder=Path(folder) / str(number)),
                losses=[torch.zeros(MEASURED)],
                logits=logits,
                folds=np.zeros(photos, np.int64) if folds else None,
                curve=dict.fromkeys(range(1, MEASURED + 1), seen),
            )
            for number in range(WRITTEN)
        ]
        each = [probe.seconds(partial(write_head, shared.task, one, shared.photos)) for one in done]
        cost.add("writing runs", Timed(tuple(each)), runs)
        cost.disk += runs * (size_of(Path(folder)) // WRITTEN + RECORD)


def _memory(shared: Pass, parts: Sequence[Sequence[Sequence[Head]]]) -> int:
    """Bytes of the process at the fullest moment: of the pass, or of the training after it."""
    count = len(shared.photos)
    heads = [head for load in parts for part in load for head in part]
    classes = len(heads[0].settings.bias)
    held = max(4 * count * sum(part[0].views * _length(part) for part in load) for load in parts)
    rows = min(held, most_bytes())  # the others are mapped
    products = max(sum(4 * count**2 for part in load if _is_dual(part, count)) for load in parts)
    answers = 4 * count * classes * len(heads) * (1 if heads[0].trial.folds else 2)
    begun = 4 * count * classes * max(sum(len(part) for part in load) for load in parts)
    training = rows + 2 * products + answers + begun
    look = 3 * SHARD_BYTES if shared.missing else 0
    return own_memory() + max(rows + look, training)


def _length(part: Sequence[Head]) -> int:
    return part[0].settings.weight.shape[1]


def _is_dual(part: Sequence[Head], count: int) -> bool:
    return count < 2 * _length(part)

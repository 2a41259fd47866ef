"""Which learning rates are worth trying for a stage: short trainings on a model that nothing keeps.

On features, where a step costs milliseconds, the rate rises from step to step. Where the backbone
trains, the first steps at a good rate cost more than they gain, and the head knows the training
photos by heart: so each of a few rates has a short training of its own, judged by val photos.
"""

import math
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fieldmark.errors import TrainingError
from fieldmark.ledger import Reporter
from fieldmark.recipe import Recipe
from fieldmark.rehearsed import Record
from fieldmark.throwaway import SHORT, Throwaway
from fieldmark.training.lr_ladder import read_ladder
from fieldmark.training.lr_range import RangeTest, read_range, rising

ON_FEATURES, REACH = 200, 1000.0  # steps of a rising rate, and how far below and above the stage's
ON_PHOTOS, WARMUP = 24, 8  # steps at each rate of a ladder, and of those in which it is reached
JUDGED = 200  # val photos that it is judged by, at most
TIMES = tuple(10.0 ** (half / 2) for half in range(-3, 4))  # a ladder's rates, of the stage's own
EXPLODED = 4.0  # times the loss at the start: nothing more is to be learned


class Losses(NamedTuple):
    """One repeat's, in nats.

    Attributes:
        tried: Of each step; of each rate's training where there are several.
        untouched: Of the same batches before any step was taken; of a ladder, of val photos.
        after: Of those val photos after each rate's training; None where it exploded.
    """

    tried: list[list[float]]
    untouched: list[float]
    after: list[float | None]


def is_ladder(recipe: Recipe, number: int) -> bool:
    """Whether a stage trains the backbone, and its rates are tried one by one."""
    return recipe.model_copy(update={"stages": (recipe.stages[number],)}).trains_backbone


def rates_to_try(recipe: Recipe, number: int) -> NDArray[np.float64]:
    """For a stage, (S,): of each step, or of each training of a ladder."""
    lr = recipe.stages[number].lr
    if is_ladder(recipe, number):
        return lr * np.array(TIMES)
    return rising(lr / REACH, lr * REACH, ON_FEATURES)


def try_rates(copy: Throwaway, number: int, reporter: Reporter) -> Losses:
    """Train a stage for a short while as the rate rises, or at each rate of a ladder."""
    recipe = copy.task.recipe
    rates = rates_to_try(recipe, number) / recipe.stages[number].lr
    if is_ladder(recipe, number):
        return _try_each(copy, number, rates, reporter)
    tried = _train(copy, number, rates, reporter)
    return Losses([tried], list(copy.losses(number, islice(copy.batches(number), len(tried)))), [])


def _try_each(
    copy: Throwaway, number: int, rates: NDArray[np.float64], reporter: Reporter
) -> Losses:
    copy.enter(number)
    untouched = copy.loss_on_val(JUDGED)
    warm = np.minimum(1, np.arange(1, ON_PHOTOS + 1) / WARMUP)
    tried: list[list[float]] = []
    after: list[float | None] = []
    for rate in rates:
        tried.append(_train(copy, number, rate * warm, reporter))
        loss = copy.loss_on_val(JUDGED) if len(tried[-1]) == ON_PHOTOS else math.inf
        after.append(loss if math.isfinite(loss) else None)
    return Losses(tried, [untouched], after)


def _train(
    copy: Throwaway, number: int, factors: NDArray[np.float64], reporter: Reporter
) -> list[float]:
    """The loss of each step at so many times the stage's rate; fewer steps where it explodes."""
    name = copy.task.recipe.stages[number].name
    batches = islice(copy.batches(number), len(factors))
    losses: list[float] = []
    try:
        for loss in copy.steps(number, batches, factor=lambda step: float(factors[step])):
            losses.append(loss)
            reporter.progress(name, len(losses), len(factors), {"train/loss": loss})
            if loss > EXPLODED * max(losses[0], 1.0):
                break
    except TrainingError:
        pass  # a test goes on until it explodes
    return losses


def read_stage(
    recipe: Recipe, number: int, seeds: Sequence[int], repeats: Sequence[Losses]
) -> Record:
    """What was found of a stage's rates, as far as all repeats went."""
    stage, rates = recipe.stages[number], rates_to_try(recipe, number)
    ladder = is_ladder(recipe, number)
    found = _by_ladder(rates, repeats) if ladder else _by_rise(rates, repeats)
    return {
        "seeds": list(seeds),
        "lr": rates[: found.curves.shape[1]].tolist(),
        "loss": found.curves.tolist(),
        "raw": [repeat.tried if ladder else repeat.tried[0] for repeat in repeats],
        "untouched": [repeat.untouched for repeat in repeats],
        "band": list(found.band) if found.band else None,
        "why": found.why,
        "rises": found.rises,
        "reason": found.reason,
        "lowest": found.lowest,
        "stage_lr": stage.lr,
        "batch_size": stage.samples_per_step,
        "weight_decay": stage.weight_decay,
        "steps": ON_PHOTOS if ladder else ON_FEATURES,
        "each": ladder,
        "after": {before.name: SHORT for before in recipe.stages[:number]},
    }


def _by_rise(rates: NDArray[np.float64], repeats: Sequence[Losses]) -> RangeTest:
    losses = [repeat.tried[0] for repeat in repeats]
    return read_range(rates, losses, [repeat.untouched for repeat in repeats])


def _by_ladder(rates: NDArray[np.float64], repeats: Sequence[Losses]) -> RangeTest:
    start = float(np.mean([repeat.untouched for repeat in repeats]))
    worst = EXPLODED * start
    ends = [[worst if x is None else min(x, worst) for x in repeat.after] for repeat in repeats]
    return read_ladder(rates, np.array(ends) - [repeat.untouched for repeat in repeats], start)

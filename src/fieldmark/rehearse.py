"""Rehearsing a recipe: small experiments on a throw-away model before the first real run.

On what scale the network is fed photos, whether it can learn twenty by heart, whether it looks at
them at all (after A. Karpathy, "A Recipe for Training Neural Networks", 2019), and which learning
rates are worth trying.
No run is touched, nothing is trained that is kept, and `test` stays shut.
"""

import json
import math
import time
from itertools import islice, repeat
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldmark import durable, machine
from fieldmark.errors import RecipeError, SettingError, TrainingError
from fieldmark.ledger import Reporter
from fieldmark.metrics import cross_entropies, cross_entropy, top1
from fieldmark.predict import evaluating
from fieldmark.rates_tried import Losses, is_ladder, read_stage, try_rates
from fieldmark.recipe import Recipe
from fieldmark.rehearsed import RECORD, Record, alike
from fieldmark.throwaway import Throwaway
from fieldmark.train import prepare, settled
from fieldmark.training.features import FeatureStore
from fieldmark.training.stage import Batch

BY_HEART, BY_HEART_LOSS, BY_HEART_STEPS = 20, 0.05, 200
LOOK_EVERY = 10  # steps, at the batch that is learned by heart
# Slow heads name no more photos after 60 steps; where a step takes milliseconds, wait.
BLANK_STEPS, BLANK_STEPS_ON_PHOTOS = 240, 60


def rehearse(
    recipe: Recipe,
    folder: Path,
    *,
    store: FeatureStore,
    reporter: Reporter,
    stage: str | None = None,
    seeds: int = 3,
) -> Record:
    """Rehearse a recipe and return what was found, which is kept in `folder` too.

    Args:
        recipe: What is to be trained.
        folder: New or empty; gets `rehearsal.json` and the recipe.
        store: Of frozen feature maps.
        reporter: Is told how far it is.
        stage: Name of the only one to rehearse. Otherwise the first one's batch and blank photos
            are tried, and the rates of all of them.
        seeds: Repeats of a range test, from the recipe's own seed on.

    Raises:
        FieldmarkError: something the user can mend.
    """
    numbers = _numbers(recipe, stage)
    if seeds < 2:
        raise SettingError(f"`seeds` must be 2 or more, for one can't disagree, got {seeds}.")
    if folder.is_dir() and any(folder.iterdir()):
        raise SettingError(f"`{folder}` is not empty. Name another folder.")
    began, started = durable.now(), time.perf_counter()
    recipe = settled(recipe)
    task = prepare(recipe, store, reporter)
    found: Record = {}
    tests: dict[int, list[Losses]] = {number: [] for number in numbers}
    each = [recipe.seed + n for n in range(seeds)]
    for seed in each:
        copy = Throwaway(task, store, seed, reporter)
        if seed == recipe.seed:
            found["fed"] = scale_of_photos(copy)
            found["overfit"] = learn_by_heart(copy, numbers[0])
            found["blank"] = compare_with_blank(copy, numbers[0])
        for number in numbers:
            reporter.say(f"{recipe.stages[number].name}: losses by learning rate, seed {seed}")
            tests[number].append(try_rates(copy, number, reporter))
    found["range"] = {
        recipe.stages[n].name: read_stage(recipe, n, each, repeats) for n, repeats in tests.items()
    }
    record = {
        "recipe": recipe.name,
        "recipe_hash": recipe.hash(),
        "alike": {name: alike(recipe, name) for name in found["range"]},
        "stage": recipe.stages[numbers[0]].name,
        "classes": len(task.photos.class_names),
        **found,
        "machine": machine.describe(),
        "threads": torch.get_num_threads(),
        "time": began,
        "seconds": round(time.perf_counter() - started, 2),
    }
    _keep(folder, recipe, record)
    return record


def scale_of_photos(copy: Throwaway) -> Record:
    """Mean and standard deviation of the numbers that the network is fed of a few photos."""
    shown = copy.photos(BY_HEART)
    return {"images": len(shown), "mean": shown.mean().item(), "spread": shown.std().item()}


def learn_by_heart(copy: Throwaway, number: int) -> Record:
    """Whether a stage learns one fixed batch by heart, at its own rate without regularisation."""
    batch = copy.fixed_batch(number, BY_HEART)
    steps = copy.steps(number, repeat([batch]), factor=lambda _: 1.0, regularised=False)
    taken, right, loss, reason = 0, 0.0, math.nan, None
    try:
        for taken, _ in enumerate(islice(steps, BY_HEART_STEPS), start=1):
            if taken % LOOK_EVERY == 0:
                logits, labels = _logits(copy, number, batch.inputs), batch.labels.cpu().numpy()
                right, loss = top1(logits, labels), cross_entropy(logits, labels)
                if right == 1 and loss < BY_HEART_LOSS:
                    break
    except TrainingError as error:
        right, reason = 0.0, str(error)
    return {
        "images": len(batch.indices),
        "steps": taken,
        "top1": right,
        "loss": loss if math.isfinite(loss) else None,
        "learned": right == 1 and loss < BY_HEART_LOSS,
        "trainable": copy.trainable(number),
        "reason": reason,
    }


def compare_with_blank(copy: Throwaway, number: int) -> Record | None:
    """Top-1 and loss on `val` after a short training on photos, and on zeros in their place.

    None where there are no `val` photos.
    """
    labels = np.array([photo.label for photo in copy.task.part("val")])
    if not len(labels):
        return None
    steps = BLANK_STEPS_ON_PHOTOS if is_ladder(copy.task.recipe, number) else BLANK_STEPS
    found: Record = {"images": len(labels), "steps": steps, "reason": None}
    blank, logits = copy.blank(number), []
    for name, shown in (("real", None), ("blank", blank)):
        try:
            logits.append(_after_short_training(copy, number, shown, steps, len(labels)))
            found[f"{name}_top1"] = top1(logits[-1], labels)
        except TrainingError as error:
            found |= {f"{name}_top1": 0.0, "reason": str(error)}
    return found | (lead_in_loss(logits[0], logits[1], labels) if len(logits) == 2 else {})


def lead_in_loss(
    real: NDArray[np.float32], blank: NDArray[np.float32], labels: NDArray[np.int64]
) -> Record:
    """By how much the loss is lower on real photos, paired by photo; slow learning shows here.

    Args:
        real: Logits (N, K) after training on photos.
        blank: The same on zeros in their place.
        labels: Of the photos, (N,).

    Returns:
        `loss_lead` and its standard error, and the `guess_loss` it is held against: that on blank
        photos, or that of a uniform guess where this is lower; nothing where one is not finite.
    """
    guess = cross_entropies(blank, labels)
    if not guess.mean() < math.log(blank.shape[1]):
        guess = cross_entropies(np.zeros_like(blank), labels)
    lead = guess - cross_entropies(real, labels)
    found = {
        "loss_lead": float(lead.mean()),
        "loss_lead_error": float(lead.std() / math.sqrt(len(lead))),
        "guess_loss": float(guess.mean()),
    }
    return found if all(map(math.isfinite, found.values())) else {}


def _after_short_training(
    copy: Throwaway, number: int, blank: Tensor | None, steps: int, count: int
) -> NDArray[np.float32]:
    """Logits (N, K) of `count` val photos after the stage's first steps.

    `blank` stands in place of every photo where it is given.
    """

    def see(batch: Batch) -> Batch:
        return batch if blank is None else batch._replace(inputs=blank.expand_as(batch.inputs))

    inputs = copy.enter(number)
    batches = ([see(batch) for batch in step] for step in copy.batches(number))
    for _ in copy.steps(number, islice(batches, steps), count=steps):
        pass
    if blank is None:
        return inputs.logits("val")
    return _logits(copy, number, blank).repeat(count, axis=0)


def _numbers(recipe: Recipe, name: str | None) -> list[int]:
    """The stages to rehearse, counted from 0."""
    names = [stage.name for stage in recipe.stages]
    if name is None:
        return list(range(len(names)))
    if name not in names:
        raise RecipeError(f"There is no stage {name!r} here; stages: {', '.join(names)}.")
    return [names.index(name)]


def _keep(folder: Path, recipe: Recipe, record: Record) -> None:
    durable.make_folder(folder)
    durable.replace(folder / "recipe.yaml", recipe.to_yaml().encode())
    durable.replace(folder / RECORD, json.dumps(record, ensure_ascii=False, indent=1).encode())


def _logits(copy: Throwaway, number: int, inputs: Tensor) -> NDArray[np.float32]:
    """Logits (B, K) in eval mode of the model as it is now."""
    with evaluating(copy.model), torch.inference_mode():
        found: NDArray[np.float32] = copy.network(number)(inputs).float().cpu().numpy()
    return found

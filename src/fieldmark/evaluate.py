"""Measuring a finished run again, and training its recipe on all photos but `test`."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fieldmark import checked_yaml
from fieldmark.build import SplitName, read_data
from fieldmark.data.dataset import content_hash, short_hash
from fieldmark.data.sources import check_class_names
from fieldmark.data.split import Split
from fieldmark.duration import Duration
from fieldmark.errors import DataError, SettingError
from fieldmark.ledger import keep_predictions
from fieldmark.predict import Predictor, finished_run, photo_logits
from fieldmark.recipe import Recipe, Stage
from fieldmark.resume import check_contents, check_lists
from fieldmark.schedule import Schedule
from fieldmark.source import file_hashes
from fieldmark.studies.run import Run, RunWriter
from fieldmark.train import SPLIT


def evaluate_run(
    folder: Path, split: SplitName = "val", *, open_test: bool = False
) -> dict[str, float]:
    """Metrics of a finished run on one of its splits, as training computes them.

    The predictions are stored in the run; an opening of `test` is counted before it happens.

    Args:
        folder: the run.
        split: which of its photos; they must be where they were.
        open_test: must be said for `test`.

    Raises:
        SettingError: `test` is asked for without `open_test`.
        RecordError: the folder is no finished run.
        DataError: photos, labels or classes are no longer the run's, or the split is empty.
    """
    if split == "test" and not open_test:
        raise SettingError("The test split is shut. Say --open-test to open it; that is counted.")
    run = finished_run(folder)
    predictor = Predictor(folder)
    lists = predictor.recipe.data.files
    check_lists(run, file_hashes(lists), of=lists)
    photos, _ = read_data(predictor.recipe.data)
    check_class_names(predictor.class_names, photos)
    photos = photos.without(run.manifest.get("skipped", {}))
    written = json.loads((folder / SPLIT).read_text(encoding="utf-8"))
    chosen = [photos.photos[i] for i in getattr(Split.from_json(written, photos), split)]
    if not chosen:
        raise DataError(f"{folder} has no {split} photos.")
    now = {one.key: short_hash(content_hash(one.path)) for one in chosen if one.path.is_file()}
    check_contents(folder, written, now)
    with RunWriter.open(folder) as writer:
        if split == "test":
            writer.count_test_opening()
        logits = photo_logits(predictor.model, predictor.view, chosen, predictor.dtype)
        return keep_predictions(writer, split, chosen, logits)


def refit_recipe(folder: Path) -> Recipe:
    """The run's recipe, to be trained on train and val together.

    Choices are over: without `val` nothing can be compared any more, and what the model is worth
    is what the run it comes from showed. What was decided by looking at `val` is kept as it was
    decided: how long a stage took that `stop_after` ended, and where `plateau` lowered its rate.

    Raises:
        RecordError: the folder is no finished run.
    """
    run = finished_run(folder)
    recipe = checked_yaml.check_text(run.recipe_text, Recipe, name=str(folder))
    data = recipe.data.model_copy(update={"val_fraction": 0.0})
    stages = tuple(_as_it_went(run, stage) for stage in recipe.stages)
    name = f"{recipe.name}-refit"[:60]
    return recipe.model_copy(update={"data": data, "stages": stages, "name": name})


def _as_it_went(run: Run, stage: Stage) -> Stage:
    """The stage with what `val` decided over in the run said outright."""
    looks = [
        (one["epoch"], one["metrics"]["val/loss"])
        for one in run.measured
        if one["stage"] == stage.name and "val/loss" in one["metrics"]
    ]
    if not looks:
        return stage
    (begun, _), *looks = looks  # the first is before any step
    told: dict[str, Any] = {}
    if stage.stop_after and looks:
        told |= {"stop_after": None, "length": _epochs(looks[-1][0] - begun)}
    if stage.schedule.name == "plateau":
        told["schedule"] = _without_plateau(stage.schedule, begun, looks)
    return stage.model_copy(update=told)


def _without_plateau(
    schedule: Schedule, begun: float, looks: Sequence[tuple[float, float]]
) -> Schedule:
    """A schedule that falls where `plateau` did, given (epoch, loss on `val`) of each look."""
    lowest, waited, falls = math.inf, 0, []
    for epoch, loss in looks:  # as `Ledger.judge` does
        lowest, waited = (loss, 0) if loss < lowest else (lowest, waited + 1)
        if waited and waited % (schedule.patience or 1) == 0:
            falls.append(_epochs(epoch - begun))
    found = {"name": "multistep", "milestones": tuple(falls), "gamma": schedule.gamma}
    return Schedule.model_validate(
        {**(found if falls else {"name": "constant"}), "warmup": schedule.warmup}
    )


def _epochs(amount: float) -> Duration:
    return Duration.parse(f"{amount:g} epochs")  # no more digits than are written down

"""Measuring a finished run again, and training its recipe on all photos but `test`."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fieldmark import checked_yaml
from fieldmark.build import SplitName, read_data
from fieldmark.data.dataset import content_hash, listed, short_hash
from fieldmark.data.sources import check_class_names
from fieldmark.data.split import Split
from fieldmark.duration import Duration
from fieldmark.errors import DataError, SettingError, WeightsError
from fieldmark.ledger import keep_predictions
from fieldmark.predict import Predictor, finished_run, photo_logits
from fieldmark.recipe import Data, Recipe, Stage
from fieldmark.resume import check_contents, check_lists
from fieldmark.schedule import Schedule
from fieldmark.source import file_hashes
from fieldmark.studies.run import Run, RunWriter
from fieldmark.train import SPLIT

PLACES = ("data.folder", "data.lists", "data.split_files", "data.corrections")
WEIGHTS = "backbone.weights"
_FILE = "file:"


def evaluate_run(
    folder: Path,
    split: SplitName = "val",
    *,
    where: Sequence[str] = (),
    open_test: bool = False,
) -> dict[str, float]:
    """Metrics of a finished run on one of its splits, as training computes them.

    The predictions are stored in the run; an opening of `test` is counted before it happens.

    Args:
        folder: the run.
        split: which of its photos.
        where: where they are now if not where they were, as in `data.folder=photos`.
        open_test: must be said for `test`.

    Raises:
        SettingError: `test` is asked for without `open_test`, or `where` sets something else.
        RecordError: the folder is no finished run.
        DataError: photos, labels or classes are no longer the run's, or the split is empty.
    """
    if split == "test" and not open_test:
        raise SettingError("The test split is shut. Say --open-test to open it; that is counted.")
    run = finished_run(folder)
    data = _recipe(folder, where).data
    predictor = Predictor(folder)
    hashes = file_hashes(data.files)
    before = predictor.recipe.data.files  # the same lists, where they were
    check_lists(
        run,
        {old: hashes.get(new, "") for old, new in zip(before, data.files, strict=False)},
        of=before,
    )
    photos, _ = read_data(data)
    check_class_names(predictor.class_names, photos)
    photos = photos.without(run.manifest.get("skipped", {}))
    written = json.loads((folder / SPLIT).read_text(encoding="utf-8"))
    chosen = [photos.photos[i] for i in getattr(Split.from_json(written, photos), split)]
    if not chosen:
        raise DataError(f"{folder} has no {split} photos.")
    with RunWriter.open(folder) as writer:  # which another may hold: before photos are read
        now = {one.key: short_hash(content_hash(one.path)) for one in chosen if one.path.is_file()}
        check_contents(folder, written, now)
        if split == "test":
            writer.count_test_opening()
        logits = photo_logits(predictor.model, predictor.view, chosen, predictor.dtype)
        return keep_predictions(writer, split, chosen, logits)


def refit_recipe(folder: Path, where: Sequence[str] = ()) -> Recipe:
    """The run's recipe, to be trained on train and val together.

    Choices are over: without `val` nothing can be compared any more, and what the model is worth
    is what the run it comes from showed. What was decided by looking at `val` is kept as it was
    decided: how long a stage took that `stop_after` ended, and where `plateau` lowered its rate.

    Args:
        folder: the run.
        where: where its photos, their corrections and the file of the weights it began from are
            now, as in `data.folder=photos`.

    Raises:
        RecordError: the folder is no finished run.
        SettingError: `where` sets something else.
        DataError: the photos are not where they were.
        WeightsError: the weights it began from are not where they were, or others are there.
    """
    run = finished_run(folder)
    recipe = _recipe(folder, where, (*PLACES, WEIGHTS))
    _check_weights(run, recipe.backbone.weights)
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


def _recipe(folder: Path, where: Sequence[str], places: Sequence[str] = PLACES) -> Recipe:
    """The run's recipe, its photos (and all else that `places` names) where they are now."""
    keys = [key.split(".") for key in places]
    strangers = [one for one in where if one.partition("=")[0].split(".")[:2] not in keys]
    if strangers:
        what = "photos and weights are" if WEIGHTS in places else "photos are"
        raise SettingError(
            f"A finished run keeps its recipe; only where its {what} can be set "
            f"({', '.join(places)}), got {listed(strangers)}."
        )
    recipe = checked_yaml.check_text(Run(folder).recipe_text, Recipe, where, name=str(folder))
    gone = [f"{key} `{path}`" for key, path in _paths(recipe.data) if not Path(path).exists()]
    if gone:
        raise DataError(
            f"`{folder}` was trained on photos that are no longer where they were: there is no "
            f"{listed(gone)}, looked for from `{Path.cwd()}`. Say where they are now, as in "
            f"`data.folder=PHOTOS`."
        )
    return recipe


def _check_weights(run: Run, now: str) -> None:
    """Refuse to begin from other weights than the run did; their file may lie elsewhere now."""
    recipe = checked_yaml.check_text(run.recipe_text, Recipe, name=str(run.folder))
    then = recipe.backbone.weights
    if not then.startswith(_FILE):
        if now != then:
            raise SettingError(
                f"`{run.folder}` began from `{WEIGHTS}: {then}`, got {now!r}. Leave it out."
            )
        return
    path = now.removeprefix(_FILE)
    if not now.startswith(_FILE) or not Path(path).is_file():
        raise WeightsError(
            f"`{run.folder}` began from the weights in `{then.removeprefix(_FILE)}`, and there is "
            f"no file `{path}`, looked for from `{Path.cwd()}`. Say where they are now, as in "
            f"`{WEIGHTS}=file:PATH`."
        )
    written = run.manifest.get("files", {}).get(then.removeprefix(_FILE))
    if written and file_hashes([path]).get(path) != written:
        raise WeightsError(
            f"`{path}` does not hold the weights that `{run.folder}` began from. Name the file "
            "that does, or train anew."
        )


def _paths(data: Data) -> list[tuple[str, str]]:
    """The keys that say where something is, and what they say."""
    one = {"data.folder": data.folder, "data.corrections": data.corrections}
    many = {"data.lists": data.lists, "data.split_files": data.split_files}
    return [(key, path) for key, path in one.items() if path] + [
        (f"{key}.{part}", path) for key, paths in many.items() for part, path in paths.items()
    ]

"""Measuring a finished run again, and training its recipe on all photos but `test`."""

import json
from pathlib import Path

from fieldmark import checked_yaml
from fieldmark.build import SplitName, read_data
from fieldmark.data.sources import check_class_names
from fieldmark.data.split import Split
from fieldmark.errors import DataError, SettingError
from fieldmark.ledger import keep_predictions
from fieldmark.predict import Predictor, finished_run, photo_logits
from fieldmark.recipe import Recipe
from fieldmark.studies.run import RunWriter
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
        DataError: photos or classes are no longer those of the run, or the split is empty.
    """
    if split == "test" and not open_test:
        raise SettingError("The test split is shut. Say --open-test to open it; that is counted.")
    run = finished_run(folder)
    predictor = Predictor(folder)
    photos, _ = read_data(predictor.recipe.data)
    check_class_names(predictor.class_names, photos)
    photos = photos.without(run.manifest.get("skipped", {}))
    written = json.loads((folder / SPLIT).read_text(encoding="utf-8"))
    chosen = [photos.photos[i] for i in getattr(Split.from_json(written, photos), split)]
    if not chosen:
        raise DataError(f"{folder} has no {split} photos.")
    with RunWriter.open(folder) as writer:
        if split == "test":
            writer.count_test_opening()
        logits = photo_logits(predictor.model, predictor.view, chosen, predictor.dtype)
        return keep_predictions(writer, split, chosen, logits)


def refit_recipe(folder: Path) -> Recipe:
    """The run's recipe, to be trained on train and val together.

    Choices are over: without `val` nothing can be compared any more, and what the model is worth
    is what the run it comes from showed.

    Raises:
        RecordError: the folder is no finished run.
    """
    recipe = checked_yaml.check_text(finished_run(folder).recipe_text, Recipe, name=str(folder))
    data = recipe.data.model_copy(update={"val_fraction": 0.0})
    return recipe.model_copy(update={"data": data, "name": f"{recipe.name}-refit"[:60]})

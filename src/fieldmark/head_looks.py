"""Where a model of a study looked, though its classifier was not kept: it is trained once more.

A study trains hundreds of classifiers, and what is shown of where they looked is shown of one. So
none of them is kept; that one is trained again from the features at hand, which takes seconds, and
must then say of every photo what its run says.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from fieldmark.build import Task, make_model
from fieldmark.checked_yaml import check_text
from fieldmark.data.dataset import Photo
from fieldmark.data.loader import batches
from fieldmark.errors import DataError, RecordError
from fieldmark.frozen_rows import Progress, are_kept, frozen_rows
from fieldmark.head_run import Head
from fieldmark.head_trials import photos_of, start_head, trained_heads
from fieldmark.layers.model import Model
from fieldmark.ledger import Reporter, Silent
from fieldmark.looked import Looks, fold_looks, looks_of, write_looks
from fieldmark.metrics import log_softmax
from fieldmark.predict import EVAL_BATCH
from fieldmark.recipe import Recipe
from fieldmark.studies.judged import Judged, judged
from fieldmark.studies.run import Run, RunWriter
from fieldmark.studies.trial import Trial
from fieldmark.training.features import FeatureStore
from fieldmark.trials import shared_task

SAME = 0.001  # of a probability: a head alone differs by rounding from the same one in a batch
# A minimum looked for from elsewhere, as near in loss: with next to no decay its valley is flat.
SAME_MINIMUM = 0.1


def add_looks(
    run: Run,
    store: FeatureStore,
    reporter: Reporter | None = None,
    *,
    only_from_kept: bool = False,
) -> None:
    """Write down where the model of a study's finished run looked.

    Args:
        run: of a study; others keep it as they end.
        store: of the frozen feature maps.
        reporter: is told how far it is.
        only_from_kept: rather refuse than see all photos anew.

    Raises:
        RecordError: the run is not finished, or the classifier trained again is another.
        DataError: the features are no longer kept, where `only_from_kept`.
        FieldmarkError: photos or a run of a fold are gone.
    """
    found = judged(run)
    if run.status != "finished" or found is None:
        raise RecordError(f"`{run.folder}` is no finished run with predictions of val.")
    kept = [run.folder.with_name(name) for name in run.manifest.get("fold_runs", ())]
    kept = kept or ([run.folder] if run.weights_path.is_file() else [])
    if kept:
        looks = fold_looks(found, kept)
    else:
        looks = _trained_again(run, found, store, reporter or Silent(), only_from_kept)
    if not looks:
        raise DataError(f"None of the photos that `{run.folder}` was judged by is where it was.")
    with RunWriter.open(run.folder) as writer:
        write_looks(run, looks)
        by = "the weights it kept" if kept else "its classifier, trained again"
        writer.update_manifest(looked={"photos": len(looks), "by": by})


def _trained_again(
    run: Run, found: Judged, store: FeatureStore, reporter: Reporter, only_from_kept: bool
) -> Looks:
    recipe = check_text(run.recipe_text, Recipe, name=str(run.folder))
    trial = Trial(recipe, run.folder, run.manifest.get("folds"))
    task = shared_task(trial, store, reporter)
    head = start_head(task, trial)
    if head is None:
        raise RecordError(f"`{run.folder}` was not trained on frozen features alone.")
    kept = [are_kept(task, store, number) for number in range(head.views)]
    if only_from_kept and not all(kept):
        raise DataError(
            f"The features that `{run.folder}` was trained on are no longer kept. Run its study "
            "again to have them computed anew: nothing else will be."
        )

    def progress(done: int, total: int) -> None:
        reporter.progress("features", done, total, {})

    alone = replace(head, keeps_classifiers=True)
    (trained,) = trained_heads(task, [alone], store, progress)
    photos = photos_of(task)
    _check_same(trained, found, photos, run)
    looks: Looks = {}
    maps_of = partial(_kept_maps, task, store, progress)
    for fold, (weight, bias) in enumerate(trained.classifiers):
        model = _with_classifier(task, recipe, weight, bias)
        looks |= looks_of(model, found, _left_out(trained, fold, photos), maps_of)
    return looks


def _check_same(trained: Head, found: Judged, photos: Sequence[Photo], run: Run) -> None:
    """Refuse a classifier that is not the run's."""
    probabilities = np.exp(log_softmax(trained.logits[found.split]))
    at = {photo.key: row for row, photo in zip(probabilities, photos, strict=True)}
    said = dict(zip(found.paths, found.probabilities, strict=True))
    nowhere = np.full(len(found.classes), np.inf)
    apart = max(float(abs(at.get(key, nowhere) - row).max()) for key, row in said.items())
    exact = any(stage.solver == "lbfgs" for stage in trained.recipe.stages)
    if not apart <= (SAME_MINIMUM if exact else SAME):
        raise RecordError(
            f"The classifier of `{run.folder}` was trained again and says something else: "
            f"probabilities differ by up to {apart:.2g}. Were its photos changed, or was it "
            "trained on another machine? Where it looked stays unknown."
        )


def _left_out(trained: Head, fold: int, photos: Sequence[Photo]) -> list[Photo]:
    """The photos that the classifier of a fold was not trained on; without folds all."""
    if trained.folds is None:
        return list(photos)
    return [photos[position] for position in np.flatnonzero(trained.folds == fold).tolist()]


def _with_classifier(task: Task, recipe: Recipe, weight: Tensor, bias: Tensor) -> Model:
    model = make_model(recipe, task.model.backbone, classes=len(bias))
    classifier = model.head[-1]
    assert isinstance(classifier, nn.Linear)
    with torch.no_grad():
        classifier.weight.copy_(weight)
        classifier.bias.copy_(bias)
    return model


def _kept_maps(
    task: Task, store: FeatureStore, progress: Progress, photos: Sequence[Photo]
) -> Iterable[tuple[list[int], Tensor]]:
    """Maps of a few photos, from the store where it has them."""
    (maps,) = frozen_rows(task, store, photos, [nn.Identity()], progress)
    for part in batches(range(len(photos)), EVAL_BATCH):
        yield part, maps[part]

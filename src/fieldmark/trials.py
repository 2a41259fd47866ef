"""Trials of a study: those that share frozen features cost one pass over the photos."""

import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from fieldmark.build import Task
from fieldmark.errors import FieldmarkError
from fieldmark.head_run import Head
from fieldmark.head_trials import run_head_trials, start_head
from fieldmark.ledger import Reporter, Silent, Teller
from fieldmark.metrics import classification_metrics
from fieldmark.recipe import Recipe
from fieldmark.studies.run import Run, RunWriter
from fieldmark.studies.trial import OUT_OF_FOLD, Outcome, PrunedError, Tell, Trial
from fieldmark.train import prepare, settled, train
from fieldmark.training.features import FeatureStore, cache_folder

# Of a fold's manifest, what holds for all folds.
SHARED = ("backbone", "counts", "machine", "precision", "skipped", "threads", "view")


def run_trials(
    trials: Sequence[Trial], *, store: FeatureStore | None = None, tell: Tell | None = None
) -> Iterator[Outcome]:
    """Train every trial into its folder; see `studies.trial`.

    Trials of one linear classifier on the same frozen backbone and photos are trained together,
    all others one after the other. A trial that fails is an outcome and ends no other.

    Args:
        trials: what to do.
        store: of frozen feature maps; by default the user's own.
        tell: is told how far it is.
    """
    store = store or FeatureStore(cache_folder())
    reporter = Teller(tell) if tell else Silent()
    trials = [replace(trial, recipe=settled(trial.recipe)) for trial in trials]
    for group in sharing(trials):
        yield from _run_group(group, store, reporter)


def sharing(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials that can share a pass over the photos and are judged alike, together.

    Without folds, those on other fractions of train have a split of their own, and after the first
    find all features at hand but those of photos it did not use.
    """
    groups = defaultdict(list)
    for trial in trials:
        fraction = None if trial.folds else trial.recipe.data.train_fraction
        groups[trial.recipe.group_key(), trial.folds, fraction].append(trial)
    return list(groups.values())


def _run_group(
    trials: Sequence[Trial], store: FeatureStore, reporter: Reporter
) -> Iterator[Outcome]:
    if trials[0].recipe.trains_backbone:  # nothing is shared, so nothing is prepared for all
        yield from (_run_alone(trial, store, reporter) for trial in trials)
        return
    started = time.perf_counter()
    try:
        task = shared_task(trials[0], store, reporter)
    except FieldmarkError as error:
        yield from (_failed(trial, error, 0) for trial in trials)
        return
    together: list[Head] = []
    alone: list[Trial] = []
    for trial in trials:
        try:
            head = start_head(task, trial)
        except FieldmarkError as error:
            yield _failed(trial, error, 0)
            continue
        if head is None:
            alone.append(trial)
        else:
            together.append(head)
    if together:
        yield from _run_together(task, together, store, reporter, started)
    yield from (_run_alone(trial, store, reporter) for trial in alone)


def shared_task(trial: Trial, store: FeatureStore, reporter: Reporter) -> Task:
    """What trials share that see the photos as this one does, and are judged alike.

    Raises:
        FieldmarkError: the photos or the recipe can't be used.
    """
    return prepare(shared_recipe(trial), store, reporter)


def _run_alone(trial: Trial, store: FeatureStore, reporter: Reporter) -> Outcome:
    started = time.perf_counter()
    try:
        if trial.folds:
            outcome = _run_folds(trial, trial.folds, store, reporter)
        else:
            run = train(
                trial.recipe, trial.folder, store=store, reporter=reporter, watch=trial.watch
            )
            outcome = _outcome(run)
    except PrunedError as end:
        outcome = Outcome(trial.folder, "pruned", end.metrics, reason=str(end))
    except FieldmarkError as error:
        return _failed(trial, error, time.perf_counter() - started)
    return replace(outcome, seconds=time.perf_counter() - started)


def _run_together(
    task: Task, heads: Sequence[Head], store: FeatureStore, reporter: Reporter, started: float
) -> Iterator[Outcome]:
    """Each trial is charged the same share of what all of them took."""

    def progress(done: int, total: int) -> None:
        reporter.progress("features", done, total, {})

    outcomes = list(run_head_trials(task, heads, store, progress))
    seconds = (time.perf_counter() - started) / len(heads)
    yield from (replace(outcome, seconds=seconds) for outcome in outcomes)


def _run_folds(trial: Trial, folds: int, store: FeatureStore, reporter: Reporter) -> Outcome:
    """Train a run for each fold, and join what each says of the photos it was not trained on."""
    runs = [
        train(
            with_fold(trial.recipe, fold, folds),
            trial.folder.with_name(f"{trial.folder.name}-fold-{fold}"),
            store=store,
            reporter=reporter,
        )
        for fold in range(folds)
    ]
    tables = [run.predictions("val") for run in runs]
    names = runs[0].class_names
    paths = [path for table in tables for path in table["path"]]
    labels = np.array([names.index(name) for table in tables for name in table["label"]])
    probabilities = np.concatenate([np.stack(table["probabilities"].to_list()) for table in tables])
    with np.errstate(divide="ignore"):
        found = classification_metrics(np.log(probabilities), labels)
    metrics = {f"{OUT_OF_FOLD}/{name}": value for name, value in found.items()}
    told = {key: runs[0].manifest[key] for key in SHARED if key in runs[0].manifest}
    told |= {"class_names": names, "folds": folds, "fold_runs": [run.folder.name for run in runs]}
    with RunWriter.create(trial.folder, trial.recipe.to_yaml(), told) as writer:
        numbers = [fold for fold, table in enumerate(tables) for _ in range(len(table))]
        writer.predictions(OUT_OF_FOLD, paths, labels, probabilities, numbers)
        last = max(int(run.series("val/loss")[0][-1]) for run in runs)
        writer.record(metrics, step=last, stage=trial.recipe.stages[-1].name)
        writer.finish()
    return Outcome(trial.folder, "finished", metrics)


def shared_recipe(trial: Trial) -> Recipe:
    """What trials that share a pass see of photos, as a recipe.

    Folds are cut from all photos outside test, so that every fraction is judged on the same.
    """
    if not trial.folds:
        return trial.recipe
    data = trial.recipe.data.model_copy(update={"train_fraction": 1.0})
    return trial.recipe.model_copy(update={"data": data})


def with_fold(recipe: Recipe, fold: int, folds: int) -> Recipe:
    """The recipe of a training that leaves out one fold, and is judged by it."""
    data = recipe.data.model_copy(update={"split": "folds", "folds": folds, "fold": fold})
    return recipe.model_copy(update={"data": data})


def _outcome(run: Run) -> Outcome:
    keys = [key for key in run.keys if key.startswith(("minitrain/", "val/"))]
    return Outcome(run.folder, "finished", {key: float(run.series(key)[1][-1]) for key in keys})


def _failed(trial: Trial, error: FieldmarkError, seconds: float) -> Outcome:
    return Outcome(trial.folder, "failed", seconds=seconds, reason=str(error))

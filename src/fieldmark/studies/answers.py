"""Which photos the models of a recipe named rightly, one row a seed; read from run folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fieldmark.errors import RecordError, SettingError, count_of
from fieldmark.recipe import load_recipe
from fieldmark.studies.run import RECIPE, Run
from fieldmark.studies.trial import OUT_OF_FOLD

FOLD = "fold"  # the column of an out-of-fold table that says which fold a photo was left out with


@dataclass(frozen=True, eq=False)
class Answers:
    """What one recipe's models said of the same photos.

    Attributes:
        right: (seeds, photos), whether a model named a photo rightly; or (photos,) of one model.
        seeds: Of the rows; 0, 1, ... by default. Two recipes with equal seeds are paired by them.
        folds: (photos,), with which fold's model a photo was judged; None: one model judged all.
        photos: Their paths, so that two recipes are matched; None: they are in the same order.
        classes: (photos,), their labels.

    Raises:
        SettingError: the parts do not fit each other.
    """

    right: NDArray[Any]
    seeds: tuple[int, ...] = ()
    folds: NDArray[Any] | None = None
    photos: tuple[str, ...] | None = None
    classes: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        right = np.atleast_2d(np.asarray(self.right)).astype(np.float64)
        if right.ndim != 2 or right.shape[1] < 2 or not np.isin(right, (0, 1)).all():
            raise SettingError(
                "`right` must be (seeds, photos) of true or false, with two photos or more, "
                f"got shape {np.shape(self.right)}."
            )
        object.__setattr__(self, "right", right)
        object.__setattr__(self, "seeds", tuple(self.seeds) or tuple(range(len(right))))
        if len(set(self.seeds)) != len(right):
            raise SettingError(
                f"`seeds` must name {count_of(len(right), 'row')}, each once, got {self.seeds}."
            )
        for name in ("folds", "photos", "classes"):
            self._check_length(name)
        if self.folds is not None:
            self._number_folds(self.folds)

    @property
    def fold_count(self) -> int:
        """How many folds; 0 where one model judged all photos."""
        return 0 if self.folds is None else int(self.folds.max()) + 1

    @property
    def top1(self) -> float:
        """Share of photos named rightly, mean over seeds."""
        return float(self.right.mean())

    @property
    def mean_class_top1(self) -> float | None:
        """Top-1 of each class, averaged; None where classes are not known."""
        if self.classes is None:
            return None
        _, label = np.unique(self.classes, return_inverse=True)
        shares = np.bincount(label, self.right.mean(0)) / np.bincount(label)
        return float(shares.mean())

    def _check_length(self, name: str) -> None:
        value, photos = getattr(self, name), self.right.shape[1]
        if value is not None and len(value) != photos:
            raise SettingError(f"`{name}` must be of {photos} photos, got {len(value)}.")

    def _number_folds(self, folds: NDArray[Any]) -> None:
        names, numbers = np.unique(np.asarray(folds), return_inverse=True)
        counts = np.bincount(numbers)
        if len(names) < 2 or counts.min() < 2:
            raise SettingError(
                "`folds` must name two folds or more, each of two photos or more, "
                f"got {dict(zip(names.tolist(), counts.tolist(), strict=True))}."
            )
        object.__setattr__(self, "folds", numbers)


def check_same_photos(a: Answers, b: Answers) -> None:
    """Hold two recipes' answers to be of the same photos, judged alike.

    Raises:
        SettingError: they are not; the message names some of the photos.
    """
    if a.right.shape[1] != b.right.shape[1] or (a.photos and b.photos and a.photos != b.photos):
        raise SettingError(
            f"Only answers about the same photos can be compared: {_difference(a, b)}. "
            "Train both on the same split, with one `split_seed`."
        )
    if (a.folds is None) != (b.folds is None) or (
        a.folds is not None and b.folds is not None and not np.array_equal(a.folds, b.folds)
    ):
        raise SettingError(
            "Both recipes must be judged by the same folds, or both by none. "
            "Train both with the same number of folds and one `split_seed`."
        )


def read_answers(runs: Sequence[Run | Path], split: str = "val") -> Answers:
    """Join the predictions of one recipe's runs, one a seed, matched by photo path.

    Args:
        runs: Finished runs, or their folders.
        split: `val`, `out_of_fold`, or `test` where it was opened.

    Raises:
        SettingError: there is no run, or the runs are of several recipes or twice of one seed.
        RecordError: a run is unfinished, lacks the predictions, or is of other photos.
    """
    opened = [run if isinstance(run, Run) else Run(run) for run in runs]
    if not opened:
        raise SettingError("There is no run to read. Name at least one run of each recipe.")
    seeds = _seeds(opened)
    tables = [_table(run, split) for run in opened]
    for run, table in zip(opened[1:], tables[1:], strict=True):
        _check_table(opened[0], tables[0], run, table)
    first = tables[0]
    return Answers(
        np.stack([(table["label"] == table["predicted"]).to_numpy() for table in tables]),
        seeds,
        first[FOLD].to_numpy() if split == OUT_OF_FOLD else None,
        tuple(first["path"]),
        first["label"].to_numpy(),
    )


def _seeds(runs: Sequence[Run]) -> tuple[int, ...]:
    recipes = [load_recipe(run.folder / RECIPE) for run in runs]
    bare = [recipe.model_copy(update={"seed": 0}).hash() for recipe in recipes]
    for run, found in zip(runs, bare, strict=True):
        if found != bare[0]:
            raise SettingError(
                f"`{runs[0].folder}` and `{run.folder}` differ in more than their seed. "
                "Give runs of one recipe on each side."
            )
    seeds = tuple(recipe.seed for recipe in recipes)
    if len(set(seeds)) < len(seeds):
        raise SettingError(f"Every run of a recipe needs a seed of its own, got {seeds}.")
    return seeds


def _table(run: Run, split: str) -> pl.DataFrame:
    if run.status != "finished":
        raise RecordError(f"`{run.folder}` is {run.status}. Compare finished runs.")
    table = run.predictions(split).sort("path")
    if table["path"].is_duplicated().any():
        raise RecordError(f"`{run.folder}` predicts a photo of `{split}` twice. Run it again.")
    if split == OUT_OF_FOLD and FOLD not in table.columns:
        raise RecordError(
            f"The `{split}` predictions of `{run.folder}` do not say which fold each photo was "
            "left out with. Run it again with this Fieldmark."
        )
    return table


def _check_table(first: Run, wanted: pl.DataFrame, run: Run, table: pl.DataFrame) -> None:
    columns = [name for name in ("path", "label", FOLD) if name in wanted.columns]
    if not table.select(columns).equals(wanted.select(columns)):
        raise RecordError(
            f"`{first.folder}` and `{run.folder}` were judged on other photos, labels or folds, "
            "so their seeds can't be put together. Train both on one split."
        )


def _difference(a: Answers, b: Answers) -> str:
    if not (a.photos and b.photos):
        return f"A has {a.right.shape[1]} photos, B has {b.right.shape[1]}"
    alone = sorted(set(a.photos) ^ set(b.photos))
    return (
        f"{count_of(len(alone), 'photo is', 'photos are')} on one side only, such as {alone[0]}"
        if alone
        else "they come in another order"
    )

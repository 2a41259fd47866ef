"""The bank: every run of it made by Fieldmark's own training, and labelled before a rule sees it.

Each setting first gets a grid of rate and decay. Its best cell says what this setting can do.
Trainings without a planted fault are healthy where their val top-1 is within two standard errors of
it; those that are not are neither healthy nor faulty, and left out. Whether a planted fault took,
that is cost val more than that, is noted too; it counts whether it took or not.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np

from curves.faults import BATCH_ALONE, FAULTS, Best, Fault, Planted
from curves.settings import DECAYS, GENTLE_DECAYS, GENTLE_RATES, RATES, Setting, fewer
from fieldmark import build, durable
from fieldmark.errors import FieldmarkError
from fieldmark.layers.backbone import Backbone, make_backbone
from fieldmark.ledger import Silent
from fieldmark.recipe import Recipe
from fieldmark.studies.design import Design
from fieldmark.studies.executor import work
from fieldmark.studies.run import MANIFEST, Run
from fieldmark.studies.study import Study
from fieldmark.studies.trial import Outcome, Trial
from fieldmark.train import Training, train
from fieldmark.training.features import FeatureStore
from fieldmark.trials import run_trials

SETTINGS = 20  # of each split: every fault is planted in half of them
FROM_GRID, BY_ITSELF = 4, 2  # healthy runs of a setting, at most
EVERY_GENTLE = 6  # settings that have a grid of two stages as well, one in so many
LABELS = "labels.json"

Kind = Literal["healthy", "neither", "fault"]


@dataclass(frozen=True)
class Labelled:
    """A run or study, and what is known of it.

    Attributes:
        folder: below the bank.
        fault: what was planted; None: nothing.
        kind: `healthy` or `neither` where nothing was.
        top1: on val at the end; None where the run failed.
        best: that of the setting's best cell.
        took: whether it is more than two standard errors below; None of a study, and of a fault in
            a second stage, where no grid is like it.
        is_study: whether the folder is a study.
    """

    folder: str
    fault: str | None
    kind: Kind
    top1: float | None
    best: float
    took: bool | None
    is_study: bool = False


def label(folder: str, top1: float | None, best: Best, fault: str | None = None) -> Labelled:
    """What to call a run; a failed one is as bad as can be."""
    took = top1 is None or top1 < best.floor
    kind: Kind = "fault" if fault else "neither" if took else "healthy"
    return Labelled(folder, fault, kind, top1, best.top1, took)


def best_of(cells: dict[tuple[float, float], float], photos: int) -> Best:
    """From (rate, decay) -> val top-1 of a grid's cells; the least decay among equals."""
    top1 = max(cells.values())
    error = (top1 * (1 - top1) / photos) ** 0.5
    good = {lr for (lr, _), value in cells.items() if value >= top1 - error}
    decay = min(decay for (_, decay), value in cells.items() if value == top1)
    return Best((min(good) * max(good)) ** 0.5, decay, top1, photos)


class Builder:
    """Builds a setting's part of the bank; what is there already is kept."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.store = FeatureStore(setting.bank / "features")
        entries = setting.entries()
        self.photos, self.small_photos = (
            sum(entry.split == "val" for entry in seen) for seen in (entries, fewer(entries))
        )

    def build(self, faults: Sequence[Fault] = FAULTS) -> list[Labelled]:
        """Everything of the setting, labelled."""
        path = self.setting.folder / LABELS
        if path.is_file():
            return [Labelled(**found) for found in json.loads(path.read_text())]
        grid, best = self.grid()
        found = self.sound(grid, best)
        for fault in faults:
            if (self.setting.number + FAULTS.index(fault)) % 2 == 0:
                found.append(self.faulty(fault, best))
        found.append(self.study(best, alone=self.setting.number % 2 == 0))
        self.drop_weights()
        durable.replace(path, json.dumps([asdict(one) for one in found], indent=1).encode())
        return found

    def grid(self) -> tuple[dict[tuple[float, float], str], Best]:
        """Rate x decay of the head: the cells' folders, and the best."""
        cells = list(product(RATES, DECAYS))
        head = self.setting.head()
        recipes = {
            f"grid/{lr:g}-{decay:g}": self.setting.recipe({**head, "lr": lr, "weight_decay": decay})
            for lr, decay in cells
        }
        tops = self.together(recipes)
        found = dict(zip(cells, tops, strict=True))
        scores = {cell: tops[name] or 0.0 for cell, name in found.items()}
        return found, best_of(scores, self.photos)

    def sound(self, grid: dict[tuple[float, float], str], best: Best) -> list[Labelled]:
        """Trainings without a fault, of one stage and in some settings of two."""
        found = [*self.healthy(grid, best)]
        return found if self.setting.number % EVERY_GENTLE else found + self.gentle(best)

    def drop_weights(self) -> None:
        """No check looks at them."""
        for weights in self.setting.folder.rglob("*.safetensors"):
            weights.unlink()

    def healthy(self, grid: dict[tuple[float, float], str], best: Best) -> Iterator[Labelled]:
        """Cells of the grid by lot, and trainings with another seed at such cells."""
        rng = self.setting.rng("healthy")
        tops = {cell: top1(self.setting.folder / name) for cell, name in grid.items()}
        good = [cell for cell in grid if (tops[cell] or 0.0) >= best.floor]
        for place in rng.permutation(len(good))[:FROM_GRID]:
            name = grid[good[place]]
            yield self.called(name, tops[good[place]], best)
        for place in rng.permutation(len(good))[:BY_ITSELF]:
            lr, decay = good[place]
            stage = {**self.setting.head(), "lr": lr, "weight_decay": decay}
            name = f"alone/{lr:g}-{decay:g}"
            recipe = self.setting.recipe(stage, seed=1000 + int(place))
            yield self.called(name, self.alone(name, Planted(recipe)), best)

    def gentle(self, head: Best) -> list[Labelled]:
        """The grid of a second stage that trains all layers; its good cells are healthy."""
        first = {
            **self.setting.head(),
            "lr": head.lr,
            "weight_decay": head.weight_decay,
            "length": "15 epochs",
        }
        cells = {}
        for lr, decay in product(GENTLE_RATES, GENTLE_DECAYS):
            recipe = self.setting.recipe(first, self.setting.gentle(lr, decay), small=True)
            name = f"gentle/{lr:g}-{decay:g}"
            cells[lr, decay] = name, self.alone(name, Planted(recipe))
        best = best_of({cell: top or 0.0 for cell, (_, top) in cells.items()}, self.small_photos)
        return [self.called(name, top, best) for name, top in cells.values()]

    def faulty(self, fault: Fault, best: Best) -> Labelled:
        """One planted fault."""
        name = f"faults/{fault.name.replace(' ', '-').replace('/', 'over')}"
        planted = fault.plant(self.setting, best)
        if planted.alone:
            top = self.alone(name, planted)
        else:
            top = self.together({name: planted.recipe})[name]
        found = self.called(name, top, best, fault.name)
        return found if len(planted.recipe.stages) == 1 else replace(found, took=None)

    def study(self, best: Best, *, alone: bool) -> Labelled:
        """Three batch sizes at one rate, which is the fault, or each at a rate of its own."""
        arms = {
            str(batch): {
                "stages.head.batch_size": batch,
                "stages.head.lr": best.lr * (1 if alone else batch / 32),
            }
            for batch in (8, 32, 64)
        }
        axis = {"name": "batch", "arms": arms}
        text = {"name": "batch", "question": "Which?", "base": "base", "axes": [axis]}
        recipe = self.setting.recipe({**self.setting.head(), "lr": best.lr})
        name = f"studies/{'alone' if alone else 'scaled'}"
        design = Design.read(
            json.dumps(text | {"objective": {"folds": "none"}}), lambda _: recipe.to_yaml()
        )
        study = Study.create(self.setting.folder / name, design)

        def trials(asked: Sequence[Trial]) -> Iterator[Outcome]:
            return run_trials(asked, store=self.store)

        with sooner():
            for _ in work(study, trials):
                pass
        fault = BATCH_ALONE if alone else None
        folder = f"{self.setting.name}/{name}"
        kind: Kind = "fault" if alone else "healthy"
        return Labelled(folder, fault, kind, None, best.top1, None, is_study=True)

    def called(
        self, name: str, top: float | None, best: Best, fault: str | None = None
    ) -> Labelled:
        return label(f"{self.setting.name}/{name}", top, best, fault)

    def alone(self, name: str, planted: Planted) -> float | None:
        """Val top-1 of a run of its own."""
        folder = self.setting.folder / name
        if not is_there(folder):
            try:
                with planted.patch(), sooner():
                    train(planted.recipe, folder, store=self.store, reporter=Silent())
            except FieldmarkError:
                if not is_there(folder):  # it failed before it began, which is no run
                    raise
        return top1(folder)

    def together(self, recipes: dict[str, Recipe]) -> dict[str, float | None]:
        """Val top-1 of runs that share what they can."""
        root = self.setting.folder
        asked = [
            Trial(recipe, root / name)
            for name, recipe in recipes.items()
            if not is_there(root / name)
        ]
        with sooner():
            for _ in run_trials(asked, store=self.store):
                pass
        return {name: top1(root / name) for name in recipes}


@contextmanager
def sooner() -> Iterator[None]:
    """A run this small spends half of its time on two things that change none of its numbers.

    The forecast of its memory is left out, and a backbone that was built is copied.
    """

    def copied(*args: Any, **keys: Any) -> Backbone:
        return deepcopy(_made(*args, **keys))

    told = mock.patch.object(Training, "foresee", return_value=None)
    with told, mock.patch.object(build, "make_backbone", copied):
        yield


_made = cache(make_backbone)


def is_there(folder: Path) -> bool:
    """Whether a run has ended; what an interruption left is removed."""
    if (folder / MANIFEST).is_file() and Run(folder).status != "running":
        return True
    shutil.rmtree(folder, ignore_errors=True)
    return False


def top1(folder: Path) -> float | None:
    """The last val top-1 of a run that did not fail."""
    run = Run(folder)
    values = run.series("val/top1")[1]
    failed = run.status == "failed" or not len(values)
    return None if failed or np.isnan(values[-1]) else float(values[-1])


def build_bank(settings: Iterable[Setting]) -> Iterator[tuple[Setting, list[Labelled]]]:
    """Build what is missing, setting after setting."""
    for setting in settings:
        yield setting, Builder(setting).build()

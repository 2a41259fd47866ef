"""Which runs of a study are ended early: those that fall behind earlier ones at the same point.

Optuna judges and keeps nothing: the curves it compares are read from the runs' folders. So whoever
has the folders can make each decision again, and a study that was killed goes on with the same.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fieldmark.errors import RecordError
from fieldmark.recipe import Recipe
from fieldmark.studies.run import Run
from fieldmark.studies.space import Pruner

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Curve:
    """The objective at each evaluation of a run's last stage, its start aside."""

    values: tuple[float, ...]
    finished: bool


@dataclass
class Judge:
    """Watches one training and ends it where it has fallen behind.

    Attributes:
        pruner: How it is judged.
        metric: The objective, such as `val/top1`.
        lower_is_better: Whether less of it is better.
        earlier: Of the runs that had a result when this one began, in the study's order.
    """

    pruner: Pruner
    metric: str
    lower_is_better: bool
    earlier: Sequence[Curve]
    _own: list[float] = field(default_factory=list)

    def __call__(self, evaluations: int, metrics: Mapping[str, float]) -> str | None:
        """Why the run is to end after this evaluation of its last stage, if it is.

        Args:
            evaluations: How many the stage has.
            metrics: What was just measured.
        """
        self._own.append(metrics[self.metric])
        if not falls_behind(
            self.pruner,
            self.earlier,
            self._own,
            evaluations,
            lower_is_better=self.lower_is_better,
        ):
            return None
        return (
            f"{self.pruner.name}: {self.metric} was {self._own[-1]:.4g} after {len(self._own)} of "
            f"{evaluations} evaluations of the last stage, beside {len(self.earlier)} earlier runs."
        )


def falls_behind(
    pruner: Pruner,
    earlier: Sequence[Curve],
    own: Sequence[float],
    evaluations: int,
    *,
    lower_is_better: bool,
) -> bool:
    """Whether a run is to end at the last of its `own` evaluations; decided by these alone."""
    import optuna  # noqa: PLC0415 - slow to load, and seldom needed

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="study",  # Hyperband draws a run's bracket from it and the run's number
        direction="minimize" if lower_is_better else "maximize",
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=_optunas(pruner, evaluations),
    )
    for curve in earlier:
        trial = study.ask()
        _ask_at_each(trial, curve.values)
        if curve.finished:
            study.tell(trial, curve.values[-1])
        else:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return _ask_at_each(study.ask(), own)


def _ask_at_each(trial: "optuna.Trial", values: Sequence[float]) -> bool:
    """The answer after the last value; being asked is how halving notes who reached which rung."""
    answer = False
    for number, value in enumerate(values, start=1):
        trial.report(value, number)
        answer = trial.should_prune()
    return answer


def _optunas(pruner: Pruner, evaluations: int) -> "optuna.pruners.BasePruner":
    from optuna import pruners  # noqa: PLC0415

    match pruner.name:
        case "median":
            return pruners.MedianPruner(n_startup_trials=pruner.startup)
        case "percentile":
            return pruners.PercentilePruner(pruner.best, n_startup_trials=pruner.startup)
        case "successive_halving":
            return pruners.SuccessiveHalvingPruner(1, reduction_factor=pruner.reduction)
        case _:
            return pruners.HyperbandPruner(1, max(1, evaluations), pruner.reduction)


def curves_of(runs: Iterable[Path], metric: str) -> list[Curve]:
    """Those of runs that can be read, did not fail, and were measured in their last stage."""
    found = []
    for folder in runs:
        try:
            run = Run(folder)
            rows = run.metrics()
        except RecordError:
            continue  # it was moved or removed
        last = rows.filter(rows["stage_index"] == rows["stage_index"].max())
        values = last.filter(last["key"] == metric)["value"].to_list()[1:]  # the first is its start
        if values and run.status in {"finished", "pruned"} and all(map(math.isfinite, values)):
            found.append(Curve(tuple(values), run.status == "finished"))
    return found


def unfair(recipes: Iterable[Recipe], folds: int | None) -> str | None:
    """Why runs of these recipes can't be ended early in fairness, if so, and what to do."""
    known = list(recipes)
    if folds:
        return (
            f"a pruner judges by `val` while a run goes on; this study judges by {folds} folds. "
            "Set `objective: {folds: none}`, or leave `pruner` out."
        )
    if not all(recipe.trains_backbone for recipe in known):
        return (
            "cells that train only a head on frozen features are trained together as one product, "
            "so ending some of them early saves nothing. Leave `pruner` out."
        )
    points = {
        (len(recipe.stages), str(recipe.stages[-1].length), str(recipe.stages[-1].eval_every))
        for recipe in known
    }
    if len(points) > 1:
        return (
            "a pruner compares runs at the same evaluation, but cells differ in their stages or in "
            "the last one's `length` or `eval_every`. Make these equal, or leave `pruner` out."
        )
    return None

"""A study's results as tables: cells, marginal means, importance, and how well one had guessed.

Spreads and intervals here speak of seeds and of the other settings; whether a difference would
show on other photos too is for `studies.compare` and `studies.effects`.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from fieldmark.errors import SettingError
from fieldmark.studies.design import Cell
from fieldmark.studies.results import Result
from fieldmark.studies.sampler import Point, optuna_study
from fieldmark.studies.space import Axis
from fieldmark.studies.study import State, Study

BINS = 4  # of equal counts, that the settings of a space are seen in


class Summary(NamedTuple):
    """What came of a cell's seeds.

    Attributes:
        mean: Of the objective over the seeds that finished; None where none did.
        spread: Their standard deviation, n - 1; None below two.
        seeds: How many finished.
        failed: How many did not, those that were ended early by a pruner aside.
        status: Of the one furthest from its end.
        seconds: Of all of them.
        reason: Why some failed or were ended early.
    """

    mean: float | None
    spread: float | None
    seeds: int
    failed: int
    status: State
    seconds: float
    reason: str | None


@dataclass(frozen=True)
class Guess:
    """What was expected of an axis, and what came: all else equal, `to` minus `against`.

    Attributes:
        axis: Which.
        against, to: Its two settings.
        direction, size: As expected.
        seen: The mean difference of the metric; None: nothing to compare yet.
        low, high: Its 95 % interval by Student's t over the pairs; None for a single pair.
        pairs: Runs that differ in nothing else.
        right: Whether the direction was right; None where the interval allows either.
        results_before: Results that were there when it was written down; 0 in an honest guess.
    """

    axis: str
    against: Any
    to: Any
    direction: str
    size: float | None
    seen: float | None
    low: float | None
    high: float | None
    pairs: int
    right: bool | None
    results_before: int


def cell_table(study: Study) -> pl.DataFrame:
    """A row for each point: cell, its axes, the objective's mean and spread, seeds, status.

    Points of one recipe are rows with the same `cell`. `mean` and `spread` (standard deviation,
    n - 1) are over the `seeds` runs that finished; `failed` are those that did not, for `reason`.
    """
    states = study.states()
    rows = [
        (point, cell.hash, summarize(study, cell, states))
        for cell in study.cells
        for point in cell.points
    ]
    axes = [
        _column(axis.name, [point[axis.name] for point, _, _ in rows])
        for axis in study.design.file.axes
    ]
    schema = {
        "mean": pl.Float64,
        "spread": pl.Float64,
        "seeds": pl.Int64,
        "failed": pl.Int64,
        "status": pl.String,
        "seconds": pl.Float64,
        "reason": pl.String,
    }
    summaries = pl.DataFrame([row[2] for row in rows], schema=schema, orient="row")
    cells = pl.Series("cell", [row[1] for row in rows], dtype=pl.String)
    return pl.DataFrame([cells, *axes]).hstack(summaries)


def summarize(study: Study, cell: Cell, states: Mapping[tuple[str, int], State]) -> Summary:
    """What came of a cell; `states` are the study's."""
    slots = study.slots_of(cell)
    found = [result for slot in slots if (result := study.records.of(slot))]
    values = [_value(study, result) for result in found if result.status == "finished"]
    reasons = list(dict.fromkeys(r.reason for r in found if r.status != "finished" and r.reason))
    mean = math.fsum(values) / len(values) if values else None
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    of_cell = {states[slot.key] for slot in slots}
    order: tuple[State, ...] = ("running", "waiting", "finished", "pruned", "failed")
    status = next(state for state in order if state in of_cell)
    seconds = math.fsum(result.seconds for result in found)
    failed = sum(result.status == "failed" for result in found)
    reason = "; ".join(reasons) or None
    return Summary(mean, spread, len(values), failed, status, seconds, reason)


def marginals(study: Study, table: pl.DataFrame, axis: str) -> pl.DataFrame:
    """For each setting of an axis: the mean over the other axes, the best, and how many failed.

    A setting's `best` is what it can do where the other axes are tuned for it, which is the fair
    comparison where they are nuisances. A space's settings are put into bins of equal counts.

    Raises:
        SettingError: there is no such axis.
    """
    grouped = _grouped(study, table, axis)
    lower = study.design.file.objective.lower_is_better
    return grouped.group_by(axis, maintain_order=True).agg(
        mean=pl.col("mean").mean(),
        best=pl.col("mean").min() if lower else pl.col("mean").max(),
        cells=pl.col("mean").count(),
        failed=pl.col("failed").sum(),
    )


def importance(study: Study, table: pl.DataFrame) -> dict[str, float]:
    """What share of the objective's variation each axis makes, greatest first.

    With two spaces or more, PED-ANOVA over the spaces, which sum to 1: what sets the good tenth
    apart (Watanabe et al., arXiv 2304.10255; by Optuna). Else for each axis eta squared, the
    variance of its marginal means over the whole variance; what is left is interactions and seeds.
    """
    known = table.filter(pl.col("mean").is_not_null())
    spaces = study.design.spaces
    if len(known) < 2 or known["mean"].var() == 0:
        return {}
    if len(spaces) >= 2:
        shares = _ped_anova(study)
    else:
        varied = [axis.name for axis in study.design.file.axes if axis.role != "fixed"]
        shares = {name: _eta_squared(study, known, name) for name in varied}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def score_guess(study: Study) -> Guess | None:
    """What the study file expects, held against what came; None where it expects nothing."""
    expect = study.design.file.expect
    if expect is None:
        return None
    labels = _axis(study, expect.axis).labels()
    to = labels[-1] if expect.to is None else expect.to
    against = labels[0] if expect.against is None else expect.against
    differences = _differences(study, expect.axis, against, to)
    seen = float(np.mean(differences)) if differences else None
    low, high = _interval(differences)
    return Guess(
        axis=expect.axis,
        against=against,
        to=to,
        direction=expect.direction,
        size=expect.size,
        seen=seen,
        low=low,
        high=high,
        pairs=len(differences),
        right=_is_right(expect.direction, expect.size, low, high),
        results_before=study.results_before_expecting,
    )


def _value(study: Study, result: Result) -> float:
    return result.metrics[study.design.metric]


def _column(name: str, settings: Sequence[Any]) -> pl.Series:
    """Numbers where all are numbers, else words."""
    if all(type(setting) in {int, float} for setting in settings):
        whole = all(type(setting) is int for setting in settings)
        return pl.Series(name, settings, dtype=pl.Int64 if whole else pl.Float64)
    words = [s if isinstance(s, str) else json.dumps(s, ensure_ascii=False) for s in settings]
    return pl.Series(name, words, dtype=pl.String)


def _axis(study: Study, name: str) -> Axis:
    axes = {axis.name: axis for axis in study.design.file.axes}
    if name not in axes:
        raise SettingError(f"There is no axis {name!r} in this study; axes: {', '.join(axes)}.")
    return axes[name]


def _grouped(study: Study, table: pl.DataFrame, axis: str) -> pl.DataFrame:
    """The table with an interval's settings replaced by bins of equal counts."""
    space = _axis(study, axis).space
    if space is not None and space.choices is None:
        table = table.sort(axis)
        values, count = table[axis].to_list(), len(table)
        bins = [values[-(-n * count // BINS) : -(-(n + 1) * count // BINS)] for n in range(BINS)]
        words = [f"{part[0]:g} to {part[-1]:g}" for part in bins for _ in part]
        table = table.with_columns(pl.Series(axis, words, dtype=pl.String))
    return table


def _eta_squared(study: Study, table: pl.DataFrame, axis: str) -> float:
    grouped = _grouped(study, table, axis)
    means = grouped["mean"].to_numpy()
    fitted = grouped.select(pl.col("mean").mean().over(axis)).to_series().to_numpy()
    return float(np.var(fitted) / np.var(means))


def _ped_anova(study: Study) -> dict[str, float]:
    from optuna import importance as optuna_importance  # noqa: PLC0415 - slow to load

    seen: list[tuple[Point, float | None]] = []
    for cell in study.cells:
        value = study.objective(cell)
        seen += [(point, value) for point in cell.points if value is not None]
    lower = study.design.file.objective.lower_is_better
    return dict(
        optuna_importance.get_param_importances(
            optuna_study(study.design.spaces, seen, lower_is_better=lower),
            evaluator=optuna_importance.PedAnovaImportanceEvaluator(),
        )
    )


def _differences(study: Study, axis: str, against: Any, to: Any) -> list[float]:
    """`to` minus `against`, for each pair of finished runs that differ in nothing else."""
    values: dict[tuple[str, int], dict[str, float]] = {}
    for cell in study.cells:
        for slot in study.slots_of(cell):
            result = study.records.of(slot)
            if result is None or result.status != "finished":
                continue
            for point in cell.points:
                others = json.dumps({k: v for k, v in point.items() if k != axis})
                setting = json.dumps(point[axis])
                values.setdefault((others, slot.seed), {})[setting] = _value(study, result)
    first, last = json.dumps(against), json.dumps(to)
    return [
        found[last] - found[first] for found in values.values() if {first, last} <= found.keys()
    ]


def _interval(differences: Sequence[float]) -> tuple[float | None, float | None]:
    if len(differences) < 2:
        return None, None
    from scipy.stats import t  # noqa: PLC0415 - slow to load

    mean, error = np.mean(differences), np.std(differences, ddof=1) / math.sqrt(len(differences))
    half = float(t.ppf(0.975, len(differences) - 1) * error)
    return float(mean) - half, float(mean) + half


def _is_right(
    direction: str, size: float | None, low: float | None, high: float | None
) -> bool | None:
    """Whether the interval lies where it was expected, elsewhere (False), or over the border."""
    if low is None or high is None:
        return None
    if direction == "none":
        most = size or 0.0
        if size and -most < low and high < most:
            return True
        return False if low > most or high < -most else None
    if direction == "down":
        low, high = -high, -low
    return True if low > 0 else False if high < 0 else None

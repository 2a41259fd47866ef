"""Training curves, the numbers: running train, minitrain and val of a run, stage by stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from fieldmark.charts.look import COLOURS
from fieldmark.diagnosis.curve import running_mean
from fieldmark.errors import SettingError
from fieldmark.studies.run import Run
from fieldmark.studies.trial import OUT_OF_FOLD

Metric = Literal["loss", "top1"]

METRICS: tuple[Metric, ...] = ("loss", "top1")
SMOOTHING = 15  # a running mean over a fifteenth of its stage's records
HUGE = 10_000  # a loss from which on powers of ten are read more easily
LABEL_GAP = 0.075  # of the panel's height, so that labels do not overlap


@dataclass(frozen=True)
class Mark:
    """Where in the curves something was found.

    Attributes:
        number: What it is called beside the curve.
        key: The metric it is seen in, as `val/top1`.
        step: Of the whole training.
        told: What was found.
    """

    number: int
    key: str
    step: int
    told: str


@dataclass(frozen=True)
class CurvesData:
    """One metric of one run, ready to draw.

    Attributes:
        metric: ``loss`` or ``top1``.
        curves: stage_index, step, split, value, smooth; in the order recorded, finite only.
        stages: stage_index, name, first_step, last_step, epochs (null where not recorded).
        rates: stage_index, step, lr.
        best: stage_index, step and value of the best ``val`` point, the first of equals.
        labels: split, value, y: each curve's end, and where its label stands.
        domain: The ends of the value axis.
        marks: stage_index, step, value, number, told: what was found, at its place.
    """

    metric: Metric
    curves: pl.DataFrame
    stages: pl.DataFrame
    rates: pl.DataFrame
    best: tuple[int, int, float] | None
    labels: pl.DataFrame
    domain: tuple[float, float]
    marks: pl.DataFrame

    def shown(self, value: float) -> str:
        """The value as a person reads it."""
        return _shown(self.metric, value)


def curves_data(run: Run, metric: Metric = "loss", marks: Sequence[Mark] = ()) -> CurvesData:
    """Gather a metric's curves: running train (smoothed too), minitrain and val.

    What was judged out of fold stands for `val` where there is no other.

    Raises:
        SettingError: the metric is neither `loss` nor `top1`, or the run has not recorded it.
    """
    if metric not in METRICS:
        raise SettingError(f"`metric` must be one of {', '.join(METRICS)}, got {metric!r}.")
    records = run.metrics().filter(pl.col("value").is_finite())
    wanted = _wanted(run, metric)
    found = records.filter(pl.col("key").is_in(list(wanted))).with_columns(
        split=pl.col("key").replace(wanted), smooth=pl.col("value")
    )
    if found.is_empty():
        keys = ", ".join(run.keys) or "nothing"
        raise SettingError(f"`{run.folder}` has recorded no {metric} yet, only: {keys}.")
    curves = pl.concat(
        part.with_columns(smooth=pl.Series(_smooth(part["value"].to_numpy())))
        if part["split"][0] == "train"
        else part
        for part in found.partition_by("stage_index", "split", maintain_order=True)
    ).select("stage_index", "step", "split", "value", "smooth")
    domain = _domain(metric, curves)
    return CurvesData(
        metric,
        curves,
        _stages(records),
        records.filter(pl.col("key") == "train/lr").select("stage_index", "step", lr="value"),
        _best(metric, curves.filter(pl.col("split") == "val")),
        _labels(curves, domain),
        domain,
        _marks(curves, marks, wanted),
    )


def recorded(run: Run) -> list[Metric]:
    """The metrics that curves can be drawn of."""
    return [metric for metric in METRICS if set(_wanted(run, metric)) & set(run.keys)]


def _wanted(run: Run, metric: Metric) -> dict[str, str]:
    """Key of the records -> the curve it belongs to."""
    wanted = {f"{split}/{metric}": split for split in COLOURS}
    if f"val/{metric}" not in run.keys:
        wanted[f"{OUT_OF_FOLD}/{metric}"] = "val"
    return wanted


def _marks(curves: pl.DataFrame, marks: Sequence[Mark], wanted: dict[str, str]) -> pl.DataFrame:
    """Each mark on the point of its curve that is nearest."""
    rows = []
    for mark in marks:
        mine = curves.filter(pl.col("split") == wanted.get(mark.key, ""))
        if not mine.is_empty():
            nearest = mine.row((mine["step"] - mark.step).abs().arg_min() or 0, named=True)
            where = (nearest["stage_index"], nearest["step"], nearest["smooth"])
            rows.append((*where, str(mark.number), mark.told))
    schema = {
        "stage_index": pl.Int64,
        "step": pl.Int64,
        "value": pl.Float64,
        "number": pl.String,
        "told": pl.String,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def _smooth(values: np.ndarray) -> np.ndarray:
    """Running mean over a `SMOOTHING`-th of the records, (N,) -> (N,)."""
    return running_mean(values, max(1, len(values) // SMOOTHING) // 2 * 2 + 1)


def _stages(records: pl.DataFrame) -> pl.DataFrame:
    return (
        records.group_by("stage_index", maintain_order=True)
        .agg(
            name=pl.col("stage").first(),
            first_step=pl.col("step").min(),
            last_step=pl.col("step").max(),
            epochs=pl.col("epoch").max() - pl.col("epoch").min(),
        )
        .sort("stage_index")
    )


def _domain(metric: Metric, curves: pl.DataFrame) -> tuple[float, float]:
    """From the curves as drawn: a single wild training loss must not flatten the rest."""
    low, high = curves["smooth"].min(), curves["smooth"].max()
    assert isinstance(low, float)
    assert isinstance(high, float)
    if metric == "loss":
        return 0.0, high * 1.05 or 1.0
    return np.floor(low * 10) / 10, max(np.ceil(high * 10), np.floor(low * 10) + 1) / 10


def _best(metric: Metric, val: pl.DataFrame) -> tuple[int, int, float] | None:
    if val.is_empty():
        return None
    where = val["value"].arg_min() if metric == "loss" else val["value"].arg_max()
    index, step, value = val.select("stage_index", "step", "value").row(where)
    return index, step, value


def _labels(curves: pl.DataFrame, domain: tuple[float, float]) -> pl.DataFrame:
    ends = curves.filter(pl.col("stage_index") == curves["stage_index"].max())
    ends = ends.group_by("split", maintain_order=True).last().sort("smooth", descending=True)
    values = ends["smooth"].to_list()
    return pl.DataFrame(
        {
            "split": ends["split"],
            "value": values,
            "y": _spread(values, LABEL_GAP * (domain[1] - domain[0]), domain[0]),
        }
    )


def _spread(values: Sequence[float], gap: float, floor: float) -> list[float]:
    """Move descending values apart to at least `gap`, none below `floor`."""
    places: list[float] = []
    for value in values:
        places.append(min(value, places[-1] - gap) if places else value)
    for i in range(len(places) - 1, -1, -1):
        places[i] = max(places[i], floor if i == len(places) - 1 else places[i + 1] + gap)
    return places


def _shown(metric: Metric, value: float) -> str:
    if metric == "top1":
        return f"{value:.1%}"
    if value >= HUGE:
        return f"{value:.3g}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"

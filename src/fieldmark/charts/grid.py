"""Pictures of a grid: a heat map of two axes, and what each axis does by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt
import polars as pl

from fieldmark.charts.look import (
    FAINT,
    INK,
    ON_SHADES,
    SERIES,
    SHADES,
    shade_of,
)
from fieldmark.language import Said, Words, metric_text, setting_text, settings_words

CELL_WIDTH, CELL_HEIGHT, PLOT_HEIGHT, WIDTH = 74, 46, 200, 640
_SCALES = {"words": "ordinal", "numbers": "linear", "ratios": "log"}


@dataclass(frozen=True)
class Point:
    """A cell with a result: what a grid's pictures are made of.

    Attributes:
        settings: Axis to setting, as shown.
        value: The objective's mean over seeds.
        low, high: Its 95 % interval over photos; None where it has none.
        spread: Standard deviation over seeds; None below two.
        seeds: How many.
    """

    settings: Mapping[str, Any]
    value: float
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    seeds: int = 1


@dataclass(frozen=True)
class HeatData:
    """A heat map.

    Attributes:
        metric: What it shows.
        row_axis, column_axis: Names.
        rows, columns: Settings in their order, as shown.
        cells: row, column, value, low, high, spread, seeds, of (cells it is the best of), shade.
    """

    metric: str
    row_axis: str
    column_axis: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: pl.DataFrame


@dataclass(frozen=True)
class AxisData:
    """What one axis does: every cell, the mean, and the best over all other axes.

    The best at each setting is the isolation plot: what the setting can do where the nuisances are
    tuned for it (Deep Learning Tuning Playbook).

    Attributes:
        axis, metric: Names.
        kind: Of its settings: `words`, in their order; `numbers`; or `ratios`, on a log scale.
        order: The settings in their order, as shown.
        cells: setting, value.
        others: The other axes' settings of each cell.
        summary: setting, mean, best, of (cells).
    """

    axis: str
    metric: str
    kind: Literal["words", "numbers", "ratios"]
    order: Sequence[str]
    cells: pl.DataFrame
    others: Sequence[tuple[Said, ...]]
    summary: pl.DataFrame


def heat_data(
    points: Sequence[Point], axes: tuple[str, str], metric: str, *, lower_is_better: bool = False
) -> HeatData:
    """The cells of two axes, each the best over all others where there are more."""
    row_axis, column_axis = axes
    rows, columns = (_order(points, axis) for axis in axes)
    found = []
    for row in rows:
        for column in columns:
            here = [
                point
                for point in points
                if (
                    setting_text(point.settings[row_axis]),
                    setting_text(point.settings[column_axis]),
                )
                == (row, column)
            ]
            if here:
                best = (min if lower_is_better else max)(here, key=lambda point: point.value)
                numbers = (best.value, best.low, best.high, best.spread, best.seeds)
                found.append((row, column, *numbers, len(here)))
    values = [cell[2] for cell in found]
    low, high = min(values, default=0.0), max(values, default=0.0)
    shades = [shade_of(value, low, high) for value in values]
    shades = [len(SHADES) - 1 - shade for shade in shades] if lower_is_better else shades
    schema = {
        "row": pl.String,
        "column": pl.String,
        "value": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "spread": pl.Float64,
        "seeds": pl.Int64,
        "of": pl.Int64,
    }
    cells = pl.DataFrame(found, schema=schema, orient="row")
    cells = cells.with_columns(shade=pl.Series(shades, dtype=pl.Int64))
    return HeatData(metric, row_axis, column_axis, rows, columns, cells)


def axis_data(
    points: Sequence[Point],
    axis: str,
    metric: str,
    *,
    kind: Literal["words", "numbers", "ratios"] = "words",
    lower_is_better: bool = False,
) -> AxisData:
    """What an axis does: for each of its settings the mean and the best over the others."""
    order = _order(points, axis)
    typed = pl.String if kind == "words" else pl.Float64
    cells = pl.DataFrame(
        [
            (
                setting_text(point.settings[axis])
                if kind == "words"
                else float(point.settings[axis]),
                point.value,
            )
            for point in points
        ],
        schema={"setting": typed, "value": pl.Float64},
        orient="row",
    )
    best = pl.col("value").min() if lower_is_better else pl.col("value").max()
    summary = cells.group_by("setting", maintain_order=True).agg(
        mean=pl.col("value").mean(), best=best, of=pl.len()
    )
    if kind != "words":
        summary = summary.sort("setting")
    others = [
        settings_words({name: v for name, v in point.settings.items() if name != axis})
        for point in points
    ]
    return AxisData(axis, metric, kind, order, cells, others, summary)


def heat_chart(data: HeatData, say: Words) -> Any:
    """Draw a heat map, each cell with its number and interval."""
    shown = [
        "" if value is None else metric_text(data.metric, value) for value in data.cells["value"]
    ]
    shades = data.cells["shade"].to_list()
    cells = data.cells.with_columns(
        shown=pl.Series(shown, dtype=pl.String),
        interval=pl.Series(
            [
                ""
                if low is None
                else f"{metric_text(data.metric, low)} – {metric_text(data.metric, high)}"
                for low, high in data.cells.select("low", "high").rows()
            ],
            dtype=pl.String,
        ),
        fill=pl.Series([SHADES[n] for n in shades], dtype=pl.String),
        on=pl.Series([ON_SHADES[n] for n in shades], dtype=pl.String),
    )
    told = _told(data, say)  # of each layer: the topmost is what is hovered over
    base = alt.Chart(cells).encode(x=_columns(data, say), y=_rows(data, say), tooltip=told)
    ink = alt.Color("on:N", scale=None)
    numbers = base.mark_text(fontSize=14, fontWeight=600, dy=-6)
    below = base.mark_text(fontSize=9.5, dy=10)
    layers = [
        base.mark_rect(cornerRadius=3).encode(color=alt.Color("fill:N", scale=None)),
        numbers.encode(text="shown:N", color=ink),
        below.encode(text="interval:N", color=ink),
    ]
    chart = alt.layer(*layers, usermeta={"narrowest": 90 + CELL_WIDTH * len(data.columns)})
    return chart.properties(width=WIDTH, height=CELL_HEIGHT * len(data.rows))


def _columns(data: HeatData, say: Words) -> alt.X:
    axis: dict[str, Any] = {"orient": "top", "labelAngle": 0, "labelPadding": 6, "titlePadding": 8}
    return alt.X(
        "column:N",
        sort=list(data.columns),
        title=say.axis(data.column_axis),
        axis=alt.Axis(grid=False, ticks=False, labelColor=INK, **axis),
        scale=alt.Scale(paddingInner=0.03, paddingOuter=0),
    )


def _rows(data: HeatData, say: Words) -> alt.Y:
    axis: dict[str, Any] = {"titleAngle": 0, "titleAlign": "right", "titleX": -8, "titleY": -14}
    return alt.Y(
        "row:N",
        sort=list(data.rows),
        title=say.axis(data.row_axis),
        axis=alt.Axis(grid=False, ticks=False, labelColor=INK, labelPadding=8, **axis),
        scale=alt.Scale(paddingInner=0.06, paddingOuter=0),
    )


def _told(data: HeatData, say: Words) -> list[alt.Tooltip]:
    shape = _shape(data.metric)
    return [
        alt.Tooltip("row:N", title=say.axis(data.row_axis)),
        alt.Tooltip("column:N", title=say.axis(data.column_axis)),
        alt.Tooltip("value:Q", title=say.metric(data.metric), format=shape),
        alt.Tooltip("interval:N", title=say("charts.interval")),
        alt.Tooltip("spread:Q", title=say("charts.spread"), format=shape),
        alt.Tooltip("seeds:Q", title=say("charts.seeds")),
    ]


def axis_chart(data: AxisData, say: Words) -> Any:
    """Draw every cell faintly, the mean as a dashed line, the best as a full one."""
    scale = alt.Scale(zero=False, padding=12)
    y_axis = alt.Axis(format="%" if data.metric.endswith("top1") else "~f", tickCount=5)
    y: dict[str, Any] = {
        "scale": scale,
        "axis": y_axis,
        "title": say.metric(data.metric),
    }
    name_of_axis = say.axis(data.axis)
    x: Any
    if data.kind == "words":
        x = alt.X(
            "setting:N",
            sort=list(data.order),
            title=name_of_axis,
            scale=alt.Scale(type="point", padding=0.5),
            axis=alt.Axis(labelAngle=0, labelColor=INK, labelLimit=max(36, 280 // len(data.order))),
        )
    else:
        kind: Any = _SCALES[data.kind]
        x = alt.X(
            "setting:Q",
            title=name_of_axis,
            scale=alt.Scale(type=kind, zero=False, padding=12),
        )
    shape = _shape(data.metric)
    others = pl.Series([say.word(each) for each in data.others], dtype=pl.String)
    dots = (
        alt.Chart(data.cells.with_columns(others=others))
        .mark_point(filled=True, color=FAINT, opacity=0.45, size=45)
        .encode(
            x=x,
            y=alt.Y("value:Q", **y),
            tooltip=[
                alt.Tooltip("setting:N", title=name_of_axis),
                alt.Tooltip("value:Q", title=say.metric(data.metric), format=shape),
                alt.Tooltip("others:N", title=say("charts.others")),
            ],
        )
    )
    layers = [dots]
    above = -6 if data.summary["best"][-1] >= data.summary["mean"][-1] else 6
    for name, colour, dash, dy in (
        ("mean", FAINT, [4, 3], -above),
        ("best", SERIES[0], [1, 0], above),
    ):
        base = alt.Chart(data.summary).encode(x=x, y=alt.Y(f"{name}:Q", **y))
        line = base.mark_line(color=colour, strokeWidth=2, strokeDash=dash)
        tooltip = [
            alt.Tooltip("setting:N", title=name_of_axis),
            alt.Tooltip(f"{name}:Q", title=say(f"charts.axis_{name}"), format=shape),
            alt.Tooltip("of:Q", title=say("charts.cells")),
        ]
        points = base.mark_point(filled=True, color=colour, size=50, opacity=1)
        end = alt.Chart(data.summary[-1:]).encode(x=x, y=alt.Y(f"{name}:Q", **y))
        label = end.mark_text(align="left", dx=9, dy=dy, color=colour, fontWeight=600, fontSize=11)
        words = label.encode(text=alt.value(say(f"charts.axis_{name}")))
        layers += [line, points.encode(tooltip=tooltip), words]
    return alt.layer(*layers).properties(width=300, height=PLOT_HEIGHT)


def _order(points: Sequence[Point], axis: str) -> list[str]:
    """Its settings in the order they come up."""
    return list(dict.fromkeys(setting_text(point.settings[axis]) for point in points))


def _shape(metric: str) -> str:
    return ".4f" if metric.endswith("loss") else ".1%"

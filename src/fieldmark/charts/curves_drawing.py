"""Training curves, the drawing.

A stage of a few epochs would be a sliver beside one of sixty, so each stage has a pane and a step
axis of its own. The running loss is grey, since dropout, augmentation and a moving model are mixed
into it.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from fieldmark.charts.curves import HUGE, METRICS, CurvesData, curves_data, recorded
from fieldmark.charts.look import COLOURS, FAINT, INK, PANES, PAPER
from fieldmark.language import Words, counted
from fieldmark.studies.run import Run

WIDTH, NARROWEST, AXIS_WIDTH = 290, 76, 34  # pixels of a panel, a stage in it, its labels
HEIGHT, LR_HEIGHT, SPACING = 170, 36, 10
FULL_HEIGHT = HEIGHT + LR_HEIGHT + SPACING + 5  # so that both panels end at the same height
LR_SPAN = 1000  # a cosine ends at zero; its last decades say nothing
MOST_POINTS = 300  # of a curve in a stage that are drawn

# altair's own types are narrower than what it takes, hence the Any


def curves_chart(data: CurvesData, say: Words) -> Any:
    """Draw one metric, a pane for each stage, with the learning rate below the loss."""
    return _panel(data, say)


def training_chart(run: Run, say: Words | None = None) -> Any:
    """Draw a run's loss and top-1 accuracy side by side."""
    say = say or Words("en")
    panels = [_panel(curves_data(run, metric), say) for metric in recorded(run) or METRICS]
    return alt.hconcat(*panels, spacing=24)


def _panel(data: CurvesData, say: Words) -> Any:
    with_lr = data.metric == "loss" and not data.rates.is_empty()
    height = HEIGHT if with_lr else FULL_HEIGHT
    stages = data.stages.to_dicts()
    best = ""
    if data.best:
        best = say("charts.best", value=data.shown(data.best[2]), step=data.best[1])
    title = alt.TitleParams(say(f"charts.{data.metric}"), subtitle=best, offset=10)
    values = [_value_pane(data, stage, say, x_labels=not with_lr) for stage in stages]
    rows = [_row(data, values, height, title=title)]
    if with_lr:
        rows.append(_row(data, [_lr_pane(data, stage, say) for stage in stages], LR_HEIGHT))
    return alt.vconcat(*rows, spacing=SPACING)


def _row(data: CurvesData, panes: Sequence[list[Any]], height: int, **settings: Any) -> Any:
    placed = [
        alt.layer(*layers, width=width, height=height, view={"fill": PANES[i % 2], "stroke": None})
        for i, (layers, width) in enumerate(zip(panes, _widths(data.stages), strict=True))
    ]
    return alt.hconcat(*placed, spacing=3, bounds="flush", **settings)


def _widths(stages: pl.DataFrame) -> list[int]:
    """Pixels of each stage: by its steps, but wide enough to be read."""
    steps = (stages["last_step"] - stages["first_step"]).to_numpy().clip(1)
    widths = np.maximum(NARROWEST, WIDTH * steps / steps.sum())
    return [int(width) for width in widths * max(WIDTH, NARROWEST * len(steps)) / widths.sum()]


def _thin(curve: pl.DataFrame) -> pl.DataFrame:
    """Every k-th point, and the last, where there are too many to be seen."""
    step = -(-curve.height // MOST_POINTS)
    return curve if step < 2 else pl.concat([curve[:-1:step], curve[-1:]])


def _value_pane(
    data: CurvesData, stage: dict[str, Any], say: Words, *, x_labels: bool
) -> list[Any]:
    mine = data.curves.filter(pl.col("stage_index") == stage["stage_index"])
    x = _x(stage, say, labels=x_labels)
    count = stage["epochs"]
    epochs = "" if count is None else say(counted("charts.epochs", float(f"{count:.3g}")))
    # No titles: those would move with the labels of an axis.
    layers = [_text(stage["name"], INK, x=1, y=-18, bold=True), _text(epochs, FAINT, x=1, y=-6)]
    for split, colour in COLOURS.items():
        curve = alt.Chart(_thin(mine.filter(pl.col("split") == split))).encode(x=x)
        if split == "train":
            raw = curve.mark_line(color=colour, clip=True, strokeWidth=1, opacity=0.35)
            layers.append(raw.encode(y=_y(data, stage, "value")))
        line = curve.mark_line(color=colour, clip=True, strokeWidth=2)
        layers.append(line.encode(y=_y(data, stage, "smooth")))
        point = curve.mark_point(color=colour, filled=True, size=90, opacity=0, clip=True)
        layers.append(point.encode(y=_y(data, stage, "smooth"), tooltip=_told(data, say)))
    if data.best and data.best[0] == stage["stage_index"]:
        best = alt.Chart(pl.DataFrame({"step": [data.best[1]], "value": [data.best[2]]}))
        ring = best.mark_point(stroke=COLOURS["val"], fill=PAPER, size=60, opacity=1)
        layers.append(ring.encode(x=x, y=_y(data, stage, "value")))
    layers += _mark_layers(data, stage, x)
    if stage["stage_index"] == data.stages.height - 1:
        layers += _end_labels(data, stage)
    return layers


def _end_labels(data: CurvesData, stage: dict[str, Any]) -> list[Any]:
    return [
        _text(
            f"{row['split']} {data.shown(row['value'])}",
            COLOURS[row["split"]],
            y=_y(data, stage, "y"),
            bold=True,
            at=row["y"],
        )
        for row in data.labels.to_dicts()
    ]


def _told(data: CurvesData, say: Words) -> list[Any]:
    """What hovering over a point tells."""
    shape = ".1%" if data.metric == "top1" else ".4f"
    return [
        alt.Tooltip("split:N", title=say("charts.split")),
        alt.Tooltip("step:Q", title=say("charts.step"), format=",d"),
        alt.Tooltip("value:Q", title=say(f"charts.{data.metric}"), format=shape),
    ]


def _mark_layers(data: CurvesData, stage: dict[str, Any], x: alt.X) -> list[Any]:
    mine = data.marks.filter(pl.col("stage_index") == stage["stage_index"])
    if mine.is_empty():
        return []
    chart = alt.Chart(mine).encode(x=x, y=_y(data, stage, "value"), tooltip=alt.Tooltip("told:N"))
    disc = chart.mark_point(color=INK, filled=True, size=190, opacity=1, xOffset=-8, yOffset=-14)
    number = chart.mark_text(color=PAPER, fontSize=10, fontWeight=700, dx=-8, dy=-14)
    return [disc, number.encode(text="number:N")]


def _lr_pane(data: CurvesData, stage: dict[str, Any], say: Words) -> list[Any]:
    rates = data.rates.filter(pl.col("lr") > 0)
    values = rates["lr"].to_list()
    high = max(values, default=1.0)
    low = min(max(min(values, default=0.1), high / LR_SPAN), high / 10)
    decades = [10.0**n for n in range(-12, 4) if low <= 10.0**n <= high]
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    axis = _y_axis(stage, format="~g", values=sorted({*decades[:1], *decades[-1:]}))
    mine = alt.Chart(rates.filter(pl.col("stage_index") == stage["stage_index"]))
    layers = [
        mine.mark_line(color=FAINT, strokeWidth=1.5, clip=True).encode(
            x=_x(stage, say, labels=True), y=alt.Y("lr:Q", scale=scale, axis=axis, title=None)
        )
    ]
    if stage["stage_index"] == data.stages.height - 1:
        layers.append(_text(say("charts.lr_log"), FAINT, y=LR_HEIGHT / 2))
    return layers


def _text(
    text: str, colour: str, *, x: int | None = None, y: Any, bold: bool = False, at: float = 0.0
) -> Any:
    """Text at pixel `x`, or right of the pane; `y` in pixels, or an axis and its value `at`."""
    chart = alt.Chart(pl.DataFrame({"text": [text], "y": [at]}))
    mark = chart.mark_text(
        align="left",
        dx=7 if x is None else 0,
        color=colour,
        fontSize=10,
        fontWeight=600 if bold else 400,
    )
    return mark.encode(
        x=alt.value("width" if x is None else x),
        y=alt.value(y) if isinstance(y, (int, float)) else y,
        text="text:N",
    )


def _x(stage: dict[str, Any], say: Words, *, labels: bool) -> alt.X:
    domain = [stage["first_step"], max(stage["last_step"], stage["first_step"] + 1)]
    axis = alt.Axis(
        tickCount=min(4, domain[1] - domain[0]),  # Vega ignores tickMinStep where it has a count
        format=",d",
        labelFlush=True,
        labelOverlap=True,
        labels=labels,
        ticks=labels,
    )
    title = say("charts.step") if labels and stage["stage_index"] == 0 else None
    return alt.X("step:Q", scale=alt.Scale(domain=domain, nice=False), axis=axis, title=title)


def _y(data: CurvesData, stage: dict[str, Any], field: str) -> alt.Y:
    scale = alt.Scale(domain=list(data.domain), nice=False)
    shape = "%" if data.metric == "top1" else "~f" if data.domain[1] < HUGE else "~g"
    axis = _y_axis(stage, format=shape, tickCount=5)
    return alt.Y(f"{field}:Q", scale=scale, axis=axis, title=None)


def _y_axis(stage: dict[str, Any], **settings: Any) -> alt.Axis:
    """Labels on the first pane alone; the others keep the grid."""
    first = stage["stage_index"] == 0
    extent = AXIS_WIDTH if first else 0
    return alt.Axis(labels=first, ticks=first, minExtent=extent, maxExtent=extent, **settings)

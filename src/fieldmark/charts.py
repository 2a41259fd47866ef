"""Training curves: first the figures behind them, as plain data, then the drawing.

A stage of a few epochs would be a sliver beside one of sixty, so each stage has a pane and a step
axis of its own. Colours are Okabe and Ito's, which the colour-blind can tell apart; the running
loss is grey, since dropout, augmentation and a moving model are mixed into it.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import altair as alt
import numpy as np
import polars as pl

from fieldmark import durable
from fieldmark.errors import SettingError
from fieldmark.studies.run import Run

Metric = Literal["loss", "top1"]

TITLES: dict[Metric, str] = {"loss": "Loss", "top1": "Top-1 accuracy"}
COLOURS = {"train": "#767676", "minitrain": "#0072B2", "val": "#D55E00"}
INK, FAINT, GRID = "#333333", "#767676", "#DDDDDD"
SHADES = ("#F7F7F7", "#EEF3F7")
WIDTH, NARROWEST, AXIS_WIDTH = 260, 70, 32  # pixels of a panel, a stage in it, its labels
HEIGHT, LR_HEIGHT, SPACING = 170, 36, 10
FULL_HEIGHT = HEIGHT + LR_HEIGHT + SPACING + 5  # so that both panels end at the same height
STYLE = {
    "font": "DejaVu Sans, Verdana, sans-serif",
    "axis": {
        "domain": False,
        "gridColor": GRID,
        "labelColor": FAINT,
        "tickColor": GRID,
        "titleAnchor": "start",
        "titleColor": FAINT,
        "titleFontSize": 10,
        "titleFontWeight": "normal",
    },
    "title": {
        "anchor": "start",
        "color": INK,
        "fontSize": 14,
        "subtitleColor": FAINT,
        "subtitleFontSize": 11,
    },
}
LR_SPAN = 1000  # a cosine ends at zero; its last decades say nothing
SMOOTHING = 15  # a running mean over a fifteenth of its stage's records
LABEL_GAP = 0.075  # of the panel's height, so that labels do not overlap


@dataclass(frozen=True)
class CurvesData:
    """One metric of one run, ready to draw.

    Attributes:
        metric: ``loss`` or ``top1``.
        curves: stage_index, step, split, value, smooth; in the order recorded, finite only.
        stages: stage_index, name, first_step, last_step, epochs (null where not recorded).
        rates: stage_index, step, lr.
        best: stage_index, step and value of the best ``val`` point, the first of equals.
        labels: split, text, value, y: each curve's end, and where its label stands.
        domain: The ends of the value axis.
    """

    metric: Metric
    curves: pl.DataFrame
    stages: pl.DataFrame
    rates: pl.DataFrame
    best: tuple[int, int, float] | None
    labels: pl.DataFrame
    domain: tuple[float, float]

    def shown(self, value: float) -> str:
        """The value as a person reads it."""
        return _shown(self.metric, value)


def curves_data(run: Run, metric: Metric = "loss") -> CurvesData:
    """Gather a metric's curves: running train (smoothed too), minitrain and val.

    Raises:
        SettingError: the metric is neither `loss` nor `top1`, or the run has not recorded it.
    """
    if metric not in TITLES:
        raise SettingError(f"`metric` must be one of {', '.join(TITLES)}, got {metric!r}.")
    records = run.metrics().filter(pl.col("value").is_finite())
    wanted = {f"{split}/{metric}": split for split in COLOURS}
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
        _labels(metric, curves, domain),
        domain,
    )


def curves_chart(data: CurvesData) -> Any:
    """Draw one metric, a pane for each stage, with the learning rate below the loss."""
    with_lr = data.metric == "loss" and not data.rates.is_empty()
    height = HEIGHT if with_lr else FULL_HEIGHT
    stages = data.stages.to_dicts()
    best = f"○ best val {data.shown(data.best[2])}, step {data.best[1]:,}" if data.best else ""
    title = alt.TitleParams(TITLES[data.metric], subtitle=best, offset=10)
    values = [_value_pane(data, stage, x_labels=not with_lr) for stage in stages]
    rows = [_row(data, values, height, title=title)]
    if with_lr:
        rows.append(_row(data, [_lr_pane(data, stage) for stage in stages], LR_HEIGHT))
    return alt.vconcat(*rows, spacing=SPACING)


def training_chart(run: Run) -> Any:
    """Draw a run's loss and top-1 accuracy side by side."""
    recorded = [m for m in TITLES if any(f"{split}/{m}" in run.keys for split in COLOURS)]
    panels = [curves_chart(curves_data(run, metric)) for metric in recorded or TITLES]
    return alt.hconcat(*panels, spacing=24, background="white", padding=10, config=STYLE)


def save(chart: Any, path: Path) -> None:
    """Write a chart as PNG, at twice the screen's resolution, or SVG; needs no browser.

    Raises:
        SettingError: the file's name ends in neither `.png` nor `.svg`.
    """
    kind = Path(path).suffix.lower()
    if kind == ".png":
        buffer = io.BytesIO()
        chart.save(buffer, format="png", scale_factor=2)
        durable.replace(path, buffer.getvalue())
    elif kind == ".svg":
        text = io.StringIO()
        chart.save(text, format="svg")
        durable.replace(path, text.getvalue().encode())
    else:
        raise SettingError(f"A chart is saved as `.png` or `.svg`, got `{path}`.")


# The data behind it


def _smooth(values: np.ndarray) -> np.ndarray:
    """Centred running mean, (N,) -> (N,); at the ends over what there is."""
    window = np.ones(max(1, len(values) // SMOOTHING) // 2 * 2 + 1)
    total = np.convolve(values, window)  # (N + window - 1,)
    count = np.convolve(np.ones_like(values), window)
    half = len(window) // 2
    return (total / count)[half : half + len(values)]


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


def _labels(metric: Metric, curves: pl.DataFrame, domain: tuple[float, float]) -> pl.DataFrame:
    ends = curves.filter(pl.col("stage_index") == curves["stage_index"].max())
    ends = ends.group_by("split", maintain_order=True).last().sort("smooth", descending=True)
    values = ends["smooth"].to_list()
    return pl.DataFrame(
        {
            "split": ends["split"],
            "text": [
                f"{s} {_shown(metric, v)}" for s, v in zip(ends["split"], values, strict=True)
            ],
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
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


# The drawing; altair's own types are narrower than what it takes, hence the Any


def _row(data: CurvesData, panes: Sequence[list[Any]], height: int, **settings: Any) -> Any:
    placed = [
        alt.layer(*layers, width=width, height=height, view={"fill": SHADES[i % 2], "stroke": None})
        for i, (layers, width) in enumerate(zip(panes, _widths(data.stages), strict=True))
    ]
    return alt.hconcat(*placed, spacing=3, bounds="flush", **settings)


def _widths(stages: pl.DataFrame) -> list[int]:
    """Pixels of each stage: by its steps, but wide enough to be read."""
    steps = (stages["last_step"] - stages["first_step"]).to_numpy().clip(1)
    widths = np.maximum(NARROWEST, WIDTH * steps / steps.sum())
    return [int(width) for width in widths * max(WIDTH, NARROWEST * len(steps)) / widths.sum()]


def _value_pane(data: CurvesData, stage: dict[str, Any], *, x_labels: bool) -> list[Any]:
    mine = data.curves.filter(pl.col("stage_index") == stage["stage_index"])
    x = _x(stage, labels=x_labels)
    epochs = "" if stage["epochs"] is None else f"{stage['epochs']:.3g} epochs"
    # No titles: those would move with the labels of an axis.
    layers = [_text(stage["name"], INK, x=1, y=-18, bold=True), _text(epochs, FAINT, x=1, y=-6)]
    for split, colour in COLOURS.items():
        curve = alt.Chart(mine.filter(pl.col("split") == split)).encode(x=x)
        if split == "train":
            raw = curve.mark_line(color=colour, clip=True, strokeWidth=1, opacity=0.35)
            layers.append(raw.encode(y=_y(data, stage, "value")))
        line = curve.mark_line(color=colour, clip=True, strokeWidth=2)
        layers.append(line.encode(y=_y(data, stage, "smooth")))
    if data.best and data.best[0] == stage["stage_index"]:
        point = alt.Chart(pl.DataFrame({"step": [data.best[1]], "value": [data.best[2]]}))
        ring = point.mark_point(color=COLOURS["val"], fill="white", size=60, opacity=1)
        layers.append(ring.encode(x=x, y=_y(data, stage, "value")))
    if stage["stage_index"] == data.stages.height - 1:
        layers += [
            _text(
                row["text"], COLOURS[row["split"]], y=_y(data, stage, "y"), bold=True, at=row["y"]
            )
            for row in data.labels.to_dicts()
        ]
    return layers


def _lr_pane(data: CurvesData, stage: dict[str, Any]) -> list[Any]:
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
            x=_x(stage, labels=True), y=alt.Y("lr:Q", scale=scale, axis=axis, title=None)
        )
    ]
    if stage["stage_index"] == data.stages.height - 1:
        layers.append(_text("learning rate (log)", FAINT, y=LR_HEIGHT / 2))
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


def _x(stage: dict[str, Any], *, labels: bool) -> alt.X:
    domain = [stage["first_step"], max(stage["last_step"], stage["first_step"] + 1)]
    axis = alt.Axis(
        tickCount=4, format=",d", labelFlush=True, labelOverlap=True, labels=labels, ticks=labels
    )
    title = "step" if labels and stage["stage_index"] == 0 else None
    return alt.X("step:Q", scale=alt.Scale(domain=domain, nice=False), axis=axis, title=title)


def _y(data: CurvesData, stage: dict[str, Any], field: str) -> alt.Y:
    scale = alt.Scale(domain=list(data.domain), nice=False)
    axis = _y_axis(stage, format="%" if data.metric == "top1" else "~g", tickCount=5)
    return alt.Y(f"{field}:Q", scale=scale, axis=axis, title=None)


def _y_axis(stage: dict[str, Any], **settings: Any) -> alt.Axis:
    """Labels on the first pane alone; the others keep the grid."""
    first = stage["stage_index"] == 0
    extent = AXIS_WIDTH if first else 0
    return alt.Axis(labels=first, ticks=first, minExtent=extent, maxExtent=extent, **settings)

"""Which classes are taken for which, and how well each is named."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from fieldmark.charts.look import FAINT, GRID, INK, SERIES
from fieldmark.language import Words
from fieldmark.metrics import wilson_interval

MOST_PAIRS, MOST_CLASSES = 16, 30
ROW, PAIR_ROW = 20, 32  # pixels of a class, of a pair
BETWEEN = " · "  # the two of a pair


@dataclass(frozen=True)
class PairsData:
    """The pairs taken for each other most often.

    Attributes:
        rows: pair, way (0, 1), truth, guess, count: two rows a pair, pairs in order.
        left_out: Pairs that are not shown.
    """

    rows: pl.DataFrame
    left_out: int


@dataclass(frozen=True)
class MatrixData:
    """The confusion matrix: what is off its diagonal, row the truth and column the guess.

    Attributes:
        classes: In the order of rows and columns.
        cells: row, column (positions), truth, guess, count, share (of the truth's photos).
    """

    classes: Sequence[str]
    cells: pl.DataFrame


@dataclass(frozen=True)
class ClassesData:
    """Top-1 of each class with its 95 % interval, worst first.

    Attributes:
        rows: name, photos, right, top1, low, high.
        left_out: Better classes that are not shown.
        mean: Top-1 over all photos.
    """

    rows: pl.DataFrame
    left_out: int
    mean: float


def pairs_data(pairs: Sequence[tuple[str, str, int, int]]) -> PairsData:
    """From (a, b, a named b, b named a), most often first."""
    rows = [
        (f"{a}{BETWEEN}{b}", number, truth, guess, count)
        for a, b, a_as_b, b_as_a in pairs[:MOST_PAIRS]
        for number, truth, guess, count in ((0, a, b, a_as_b), (1, b, a, b_as_a))
    ]
    schema = {
        "pair": pl.String,
        "way": pl.Int64,
        "truth": pl.String,
        "guess": pl.String,
        "count": pl.Int64,
    }
    left_out = max(0, len(pairs) - MOST_PAIRS)
    return PairsData(pl.DataFrame(rows, schema=schema, orient="row"), left_out)


def matrix_data(classes: Sequence[str], confusion: NDArray[np.int64]) -> MatrixData:
    """From counts (K, K), row the truth."""
    totals = np.maximum(confusion.sum(1), 1)
    rows = [
        (i, j, classes[i], classes[j], int(confusion[i, j]), float(confusion[i, j] / totals[i]))
        for i, j in np.argwhere(confusion).tolist()
        if i != j
    ]
    schema = {
        "row": pl.Int64,
        "column": pl.Int64,
        "truth": pl.String,
        "guess": pl.String,
        "count": pl.Int64,
        "share": pl.Float64,
    }
    return MatrixData(tuple(classes), pl.DataFrame(rows, schema=schema, orient="row"))


def classes_data(classes: Sequence[str], confusion: NDArray[np.int64]) -> ClassesData:
    """From counts (K, K), row the truth; classes without photos are left out."""
    rows = []
    for name, photos, right in zip(classes, confusion.sum(1), np.diag(confusion), strict=True):
        if photos:
            low, high = wilson_interval(float(right / photos), int(photos))
            rows.append((name, int(photos), int(right), float(right / photos), low, high))
    rows.sort(key=lambda row: (row[3], -row[1], row[0]))
    schema = {
        "name": pl.String,
        "photos": pl.Int64,
        "right": pl.Int64,
        "top1": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
    }
    shown = pl.DataFrame(rows[:MOST_CLASSES], schema=schema, orient="row")
    mean = float(np.trace(confusion) / max(1, confusion.sum()))
    return ClassesData(shown, max(0, len(rows) - MOST_CLASSES), mean)


def pairs_chart(data: PairsData, say: Words) -> Any:
    """Draw a bar for each pair, in two tones for the two ways."""
    rows = data.rows.with_columns(
        told=pl.Series(
            [
                say("charts.named", truth=truth, guess=guess, count=count)
                for truth, guess, count in data.rows.select("truth", "guess", "count").rows()
            ],
            dtype=pl.String,
        )
    )
    most = max(data.rows.group_by("pair").agg(pl.col("count").sum())["count"], default=1)
    base = alt.Chart(rows.filter(pl.col("count") > 0)).encode(
        x=alt.X(
            "count:Q",
            title=say("charts.mistakes"),
            axis=alt.Axis(format="d", tickCount=max(1, min(5, most))),  # no "1, 1, 2, 2"
        ),
        y=alt.Y(
            "pair:N",
            sort=None,
            title=None,
            axis=alt.Axis(
                labelColor=INK,
                labelLimit=220,
                labelExpr=f"split(datum.label, '{BETWEEN}')",  # a line for each of the two
                ticks=False,
                grid=False,
            ),
        ),
        order="way:O",
    )
    bars = base.mark_bar(height=15, stroke="var(--paper)", strokeWidth=1).encode(
        color=alt.Color(
            "way:O", scale=alt.Scale(domain=[0, 1], range=[SERIES[1], SERIES[4]]), legend=None
        ),
        tooltip=alt.Tooltip("told:N"),
    )
    height = PAIR_ROW * max(1, rows["pair"].n_unique())
    return bars.properties(width=560, height=height)


def matrix_chart(data: MatrixData, say: Words) -> Any:
    """Draw the confusion matrix; shift and the wheel zoom, dragging moves."""
    count = len(data.classes)
    side = alt.Scale(domain=[0, count], nice=False)
    flipped = alt.Scale(domain=[0, count], nice=False, reverse=True)
    cells = data.cells.with_columns(
        right=pl.col("column") + 1, below=pl.col("row") + 1, size=pl.col("share").sqrt()
    )
    names = [name if len(name) < 24 else f"{name[:22]}…" for name in data.classes]
    show = count <= 30
    tick: dict[str, Any] = {
        "values": [n + 0.5 for n in range(count)] if show else [],
        "grid": False,
    }
    text = f"{json.dumps(names, ensure_ascii=False)}[floor(datum.value)] || ''"
    axis = {"labelExpr": text, "labelOverlap": False, **tick} if show else tick
    zoom = alt.selection_interval(bind="scales", zoom="wheel![event.shiftKey]")
    angled = alt.Axis(orient="top", labelAngle=-60, labelAlign="left", **axis)
    across: dict[str, Any] = {"scale": side, "title": say("charts.guess"), "axis": angled}
    down: dict[str, Any] = {
        "scale": flipped,
        "title": say("charts.truth"),
        "axis": alt.Axis(**axis),
    }
    boxes = alt.Chart(cells).mark_rect(color=SERIES[1], cornerRadius=1, clip=True)
    boxes = boxes.encode(
        x=alt.X("column:Q", **across),
        x2="right:Q",
        y=alt.Y("row:Q", **down),
        y2="below:Q",
        opacity=alt.Opacity("size:Q", scale=alt.Scale(domain=[0, 1], range=[0.25, 1]), legend=None),
        tooltip=[
            alt.Tooltip("truth:N", title=say("charts.truth")),
            alt.Tooltip("guess:N", title=say("charts.guess")),
            alt.Tooltip("count:Q", title=say("charts.mistakes")),
            alt.Tooltip("share:Q", title=say("charts.share"), format=".0%"),
        ],
    ).add_params(zoom)
    ends = pl.DataFrame({"from": [0], "to": [count]})
    diagonal = alt.Chart(ends).mark_rule(color=GRID, strokeWidth=2, clip=True)
    line = diagonal.encode(
        x=alt.X("from:Q", **across), x2="to:Q", y=alt.Y("from:Q", **down), y2="to:Q"
    )
    size = min(560, max(260, 18 * count))
    return alt.layer(line, boxes).properties(width=size, height=size)


def classes_chart(data: ClassesData, say: Words) -> Any:
    """Draw each class's top-1 as a dot with its interval, the worst on top."""
    rows = data.rows.with_columns(
        label=pl.concat_str(pl.col("name"), pl.lit("  ("), pl.col("photos"), pl.lit(")"))
    )
    y = alt.Y(
        "label:N",
        sort=None,
        title=None,
        axis=alt.Axis(labelColor=INK, labelLimit=240, labelPadding=8, ticks=False, grid=False),
    )
    x = alt.X(
        "low:Q",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(format="%", tickCount=5),
        title=say("charts.class_top1"),
    )
    base = alt.Chart(rows).encode(
        y=y,
        tooltip=[
            alt.Tooltip("name:N", title=say("charts.class")),
            alt.Tooltip("right:Q", title=say("charts.right")),
            alt.Tooltip("photos:Q", title=say("charts.photos")),
            alt.Tooltip("top1:Q", title=say("charts.top1"), format=".1%"),
        ],
    )
    mean = alt.Chart(pl.DataFrame({"mean": [data.mean]}))
    layers = [
        mean.mark_rule(color=FAINT, strokeDash=[3, 3]).encode(x="mean:Q"),
        base.mark_rule(color=SERIES[0], strokeWidth=2, opacity=0.5).encode(x=x, x2="high:Q"),
        base.mark_point(filled=True, color=SERIES[0], size=70, opacity=1).encode(x="top1:Q"),
    ]
    height = ROW * max(1, rows.height)
    return alt.layer(*layers).properties(width=560, height=height)

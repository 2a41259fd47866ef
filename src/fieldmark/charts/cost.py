"""What it took: seconds against what came of it, cell by cell, or stage by stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from fieldmark.charts.look import INK, SERIES
from fieldmark.language import Said, Words

Name = str | tuple[Said, ...]


@dataclass(frozen=True)
class CostData:
    """Seconds and results of cells.

    Attributes:
        metric: What came of them.
        names: Of the rows; names, or settings one after the other.
        rows: seconds, value, frontier: whether no cheaper cell is as good; the cheapest first.
    """

    metric: str
    names: tuple[Name, ...]
    rows: pl.DataFrame


@dataclass(frozen=True)
class StagesData:
    """Seconds of a run's stages.

    Attributes:
        rows: stage, part (`preparing` or `training`), seconds; in order.
    """

    rows: pl.DataFrame


def cost_data(
    metric: str, cells: Sequence[tuple[Name, float, float]], *, lower_is_better: bool = False
) -> CostData:
    """From (name, seconds, value) of each cell."""
    sign = -1 if lower_is_better else 1
    cells = sorted(cells, key=lambda cell: cell[1])
    rows = [
        (
            seconds,
            value,
            not any(
                sign * other > sign * value or (other == value and less < seconds)
                for _, less, other in cells
                if less <= seconds
            ),
        )
        for _, seconds, value in cells
    ]
    schema = {"seconds": pl.Float64, "value": pl.Float64, "frontier": pl.Boolean}
    names = tuple(name for name, _, _ in cells)
    return CostData(metric, names, pl.DataFrame(rows, schema=schema, orient="row"))


def stages_data(stages: Sequence[tuple[str, float, float]]) -> StagesData:
    """From (stage, seconds preparing, seconds training)."""
    rows = [
        (name, part, seconds)
        for name, preparing, training in stages
        for part, seconds in (("preparing", preparing), ("training", training))
    ]
    schema = {"stage": pl.String, "part": pl.String, "seconds": pl.Float64}
    return StagesData(pl.DataFrame(rows, schema=schema, orient="row"))


def cost_chart(data: CostData, say: Words) -> Any:
    """Draw the result over the seconds it took, and join the cells that no cheaper one equals."""
    shape = ".4f" if data.metric.endswith("loss") else ".1%"
    x = alt.X(
        "seconds:Q",
        title=say("charts.seconds"),
        scale=alt.Scale(zero=False, padding=14),
        axis=alt.Axis(tickCount=8),
    )
    y = alt.Y(
        "value:Q",
        title=say.metric(data.metric),
        scale=alt.Scale(zero=False, padding=10),
        axis=alt.Axis(format=shape.replace(".1", ""), tickCount=5),
    )
    names = pl.Series([say.word(name) for name in data.names], dtype=pl.String)
    base = alt.Chart(data.rows.with_columns(name=names)).encode(x=x, y=y)
    best = alt.Chart(data.rows.filter(pl.col("frontier"))).encode(x=x, y=y)
    colour = alt.condition("datum.frontier", alt.value(SERIES[0]), alt.value("var(--noise)"))
    points = base.mark_point(filled=True, size=80, opacity=0.9).encode(
        color=colour,
        tooltip=[
            alt.Tooltip("name:N", title=say("charts.cell")),
            alt.Tooltip("seconds:Q", title=say("charts.seconds"), format=",.1f"),
            alt.Tooltip("value:Q", title=say.metric(data.metric), format=shape),
        ],
    )
    line = best.mark_line(color=SERIES[0], interpolate="step-after", strokeWidth=1.5, opacity=0.6)
    return alt.layer(line, points).properties(width=560, height=240)


def stages_chart(data: StagesData, say: Words) -> Any:
    """Draw a bar for each stage, preparing before training."""
    parts = ["preparing", "training"]
    words = {part: say(f"charts.{part}") for part in parts}
    rows = data.rows.with_columns(
        word=pl.col("part").replace(words),
        part_number=(pl.col("part") == "training").cast(pl.Int64),
    )
    bars = (
        alt.Chart(rows)
        .mark_bar(height=16)
        .encode(
            x=alt.X("seconds:Q", title=say("charts.seconds")),
            y=alt.Y(
                "stage:N",
                sort=None,
                title=None,
                axis=alt.Axis(labelColor=INK, ticks=False, grid=False),
            ),
            color=alt.Color(
                "word:N",
                scale=alt.Scale(domain=list(words.values()), range=["var(--noise)", SERIES[0]]),
                legend=alt.Legend(title=None),
            ),
            order="part_number:O",
            tooltip=[
                alt.Tooltip("stage:N", title=say("charts.stage")),
                alt.Tooltip("word:N", title=say("charts.part")),
                alt.Tooltip("seconds:Q", title=say("charts.seconds"), format=",.1f"),
            ],
        )
    )
    height = 30 * max(1, rows["stage"].n_unique())
    return bars.properties(width=560, height=height)

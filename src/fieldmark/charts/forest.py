"""A forest plot: differences with their intervals, one below the other, and what they come to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from fieldmark.charts.look import ANSWERS, FAINT, GRID, INK
from fieldmark.language import Said, Words
from fieldmark.studies.verdict import Verdict

ROW = 30  # pixels of a difference


@dataclass(frozen=True)
class ForestData:
    """Differences in top-1, in points.

    Attributes:
        care: The least difference worth caring about, in points.
        labels: Of the rows; sentences or names.
        rows: difference, low, high, answer; in the order drawn.
    """

    care: float
    labels: tuple[Said | str, ...]
    rows: pl.DataFrame


def forest_data(found: Sequence[tuple[Said | str, Verdict]]) -> ForestData:
    """Labelled verdicts, in the order given."""
    rows = [(100 * v.difference, 100 * v.low, 100 * v.high, str(v.answer)) for _, v in found]
    schema = {
        "difference": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "answer": pl.String,
    }
    care = 100 * max((verdict.care for _, verdict in found), default=0.0)
    labels = tuple(label for label, _ in found)
    return ForestData(care, labels, pl.DataFrame(rows, schema=schema, orient="row"))


def forest_chart(data: ForestData, say: Words) -> Any:
    """Draw intervals left and right of zero, with the band that nobody needs to care about."""
    words = {answer: say(f"answers.{answer.replace(' ', '_')}") for answer in ANSWERS}
    labels = pl.Series([say.word(label) for label in data.labels], dtype=pl.String)
    rows = data.rows.with_columns(label=labels, word=pl.col("answer").replace(words))
    y = alt.Y(
        "label:N",
        sort=None,
        title=None,
        axis=alt.Axis(labelColor=INK, labelLimit=230, grid=False, ticks=False),
    )
    x = alt.X("low:Q", title=say("charts.points"), axis=alt.Axis(format="+~f", tickCount=6))
    colour = alt.Color(
        "word:N",
        scale=alt.Scale(domain=list(words.values()), range=list(ANSWERS.values())),
        legend=alt.Legend(title=None, symbolType="circle", symbolStrokeWidth=0),
    )
    tooltip = [
        alt.Tooltip("label:N", title=say("charts.difference")),
        alt.Tooltip("difference:Q", title=say("charts.points"), format="+.2f"),
        alt.Tooltip("low:Q", title=say("charts.low"), format="+.2f"),
        alt.Tooltip("high:Q", title=say("charts.high"), format="+.2f"),
        alt.Tooltip("word:N", title=say("charts.answer")),
    ]
    band = alt.Chart(pl.DataFrame({"from": [-data.care], "to": [data.care]}))
    base = alt.Chart(rows).encode(y=y, color=colour, tooltip=tooltip)
    layers = [
        band.mark_rect(color=GRID, opacity=0.55).encode(x="from:Q", x2="to:Q"),
        alt.Chart(pl.DataFrame({"zero": [0.0]})).mark_rule(color=FAINT).encode(x="zero:Q"),
        base.mark_rule(strokeWidth=2.5).encode(x=x, x2="high:Q"),
        base.mark_point(filled=True, size=80, opacity=1).encode(x="difference:Q"),
    ]
    return alt.layer(*layers).properties(width=640, height=ROW * rows.height + 6)

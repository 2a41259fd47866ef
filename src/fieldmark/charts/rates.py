"""How the loss moves with the learning rate in a short rehearsal, and with the number of photos."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl

from fieldmark.charts.look import GRID, INK, PAPER, SERIES
from fieldmark.language import Words

Amount = tuple[float, float, float, float]

HEADROOM = 3.0  # times the first loss: what lies above is drawn at the top


@dataclass(frozen=True)
class RatesData:
    """A learning-rate range test.

    Attributes:
        stage: Name of the training stage.
        curves: seed, lr, loss; finite, in the order tried.
        band: Rates that are safe to use, lowest and highest; None where none was found.
        used: The rate the recipe asks for; None: not known.
        reason: Why the band ends where it does, or why there is none.
    """

    stage: str
    curves: pl.DataFrame
    band: tuple[float, float] | None
    used: float | None
    reason: str


@dataclass(frozen=True)
class AmountData:
    """A metric by the number of photos trained on.

    Attributes:
        metric: Which.
        rows: amount (1 for all there are), value, low, high, foreseen; by amount.
    """

    metric: str
    rows: pl.DataFrame


def rates_data(stage: str, record: Mapping[str, Any], used: float | None = None) -> RatesData:
    """From what a rehearsal recorded of a stage: `seeds`, `lr` (N,), `loss` (seeds, N), `band`."""
    rows = [
        (str(seed), float(lr), float(loss))
        for seed, losses in zip(record["seeds"], record["loss"], strict=True)
        for lr, loss in zip(record["lr"], losses, strict=False)
        if loss is not None and math.isfinite(loss)
    ]
    schema = {"seed": pl.String, "lr": pl.Float64, "loss": pl.Float64}
    band = record.get("band")
    return RatesData(
        stage,
        pl.DataFrame(rows, schema=schema, orient="row"),
        (float(band[0]), float(band[1])) if band else None,
        used,
        str(record.get("reason") or ""),
    )


def amount_data(metric: str, seen: Sequence[Amount], foreseen: Sequence[Amount] = ()) -> AmountData:
    """From (amount, value, low, high) of what was seen, and of what a fitted curve foresees."""
    schema = {
        "amount": pl.Float64,
        "value": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "foreseen": pl.Boolean,
    }
    rows = [(*row, False) for row in seen] + [(*row, True) for row in foreseen]
    return AmountData(metric, pl.DataFrame(rows, schema=schema, orient="row").sort("amount"))


def rates_chart(data: RatesData, say: Words) -> Any:
    """Draw loss over learning rate, a line for each seed, with the safe band and the rate used."""
    first = data.curves["loss"][0] if data.curves.height else 1.0
    top = HEADROOM * first
    curves = data.curves.with_columns(shown=pl.col("loss").clip(upper_bound=top))
    rates = curves["lr"].to_list() or [1e-3, 1.0]
    x = alt.X(
        "lr:Q",
        scale=alt.Scale(type="log", nice=False, domain=[min(rates), max(rates)]),
        axis=alt.Axis(format="~g", tickCount=5),
        title=say("charts.lr_log"),
    )
    y = alt.Y("shown:Q", title=say("charts.loss"), scale=alt.Scale(zero=False))
    layers: list[Any] = []
    if data.band:
        band = alt.Chart(pl.DataFrame({"lr": [data.band[0]], "to": [data.band[1]]}))
        layers.append(band.mark_rect(color=GRID, opacity=0.6, clip=True).encode(x=x, x2="to:Q"))
    base = alt.Chart(curves).encode(x=x, y=y)
    layers.append(base.mark_line(strokeWidth=1.8).encode(color=_by_seed()))
    points = base.mark_point(filled=True, size=70, opacity=0)
    layers.append(
        points.encode(
            tooltip=[
                alt.Tooltip("lr:Q", title=say("charts.lr"), format=".3g"),
                alt.Tooltip("loss:Q", title=say("charts.loss"), format=".4f"),
                alt.Tooltip("seed:N", title=say("charts.seed")),
            ]
        )
    )
    if data.used:
        used = alt.Chart(pl.DataFrame({"lr": [data.used], "told": [say("charts.lr_used")]}))
        layers.append(used.mark_rule(color=INK, strokeWidth=1.5, clip=True).encode(x=x))
        text = used.mark_text(align="left", dx=5, dy=8, color=INK, fontSize=11)
        layers.append(text.encode(x=x, y=alt.value(0), text="told:N"))
    chart = alt.layer(*layers, title=data.stage)
    return chart.properties(width=330, height=200)


def amount_chart(data: AmountData, say: Words) -> Any:
    """Draw the metric over the amount of photos, which doubles along the axis."""
    axis = alt.Axis(format="~g", values=[2.0**n for n in range(-7, 8)])
    scale = alt.Scale(type="log", base=2, padding=12)
    x = alt.X("amount:Q", scale=scale, axis=axis, title=say("charts.trained_on"))
    shape = ".4f" if data.metric.endswith("loss") else ".1%"
    axis = alt.Axis(format=shape.replace(".1", ""), tickCount=5)
    y: dict[str, Any] = {"scale": alt.Scale(zero=False), "axis": axis}
    base = alt.Chart(data.rows).encode(
        x=x,
        tooltip=[
            alt.Tooltip("amount:Q", title=say("charts.trained_on"), format=".3g"),
            alt.Tooltip("value:Q", title=say.metric(data.metric), format=shape),
        ],
    )
    value = alt.Y("value:Q", title=say.metric(data.metric), **y)
    seen = base.transform_filter("!datum.foreseen")
    dash = [5, 4]
    layers = [
        base.mark_area(color=SERIES[0], opacity=0.15).encode(y=alt.Y("low:Q", **y), y2="high:Q"),
        base.mark_line(color=SERIES[0], strokeWidth=1.5, strokeDash=dash).encode(y=value),
        seen.mark_line(color=SERIES[0], strokeWidth=2.5).encode(y=value),
        base.mark_point(stroke=SERIES[0], fill=PAPER, size=60, opacity=1).encode(y=value),
        seen.mark_point(filled=True, color=SERIES[0], size=60, opacity=1).encode(y=value),
    ]
    return alt.layer(*layers).properties(width=330, height=200)


def _by_seed() -> alt.Color:
    return alt.Color("seed:N", scale=alt.Scale(range=list(SERIES)), legend=None)

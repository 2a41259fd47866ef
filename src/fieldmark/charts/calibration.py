"""A reliability diagram: whether a model that is 80 % sure is right 80 times in 100."""

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from fieldmark.charts.look import FAINT, SERIES
from fieldmark.language import Words
from fieldmark.metrics import CONFIDENCE_BINS, confidence_bin, wilson_interval


@dataclass(frozen=True)
class CalibrationData:
    """Confidence against accuracy, in equal bins of confidence.

    Guo et al., "On calibration of modern neural networks", arXiv 1706.04599.

    Attributes:
        bins: confidence (mean), accuracy, low, high (95 % interval), photos; empty bins left out.
        error: Sum over bins of share of photos times |accuracy - confidence|.
    """

    bins: pl.DataFrame
    error: float


def calibration_data(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> CalibrationData:
    """From the probability of each guess (N,) and whether it was right (N,)."""
    place = confidence_bin(confidence)
    rows = []
    for number in range(CONFIDENCE_BINS):
        mine = place == number
        if mine.any():
            accuracy = float(right[mine].mean())
            low, high = wilson_interval(accuracy, int(mine.sum()))
            rows.append((float(confidence[mine].mean()), accuracy, low, high, int(mine.sum())))
    schema = {
        "confidence": pl.Float64,
        "accuracy": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "photos": pl.Int64,
    }
    found = pl.DataFrame(rows, schema=schema, orient="row")
    gaps = (found["accuracy"] - found["confidence"]).abs() * found["photos"]
    return CalibrationData(found, float(gaps.sum()) / max(1, len(right)))


def calibration_chart(data: CalibrationData, say: Words) -> Any:
    """Draw accuracy over confidence beside the diagonal of a model that knows how sure to be."""
    share = alt.Scale(domain=[0, 1])
    axis = alt.Axis(format="%", tickCount=5)
    x = alt.X("confidence:Q", scale=share, axis=axis, title=say("charts.confidence"))
    base = alt.Chart(data.bins).encode(
        x=x,
        tooltip=[
            alt.Tooltip("confidence:Q", title=say("charts.confidence"), format=".1%"),
            alt.Tooltip("accuracy:Q", title=say("charts.accuracy"), format=".1%"),
            alt.Tooltip("photos:Q", title=say("charts.photos")),
        ],
    )
    y = alt.Y("low:Q", scale=share, axis=axis, title=say("charts.accuracy"))
    ends = alt.Chart(pl.DataFrame({"confidence": [0.0, 1.0], "accuracy": [0.0, 1.0]}))
    diagonal = ends.mark_line(color=FAINT, strokeDash=[4, 3], strokeWidth=1)
    size = alt.Size("photos:Q", scale=alt.Scale(range=[30, 300]), legend=None)
    layers = [
        diagonal.encode(x=x, y=alt.Y("accuracy:Q", scale=share)),
        base.mark_rule(color=SERIES[0], strokeWidth=1.5, opacity=0.5).encode(y=y, y2="high:Q"),
        base.mark_point(filled=True, color=SERIES[0], opacity=1).encode(y="accuracy:Q", size=size),
    ]
    return alt.layer(*layers).properties(width=280, height=280)

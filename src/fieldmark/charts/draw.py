"""From any figure's data to its drawing."""

from collections.abc import Callable
from typing import Any

from altair.utils.schemapi import debug_mode

from fieldmark.charts.calibration import CalibrationData, calibration_chart
from fieldmark.charts.confusion import (
    ClassesData,
    MatrixData,
    PairsData,
    classes_chart,
    matrix_chart,
    pairs_chart,
)
from fieldmark.charts.cost import CostData, StagesData, cost_chart, stages_chart
from fieldmark.charts.curves import CurvesData
from fieldmark.charts.curves_drawing import curves_chart
from fieldmark.charts.forest import ForestData, forest_chart
from fieldmark.charts.grid import AxisData, HeatData, axis_chart, heat_chart
from fieldmark.charts.look import CONFIG
from fieldmark.charts.rates import AmountData, RatesData, amount_chart, rates_chart
from fieldmark.language import Words

DRAWINGS: dict[type, Callable[[Any, Words], Any]] = {
    AmountData: amount_chart,
    AxisData: axis_chart,
    CalibrationData: calibration_chart,
    ClassesData: classes_chart,
    CostData: cost_chart,
    CurvesData: curves_chart,
    ForestData: forest_chart,
    HeatData: heat_chart,
    MatrixData: matrix_chart,
    PairsData: pairs_chart,
    RatesData: rates_chart,
    StagesData: stages_chart,
}
FIXED = (CurvesData, CalibrationData, MatrixData)  # all others may be as wide as there is room


def draw(data: Any, say: Words) -> dict[str, Any]:
    """A figure as a Vega-Lite specification, its colours still CSS variables."""
    with debug_mode(arg=False):  # which validates each part over and over; a test does it once
        spec: dict[str, Any] = DRAWINGS[type(data)](data, say).to_dict(validate=False)
    return {**spec, "config": CONFIG}

"""How charts look: colours by name, so that one drawing does for light, dark and paper.

A colour in a drawing is a CSS variable, `var(--ink)`. On a page the browser fills it in and goes
along when the reader turns to dark; for a picture `themed` does. Series are Okabe and Ito's, which
the colour-blind can tell apart (Nature Methods 8 (2011) 441), lighter where the page is dark.
"""

import json
import re
from typing import Any, Literal

Theme = Literal["light", "dark"]

INK, FAINT, GRID, PAPER = "var(--ink)", "var(--faint)", "var(--grid)", "var(--paper)"
PANES = ("var(--pane-0)", "var(--pane-1)")
SERIES = tuple(f"var(--series-{n})" for n in range(7))
SHADES = tuple(f"var(--shade-{n})" for n in range(7))  # little to much
ON_SHADES = tuple(f"var(--on-shade-{n})" for n in range(7))
"""What can be read on each shade."""
COLOURS = {"train": "var(--train)", "minitrain": "var(--minitrain)", "val": "var(--val)"}
ANSWERS = {"real": "var(--real)", "noise": "var(--noise)", "cannot tell": "var(--unclear)"}
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', 'Noto Sans CJK SC', sans-serif"

_OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B07D00", "#3B8FC4", "#5B5B5B")
_LIGHTER = ("#56B4E9", "#F0894A", "#2BC79A", "#E3A3C6", "#E5B83B", "#9AD1F3", "#ADADAD")
_BLUES = ("#EDF4F9", "#D3E4F1", "#AFCFE5", "#82B4D6", "#5298C5", "#2A7AB0", "#0A5A92")
_NIGHT = ("#1E2932", "#203A4D", "#235070", "#2B6A95", "#4189BA", "#71AFD7", "#AED5EF")
_DARK_INK, _LIGHT_INK = "#1B1D1F", "#F3F2EE"

THEMES: dict[Theme, dict[str, str]] = {
    "light": {
        "ink": _DARK_INK,
        "faint": "#666B70",
        "grid": "#E2E3DF",
        "paper": "#FFFFFF",
        "pane-0": "#F8F8F6",
        "pane-1": "#EEF2F5",
        "train": "#767676",
        "minitrain": "#0072B2",
        "val": "#D55E00",
        "real": "#B84A00",
        "noise": "#767676",
        "unclear": "#0072B2",
        **{f"series-{n}": colour for n, colour in enumerate(_OKABE_ITO)},
        **{f"shade-{n}": colour for n, colour in enumerate(_BLUES)},
        **{f"on-shade-{n}": _DARK_INK if n < 5 else "#FFFFFF" for n in range(7)},
    },
    "dark": {
        "ink": _LIGHT_INK,
        "faint": "#A0A6AC",
        "grid": "#333A40",
        "paper": "#181B1F",
        "pane-0": "#1D2125",
        "pane-1": "#222930",
        "train": "#8C8C8C",
        "minitrain": "#56B4E9",
        "val": "#F0894A",
        "real": "#F0894A",
        "noise": "#A0A6AC",
        "unclear": "#56B4E9",
        **{f"series-{n}": colour for n, colour in enumerate(_LIGHTER)},
        **{f"shade-{n}": colour for n, colour in enumerate(_NIGHT)},
        **{f"on-shade-{n}": "#FFFFFF" if n < 4 else _DARK_INK for n in range(7)},
    },
}

CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": FONT,
    "view": {"stroke": "transparent"},
    "axis": {
        "domain": False,
        "gridColor": GRID,
        "labelColor": FAINT,
        "labelFontSize": 11,
        "labelLimit": 140,
        "tickColor": GRID,
        "titleAnchor": "start",
        "titleColor": FAINT,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
    },
    "legend": {
        "labelColor": INK,
        "labelFontSize": 11,
        "labelLimit": 160,
        "orient": "top",
        "titleColor": FAINT,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
    },
    "header": {"labelColor": INK, "titleColor": FAINT, "titleFontWeight": "normal"},
    "title": {
        "anchor": "start",
        "color": INK,
        "fontSize": 14,
        "subtitleColor": FAINT,
        "subtitleFontSize": 11,
    },
}


def themed(spec: dict[str, Any], theme: Theme) -> dict[str, Any]:
    """A drawing with its colours filled in, on the theme's paper."""
    colours = THEMES[theme]
    text = json.dumps({**spec, "config": CONFIG})  # altair puts a look of its own into each
    text = re.sub(r"var\(--([\w-]+)\)", lambda found: colours[found[1]], text)
    filled: dict[str, Any] = json.loads(text)
    return filled | {"background": colours["paper"], "padding": 12}


def shade_of(value: float, low: float, high: float) -> int:
    """Which of the seven shades a value between `low` and `high` has."""
    share = (value - low) / (high - low) if high > low else 1.0
    return min(int(share * len(SHADES)), len(SHADES) - 1)

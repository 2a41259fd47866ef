"""Charts as pictures, without a browser; says when a letter can't be drawn."""

import json
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import vl_convert

from fieldmark import durable
from fieldmark.charts.look import Theme, themed
from fieldmark.errors import SettingError

VEGA_LITE = "6.4"
_NO_LETTER = "\U0010fffe"  # never assigned, so no font has it
_FONTS = {
    "CJK": "fonts-noto-cjk",
    "HIRAGANA": "fonts-noto-cjk",
    "KATAKANA": "fonts-noto-cjk",
    "HANGUL": "fonts-noto-cjk",
    "ARABIC": "fonts-noto-core",
    "HEBREW": "fonts-noto-core",
    "THAI": "fonts-noto-core",
    "DEVANAGARI": "fonts-noto-core",
}


def save_chart(chart: Any, path: Path, theme: Theme = "light") -> list[str]:
    """Write a chart as PNG, at twice the screen's resolution, or SVG.

    Returns:
        A warning for each script of which letters can't be drawn, with the font to install.

    Raises:
        SettingError: the file's name ends in neither `.png` nor `.svg`.
    """
    spec = themed(chart if isinstance(chart, dict) else chart.to_dict(), theme)
    kind = Path(path).suffix.lower()
    if kind == ".png":
        content = vl_convert.vegalite_to_png(spec, vl_version=VEGA_LITE, scale=2)
    elif kind == ".svg":
        content = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE).encode()
    else:
        raise SettingError(f"A chart is saved as `.png` or `.svg`, got `{path}`.")
    durable.replace(path, content)
    return list(missing_fonts(json.dumps(spec, ensure_ascii=False)))


def missing_fonts(text: str) -> Iterator[str]:
    """A line for each script in a text that no installed font can draw."""
    first: dict[str, str] = {}
    for letter in sorted(set(text)):
        if ord(letter) > 0x24F and letter.isalpha():
            first.setdefault(unicodedata.name(letter, "?").split()[0], letter)
    for script, letter in first.items():
        if _drawn(letter) == _drawn(_NO_LETTER):
            package = _FONTS.get(script, "fonts-noto")
            yield (
                f"No font here can draw `{letter}` ({script.title()}), so pictures lack such "
                f"letters. Install one: apt-get install {package}"
            )


@cache
def _drawn(letter: str) -> bytes:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24">'
        f'<text x="2" y="20" font-size="18" font-family="sans-serif">{letter}</text></svg>'
    )
    picture: bytes = vl_convert.svg_to_png(svg)
    return picture

"""From a page's data to one HTML file that needs no network, or to the same page live."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from fieldmark.charts.draw import FIXED, draw
from fieldmark.diagnosis.finding import AMONG, Finding
from fieldmark.language import (
    LANGUAGES,
    Lang,
    Said,
    Words,
    axis_words,
    duration,
    metric_text,
    metric_words,
)
from fieldmark.metrics import wilson_interval
from fieldmark.report.assets import asset
from fieldmark.report.page import Figure, Page

SCRIPTS = ("vega.js", "page.js")
STYLE = "page.css"
POINTS = 40  # of a sparkline


def render(
    page: Page,
    *,
    lang: Lang = "en",
    live: bool = False,
    template: Template | None = None,
    **more: Any,
) -> str:
    """The page as HTML.

    Args:
        page: Its data.
        lang: `en` or `zh`.
        live: Whether a server hands out `assets/NAME` and says by itself which policy holds; else
            all is inside the file, under a strict policy of its own.
        template: One that extends `page.html`, in its place.
        **more: What else it is given.

    Raises:
        SettingError: there is no such language.
    """
    say = Words(lang)
    template = template or environment().get_template("page.html")
    return template.render(
        page=page,
        say=say,
        live=live,
        languages=LANGUAGES,
        duration=duration,
        axis_words=axis_words,
        metric_words=metric_words,
        figure=lambda found: _figure(found, say),
        told=lambda found, part: finding_text(found, part, say),
        **({} if live else _inside()),
        **more,
    )


def finding_text(found: Finding, part: str, say: Words) -> str:
    """A part of a finding in the reader's language; English is as the check says it."""
    english: str = getattr(found, part)
    keys = {
        "title": f"checks.{found.check}.{'title' if found.outcome == 'fires' else 'label'}",
        "why_not": f"reasons.{found.reason}" if found.reason else f"checks.{found.check}.otherwise",
    }
    key = keys.get(part, f"checks.{found.check}.{part}")
    if not english or not say.has(key):
        return english
    numbers = {name: say.term(value) for name, value in found.numbers.items()}
    text = say(key, **{**numbers, **found.words})
    if found.among and part == "title":
        label = say(f"checks.{found.check}.label")
        return found.among.says(text, label, say, {k: say.templates[f"among.{k}"] for k in AMONG})
    return say("among.advice") if found.is_elsewhere and part == "advice" else text


def policy(scripts: Mapping[str, str], style: str) -> str:
    """A content-security policy that allows these scripts, this style, and nothing else."""
    allowed = " ".join(_hash(text) for text in scripts.values())
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _inside() -> dict[str, Any]:
    scripts = {name: asset(name) for name in SCRIPTS}
    style = asset(STYLE)
    return {
        "scripts": [Markup(text) for text in scripts.values()],
        "style": Markup(style),
        "policy": Markup(policy(scripts, style)),
    }


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _figure(found: Figure, say: Words) -> dict[str, Any]:
    return {
        "id": found.id,
        "told": say(found.told),
        "fixed": isinstance(found.data, FIXED),
        "kind": type(found.data).__name__.removesuffix("Data").lower(),
        "spec": _json(draw(found.data, say)),
    }


def _json(value: Any) -> Markup:
    """JSON that can't end the element it stands in, whatever names are in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


@cache
def environment() -> Environment:
    """The templates, and what they may call."""
    made = Environment(
        loader=PackageLoader("fieldmark.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "breakable": _breakable,
        "capital": lambda text: text[:1].upper() + text[1:],
        "code": _code,
        "interval": wilson_interval,
        "metric": lambda value, key: metric_text(key, value),
        "percent": lambda value: f"{value:.1%}",
        "picture": _picture,
        "sparkline": _sparkline,
        "thinned": _thinned,
        "when": _when,
        "words": _whole_words,
    }
    made.tests["sentence"] = lambda value: isinstance(value, Said)
    return made


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line after what joins its words."""
    parts = re.split(r"(?<=[_\-])(?=\w)", name)
    return Markup("<wbr>").join(parts)


def _whole_words(command: str) -> Markup:
    """A command that is broken between its words, never after a hyphen in one of them."""
    return Markup(" ").join(Markup("<span>{}</span>").format(word) for word in command.split(" "))


def _code(text: str) -> Markup:
    """The text with what stands between backticks as code."""
    parts = str(escape(text)).split("`")
    if len(parts) % 2 == 0:  # one of them is a name's own
        return Markup("`".join(parts))
    return Markup(
        "".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))
    )


def _picture(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _sparkline(values: list[float], width: int = 84, height: int = 20) -> str:
    """Points of a polyline, the highest value on top."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    right = max(1, len(values) - 1)
    return " ".join(
        f"{2 + n * (width - 4) / right:.1f},{height - 3 - (value - low) / span * (height - 6):.1f}"
        for n, value in enumerate(values)
    )


def _thinned(values: tuple[float, ...]) -> tuple[float, ...]:
    """A curve as some of its points, the last among them."""
    if len(values) <= POINTS:
        return values
    return tuple(values[round(n * (len(values) - 1) / (POINTS - 1))] for n in range(POINTS))


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")

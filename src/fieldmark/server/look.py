"""The live page's templates, on those of the report, and its own files."""

import os
from functools import cache
from importlib import resources
from urllib.parse import quote

from jinja2 import ChoiceLoader, Environment, PackageLoader, Template

from fieldmark.report import assets
from fieldmark.report.render import environment

OURS = {
    "live.js": "text/javascript",
    "predict.js": "text/javascript",
    "live.css": "text/css",
    "icon.svg": "image/svg+xml",
}


def asset(name: str) -> tuple[str, str] | None:
    """A file's text and its type; None where there is none of this name."""
    if name in OURS:
        file = resources.files("fieldmark.server") / "assets" / name
        return file.read_text(encoding="utf-8"), OURS[name]
    return (assets.asset(name), assets.ASSETS[name]) if name in assets.ASSETS else None


def template(name: str = "live.html") -> Template:
    """A template of the live page."""
    return _environment().get_template(name)


def link(place: str) -> str:
    """The address of a place's page; a name that is no Unicode keeps its bytes."""
    return "/" if place == "." else "/page/" + quote(os.fsencode(place))


def clock(seconds: float) -> str:
    """As in `01:05:00`; live.js does the same."""
    whole = max(0, int(seconds))
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"


@cache
def _environment() -> Environment:
    report = environment()
    made = report.overlay(
        loader=ChoiceLoader([PackageLoader("fieldmark.server"), PackageLoader("fieldmark.report")])
    )
    made.filters = {
        **report.filters,
        "link": link,
        "clock": clock,
        "below": _below,
    }
    return made


def _below(place: str, outer: str) -> str:
    """A place as it is called inside another."""
    return place.removeprefix(f"{outer}/")

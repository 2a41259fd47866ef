"""The scripts and the style of a page."""

import os
from contextlib import suppress
from functools import cache
from importlib import metadata, resources
from pathlib import Path

import vl_convert

from fieldmark import durable
from fieldmark.charts.look import THEMES
from fieldmark.errors import SettingError

ASSETS = {"vega.js": "text/javascript", "page.js": "text/javascript", "page.css": "text/css"}


@cache
def asset(name: str) -> str:
    """The text of a file of the page.

    Raises:
        SettingError: there is none of this name.
    """
    if name == "vega.js":
        return _safe(_vega())
    if name not in ASSETS:
        raise SettingError(f"A page has the files {', '.join(ASSETS)}, got {name!r}.")
    text = (resources.files("fieldmark.report") / "assets" / name).read_text(encoding="utf-8")
    return _colours() + text if name == "page.css" else text


def _vega() -> str:
    """Vega with all it needs; bundling takes seconds and stops all threads, so it is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("FIELDMARK_CACHE") or Path(base) / "fieldmark")
    kept = folder / f"vega-{metadata.version('vl-convert-python')}.js"
    with suppress(OSError):
        return kept.read_text(encoding="utf-8")
    bundle = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    with suppress(OSError):  # a disk that is full or not ours to write on
        durable.make_folder(folder)
        durable.replace(kept, bundle.encode(), sync=False)
    return bundle


def _safe(script: str) -> str:
    """The same script, without what would end the element it stands in."""
    return script.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def _colours() -> str:
    """The charts' colours as variables, so that the page and its charts are of one piece."""
    light, dark = (
        "".join(f"--{name}:{colour};" for name, colour in THEMES[theme].items())
        for theme in ("light", "dark")
    )
    return (
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
    )

"""The scripts and the style of a page."""

from contextlib import suppress
from functools import cache
from importlib import resources
from importlib.metadata import version

import vl_convert

from fieldmark import durable
from fieldmark.charts.look import THEMES
from fieldmark.errors import FieldmarkError, SettingError
from fieldmark.machine import cache_home

ASSETS = {"vega.js": "text/javascript", "page.js": "text/javascript", "page.css": "text/css"}


@cache
def asset(name: str) -> str:
    """The text of a file of the page.

    Raises:
        SettingError: there is none of this name.
    """
    if name == "vega.js":
        return _bundle()
    if name not in ASSETS:
        raise SettingError(f"A page has the files {', '.join(ASSETS)}, got {name!r}.")
    text = (resources.files("fieldmark.report") / "assets" / name).read_text(encoding="utf-8")
    return _colours() + text if name == "page.css" else text


def _bundle() -> str:
    """Vega-embed with all it needs; bundling takes a second, so it is kept."""
    path = cache_home() / "page" / f"vega-{version('vl-convert-python')}.js"
    with suppress(OSError):
        return path.read_text(encoding="utf-8")
    script = _safe(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    with suppress(OSError, FieldmarkError):  # a cache that can't be written is no reason to stop
        durable.make_folder(path.parent)
        durable.replace(path, script.encode())
    return script


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

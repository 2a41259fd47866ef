"""The columns `named` and `healthy` of docs/diagnosis.md, from what was measured."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fieldmark import durable

ROW = re.compile(r"^(\| R\d+ \| `(\w+)` \|.*\|)[^|\n]*\|[^|\n]*\|$", re.MULTILINE)


def filled(page: str, rates: Mapping[str, Mapping[str, Any]]) -> str:
    """The page with the rates of these checks put in; the other rows are left alone.

    Args:
        page: its text.
        rates: check -> on how many (`named`) of the `faults` it names it fires, and on how many
            (`alarms`) of the `healthy`.
    """

    def row(found: re.Match[str]) -> str:
        if (of := rates.get(found[2])) is None:
            return found[0]
        named, healthy = (
            f" {of[part]}/{of[whole]} " if of[whole] else " "
            for part, whole in (("named", "faults"), ("alarms", "healthy"))
        )
        return f"{found[1]}{named}|{healthy}|"

    return ROW.sub(row, page)


def fill(path: Path, rates: Mapping[str, Mapping[str, Any]]) -> None:
    """Put rates into the page."""
    durable.replace(path, filled(path.read_text(encoding="utf-8"), rates).encode())

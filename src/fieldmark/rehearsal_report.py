"""What a rehearsal found, as sentences and a table for the terminal."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from rich.console import Console

from fieldmark.language import Words
from fieldmark.report.rehearsed import tried
from fieldmark.terminal import listing

Found = Mapping[str, Any]


def show(console: Console, record: Found) -> None:
    """Print what was found, worst news first within each sentence."""
    for sentence in sentences(record):
        console.print(sentence, highlight=False, soft_wrap=True)
    rows: list[dict[str, object]] = [
        {
            "stage": name,
            "its lr": f"{found['stage_lr']:g}",
            "lr worth trying": _band(found["band"]),
            "batch": found["batch_size"],
            "weight decay": f"{found['weight_decay']:g}",
            "loss at start": f"{fmean(losses[0] for losses in found['loss']):.2f}",
            "lowest": f"{fmean(min(losses) for losses in found['loss']):.2f}",
            "seeds": len(found["seeds"]),
        }
        for name, found in record["range"].items()
    ]
    listing(console, rows, title="Learning-rate range test", how="table")


def sentences(record: Found) -> list[str]:
    """One for each experiment, in the order they were made."""
    say = Words("en")
    return [say(each.told) for each in tried(record)]


def _band(band: list[float] | None) -> str:
    return f"{band[0]:.2g} - {band[1]:.2g}" if band else "none"

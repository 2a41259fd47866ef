"""What a rehearsal found, as sentences and a table for the terminal."""

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from rich.console import Console

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
    lines = [_by_heart(record["overfit"], record["stage"])]
    if record["blank"]:
        lines.append(_blank(record["blank"]))
    return lines + [_rates(name, found) for name, found in record["range"].items()]


def _by_heart(found: Found, stage: str) -> str:
    loss = "none" if found["loss"] is None else f"{abs(found['loss']):.3f}"
    seen = (
        f"{found['images']} photos named {found['top1']:.0%} rightly at loss {loss} after "
        f"{found['steps']} steps of {stage}; {found['trainable']:,} numbers move"
    )
    if found["learned"]:
        return f"It can learn: {seen}."
    if found["top1"] == 1 and not found["reason"]:
        return f"It learns a few photos by heart, but slowly: {seen}."
    why = found["reason"] or (
        "Is its lr far too low or too high, all of it frozen, or are labels mixed up? "
        "Mend this before a run."
    )
    return f"It does NOT learn a few photos by heart: {seen}. {why}"


def _blank(found: Found) -> str:
    real, blank, count = found["real_top1"], found["blank_top1"], found["images"]
    seen = (
        f"{real:.1%} of {count} val photos named rightly after {found['steps']} steps, "
        f"{blank:.1%} where every photo was blank"
    )
    if found["reason"]:
        return f"Whether it looks at the photos can't be told: {seen}. {found['reason']}"
    error = math.sqrt((real * (1 - real) + blank * (1 - blank)) / count)
    if real - blank > 2 * error:
        return f"It looks at the photos: {seen}."
    return (
        f"It does NOT look at the photos, or learns too slowly to show it: {seen}. See what it is "
        "fed with `fieldmark inspect`."
    )


def _rates(name: str, found: Found) -> str:
    after = ", ".join(f"{steps} steps of {stage}" for stage, steps in found["after"].items())
    begun = f" (begun after {after})" if after else ""
    if found["band"] is None:
        return f"Stage {name}{begun}: no rate is given. {found['reason'].capitalize()}."
    low, high = found["band"]
    lr = found["stage_lr"]
    place = "inside" if low <= lr <= high else "below" if lr < low else "above"
    return (
        f"Stage {name}{begun}: try lr {low:.2g} to {high:.2g}, the upper end first; "
        f"{len(found['seeds'])} seeds agree, and its own {lr:g} lies {place}. This holds for this "
        f"stage, batch {found['batch_size']} and weight decay {found['weight_decay']:g} only."
    )


def _band(band: list[float] | None) -> str:
    return f"{band[0]:.2g} - {band[1]:.2g}" if band else "none"

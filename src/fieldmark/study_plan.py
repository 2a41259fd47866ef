"""What `fieldmark study plan` tells: what a study comes to, before anything runs."""

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from fieldmark.errors import count_of
from fieldmark.language import axis_words, counted, english, metric_words
from fieldmark.shipped import find_design
from fieldmark.studies.design import Design
from fieldmark.studies.power import Power, powers
from fieldmark.studies.study import Plan, Study
from fieldmark.terminal import Format, listing, tell

if TYPE_CHECKING:
    from fieldmark.cost import Cost

WORST_TOP1 = 0.5  # of which least can be told


def plan(
    console: Console,
    name: str,
    overrides: list[str],
    folder: Path | None,
    how: Format = "table",
    *,
    probe: bool = True,
) -> None:
    """Print what a study comes to, what it will take, and what it can't answer."""
    study = foreseen(find_design(name, overrides), folder or folder_of(name))
    asked = study.plan()
    if how == "table":
        _tell_counts(console, study, asked)
    if not probe or asked.is_done:
        if how != "table":
            listing(console, [_row(asked)], title="", how=how)
        return
    cost, photos = _probed(console, study, how)
    top1 = _top1(study)
    found = powers(study.design, photos, top1=top1 or WORST_TOP1)
    if how == "table":
        _tell_cost(console, cost)
        _tell_powers(console, study, found, photos, top1)
    else:
        listing(console, [_row(asked) | _cost_row(cost, found, photos)], title="", how=how)


def folder_of(name: str) -> Path:
    """Where a study goes unless told."""
    return Path("studies") / Path(name).stem


def foreseen(design: Design, folder: Path) -> Study:
    """The study as it would go on in a folder, which stays as it is."""
    if known := Study.found(folder):
        return known.asking(design)
    with tempfile.TemporaryDirectory() as nowhere:
        return Study.create(Path(nowhere) / folder.name, design)


def _probed(console: Console, study: Study, how: Format) -> "tuple[Cost, int]":
    with (
        console.status("Trying a few batches and steps …") if how == "table" else console.capture()
    ):
        from fieldmark.study_cost import foresee  # noqa: PLC0415 - it loads torch
        from fieldmark.training.features import FeatureStore, cache_folder  # noqa: PLC0415

        return foresee(study, FeatureStore(cache_folder()))


def _tell_counts(console: Console, study: Study, asked: Plan) -> None:
    console.print(f"[bold]{study.design.file.question}[/bold]", highlight=False)
    judged_by = english(metric_words(study.design.metric))
    lines = [
        f"{count_of(asked.cells, 'cell')}, {english(counted('count.runs', asked.runs))}, "
        f"{asked.done:,} of them done; judged by {judged_by}",
        f"passes over the photos: {asked.passes:,} needed, {asked.passes_saved:,} saved",
    ]
    if asked.duplicates:
        told = count_of(asked.duplicates, "point comes", "points come")
        lines.append(f"{told} to the recipe of another, and cost nothing")
    if asked.later:
        told = count_of(asked.later, "more point is", "more points are")
        lines.append(f"up to {told} proposed as results come")
    console.print("\n".join(lines), highlight=False)


def _tell_cost(console: Console, cost: "Cost") -> None:
    low, high = cost.interval
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    for what, seconds in cost.by_part().items():
        if seconds >= cost.seconds / 100:
            table.add_row(f"  {what}", duration(seconds))
    console.print(f"\ntime    {between(cost.seconds, low, high)}, one worker", highlight=False)
    console.print(table, highlight=False)
    console.print(f"disk    {size(cost.disk)}", highlight=False)
    console.print(f"memory  {size(cost.memory)} at the fullest moment", highlight=False)


def _top1(study: Study) -> float | None:
    """What the runs that are done named rightly, on average."""
    split = study.design.metric.partition("/")[0]
    found = [result.metrics.get(f"{split}/top1") for result in study.results().values()]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else None


def _tell_powers(
    console: Console, study: Study, found: list[Power], photos: int, top1: float | None
) -> None:
    seeds = study.design.file.seeds
    named = f"{top1:.0%} of them" if top1 else "about half of them, which is the least sharp,"
    judged = f"{photos:,} judged photos, {named} named rightly, {count_of(seeds, 'seed')} each"
    console.print(f"\nWhat it can answer, with {judged}, in four of five cases:", highlight=False)
    for power in found:
        tell(console, f"  {power.describe(english(axis_words(power.axis)))}")
    if seeds == 1:
        told = "  With one seed the answers are about that seed; seeds=3 makes them about recipes."
        tell(console, told)


def _row(asked: Plan) -> dict[str, object]:
    names = ("cells", "duplicates", "runs", "done", "passes", "passes_saved", "later")
    return {name: getattr(asked, name) for name in names}


def _cost_row(cost: "Cost", found: list[Power], photos: int) -> dict[str, object]:
    low, high = cost.interval
    return {
        "seconds": cost.seconds,
        "seconds_low": low,
        "seconds_high": high,
        "disk": cost.disk,
        "memory": cost.memory,
        "photos": photos,
        "parts": cost.by_part(),
        "powers": [asdict(power) for power in found],
    }


def between(seconds: float, low: float, high: float) -> str:
    """As `about 2 min (1.6 to 2.5)`: all three in the unit of the first."""
    unit, length = _unit(seconds)
    return (
        f"about {_digits(seconds / length)} {unit} ({_two(low / length)} to {_two(high / length)})"
    )


def duration(seconds: float) -> str:
    """As `14 s` or `3.2 min`."""
    unit, length = _unit(seconds)
    return f"{_two(seconds / length)} {unit}"


def size(count: int) -> str:
    """Bytes, as `1.2 GB` or `3.4 MB`."""
    return f"{count / 1e9:.1f} GB" if count >= 5e7 else f"{count / 1e6:.1f} MB"


def _unit(seconds: float) -> tuple[str, float]:
    return next(
        (name, length)
        for name, length in (("h", 3600.0), ("min", 60.0), ("s", 1.0))
        if seconds >= 1.5 * length or name == "s"
    )


def _two(value: float) -> str:
    """Two digits."""
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def _digits(value: float) -> str:
    """A whole number where that loses little."""
    return f"{value:.0f}" if value >= 4.5 or abs(value - round(value)) < 0.05 else f"{value:.1f}"

"""Running cells and runs with sparklines in the terminal: a look from afar, over ssh."""

import math
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fieldmark import durable
from fieldmark.errors import SettingError
from fieldmark.studies.catalog import Catalog, RunSummary, StudySummary
from fieldmark.studies.study import State

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 24  # characters of a sparkline, at most
SHORTEST_NAME = 14  # characters
EVERY = 1.0  # seconds between two looks
MOST_ENDED = 5  # finished and failed runs shown below those that run
STATES: tuple[State, ...] = ("finished", "pruned", "failed", "running", "waiting")
STYLES = {
    "running": "cyan",
    "finished": "green",
    "pruned": "yellow",
    "failed": "red",
    "waiting": "dim",
}


def watch(console: Console, folder: Path, *, once: bool = False) -> None:
    """Show what is under way in a folder until interrupted, or once.

    Raises:
        SettingError: there is no such folder.
    """
    if not folder.is_dir():
        raise SettingError(f"There is no folder `{folder}`. Name one that runs or studies are in.")
    catalog = Catalog(folder)
    catalog.look()
    if once:
        console.print(frame(catalog, durable.now()))
        return
    with Live(frame(catalog, durable.now()), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(EVERY)
            catalog.look()
            live.update(frame(catalog, durable.now()), refresh=True)


def frame(catalog: Catalog, now: float) -> RenderableType:
    """All of it at one moment.

    Args:
        catalog: Of the folder, after a look.
        now: Seconds since the epoch.
    """
    studies = sorted(catalog.studies.values(), key=lambda study: study.place)
    seen = catalog.seen()
    ended = [run for run in seen.own_runs() if not run.progress][:MOST_ENDED]
    runs = [*seen.under_way(), *ended]
    parts: list[RenderableType] = []
    if studies:
        parts.append(_study_table(studies))
    if runs:
        parts.append(_run_table(runs, now))
    parts += [Text(f"{place}: {why}", "red") for place, why in sorted(catalog.damaged.items())]
    empty = Text(f"There is no run and no study in {catalog.folder} yet.", "dim")
    return Group(*parts) if parts else empty


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """A curve as so many characters at most; each stands for the mean of its share of it.

    Args:
        values: (N,), finite.
        width: Characters.
    """
    count = min(width, len(values))
    edges = [round(n * len(values) / count) for n in range(count + 1)] if count else []
    means = [math.fsum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    span = (high - low) or 1.0
    return "".join(BARS[round((mean - low) / span * (len(BARS) - 1))] for mean in means)


def lasting(seconds: float | None) -> str:
    """As in `1 h 05 min`, `12 min`, `3 min 20 s`, `40 s`."""
    if seconds is None:
        return "-"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    if minutes >= 10:
        return f"{minutes} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"


def plain(text: str) -> str:
    """The text in one line, without what would move a terminal's cursor or turn its text around."""
    return "".join(letter if letter.isprintable() else "·" for letter in text)


def _table(title: str, *, first: str) -> Table:
    table = Table(title=title, title_justify="left", expand=True, box=box.SIMPLE_HEAD)
    table.add_column(first, ratio=3, min_width=SHORTEST_NAME, no_wrap=True)
    return table


def _study_table(studies: Sequence[StudySummary]) -> Table:
    table = _table("Studies", first="study")
    table.add_column("question", ratio=3, no_wrap=True, overflow="ellipsis")
    table.add_column("runs", min_width=WIDTH // 2, no_wrap=True)
    table.add_column("ended", justify="right", no_wrap=True)
    table.add_column("best", justify="right", no_wrap=True)
    table.add_column("time left", ratio=2, no_wrap=True, overflow="ellipsis")
    for study in studies:
        halted = study.order if study.order and study.order.wish != "go on" else None
        table.add_row(
            Place(study.place),
            plain(study.question),
            _bar(study),
            f"{study.ended} / {study.asked}",
            _number(study.metric, study.best),
            plain(halted.describe() if halted else _left_of(study)),
        )
    return table


def _bar(study: StudySummary) -> Text:
    """The states of all runs, each with its share of a line."""
    bar, count = Text(), len(study.states) or 1
    edges = [0]
    for state in STATES:
        edges.append(edges[-1] + study.count(state))
        first, last = (round(edge * (WIDTH // 2) / count) for edge in edges[-2:])
        bar.append(("░" if state == "waiting" else "█") * (last - first), STYLES[state])
    return bar


def _left_of(study: StudySummary) -> str:
    if study.seconds_left == 0:
        return "done"
    return lasting(study.seconds_left) if study.count("running") else "nobody is at it"


def _run_table(runs: Sequence[RunSummary], now: float) -> Table:
    table = _table("Runs", first="run")
    table.add_column("stage", no_wrap=True)
    table.add_column("loss", justify="right", no_wrap=True)
    table.add_column("curve", min_width=WIDTH // 2, max_width=WIDTH, ratio=2, no_wrap=True)
    table.add_column("val top-1", justify="right", no_wrap=True)
    table.add_column("time left", ratio=2, no_wrap=True, overflow="ellipsis")
    for run in runs:
        at, latest = run.progress, run.latest
        share = f" {at.step / at.total:.0%}" if at and at.total else ""
        stage = plain(at.stage or "-") + share if at else run.status
        table.add_row(
            Place(run.place),
            Text(stage, STYLES[run.status]),
            _number("train/loss", latest.get("train/loss")),
            Sparkline(run.curve, STYLES[run.status]),
            _number("val/top1", latest.get("val/top1")),
            plain(_left(run, now)),
        )
    return table


class Sparkline:
    """A curve as wide as there is room for, which rich asks for when it draws."""

    def __init__(self, values: Sequence[float], style: str) -> None:
        self.values, self.style = values, style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it."""
        yield Text(sparkline(self.values, min(WIDTH, options.max_width)), self.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """It takes what it gets."""
        return Measurement(1, WIDTH)


class Place:
    """A place cut at its beginning where it is too long: names differ at their ends."""

    def __init__(self, place: str) -> None:
        self.text = plain(place)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it."""
        text = Text(self.text, no_wrap=True)
        while text.cell_len > options.max_width:
            text = Text(f"…{text.plain.removeprefix('…')[1:]}", no_wrap=True)
        yield text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """It takes what it gets."""
        return Measurement(SHORTEST_NAME, max(SHORTEST_NAME, Text(self.text).cell_len))


def _left(run: RunSummary, now: float) -> str:
    """What is to be said of a run's end."""
    if run.progress is None:
        return run.reason or "done"
    if run.order and run.order.wish != "go on":
        return run.order.describe()
    if run.progress.is_silent(now):
        return f"silent for {lasting(now - run.progress.last_word)}"
    later = run.progress.stages_left
    more = f" + {later} stage{'s' * (later > 1)}" if later else ""
    return lasting(run.progress.seconds_left(now)) + more


def _number(key: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if key.rpartition("/")[2].startswith(("top", "mean")) else f"{value:.3f}"

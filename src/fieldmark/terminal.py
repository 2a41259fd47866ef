"""What a person sees while something runs, and the tables at its end."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fieldmark.metrics import wilson_interval

if TYPE_CHECKING:
    from fieldmark.studies.run import Run

Format = Literal["table", "json", "csv"]

console = Console()
errors = Console(stderr=True)
LONG_WORD = 10  # letters; a longer one, such as a path, may be broken in a table
_NUMBER = re.compile(r"[-–]|[-+]?[\d,.]+(e[-+]?\d+)?( ?%)?")


def example(command: str) -> str:
    """The last line of a command's help, to be copied."""
    return f"Example: [cyan]{command}[/cyan]"


@contextmanager
def interruptible(advice: Callable[[], str]) -> Iterator[None]:
    """Inside, Ctrl-C ends the command with a line that says how to go on, and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        errors.print(f"Interrupted. {advice()}", highlight=False, markup=False, soft_wrap=True)
        raise SystemExit(130) from None


def next_folder(parent: Path, name: str) -> Path:
    """The first of `NAME-1`, `NAME-2`, … that is not there yet."""
    number = 1
    while (parent / f"{name}-{number}").exists():
        number += 1
    return parent / f"{name}-{number}"


class Screen:
    """Tells of a training with a bar for each of its parts; use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[shown]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Screen":
        """Start to draw."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the screen as it is."""
        self._progress.stop()

    def say(self, line: str) -> None:
        """Print a line above the bars; a new stage gets bars of its own."""
        if line.startswith("stage "):
            self._tasks.clear()
        self._progress.console.print(line, highlight=False, markup=False)

    def progress(self, task: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        """Move the bar of `task`."""
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(task, total=total, shown="")
        self._progress.update(self._tasks[task], completed=done, total=total, shown=_shown(metrics))

    def record(self, metrics: Mapping[str, float], step: int) -> None:
        """Nothing: bars show the latest metrics."""


class Parts:
    """A bar for each part of what is under way, for people; use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:,} of {task.total:,}"),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Parts":
        """Start to draw."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the screen as it is."""
        self._progress.stop()

    def __call__(self, part: str, done: int, total: int) -> None:
        """Move the bar of a part, which begins anew where it was done before."""
        if part not in self._tasks:
            self._tasks[part] = self._progress.add_task(part, total=total)
        self._progress.update(self._tasks[part], completed=done, total=total)


def _shown(metrics: Mapping[str, float]) -> str:
    parts = [f"loss {metrics['train/loss']:.3f}"] if "train/loss" in metrics else []
    parts += [f"val {metrics['val/top1']:.1%}"] if "val/top1" in metrics else []
    return "  ".join(parts)


def stage_table(run: "Run") -> Table:
    """Where each stage ended, with the 95 % interval of what was measured on unseen photos."""
    counts = run.manifest["counts"]
    table = Table(title=f"{run.folder.name}: top-1 at the end of each stage", title_justify="left")
    table.add_column("stage")
    table.add_column(f"minitrain (n = {counts['minitrain']})", justify="right")
    if counts["val"]:
        table.add_column(f"val (n = {counts['val']}, 95 % interval)", justify="right")
    table.add_column("seconds", justify="right")
    ends = {key: dict(zip(*run.series(key), strict=True)) for key in ("minitrain/top1", "val/top1")}
    for stage in run.manifest["stages"]:
        seconds = stage["seconds_preparing"] + stage["seconds_training"]
        at = stage["last_step"]
        val = [share(ends["val/top1"].get(at), counts["val"])] if counts["val"] else []
        minitrain = share(ends["minitrain/top1"].get(at), None)
        table.add_row(stage["name"], minitrain, *val, f"{seconds:.0f}")
    steps, test = run.series("test/top1")
    if len(steps):
        table.add_section()
        table.add_row(
            f"test (n = {counts['test']}, opened {run.test_openings}x)",
            *([""] if counts["val"] else []),
            share(test[-1], counts["test"]),
            "",
        )
    return table


def share(value: float | None, count: int | None) -> str:
    """A share as per cent, with its 95 % interval where it is one of `count` photos."""
    if value is None:
        return "-"
    if count is None:
        return f"{value:.1%}"
    low, high = wilson_interval(value, count)
    return f"{value:.1%} ({low:.1%} - {high:.1%})"


ANSWERS = {"Real": "bold green", "Noise": "bold", "Cannot tell": "bold yellow"}


def tell(console: Console, sentence: str) -> None:
    """Print a sentence: wrapped between words for people, in one line for programs."""
    text = Text(sentence)
    for answer, style in ANSWERS.items():
        if sentence.startswith(f"{answer}:"):
            text.stylize(style, 0, len(answer))
    console.print(text, soft_wrap=not console.is_terminal)


def listing(
    console: Console, rows: Sequence[Mapping[str, object]], *, title: str, how: Format
) -> None:
    """Print rows for people, or as JSON or CSV for programs.

    People get a table; where the screen is too narrow for its words, a block of lines for each row.
    """
    if how == "json":
        console.out(json.dumps(list(rows), ensure_ascii=False, indent=2), highlight=False)
    elif how == "csv":
        stream = io.StringIO()
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
        console.out(stream.getvalue().rstrip("\r\n"), highlight=False)
    else:
        columns = {
            column: [str(row.get(column, "")) for row in rows]
            for column in (rows[0] if rows else [])
        }
        if title:
            tell(console, title)
        if sum(_least(*column) + 3 for column in columns.items()) < console.width:
            console.print(_as_table(columns))
        else:
            _print_blocks(console, columns)


def _least(name: str, shown: Sequence[str]) -> int:
    """Width of a column that breaks only what is longer than `LONG_WORD`."""
    words = [word for text in (name, *shown) for word in text.split()]
    return min(LONG_WORD, max((cell_len(word) for word in words), default=1))


def _as_table(columns: Mapping[str, Sequence[str]]) -> Table:
    table = Table()
    for name, shown in columns.items():
        number = all(_NUMBER.fullmatch(value) for value in shown)
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _print_blocks(console: Console, columns: Mapping[str, Sequence[str]]) -> None:
    """A line for each value that is there, a blank line between rows."""
    for row in zip(*columns.values(), strict=True):
        block = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        block.add_column(no_wrap=True)
        block.add_column(overflow="fold")
        for name, value in zip(columns, row, strict=True):
            if value:
                block.add_row(name, value)
        console.print(block)
        console.print()

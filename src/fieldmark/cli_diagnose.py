"""The command `fieldmark diagnose`; part of `cli`."""

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.terminal import Format, console


def diagnose(
    folder: Annotated[Path, typer.Argument(help="A run's or a study's folder.")],
    rehearsal: Annotated[
        Path | None, typer.Option(help="Folder that `fieldmark rehearse` made for its recipe.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also say why the other checks do not fire.")
    ] = False,
    corrections: Annotated[
        Path | None,
        typer.Option(help="Write the labels that are likely wrong to this .csv (of a study)."),
    ] = None,
    how: Annotated[Format, typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Say what is wrong with a run or a study, why, what to do, and what would refute it."""
    from fieldmark.diagnosis_report import diagnose as diagnose_folder

    diagnose_folder(console, folder, rehearsal, how, everything=everything, corrections=corrections)

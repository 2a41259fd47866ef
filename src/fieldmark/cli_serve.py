"""The commands `fieldmark serve` and `fieldmark watch`; part of `cli`."""

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.terminal import console


def watch(
    folder: Annotated[Path, typer.Argument(help="Where runs and studies are.")] = Path(),
    once: Annotated[bool, typer.Option("--once", help="Print how it is now, and end.")] = False,
) -> None:
    """Show running cells and runs with sparklines in the terminal, until Ctrl-C."""
    import contextlib

    from fieldmark.watch import watch as watch_folder

    with contextlib.suppress(KeyboardInterrupt):
        watch_folder(console, folder, once=once)

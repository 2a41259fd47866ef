"""The commands `fieldmark serve` and `fieldmark watch`; part of `cli`."""

from pathlib import Path
from typing import Annotated

import typer

from fieldmark.terminal import console


def serve(
    folder: Annotated[Path, typer.Argument(help="Where runs and studies are.")] = Path(),
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8765,
    allow_control: Annotated[
        bool, typer.Option("--allow-control", help="Let readers pause, stop and run again.")
    ] = False,
    photos: Annotated[
        list[Path] | None, typer.Option(help="Another folder of which photos may be shown.")
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="Another name this server is called by.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A finished run that names photos given to it.")
    ] = None,
) -> None:
    """Show all runs and studies of a folder in the browser, updated as they go on.

    Elsewhere than on this machine itself only who knows the printed address may read.
    """
    from fieldmark.server.serve import serve as serve_folder

    predict = None
    if model is not None:
        from fieldmark.predict import Predictor

        predict = Predictor(model).name
    serve_folder(
        console,
        folder,
        predict,
        host=host,
        port=port,
        allow_control=allow_control,
        photos=photos or [],
        names=name or [],
    )


def watch(
    folder: Annotated[Path, typer.Argument(help="Where runs and studies are.")] = Path(),
    once: Annotated[bool, typer.Option("--once", help="Print how it is now, and end.")] = False,
) -> None:
    """Show running cells and runs with sparklines in the terminal, until Ctrl-C."""
    import contextlib

    from fieldmark.watch import watch as watch_folder

    with contextlib.suppress(KeyboardInterrupt):
        watch_folder(console, folder, once=once)

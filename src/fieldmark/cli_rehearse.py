"""The command `fieldmark rehearse`; part of `cli`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from fieldmark.cli_study import Overrides
from fieldmark.terminal import Screen, console, next_folder

RecipeName = Annotated[str, typer.Argument(help="A recipe file, or a shipped recipe's name.")]


def rehearse(
    recipe: RecipeName,
    overrides: Overrides = None,
    stage: Annotated[str | None, typer.Option(help="Rehearse this stage alone.")] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Repeats of each range test.")] = 3,
    out: Annotated[
        Path | None, typer.Option(help="New folder; rehearsals/NAME-1, -2, … unless given.")
    ] = None,
) -> None:
    """Try a recipe in small before its first run: can it learn, does it look, at which rate.

    A training keeps what holds for it of the rehearsals in rehearsals/ when it begins.
    """
    from fieldmark.shipped import find_recipe

    found = find_recipe(recipe, overrides or [])  # its mistakes are told before torch is loaded
    from fieldmark.rehearsal_report import show
    from fieldmark.rehearse import rehearse as rehearse_recipe
    from fieldmark.rehearsed import RECORD, REHEARSALS
    from fieldmark.training.features import FeatureStore, cache_folder

    folder = out or next_folder(REHEARSALS, found.name)
    store = FeatureStore(cache_folder())
    with Screen(console) as screen:
        record = rehearse_recipe(
            found, folder, store=store, reporter=screen, stage=stage, seeds=seeds
        )
    show(console, record)
    told = f"Wrote {folder / RECORD}"
    if folder.resolve().parent != REHEARSALS.resolve():
        told += (
            f"\nA training looks in {REHEARSALS}/ alone. To see this one beside a run: "
            f"fieldmark diagnose RUN --rehearsal {shlex.quote(str(folder))}"
        )
    console.print(told, highlight=False, soft_wrap=True)

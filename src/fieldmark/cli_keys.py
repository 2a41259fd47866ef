"""The command `fieldmark keys`; part of `cli`."""

from typing import Annotated, Literal

import typer
from rich.padding import Padding
from rich.text import Text

from fieldmark.errors import SettingError
from fieldmark.terminal import Format, console


def keys(
    what: Annotated[
        Literal["recipe", "study"], typer.Argument(help="Of which file: recipe or study.")
    ] = "recipe",
    part: Annotated[str, typer.Argument(help="Only keys that contain this.")] = "",
    how: Annotated[Format, typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """List every key of a recipe or a study file: what it takes, its default, what it is."""
    from dataclasses import asdict

    from fieldmark.keys import keys as all_keys
    from fieldmark.terminal import listing

    known = all_keys(what)
    rows = [asdict(each) for each in known if part in each.key]
    if not rows:
        raise SettingError(
            f"No key of a {what} contains {part!r}. Leave it out: fieldmark keys {what}"
        )
    if how != "table":
        listing(console, rows, title="", how=how)
        return
    for row in rows:
        default = f", {row['default']} unless given" if row["default"] else ", must be given"
        lines = [f"{row['takes']}{default}", " ".join(str(row["meaning"]).split())]
        console.print(f"[bold]{row['key']}[/bold]", highlight=False)
        console.print(Padding(Text("\n".join(lines)), (0, 0, 0, 4)))

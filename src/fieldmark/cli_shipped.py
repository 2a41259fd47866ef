"""The commands `fieldmark recipes` and `fieldmark study list`; part of `cli`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from fieldmark.errors import RecipeError
from fieldmark.terminal import Format, console, listing

Copy = Annotated[Path | None, typer.Option("--copy", help="Write it to a new file instead.")]
How = Annotated[Format, typer.Option("--format", help="How to print the list.")]


def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe.")] = None,
    copy: Copy = None,
    how: How = "table",
) -> None:
    """List the shipped recipes, print one, or copy it to be changed."""
    from fieldmark.shipped import recipe_text

    if name is not None:
        _hand_out(recipe_text(name), copy, "Train it with: fieldmark train")
    elif copy is not None:
        raise RecipeError("Name the recipe to be copied: fieldmark recipes toy --copy FILE")
    else:
        _list_recipes(how)


def study_list(
    name: Annotated[str | None, typer.Argument(help="Print this study.")] = None,
    copy: Copy = None,
    how: How = "table",
) -> None:
    """List the shipped studies, print one, or copy it to be changed."""
    from fieldmark.shipped import study_names, study_questions, study_text

    if name is not None:
        _hand_out(study_text(name), copy, "Ask it with: fieldmark study run")
        return
    if copy is not None:
        raise RecipeError("Name the study to be copied: fieldmark study list transfer --copy FILE")
    questions = study_questions()
    rows: list[dict[str, object]] = [
        {"study": name, "question": questions[name]} for name in study_names()
    ]
    listing(console, rows, title="Shipped studies", how=how)
    if how == "table":
        console.print("Print one: fieldmark study list NAME")
        console.print("Ask it:    fieldmark study run NAME data.folder=PHOTOS", highlight=False)


def _hand_out(text: str, copy: Path | None, advice: str) -> None:
    """Print a shipped file, or write it where nothing is yet."""
    if copy is None:
        console.out(text, end="", highlight=False)
        return
    from fieldmark import durable

    if copy.exists():
        raise RecipeError(f"{copy} exists and is not overwritten. Give another name.")
    durable.make_folder(copy.parent)
    durable.replace(copy, text.encode())
    console.print(f"Wrote {copy}. {advice} {copy}", highlight=False, soft_wrap=True)


def _list_recipes(how: Format) -> None:
    from fieldmark.language import english, metric_text, metric_words
    from fieldmark.shipped import recipe_names, recipe_summary

    rows: list[dict[str, object]] = []
    for name in recipe_names():
        about, told = recipe_summary(name)
        shown = told and f"{metric_text(told.metric, told.value)} ± {told.spread:.1%}"
        rows.append(
            {
                "recipe": name,
                "what for": about,
                "result": f"{english(metric_words(told.metric))} {shown}" if told else "",
                "time": f"{told.seconds:.0f} s on {told.hardware}" if told else "",
                "command": told.command if told else f"fieldmark train {name}",
            }
        )
    if how != "table":
        listing(console, rows, title="", how=how)
        return
    for row in rows:  # four columns would be a few letters wide each
        lines = [str(row["what for"])]
        lines += [f"{row['result']}, in {row['time']}"] if row["result"] else []
        console.print(f"[bold]{row['recipe']}[/bold]", highlight=False)
        console.print(Padding(Text("\n".join(lines)), (0, 0, 0, 4)))
    console.print("\nPrint one: fieldmark recipes NAME", highlight=False)
    console.print("Train it:  fieldmark train NAME data.folder=PHOTOS", highlight=False)

"""The command line: parse, call, print. Nothing here is needed to use Fieldmark from Python."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.text import Text

from fieldmark import machine
from fieldmark.cli_cache import cache
from fieldmark.cli_diagnose import diagnose
from fieldmark.cli_rehearse import rehearse
from fieldmark.cli_report import report
from fieldmark.cli_serve import serve, watch
from fieldmark.cli_study import Overrides, study_app
from fieldmark.cli_train import train, train_by_name, train_recipe
from fieldmark.errors import FieldmarkError, RecipeError, SettingError
from fieldmark.terminal import Format, console, example, next_folder

TUNE, LOOK, DATA = "Tune a classifier", "Look at results", "Data and recipes"

app = typer.Typer(
    name="fieldmark",
    help="Tune image classifiers that must tell look-alikes apart.",
    epilog="Start with: fieldmark demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Tune image classifiers that must tell look-alikes apart."""
    del debug  # read in `main`, which sees every way a command can end
    command = context.invoked_subcommand
    if command != "train" and os.environ.get("WORLD_SIZE", "1") != "1":
        raise SettingError(f"Only `train` runs in several processes; start `{command}` without.")


@app.command(rich_help_panel=TUNE, epilog=example("fieldmark demo"))
def demo(
    folder: Annotated[Path, typer.Argument(help="Where drawings and runs go.")] = Path("demo"),
) -> None:
    """Draw the toy field guide, train on it in two stages, and ask it two tuning questions."""
    from fieldmark.data.toy import write_toy
    from fieldmark.demo import ask

    photos = folder / "photos"
    console.print(f"Drawing the toy field guide into {photos} …", highlight=False)
    write_toy(photos)
    train_by_name("toy", [f"data.folder={photos}"], next_folder(folder, "run"))
    ask(console, folder, photos)


app.command(
    rich_help_panel=TUNE,
    epilog=example("fieldmark train my-recipe.yaml seed=1 stages.all.lr=0.001"),
)(train)


@app.command(rich_help_panel=LOOK, epilog=example("fieldmark predict runs/toy-1 photo.jpg --top 3"))
def predict(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.")],
    photos: Annotated[list[Path], typer.Argument(help="Photos, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 3,
    how: Annotated[Format, typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Name the likeliest classes of photos."""
    from fieldmark.predict import Predictor, find_photos
    from fieldmark.terminal import listing

    rows: list[dict[str, object]] = []
    for found in Predictor(run).predict(find_photos(photos), top):
        row: dict[str, object] = {"photo": str(found.path)}
        for rank, (name, share) in enumerate(zip(found.classes, found.probabilities, strict=True)):
            row[f"class {rank + 1}"] = name
            row[f"probability {rank + 1}"] = f"{share:.1%}" if how == "table" else share
        rows.append(row)
    listing(console, rows, title=f"What {run} sees", how=how)


@app.command(name="eval", rich_help_panel=LOOK, epilog=example("fieldmark eval runs/toy-1"))
def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished run's folder.")],
    split: Annotated[str, typer.Option(help="val, minitrain, train or test.")] = "val",
    open_test: Annotated[
        bool, typer.Option("--open-test", help="Needed to measure on test. Counted.")
    ] = False,
    how: Annotated[Format, typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Measure a finished run on one of its splits."""
    if split not in {"val", "minitrain", "train", "test"}:
        raise SettingError(f"--split must be val, minitrain, train or test, got {split}.")
    from fieldmark.evaluate import evaluate_run
    from fieldmark.terminal import listing

    found = evaluate_run(run, cast("Any", split), open_test=open_test)
    shown = {
        key: f"{value:.4f}" if key == "loss" else f"{value:.1%}" for key, value in found.items()
    }
    row: dict[str, object] = {"run": str(run), "split": split}
    listing(console, [row | (shown if how == "table" else found)], title="Evaluation", how=how)


app.command(rich_help_panel=TUNE, epilog=example("fieldmark rehearse toy data.folder=photos"))(
    rehearse
)
app.add_typer(
    study_app,
    name="study",
    rich_help_panel=TUNE,
    help="Ask a tuning question: a grid for the price of one pass over the photos.",
)


app.command(rich_help_panel=LOOK, epilog=example("fieldmark diagnose runs/toy-1"))(diagnose)
app.command(rich_help_panel=DATA, epilog=example("fieldmark cache --clear"))(cache)


@app.command(rich_help_panel=LOOK, epilog=example("fieldmark compare runs/toy-1 runs/toy-2"))
def compare(
    a: Annotated[Path, typer.Argument(help="A run, or a folder of one recipe's runs.")],
    b: Annotated[Path, typer.Argument(help="Another, on the same photos.")],
    split: Annotated[
        str | None, typer.Option(help="Whose predictions; val if they have it.")
    ] = None,
    care: Annotated[float, typer.Option(help="Least difference that matters, in points.")] = 1.0,
    how: Annotated[Format, typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Say whether one run is really better than another, photo by photo."""
    from fieldmark.questions import compare as compare_runs

    compare_runs(console, a, b, split, care, how)


app.command(rich_help_panel=LOOK, epilog=example("fieldmark serve runs"))(serve)
app.command(rich_help_panel=LOOK, epilog=example("fieldmark watch runs"))(watch)
app.command(rich_help_panel=LOOK, epilog=example("fieldmark report runs/toy-1 --lang zh"))(report)


@app.command(rich_help_panel=TUNE, epilog=example("fieldmark refit runs/toy-1"))
def refit(
    run: Annotated[Path, typer.Argument(help="The run whose recipe was chosen.")],
    out: Annotated[Path | None, typer.Option(help="The new run's folder.")] = None,
) -> None:
    """Train a run's recipe anew on train and val together, once choices are over."""
    from fieldmark.evaluate import refit_recipe

    recipe = refit_recipe(run)
    train_recipe(recipe, out or next_folder(Path("runs"), recipe.name))


@app.command(rich_help_panel=DATA, epilog=example("fieldmark inspect toy data.folder=photos"))
def inspect(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or a shipped recipe's name.")],
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="The picture.")] = Path("inputs.png"),
) -> None:
    """Draw photos as the network will see them, in training and in evaluation."""
    from fieldmark.shipped import find_recipe

    found = find_recipe(recipe, overrides or [])
    from fieldmark.build import build
    from fieldmark.contact_sheet import save_contact_sheet

    save_contact_sheet(build(found), out)
    console.print(f"Wrote {out}", highlight=False)


@app.command(rich_help_panel=DATA, epilog=example("fieldmark recipes toy --copy my-recipe.yaml"))
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe.")] = None,
    copy: Annotated[Path | None, typer.Option(help="Write it to a new file instead.")] = None,
    how: Annotated[Format, typer.Option("--format", help="How to print the list.")] = "table",
) -> None:
    """List the shipped recipes, print one, or copy it to be changed."""
    from fieldmark.shipped import recipe_text

    if name is None:
        _list_recipes(how)
    elif copy is None:
        console.out(recipe_text(name), end="", highlight=False)
    else:
        from fieldmark import durable

        if copy.exists():
            raise RecipeError(f"{copy} exists and is not overwritten. Give another name.")
        durable.replace(copy, recipe_text(name).encode())
        console.print(f"Wrote {copy}. Train it with: fieldmark train {copy}", highlight=False)


@app.command(rich_help_panel=DATA, epilog=example("fieldmark toy toy-birds --per-class 40"))
def toy(
    folder: Annotated[Path, typer.Argument(help="New folder for the drawings.")],
    per_class: Annotated[int, typer.Option(min=1, help="Drawings of each species.")] = 60,
    size: Annotated[int, typer.Option(min=64, help="Side of a drawing in pixels.")] = 320,
    difficulty: Annotated[float, typer.Option(min=0, max=1, help="0 easy, 1 hard.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="Other seeds, other drawings.")] = 0,
) -> None:
    """Draw the toy field guide: small birds that differ only by their field marks."""
    from fieldmark.data.toy import write_toy

    write_toy(folder, per_class=per_class, size=size, difficulty=difficulty, seed=seed)
    console.print(f"Drew {folder}. Train on it with: fieldmark train toy data.folder={folder}")


def _list_recipes(how: Format) -> None:
    from fieldmark import checked_yaml
    from fieldmark.recipe import Recipe
    from fieldmark.shipped import recipe_names, recipe_text
    from fieldmark.terminal import listing

    rows = []
    for name in recipe_names():
        recipe = checked_yaml.check_text(recipe_text(name), Recipe, ["data.folder=."], name=name)
        told = recipe.expected
        rows.append(
            {
                "recipe": name,
                "what for": recipe.about,
                "result": f"{told.metric} {told.value:.1%} ± {told.spread:.1%}" if told else "",
                "time": f"{told.seconds:.0f} s on {told.hardware}" if told else "",
                "command": told.command if told else f"fieldmark train {name}",
            }
        )
    listing(console, rows, title="Shipped recipes", how=how)


def main() -> None:
    """Run the command line; a user's mistake is one message and exit code 1, not a traceback."""
    machine.shorten_waits()
    try:
        app()
    except (FieldmarkError, OSError) as error:  # OSError: a full disk, a folder not ours
        if "--debug" in sys.argv[1:]:
            raise
        message = Text.assemble(("Error: ", "bold red"), str(error))
        Console(stderr=True).print(message, highlight=False)
        sys.exit(1)

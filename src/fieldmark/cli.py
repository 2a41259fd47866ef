"""The command line: parse, call, print. Nothing here is needed to use Fieldmark from Python."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from fieldmark import __version__, machine
from fieldmark.cli_cache import cache
from fieldmark.cli_diagnose import diagnose
from fieldmark.cli_keys import keys
from fieldmark.cli_look import Where, evaluate, predict
from fieldmark.cli_rehearse import rehearse
from fieldmark.cli_report import report
from fieldmark.cli_serve import serve, watch
from fieldmark.cli_shipped import recipes
from fieldmark.cli_study import Overrides, study_app
from fieldmark.cli_train import train, train_by_name, train_recipe
from fieldmark.errors import FieldmarkError, SettingError
from fieldmark.terminal import Format, console, errors, example, next_folder

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


def _tell_version(asked: bool) -> None:
    if asked:
        console.print(f"fieldmark {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Say which.")
    ] = False,
) -> None:
    """Tune image classifiers that must tell look-alikes apart."""
    del debug, version  # read in `main`, which sees every way a command can end
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


app.command(rich_help_panel=LOOK, epilog=example("fieldmark predict runs/toy-1 photo.jpg --top 3"))(
    predict
)
app.command(name="eval", rich_help_panel=LOOK, epilog=example("fieldmark eval runs/toy-1"))(
    evaluate
)
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
    where: Where = None,
    out: Annotated[
        Path | None, typer.Option(help="The new run's folder; runs/RUN-refit-1, … unless given.")
    ] = None,
) -> None:
    """Train a run's recipe anew on train and val together, once choices are over."""
    from fieldmark.evaluate import refit_recipe
    from fieldmark.studies.catalog import CELLS

    recipe = refit_recipe(run, where or [])
    of_study = run.absolute().parent.parent.name == CELLS  # where runs are called by their seed
    name = recipe.name if of_study else f"{run.absolute().name}-refit"
    train_recipe(recipe, out or next_folder(Path("runs"), name))


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

    task = build(found)
    save_contact_sheet(task, out)
    from fieldmark.charts.picture import missing_fonts

    for warning in missing_fonts("".join(task.photos.class_names)):
        console.print(warning, highlight=False)
    console.print(f"Wrote {out}", highlight=False)


app.command(rich_help_panel=DATA, epilog=example("fieldmark recipes toy --copy my-recipe.yaml"))(
    recipes
)
app.command(rich_help_panel=DATA, epilog=example("fieldmark keys recipe stages"))(keys)


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


def main() -> None:
    """Run the command line; a user's mistake is one message and exit code 1, not a traceback."""
    machine.shorten_waits()
    try:
        app()
    except (FieldmarkError, OSError) as error:  # OSError: a full disk, a folder not ours
        if "--debug" in sys.argv[1:]:
            raise
        message = Text.assemble(("Error: ", "bold red"), str(error))
        errors.print(message, highlight=False, soft_wrap=not errors.is_terminal)
        sys.exit(1)

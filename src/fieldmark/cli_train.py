"""The command `fieldmark train`, and what other commands train with; part of `cli`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldmark.cli_study import Overrides
from fieldmark.errors import RecipeError
from fieldmark.terminal import console, interruptible, next_folder, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fieldmark.recipe import Recipe
    from fieldmark.studies.run import Run


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe file, or a shipped recipe's name.")
    ] = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; runs/NAME-1, -2, … unless given.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Leave out the stages after this one.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with this interrupted run instead.")
    ] = None,
    open_test: Annotated[
        bool, typer.Option("--open-test", help="Measure on test at the end. Counted.")
    ] = False,
    track: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Tell a dashboard too: tensorboard, wandb, mlflow, …"),
    ] = None,
) -> None:
    """Train a recipe into a run folder, or go on with an interrupted run."""
    if (recipe is None) == (resume is None):
        raise RecipeError("Give a recipe to train, or --resume RUN to go on with a run.")
    if resume is not None:
        if overrides or out or until:
            raise RecipeError("A resumed run keeps its recipe and folder; give --resume alone.")
        _resume(resume, open_test=open_test, track=track or [])
    elif recipe is not None:
        train_by_name(
            recipe, overrides or [], out, until=until, open_test=open_test, track=track or []
        )


def train_by_name(
    name: str,
    overrides: list[str],
    folder: Path | None,
    *,
    until: str | None = None,
    open_test: bool = False,
    track: "Sequence[str]" = (),
) -> None:
    """Train a recipe file, or a shipped recipe, with values set on the command line."""
    from fieldmark.shipped import find_recipe

    recipe = find_recipe(name, overrides)  # its mistakes are told before torch is loaded
    recipe = recipe.until(until) if until else recipe
    folder = folder or next_folder(Path("runs"), recipe.name)
    train_recipe(recipe, folder, open_test=open_test, track=track)


def train_recipe(
    recipe: "Recipe", folder: Path, *, open_test: bool = False, track: "Sequence[str]" = ()
) -> None:
    """Train with a screen to look at, then show where each stage ended."""
    with interruptible(lambda: _how_to_go_on(folder)):
        from fieldmark.dashboards import Dashboards
        from fieldmark.rehearsed import REHEARSALS
        from fieldmark.terminal import Screen
        from fieldmark.train import train as run_training
        from fieldmark.training.features import FeatureStore, cache_folder

        with Screen(console) as screen, Dashboards(screen, track, folder) as reporter:
            run = run_training(
                recipe,
                folder,
                store=FeatureStore(cache_folder()),
                reporter=reporter,
                open_test=open_test,
                rehearsals=REHEARSALS,
            )
        _show(run)


def _resume(folder: Path, *, open_test: bool, track: "Sequence[str]") -> None:
    with interruptible(lambda: _how_to_go_on(folder)):
        from fieldmark.dashboards import Dashboards
        from fieldmark.resume import resume as resume_run
        from fieldmark.terminal import Screen
        from fieldmark.training.features import FeatureStore, cache_folder

        with Screen(console) as screen, Dashboards(screen, track, folder) as reporter:
            store = FeatureStore(cache_folder())
            run = resume_run(folder, store=store, reporter=reporter, open_test=open_test)
        _show(run)


def _how_to_go_on(folder: Path) -> str:
    """What to do after Ctrl-C; that depends on how far it was."""
    from fieldmark.studies.run import RECIPE

    if not (folder / RECIPE).is_file():
        return "Nothing was written; give the same command again."
    return f"Go on with: fieldmark train --resume {shlex.quote(str(folder))}"


def _show(run: "Run") -> None:
    from fieldmark.charts.curves_drawing import training_chart
    from fieldmark.charts.picture import save_chart
    from fieldmark.diagnosis_report import run_diagnosis
    from fieldmark.terminal import stage_table
    from fieldmark.training.world import world

    if not world().leads:
        return
    console.print(stage_table(run))
    curves = run.folder / "curves.png"
    for warning in save_chart(training_chart(run), curves):
        console.print(warning, highlight=False)
    console.print(f"Run: {run.folder}\nCurves: {curves}", highlight=False)
    for sentence in run_diagnosis(run).splitlines():
        tell(console, sentence)

"""The commands `fieldmark study ...`; part of `cli`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fieldmark.cli_shipped import study_list
from fieldmark.terminal import Format, console, example, interruptible

study_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")

StudyName = Annotated[str, typer.Argument(help="A study file, or a shipped study's name.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Keys to set.")
]
StudyFolder = Annotated[
    Path | None, typer.Option("--out", help="The study's folder; studies/NAME unless given.")
]


study_app.command("list", epilog=example("fieldmark study list weight-decay --copy my-study.yaml"))(
    study_list
)


@study_app.command("plan", epilog=example("fieldmark study plan weight-decay data.folder=photos"))
def study_plan(
    name: StudyName,
    overrides: Overrides = None,
    out: StudyFolder = None,
    probe: Annotated[bool, typer.Option(help="Time a few batches and steps.")] = True,
    how: Annotated[Format, typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """Say what a study comes to, takes and can't answer, before anything runs."""
    from fieldmark.study_plan import plan

    plan(console, name, overrides or [], out, how, probe=probe)


@study_app.command("run", epilog=example("fieldmark study run weight-decay data.folder=photos"))
def study_run(
    name: StudyName,
    overrides: Overrides = None,
    out: StudyFolder = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the cores.")] = 1,
    retry: Annotated[bool, typer.Option("--retry", help="Run again what failed.")] = False,
    executor: Annotated[
        Literal["local", "ray"], typer.Option(help="This machine, or a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(help="The Ray cluster's; a local one unless given.")
    ] = None,
) -> None:
    """Run what a study lacks, and say what it found."""
    with interruptible(lambda: "Finished runs are kept; the same command again goes on."):
        from fieldmark.questions import executor_of, run

        chosen = executor_of(executor, workers, address)
        run(console, name, overrides or [], out, chosen, retry=retry)


@study_app.command("show", epilog=example("fieldmark study show studies/weight-decay"))
def study_show(
    folder: Annotated[Path, typer.Argument(help="A study's folder.")],
    how: Annotated[Format, typer.Option("--format", help="How to print.")] = "table",
    png: Annotated[
        Path | None, typer.Option(help="Also write its charts into this folder.")
    ] = None,
) -> None:
    """Show a study's table, heat map and verdicts."""
    from fieldmark.questions import show_study

    show_study(console, folder, how)
    if png is not None:
        _save_charts(folder, png)


def _save_charts(folder: Path, into: Path) -> None:
    """Write a study's charts as PNG, and say where, and what letters are missing."""
    from fieldmark.language import Words
    from fieldmark.report.content import study_page
    from fieldmark.report.pictures import save_pictures
    from fieldmark.studies.study import Study

    written, warnings = save_pictures(study_page(Study.open(folder)), into, Words("en"))
    for line in (*warnings, f"Wrote {len(written)} charts into {into}"):
        console.print(line, highlight=False, soft_wrap=True)

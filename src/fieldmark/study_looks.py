"""Where the best cell of a study looked, for its page: seen where that was not kept yet."""

from pathlib import Path

from rich.console import Console

from fieldmark.errors import FieldmarkError
from fieldmark.report.content import shown_run
from fieldmark.report.looks import has_looks
from fieldmark.studies.judged import judged
from fieldmark.studies.run import MANIFEST, Run
from fieldmark.studies.study import JOURNAL, Study


def see_shown_run(console: Console, folder: Path, *, only_from_kept: bool = False) -> None:
    """Have the run that a page shows say where its model looked; what stands against it is told.

    Args:
        console: Is told what is done.
        folder: A study, or a run of one.
        only_from_kept: Rather leave it than see all photos anew.
    """
    run = _shown(folder)
    if run is None or run.status != "finished" or has_looks(run) or judged(run) is None:
        return
    from fieldmark.head_looks import add_looks  # noqa: PLC0415 - it loads torch
    from fieldmark.training.features import FeatureStore, cache_folder  # noqa: PLC0415

    console.print(f"Seeing where the model of {run.folder} looked", highlight=False, soft_wrap=True)
    try:
        add_looks(run, FeatureStore(cache_folder()), only_from_kept=only_from_kept)
    except (FieldmarkError, OSError) as error:
        console.print(f"  It stays unknown: {error}", highlight=False, soft_wrap=True)


def _shown(folder: Path) -> Run | None:
    """The run whose photos stand on a folder's page."""
    if (folder / JOURNAL).is_file():
        return shown_run(Study.open(folder))
    return Run(folder) if (folder / MANIFEST).is_file() else None

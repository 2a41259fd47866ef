"""What the commands `compare` and `study` do."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import Progress

from fieldmark.errors import RecordError, SettingError
from fieldmark.shipped import find_design
from fieldmark.source import Source
from fieldmark.studies import control
from fieldmark.studies.answered import words
from fieldmark.studies.answers import read_answers
from fieldmark.studies.compare import changed_classes
from fieldmark.studies.compare import compare as judge
from fieldmark.studies.executor import Executor, LocalExecutor
from fieldmark.studies.folders import no_such
from fieldmark.studies.ray_executor import RayExecutor
from fieldmark.studies.results import Result
from fieldmark.studies.run import MANIFEST, Run
from fieldmark.studies.study import Study
from fieldmark.studies.trial import OUT_OF_FOLD
from fieldmark.study_looks import see_shown_run
from fieldmark.study_plan import folder_of, foreseen
from fieldmark.study_report import show
from fieldmark.terminal import Format, listing, tell

RUN_TRIALS = "fieldmark.trials:run_trials"
PREFERRED = (OUT_OF_FOLD, "val", "test")
MOST_CLASSES = 8


def compare(
    console: Console, a: Path, b: Path, split: str | None, care: float, how: Format
) -> None:
    """Print the verdict on two runs, or on two folders of one recipe's runs."""
    if not 0 < care < 100:
        raise SettingError(f"--care is in points, between 0 and 100, got {care:g}. Use 1.")
    sides = [runs_in(a), runs_in(b)]
    split = split or _shared_split([run for side in sides for run in side])
    of_a, of_b = (read_answers(side, split) for side in sides)
    verdict = judge(of_a, of_b, care=care / 100)
    if how == "table":
        names = [f"{path.name} ({of.top1:.1%})" for path, of in ((a, of_a), (b, of_b))]
        tell(console, f"On {split}{_openings(split, sides)}: {verdict.describe(*names)}")
        changed = changed_classes(of_a, of_b)[:MOST_CLASSES] if of_a.classes is not None else []
        rows: list[dict[str, object]] = [
            {
                "class": change.name,
                "photos": change.photos,
                f"right by {a.name}": f"{change.right_a:.1f}",
                f"right by {b.name}": f"{change.right_b:.1f}",
            }
            for change in changed
        ]
        if rows:
            listing(console, rows, title="Classes that changed most (no verdicts)", how=how)
        return
    row: dict[str, object] = {"a": str(a), "b": str(b), "split": split, "answer": verdict.answer}
    numbers = ("difference", "low", "high", "p", "about", "photos", "care")
    listing(console, [row | {name: getattr(verdict, name) for name in numbers}], title="", how=how)


def _openings(split: str, sides: Sequence[Sequence[Path]]) -> str:
    """How often the runs looked at `test`, the most of any: each look makes it worth less."""
    if split != "test":
        return ""
    return f" (opened up to {max(Run(path).test_openings for side in sides for path in side)}x)"


def runs_in(folder: Path) -> list[Path]:
    """The run in a folder, or the runs that lie in it: seeds of one recipe.

    Raises:
        RecordError: there is none.
    """
    if (folder / MANIFEST).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    if not found:
        raise RecordError(no_such(folder, "run", ["runs"], f"*/{MANIFEST}", "train"))
    return found


def _shared_split(runs: list[Path]) -> str:
    for split in PREFERRED:
        if all((run / "predictions" / f"{split}.parquet").is_file() for run in runs):
            return split
    held = {
        run: sorted(file.stem for file in (run / "predictions").glob("*.parquet")) for run in runs
    }
    lines = [
        f"{run}: {', '.join(splits) or 'none, it is not finished'}" for run, splits in held.items()
    ]
    told = "These runs hold no predictions of a split they share. Run `fieldmark eval` on each:"
    raise RecordError("\n  ".join([told, *lines]))


def executor_of(kind: Literal["local", "ray"], workers: int, address: str | None) -> Executor:
    """What `study run --executor` names.

    Raises:
        SettingError: an option belongs to the other one, or Ray is not installed.
    """
    if kind == "local":
        if address is not None:
            raise SettingError("--address names a Ray cluster. Add --executor ray, or leave it.")
        return LocalExecutor(RUN_TRIALS, workers=workers)
    if workers != 1:
        raise SettingError(
            "--workers is for the local executor; Ray runs as many groups at once as there are "
            "nodes. Leave it out."
        )
    return RayExecutor(RUN_TRIALS, address=address)


def run(
    console: Console,
    name: str,
    overrides: list[str],
    folder: Path | None,
    executor: Executor,
    *,
    retry: bool = False,
) -> None:
    """Run what a study lacks, and what failed where that is asked; then print what it found."""
    # Mistakes of the file are told before torch is loaded, those of photos before a file is made.
    design, folder = find_design(name, overrides), folder or folder_of(name)
    check_photos(foreseen(design, folder))
    study = Study.create(folder, design)
    if retry:
        console.print(f"{_take_back(study)} failed runs are run again", highlight=False)
    left = sum(len(group.slots) for group in study.plan().groups)
    told = f"{left} {'run' if left == 1 else 'runs'} to go"
    console.print(f"{study.folder}: {told}", highlight=False)
    with _told(console, study, left) as tell_result:
        for result in executor.run(study):
            tell_result(result)
    study.read_again()
    order = control.newest(study.folder)
    is_stopped = order is not None and order.wish == "stop"
    if not is_stopped:
        see_shown_run(console, study.folder)
    show(console, study, "table")
    if order and is_stopped:
        console.print(f"It was {order.describe()}; run it again to go on.", highlight=False)


@contextlib.contextmanager
def _told(console: Console, study: Study, left: int) -> Iterator[Callable[[Result], None]]:
    """Tell of each run: by a bar for people, in a line for programs; a failure always in a line."""
    lines, names = not console.is_terminal, dict[str, str]()
    with Progress(console=console, disable=lines or not left) as progress:
        bar = progress.add_task("runs", total=left)

        def tell_result(result: Result) -> None:
            progress.advance(bar)
            if result.cell not in names:  # proposed only now
                names.update({cell.hash: words(cell.points[0]) for cell in study.cells})
            what = f"{names.get(result.cell, result.cell)}, seed {result.seed}"
            value = result.metrics.get(study.design.metric)
            counts = result.status == "finished" and value is not None
            told = f"{value:.1%}" if counts else f"{result.status}: {result.reason}"
            if lines or not counts:
                progress.console.print(f"  {what}: {told}", highlight=False, soft_wrap=True)

        yield tell_result


def check_photos(study: Study) -> None:
    """Find out whether all photos that are still needed are there and can be read.

    Raises:
        FieldmarkError: says what is wrong with them, once for all runs.
    """
    left = [slot.recipe for group in study.plan().groups for slot in group.slots]
    sources = {
        recipe.data.model_dump_json(include=set(Source.model_fields)): recipe for recipe in left
    }
    if not sources:
        return
    from fieldmark.ledger import Silent  # noqa: PLC0415 - it loads torch
    from fieldmark.train import prepare  # noqa: PLC0415
    from fieldmark.training.features import FeatureStore, cache_folder  # noqa: PLC0415

    for recipe in sources.values():
        prepare(recipe, FeatureStore(cache_folder()), Silent())


def _take_back(study: Study) -> int:
    """Have all that failed run again; how many there are."""
    failed = [
        slot for slot in study.slots() if (r := study.records.of(slot)) and r.status == "failed"
    ]
    for slot in failed:
        study.records.take_back(slot, "fieldmark study run --retry")
    return len(failed)


def show_study(console: Console, folder: Path, how: Format) -> None:
    """Print what came of a study so far."""
    show(console, Study.open(folder), how)

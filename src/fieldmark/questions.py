"""What the commands `compare` and `study` do."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rich.console import Console

from fieldmark.data.dataset import listed
from fieldmark.diagnosis.diagnose import best_run
from fieldmark.errors import RecordError, SettingError, count_of
from fieldmark.language import counted, english, metric_text, settings_words
from fieldmark.shipped import find_design
from fieldmark.source import Source
from fieldmark.studies import control
from fieldmark.studies.answers import read_answers
from fieldmark.studies.catalog import CELLS
from fieldmark.studies.compare import changed_classes
from fieldmark.studies.compare import compare as judge
from fieldmark.studies.executor import Executor, LocalExecutor
from fieldmark.studies.folders import from_here, no_such
from fieldmark.studies.ray_executor import RayExecutor
from fieldmark.studies.results import Result
from fieldmark.studies.run import MANIFEST, Run
from fieldmark.studies.study import JOURNAL, Study
from fieldmark.studies.trial import OUT_OF_FOLD, Tell
from fieldmark.study_looks import see_shown_run
from fieldmark.study_plan import folder_of, foreseen
from fieldmark.study_report import show
from fieldmark.terminal import Format, Parts, listing, tell

RUN_TRIALS = "fieldmark.trials:run_trials"
PREFERRED = (OUT_OF_FOLD, "val", "test")
MOST_CLASSES = 8


def compare(
    console: Console, a: Path, b: Path, split: str | None, care: float, how: Format
) -> None:
    """Print the verdict on two runs, or on two folders of one recipe's runs."""
    if not 0 < care < 100:
        raise SettingError(f"--care is in points, between 0 and 100, got {care:g}. Use 1.")
    _refuse_studies(a, b)
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


def _refuse_studies(*folders: Path) -> None:
    """Say what can be done with studies, which hold runs of many recipes."""
    studies = [Study.open(folder) for folder in folders if (folder / JOURNAL).is_file()]
    if not studies:
        return
    best = [best_run(study) for study in studies]
    cells = [
        str(from_here(run.folder.parent)) if run else f"{study.folder}/{CELLS}/CELL"
        for study, run in zip(studies, best, strict=True)
    ]
    lines = [
        f"{listed(f'`{study.folder}`' for study in studies)}: a study's runs are of many recipes, "
        "and two recipes are compared at a time.",
        f"Compare cells or runs; of the best: {', '.join(cells)}.",
        "Or ask both settings in one study, as values of an axis, which judges each pair.",
        *(f"What it found: fieldmark report {study.folder}" for study in studies),
    ]
    raise RecordError("\n  ".join(lines))


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
    with Parts(console) as parts:
        check_photos(foreseen(design, folder), parts)
    study = Study.create(folder, design)
    if retry:
        again = count_of(_take_back(study), "failed run is", "failed runs are")
        console.print(f"{again} run again", highlight=False)
    left = sum(len(group.slots) for group in study.plan().groups)
    told = f"{english(counted('count.runs', left))} to go"
    console.print(f"{study.folder}: {told}", highlight=False, soft_wrap=True)
    with Parts(console) as parts:
        if isinstance(executor, LocalExecutor) and console.is_terminal:
            executor = replace(executor, tell=parts)
        for done, result in enumerate(executor.run(study), start=1):
            _tell_result(console, study, result)
            parts("runs", done, max(left, done))
    study.read_again()
    order = control.newest(study.folder)
    is_stopped = order is not None and order.wish == "stop"
    if not is_stopped:
        see_shown_run(console, study.folder)
    show(console, study, "table")
    if order and is_stopped:
        console.print(f"It was {order.describe()}; run it again to go on.", highlight=False)


def _tell_result(console: Console, study: Study, result: Result) -> None:
    """A line for each run for programs; for people, who see a bar, one for each that failed."""
    value = result.metrics.get(study.design.metric)
    counts = result.status == "finished" and value is not None
    if counts and console.is_terminal:
        return
    points = next((c.points[0] for c in study.cells if c.hash == result.cell), {})
    what = english(*settings_words(points), f"seed {result.seed}")
    told = (
        metric_text(study.design.metric, value) if counts else f"{result.status}: {result.reason}"
    )
    console.print(f"  {what}: {told}", highlight=False, markup=False, soft_wrap=True)


def check_photos(study: Study, tell: Tell) -> None:
    """Find out whether all photos that are still needed are there and can be read.

    Args:
        study: As it will go on.
        tell: Is told how many photos are done.

    Raises:
        FieldmarkError: says what is wrong with them, once for all runs.
    """
    left = [slot.recipe for group in study.plan().groups for slot in group.slots]
    sources = {
        recipe.data.model_dump_json(include=set(Source.model_fields)): recipe for recipe in left
    }
    if not sources:
        return
    from fieldmark.ledger import Teller  # noqa: PLC0415 - it loads torch
    from fieldmark.train import prepare  # noqa: PLC0415
    from fieldmark.training.features import FeatureStore, cache_folder  # noqa: PLC0415

    for recipe in sources.values():
        prepare(recipe, FeatureStore(cache_folder()), Teller(tell))


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

"""What the commands `compare` and `study` do."""

import tempfile
from pathlib import Path

from rich.console import Console

from fieldmark.errors import RecordError, SettingError
from fieldmark.shipped import find_design
from fieldmark.studies import control
from fieldmark.studies.answers import read_answers
from fieldmark.studies.compare import changed_classes
from fieldmark.studies.compare import compare as judge
from fieldmark.studies.design import Design
from fieldmark.studies.executor import LocalExecutor
from fieldmark.studies.run import MANIFEST
from fieldmark.studies.study import Study
from fieldmark.studies.trial import OUT_OF_FOLD
from fieldmark.study_report import show
from fieldmark.terminal import Format, listing

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
        console.print(f"On {split}: {verdict.describe(*names)}", highlight=False, soft_wrap=True)
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


def runs_in(folder: Path) -> list[Path]:
    """The run in a folder, or the runs that lie in it: seeds of one recipe.

    Raises:
        RecordError: there is none.
    """
    if (folder / MANIFEST).is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    if not found:
        raise RecordError(
            f"`{folder}` is no run and holds none. Name a folder that `fieldmark train` made."
        )
    return found


def _shared_split(runs: list[Path]) -> str:
    for split in PREFERRED:
        if all((run / "predictions" / f"{split}.parquet").is_file() for run in runs):
            return split
    raise RecordError(
        "These runs hold no predictions of a split they share. Run `fieldmark eval` on each."
    )


def plan(console: Console, name: str, overrides: list[str], folder: Path | None) -> None:
    """Print what a study comes to, before anything runs."""
    study = _foreseen(find_design(name, overrides), folder or _folder(name))
    asked = study.plan()
    console.print(f"[bold]{study.design.file.question}[/bold]", highlight=False)
    lines = [
        f"{asked.cells} cells ({asked.duplicates} duplicates), {asked.runs} runs, "
        f"{asked.done} of them done; judged by {study.design.metric}",
        f"{asked.passes} passes over the photos are needed, {asked.passes_saved} are saved",
    ]
    if asked.later:
        lines.append(f"up to {asked.later} more points are proposed as results come")
    console.print("\n".join(lines), highlight=False)


def run(
    console: Console, name: str, overrides: list[str], folder: Path | None, workers: int
) -> None:
    """Run what a study lacks, then print what it found."""
    # Mistakes of the file are told before torch is loaded.
    study = Study.create(folder or _folder(name), find_design(name, overrides))
    left = sum(len(group.slots) for group in study.plan().groups)
    console.print(f"{study.folder}: {left} runs to go", highlight=False)
    executor = LocalExecutor("fieldmark.trials:run_trials", workers=workers)
    for number, result in enumerate(executor.run(study), start=1):
        value = result.metrics.get(study.design.metric)
        told = f"{value:.1%}" if value is not None else f"failed: {result.reason}"
        line = f"  {number:>4} cell {result.cell} seed {result.seed}: {told}"
        console.print(line, highlight=False, soft_wrap=True)
    study.read_again()
    show(console, study, "table")
    order = control.newest(study.folder)
    if order and order.wish == "stop":
        console.print(f"It was {order.describe()}; run it again to go on.", highlight=False)


def show_study(console: Console, folder: Path, how: Format) -> None:
    """Print what came of a study so far."""
    show(console, Study.open(folder), how)


def _folder(name: str) -> Path:
    return Path("studies") / Path(name).stem


def _foreseen(design: Design, folder: Path) -> Study:
    """The study as it would go on in a folder, which stays as it is."""
    if known := Study.found(folder):
        return known.asking(design)
    with tempfile.TemporaryDirectory() as nowhere:
        return Study.create(Path(nowhere) / folder.name, design)

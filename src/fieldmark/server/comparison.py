"""What is different between any two: runs, or cells of a study with all their seeds."""

from collections.abc import Sequence
from pathlib import Path

from fieldmark.charts.forest import forest_data
from fieldmark.errors import RecordError, SettingError
from fieldmark.language import Words, said, settings_words
from fieldmark.report.page import Figure
from fieldmark.report.runs import curves_section
from fieldmark.report.sentences import verdict_sentence
from fieldmark.server.sections import Choice, Choices, Comparison
from fieldmark.studies.answers import read_answers
from fieldmark.studies.catalog import CELLS, Seen
from fieldmark.studies.compare import changed_classes, compare
from fieldmark.studies.run import Run
from fieldmark.studies.study import Study
from fieldmark.studies.trial import OUT_OF_FOLD

SPLITS = (OUT_OF_FOLD, "val")  # `test` is not for choosing
MOST_CLASSES = 12


def runs_at(seen: Seen, place: str) -> list[Path]:
    """Folders of the run at a place, or of a cell's finished seeds.

    Raises:
        SettingError: there is neither.
    """
    if place in seen.runs:
        return [seen.folder / place]
    study, _, cell = place.rpartition(f"{CELLS}/")
    found = seen.studies.get(study.rstrip("/") or ".")
    if found is None:
        raise SettingError(f"There is no run and no cell `{place}`. Choose two from the list.")
    results = Study.open(seen.folder / found.place).results().values()
    folders = [r.folder for r in results if r.cell == cell and r.status == "finished"]
    if not folders:
        raise SettingError(f"Cell `{cell}` has no finished run yet. Wait, or choose another.")
    return sorted(folders)


def choices(study: Study, place: str) -> Choices:
    """A study's cells that have a finished run."""
    done = {result.cell for result in study.results().values() if result.status == "finished"}
    outer = "" if place == "." else f"{place}/"
    return Choices(
        [
            Choice(f"{outer}{CELLS}/{cell.hash}", settings_words(cell.points[0]))
            for cell in study.cells
            if cell.hash in done
        ]
    )


def names_at(seen: Seen, places: Sequence[str], say: Words) -> list[str]:
    """What a reader calls places: a cell by its settings, a run by its own."""
    names = []
    for place in places:
        study, _, cell = place.rpartition(f"{CELLS}/")
        found = seen.studies.get(study.rstrip("/") or ".")
        if found is None or place in seen.runs:
            names.append(place)
            continue
        cells = Study.open(seen.folder / found.place).cells
        points = next((c.points[0] for c in cells if c.hash == cell), None)
        names.append(say.join(settings_words(points)) if points else place)
    return names


def comparison(seen: Seen, a: str, b: str, say: Words) -> Comparison:
    """Two places, photo by photo.

    Raises:
        FieldmarkError: there are no such two, or nothing they could be compared by.
    """
    sides = [runs_at(seen, place) for place in (a, b)]
    split = _shared_split([run for side in sides for run in side])
    of_a, of_b = (read_answers(side, split) for side in sides)
    verdict = compare(of_a, of_b)
    first, second = names_at(seen, (a, b), say)
    difference = forest_data([(f"{second} – {first}", verdict)])
    curves = [
        curves_section(Run(side[0]), before=f"{name}-")
        for side, name in zip(sides, ("a", "b"), strict=True)
    ]
    return Comparison(
        split=split,
        names=(first, second),
        top1=(of_a.top1, of_b.top1),
        verdict=verdict_sentence(verdict, first, second),
        figures=[Figure("difference", difference, said("told.forest"))],
        curves=[found.figures if found else [] for found in curves],
        classes=changed_classes(of_a, of_b)[:MOST_CLASSES] if of_a.classes is not None else [],
    )


def _shared_split(runs: Sequence[Path]) -> str:
    for split in SPLITS:
        if all((run / "predictions" / f"{split}.parquet").is_file() for run in runs):
            return split
    raise RecordError(
        "These two hold no predictions of a split they share. Run `fieldmark eval` on each."
    )

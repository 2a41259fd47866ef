"""The cells of a study that are done, with what their models said of each photo."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fieldmark.errors import FieldmarkError, SettingError
from fieldmark.studies.answers import Answers, check_same_photos, read_answers
from fieldmark.studies.design import Cell
from fieldmark.studies.effects import AnsweredCell, Setting
from fieldmark.studies.learning_curve import LEAST_AMOUNTS
from fieldmark.studies.study import Study

TRAIN_FRACTION = "data.train_fraction"


def answered_cells(study: Study) -> list[AnsweredCell]:
    """The cells all of whose seeds are finished.

    None where the objective is not top-1, or where cells were judged by different photos, as where
    the split itself is varied: nothing can be compared by photo then.
    """
    if study.design.file.objective.metric != "top1":
        return []
    split, results = study.design.metric.partition("/")[0], study.results()
    cells = []
    for cell in study.cells:
        found = [results.get(slot.key) for slot in study.slots_of(cell)]
        finished = [result for result in found if result and result.status == "finished"]
        if len(finished) == len(found):
            try:
                answers = read_answers([result.folder for result in finished], split)
            except FieldmarkError:
                continue  # its run was moved or removed; the table still has its number
            cells.append(AnsweredCell(settings_of(cell), answers, sum(r.seconds for r in finished)))
    try:
        for other in cells[1:]:
            check_same_photos(cells[0].answers, other.answers)
    except SettingError:
        return []
    return cells


def settings_of(cell: Cell) -> dict[str, Setting]:
    """A cell's setting of each axis, those that are no number or name as text."""
    return {name: plain(value) for name, value in cell.points[0].items()}


def at_their_best(study: Study, cells: Sequence[AnsweredCell]) -> list[AnsweredCell]:
    """For each of what is asked about, the cell whose nuisances suit it best, without these."""
    nuisances = {axis.name for axis in study.design.file.with_role("nuisance")}
    best: dict[str, AnsweredCell] = {}
    for cell in cells:
        asked = {name: value for name, value in cell.settings.items() if name not in nuisances}
        known = best.get(key := words(asked))
        if known is None or cell.answers.top1 > known.answers.top1:
            best[key] = AnsweredCell(asked, cell.answers, cell.cost)
    return list(best.values())


def by_amount(
    study: Study, cells: Sequence[AnsweredCell]
) -> list[tuple[dict[str, Setting], list[tuple[float, Answers]]]]:
    """Where fractions of train were tried: the other settings, and (fraction, answers) of each."""
    fractions = {axis.name for axis in study.design.file.axes if axis.key == (TRAIN_FRACTION,)}
    alike: dict[str, tuple[dict[str, Setting], list[tuple[float, Answers]]]] = {}
    for cell in cells:
        for name in fractions & cell.settings.keys():
            others = {key: value for key, value in cell.settings.items() if key != name}
            amount = float(cell.settings[name] or 0)
            alike.setdefault(words(others), (others, []))[1].append((amount, cell.answers))
    return [found for found in alike.values() if len(found[1]) >= LEAST_AMOUNTS]


def words(settings: Mapping[str, Setting]) -> str:
    """Settings with their axes, one after the other."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def plain(value: Any) -> Setting:
    """A setting as one word or number."""
    return value if isinstance(value, str | int | float | bool) else json.dumps(value)

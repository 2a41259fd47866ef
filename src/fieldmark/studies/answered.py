"""The cells of a study that are done, with what their models said of each photo."""

import json
from typing import Any

from fieldmark.errors import FieldmarkError
from fieldmark.studies.answers import read_answers
from fieldmark.studies.effects import AnsweredCell, Setting
from fieldmark.studies.study import Study


def answered_cells(study: Study) -> list[AnsweredCell]:
    """The cells all of whose seeds are finished; none where the objective is not top-1."""
    if study.design.file.objective.metric != "top1":
        return []
    split, results = study.design.metric.partition("/")[0], study.results()
    cells = []
    for cell in study.cells:
        found = [results.get(slot.key) for slot in study.slots_of(cell)]
        finished = [result for result in found if result and result.status == "finished"]
        if len(finished) == len(found):
            settings = {name: plain(value) for name, value in cell.points[0].items()}
            try:
                answers = read_answers([result.folder for result in finished], split)
            except FieldmarkError:
                continue  # its run was moved or removed; the table still has its number
            cells.append(AnsweredCell(settings, answers, sum(r.seconds for r in finished)))
    return cells


def plain(value: Any) -> Setting:
    """A setting as one word or number."""
    return value if isinstance(value, str | int | float | bool) else json.dumps(value)

"""What checks of a study look at: its cells, the best first, and their answers photo by photo."""

from dataclasses import dataclass
from functools import cached_property

from fieldmark.diagnosis.finding import Seen, unknown
from fieldmark.errors import FieldmarkError
from fieldmark.studies.answered import answered_cells, settings_of
from fieldmark.studies.compare import compare
from fieldmark.studies.design import Cell
from fieldmark.studies.effects import AnsweredCell, study_spread
from fieldmark.studies.judged import Judged
from fieldmark.studies.mislabelled import judged_together
from fieldmark.studies.run import Run
from fieldmark.studies.space import Axis
from fieldmark.studies.study import Study
from fieldmark.studies.table import Summary, summarize
from fieldmark.studies.verdict import Verdict


@dataclass(frozen=True, eq=False)
class StudyEvidence:
    """What came of a study so far."""

    study: Study

    @cached_property
    def cells(self) -> list[tuple[Cell, Summary]]:
        """Each cell and what came of it."""
        states = self.study.states()
        return [(cell, summarize(self.study, cell, states)) for cell in self.study.cells]

    @cached_property
    def finished(self) -> list[tuple[Cell, float]]:
        """Cells with a result, the best first."""
        found = [(cell, summary.mean) for cell, summary in self.cells if summary.mean is not None]
        lower = self.study.design.file.objective.lower_is_better
        return sorted(found, key=lambda one: one[1] if lower else -one[1])

    @cached_property
    def answered(self) -> list[AnsweredCell]:
        """Cells with answers photo by photo."""
        return answered_cells(self.study)

    @cached_property
    def best_answers(self) -> Judged | None:
        """What the best cell's runs say of each photo, mean over seeds; None where they don't."""
        if not self.finished:
            return None
        results = self.study.results()
        found = [results.get(slot.key) for slot in self.study.slots_of(self.finished[0][0])]
        folders = [result.folder for result in found if result and result.status == "finished"]
        try:
            return judged_together([Run(folder) for folder in folders])
        except FieldmarkError:
            return None  # a run was moved or removed

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What is varied."""
        return self.study.design.file.axes

    def axes_of(self, *keys: str) -> list[Axis]:
        """The axes that set a key which ends so, as `lr` or `weight_decay`."""
        return [axis for axis in self.axes if any(k in last_keys(axis) for k in keys)]

    def settings(self, axis: Axis) -> list[float]:
        """An axis's settings in rising order; none where they are no numbers."""
        values = [cell.points[0][axis.name] for cell, _ in self.cells]
        if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
            return []
        return sorted(set(values))

    def lacks(self, needed: int) -> Seen | None:
        """Why there are not enough finished cells, if there are not."""
        found = len(self.finished)
        return unknown("too_few_cells", needed=needed, found=found) if found < needed else None

    def beside_best(self, axis: Axis) -> dict[float, Cell]:
        """The best cell and those that differ from it in one axis alone, by their setting."""
        point = self.finished[0][0].points[0]
        return {
            each.points[0][axis.name]: each
            for each, _ in self.cells
            if all(each.points[0][k] == v for k, v in point.items() if k != axis.name)
        }

    def verdict(self, a: Cell, b: Cell) -> Verdict | None:
        """B - A photo by photo; None where their answers are not there."""
        found = [self._answers(cell) for cell in (a, b)]
        if found[0] is None or found[1] is None:
            return None
        try:
            spread = study_spread(self.answered)
            return compare(found[0].answers, found[1].answers, spread=spread)
        except FieldmarkError:
            return None

    def _answers(self, cell: Cell) -> AnsweredCell | None:
        wanted = settings_of(cell)
        return next((each for each in self.answered if dict(each.settings) == wanted), None)


def last_keys(axis: Axis) -> set[str]:
    """The last parts of the recipe's keys that an axis sets, as `lr`."""
    return {key.rpartition(".")[2] for changes in axis.changes() for key in changes}

"""A study on disk: what is asked, which cells that makes, and what came of each.

::

    journal.jsonl                        journal: designs as they were asked, points as proposed
    study.yaml, base.yaml                the newest design's files, for people
    leases/<group>/<token>.json          who works on what; see `studies.lease`
    cells/<hash>/seed-<n>.<token>        runs, each in a folder of its own
    cells/<hash>/seed-<n>.<token>.json   what came of each; see `studies.results`
    control.jsonl                        who paused or stopped it; see `studies.control`

States are derived from these and kept nowhere else: run again, and what has no result is run.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fieldmark import durable
from fieldmark.errors import RecordError, SettingError
from fieldmark.studies.design import Cell, Design
from fieldmark.studies.folders import no_such
from fieldmark.studies.lease import Lease, holder_of
from fieldmark.studies.pruner import Judge, curves_of
from fieldmark.studies.results import Result, Results, Slot
from fieldmark.studies.sampler import Point, proposed
from fieldmark.studies.trial import Trial

JOURNAL = "journal.jsonl"
LEASES = "leases"
State = Literal["waiting", "running", "finished", "failed", "pruned"]


@dataclass(frozen=True)
class Group:
    """Slots that share one pass over the photos, and so one lease."""

    key: str
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class Plan:
    """What a study comes to, as far as it is known before it runs.

    Attributes:
        points: Combinations of settings.
        cells: Different recipes among them, within the budget.
        duplicates: Points that come to the recipe of an earlier one.
        over_budget: Cells left out.
        runs: Cells times seeds.
        done: Runs that have a result.
        groups: The other runs; those of a group share one pass through a frozen backbone, and a
            run that trains its backbone is a group of its own.
        later: Points still to be proposed, at most.
    """

    points: int
    cells: int
    duplicates: int
    over_budget: int
    runs: int
    done: int
    groups: tuple[Group, ...]
    later: int

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to run or to propose."""
        return not self.groups and not self.later

    @property
    def passes(self) -> int:
        """Times that the photos, or the trainings on them, begin anew."""
        return len(self.groups)

    @property
    def passes_saved(self) -> int:
        """How many more it would be if each run were made by itself."""
        return self.runs - self.done - len(self.groups)


class Study:
    """A study's folder; make it with `create` or `open`.

    Raises:
        RecordError: the folder is no study.
    """

    design: Design
    records: Results

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / JOURNAL).is_file():
            raise RecordError(no_such(self.folder, "study", [f"`{JOURNAL}`"], JOURNAL, "study run"))
        self.read_again()

    @classmethod
    def create(cls, folder: Path, design: Design) -> "Study":
        """Begin a study, or go on with it; a changed design keeps the results that still belong.

        Raises:
            SettingError: the folder holds something else.
        """
        folder = Path(folder)
        known = cls.found(folder)
        if known is not None and known.design.texts == design.texts:
            return known
        text, base, overrides = design.texts
        expect = design.file.expect
        record: dict[str, durable.JSON] = {
            "event": "design",
            "study": text,
            "base": base,
            "overrides": overrides,
            "expect": expect.model_dump(mode="json") if expect else None,
            "results_before": len(known.results()) if known else 0,
            "time": durable.now(),
        }
        durable.make_folder(folder)
        durable.replace(folder / "study.yaml", text.encode())
        durable.replace(folder / "base.yaml", base.encode())
        durable.append(folder / JOURNAL, record)
        return cls(folder)

    @classmethod
    def found(cls, folder: Path) -> "Study | None":
        """The study in a folder; None where one may begin.

        Raises:
            SettingError: the folder holds something else.
        """
        if (folder / JOURNAL).is_file() and durable.read(folder / JOURNAL):
            return cls(folder)
        if folder.is_dir() and not _was_only_begun(folder):
            raise SettingError(f"`{folder}` is not empty, and holds no study. Name another folder.")
        return None

    @classmethod
    def open(cls, folder: Path) -> "Study":
        """A study that was begun."""
        return cls(folder)

    def read_again(self) -> None:
        """Read the journal: others may have proposed points."""
        self._journal = durable.read(self.folder / JOURNAL)
        designs = [record for record in self._journal if record["event"] == "design"]
        if not designs:
            raise RecordError(f"`{self.folder / JOURNAL}` holds no design. Remove the folder.")
        newest = designs[-1]
        text, base, overrides = newest["study"], newest["base"], tuple(newest["overrides"])
        if not hasattr(self, "design") or self.design.texts != (text, base, overrides):
            name = str(self.folder / "study.yaml")
            self._ask(Design.read(text, lambda _: str(base), overrides, name=name))
        self._cells = self.design.cells(self.points())

    def asking(self, design: Design) -> "Study":
        """The study as it would be if it went on with another design; nothing is written."""
        other = copy.copy(self)
        other._ask(design)
        other._cells = design.cells(other.points())
        return other

    def _ask(self, design: Design) -> None:
        self.design = design
        self.records = Results(self.folder, design.metric)

    @property
    def results_before_expecting(self) -> int:
        """How many results there were when what is expected now was first written down."""
        designs = [record for record in self._journal if record["event"] == "design"]
        now = designs[-1]["expect"]
        return next(int(d["results_before"]) for d in designs if d["expect"] == now)

    def points(self) -> list[Point]:
        """Every point asked for so far: the design's own, and those proposed."""
        return [*self.design.points(), *(point for batch in self._batches() for point in batch)]

    @property
    def cells(self) -> list[Cell]:
        """The cells known so far, within the budget."""
        return self._cells[: self.design.file.budget.cells]

    def slots_of(self, cell: Cell) -> list[Slot]:
        """The cell with every seed."""
        return [Slot(cell, cell.recipe.seed + n) for n in range(self.design.file.seeds)]

    def slots(self) -> list[Slot]:
        """Every cell with every seed."""
        return [slot for cell in self.cells for slot in self.slots_of(cell)]

    def groups(self) -> list[Group]:
        """The slots by what they share, in their order."""
        shared: dict[str, list[Slot]] = defaultdict(list)
        for slot in self.slots():
            shared[slot.recipe.group_key()[:12]].append(slot)
        return [Group(key, tuple(slots)) for key, slots in shared.items()]

    def missing(self, group: Group) -> list[Slot]:
        """The group's slots that have no result."""
        return [slot for slot in group.slots if self.records.of(slot) is None]

    def results(self) -> dict[tuple[str, int], Result]:
        """What came of every slot that has come to something, by cell and seed."""
        found = ((slot.key, self.records.of(slot)) for slot in self.slots())
        return {key: result for key, result in found if result}

    def outdated(self) -> int:
        """How many finished runs in the folder answer what the study no longer asks.

        Their cells are not among its own: its design or its base was changed after them, or a newer
        Fieldmark describes the same recipe by more keys, and so by another hash.
        """
        return self.records.of_others(self.slots())

    def trial(self, slot: Slot, lease: Lease, suffix: str = "") -> Trial:
        """The slot as a trial under a lease, watched where the study has a pruner."""
        trial = self.records.trial(slot, lease, suffix)
        pruner, metric = self.design.file.pruner, self.design.metric
        if pruner is None:
            return trial
        lower = self.design.file.objective.lower_is_better
        found = [result for each in self._before(slot) if (result := self.records.of(each))]
        earlier = curves_of([result.folder for result in found], metric)
        return replace(trial, watch=Judge(pruner, metric, lower, earlier))

    def may_begin(self, group: Group) -> bool:
        """Whether a group has all the results it is compared with.

        So a pruner's decisions depend on the study alone, not on who was faster, or killed.
        """
        return all(self.records.of(slot) for slot in self._before(group.slots[0]))

    def _before(self, slot: Slot) -> list[Slot]:
        """The slots a pruner compares one with; none where the study has no pruner."""
        pruner = self.design.file.pruner
        if pruner is None:
            return []
        slots = self.slots()
        place = next(n for n, each in enumerate(slots) if each.key == slot.key)
        return slots[: max(0, place - pruner.ahead)]

    def states(self) -> dict[tuple[str, int], State]:
        """How each slot is; one whose worker died elsewhere is `running` until it is taken over."""
        states: dict[tuple[str, int], State] = {}
        for group in self.groups():
            held = holder_of(self.folder / LEASES, group.key)
            for slot in group.slots:
                result = self.records.of(slot)
                states[slot.key] = result.status if result else "running" if held else "waiting"
        return states

    def plan(self) -> Plan:
        """What it comes to, as far as it is known."""
        points, slots = self.points(), self.slots()
        left = [Group(group.key, tuple(self.missing(group))) for group in self.groups()]
        return Plan(
            points=len(points),
            cells=len(self.cells),
            duplicates=len(points) - len(self._cells),
            over_budget=len(self._cells) - len(self.cells),
            runs=len(slots),
            done=len(slots) - sum(len(group.slots) for group in left),
            groups=tuple(group for group in left if group.slots),
            later=self._later(),
        )

    @property
    def is_out_of_time(self) -> bool:
        """Whether the budget's minutes are used up, by the results found so far."""
        minutes = self.design.file.budget.minutes
        return minutes is not None and self.records.seconds >= 60 * minutes

    def objective(self, cell: Cell) -> float | None:
        """The mean over the cell's finished seeds; None where there are none."""
        found = [self.records.of(slot) for slot in self.slots_of(cell)]
        values = [r.metrics[self.design.metric] for r in found if r and r.status == "finished"]
        return math.fsum(values) / len(values) if values else None

    def extend(self) -> None:
        """Have the sampler propose points, where all known ones have results and more are wanted.

        Should two workers do so at once, the points of the first count.
        """
        self.read_again()
        plan = self.plan()
        if plan.groups or not plan.later:
            return
        record: dict[str, durable.JSON] = {
            "event": "proposed",
            "search": self.design.search_key,
            "batch": len(self._batches()),
            "points": list(self._next_points()),
            "time": durable.now(),
        }
        durable.append(self.folder / JOURNAL, record)
        self.read_again()

    def _later(self) -> int:
        """How many points may still be proposed."""
        most = self.design.file.budget.cells
        if not self.design.is_adaptive or (most and len(self._cells) >= most):
            return 0
        asked = len(self.design.grid()) * self.design.file.search.trials
        return max(0, asked - len(self.points()))

    def _next_points(self) -> Iterator[dict[str, Any]]:
        spaces, search = self.design.spaces, self.design.file.search
        tried = [(point, self.objective(cell)) for cell in self._cells for point in cell.points]
        for place in self.design.grid():
            seen = [
                ({name: point[name] for name in spaces}, value)
                for point, value in tried
                if all(point[name] == setting for name, setting in place.items())
            ]
            count = min(search.batch, search.trials - len(seen))
            lower = self.design.file.objective.lower_is_better
            for inner in proposed(search, spaces, seen, count, lower_is_better=lower):
                yield {**place, **inner}

    def _batches(self) -> list[Sequence[Point]]:
        """The points of each batch proposed for this search, as they were proposed first."""
        batches: dict[int, Sequence[Point]] = {}
        for record in self._journal:
            if record["event"] == "proposed" and record["search"] == self.design.search_key:
                batches.setdefault(record["batch"], record["points"])
        return list(batches.values())


def _was_only_begun(folder: Path) -> bool:
    """Whether a folder is empty, or holds what a study killed before its first record leaves."""
    names = {path.name for path in folder.iterdir() if not durable.is_temporary(path.name)}
    return names <= {"study.yaml", "base.yaml", JOURNAL}

"""The runs and studies under a folder, in short, while others write to them.

Nothing outside the folder is looked at: symbolic links are not followed. What was read is kept and
read again only where its files changed, so a look at a thousand runs costs a few milliseconds.
"""

import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fieldmark.errors import FieldmarkError
from fieldmark.studies.control import CONTROL, Order, newest
from fieldmark.studies.lease import holder_of
from fieldmark.studies.progress import Progress, run_progress, study_seconds_left
from fieldmark.studies.run import MANIFEST, METRICS, RECIPE, Run
from fieldmark.studies.study import JOURNAL, LEASES, State, Study
from fieldmark.studies.trial import OUT_OF_FOLD

DEEPEST = 8  # folders below the one looked at
CELLS = "cells"
JUDGED_BY = ("val/top1", f"{OUT_OF_FOLD}/top1")
Stamp = tuple[int, ...]


@dataclass(frozen=True)
class RunSummary:
    """A run in short.

    Attributes:
        place: Its folder below the one looked at, as `runs/toy-1`; `.` is that folder itself.
        study: Place of the study it belongs to.
        status: `running` (a killed run too), `finished`, `failed` or `pruned`.
        reason: Why it failed.
        started, ended: In seconds since the epoch.
        stages: Names of those that came to their end.
        photos: How many there are in `val`.
        latest: Key -> the value recorded last.
        curve: What it is judged by so far, (N,); `train/loss` before that is known.
        progress: How far it is; None where it does not run.
        order: What was asked of it last.
        looks: Of how many photos it was seen, after it ended, where its model looked.
    """

    place: str
    study: str | None
    status: str
    reason: str | None
    started: float
    ended: float | None
    stages: tuple[str, ...]
    photos: int
    latest: Mapping[str, float]
    curve: tuple[float, ...]
    progress: Progress | None
    order: Order | None
    looks: int = 0

    @property
    def top1(self) -> float | None:
        """Top-1 of the photos it is judged by, as recorded last."""
        return next((self.latest[key] for key in JUDGED_BY if key in self.latest), None)


@dataclass(frozen=True)
class StudySummary:
    """A study in short.

    Attributes:
        place: As `RunSummary.place`.
        question: In words.
        metric: The objective.
        states: Cell and seed -> how it is.
        best: The best cell's mean so far.
        seconds_left: With the workers it has; None: not known.
        order: What was asked of it last.
        later: Runs that are still to be proposed, at most.
    """

    place: str
    question: str
    metric: str
    states: Mapping[tuple[str, int], State]
    best: float | None
    seconds_left: float | None
    order: Order | None
    later: int = 0

    def count(self, state: State) -> int:
        """How many runs are in a state."""
        return sum(found == state for found in self.states.values())

    @property
    def ended(self) -> int:
        """How many runs came to an end, whichever."""
        return len(self.states) - self.count("waiting") - self.count("running")

    @property
    def asked(self) -> int:
        """How many runs it comes to, at most."""
        return len(self.states) + self.later

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to run."""
        return self.ended == self.asked


@dataclass(frozen=True)
class Seen:
    """What was in a folder at the last look.

    Attributes:
        folder: Absolute.
        runs: Place -> run.
        studies: Place -> study.
        damaged: Place -> why it can't be read.
    """

    folder: Path
    runs: Mapping[str, RunSummary]
    studies: Mapping[str, StudySummary]
    damaged: Mapping[str, str]

    def own_runs(self) -> list[RunSummary]:
        """The runs that belong to no study, the newest first."""
        own = [run for run in self.runs.values() if run.study is None]
        return sorted(own, key=lambda run: (-run.started, run.place))

    def under_way(self) -> list[RunSummary]:
        """The runs that run, by place."""
        return sorted((run for run in self.runs.values() if run.progress), key=lambda r: r.place)


class Catalog:
    """What is in a folder, look by look.

    Attributes:
        folder: Absolute.
        runs: Place -> run.
        studies: Place -> study.
        damaged: Place -> why it can't be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).resolve()
        self.runs: dict[str, RunSummary] = {}
        self.studies: dict[str, StudySummary] = {}
        self.damaged: dict[str, str] = {}
        self._stamps: dict[str, Stamp] = {}
        self._opened: dict[str, Study] = {}
        self._inside: dict[str, tuple[int, list[str]]] = {}

    def look(self) -> set[str]:
        """Read what changed since the last look; the places of it, those gone among them."""
        changed: set[str] = set()
        seen: set[str] = set()
        for place, study in self._places(".", None, DEEPEST):
            seen.add(place)
            is_run = place in self.runs or _is_own_file(self.folder / place / MANIFEST)
            stamp = self._run_stamp(place) if is_run else self._study_stamp(place)
            if self._stamps.get(place) == stamp:
                continue
            self._stamps[place] = stamp
            if self._read(place, study, is_run=is_run):
                changed.add(place)
        for place in self._stamps.keys() - seen:
            for known in (self._stamps, self.runs, self.studies, self.damaged, self._opened):
                known.pop(place, None)
            changed.add(place)
        return changed

    def seen(self) -> Seen:
        """What was there at the last look; the next one does not change it."""
        return Seen(self.folder, dict(self.runs), dict(self.studies), dict(self.damaged))

    def _read(self, place: str, study: str | None, *, is_run: bool) -> bool:
        """Read a run or study; whether there is anything new to tell."""
        self.damaged.pop(place, None)
        try:
            if is_run:
                run = _summarize_run(Run(self.folder / place), place, study)
                new = self.runs.get(place) != run
                self.runs[place] = run
            else:
                if place in self._opened:
                    self._opened[place].read_again()
                else:
                    self._opened[place] = Study.open(self.folder / place)
                summary = _summarize_study(self._opened[place], place)
                new = self.studies.get(place) != summary
                self.studies[place] = summary
        except (FieldmarkError, OSError, KeyError, TypeError, ValueError) as error:
            lacks = isinstance(error, KeyError)
            self.damaged[place] = f"its records lack {error}" if lacks else str(error)
            return True
        return new

    def _places(
        self, place: str, study: str | None, deeper: int
    ) -> Iterator[tuple[str, str | None]]:
        """Folders of runs and studies from `place` down, and the study each is in."""
        folder = self.folder / place
        if _is_own_file(folder / MANIFEST) and (place in self.runs or _is_run(folder)):
            yield place, study
            return
        names = self._folders(place) if deeper else []
        if study is None and _is_own_file(folder / JOURNAL):
            yield place, None
            study, names = place, [name for name in names if name == CELLS]
        for name in names:
            below = name if place == "." else f"{place}/{name}"
            yield from self._places(below, study, deeper - 1)

    def _run_stamp(self, place: str) -> Stamp:
        """Changes with the manifest, and while it runs with each record."""
        known, folder = self.runs.get(place), self.folder / place
        manifest, before = _stamp(folder / MANIFEST), self._stamps.get(place)
        if known and known.status == "finished" and before and before[: len(manifest)] == manifest:
            return before
        return (*manifest, *_stamp(folder / METRICS, folder / CONTROL))

    def _study_stamp(self, place: str) -> Stamp:
        """Changes with its journals, with every lease and result, and as a holder of one dies."""
        known, folder = self.studies.get(place), self.folder / place
        leases = _inside(folder / LEASES)
        stamp = _stamp(folder / JOURNAL, folder / CONTROL, *leases, *_inside(folder / CELLS))
        if known is None or not known.count("running"):
            return stamp
        return (*stamp, sum(_is_held(lease) for lease in leases))

    def _folders(self, place: str) -> list[str]:
        """Names of the folders in one; listed anew only where an entry came or went."""
        folder = self.folder / place
        try:
            changed = folder.stat().st_mtime_ns
            known = self._inside.get(place)
            if known is None or known[0] != changed:
                with os.scandir(folder) as entries:
                    names = sorted(
                        entry.name
                        for entry in entries
                        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
                    )
                known = self._inside[place] = changed, names
        except OSError:  # gone, or not for us to read
            return []
        return known[1]


def _is_run(folder: Path) -> bool:
    return all(_is_own_file(folder / name) for name in (MANIFEST, RECIPE, METRICS))


def _is_own_file(path: Path) -> bool:
    """Whether there is a file of this name, and no link to one elsewhere."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _is_held(lease: Path) -> bool:
    """Whether one has it who is not known to be dead: whoever is killed writes nothing more."""
    with suppress(OSError, ValueError):
        return holder_of(lease.parent, lease.name) is not None
    return False


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _stamp(*paths: Path) -> Stamp:
    numbers: list[int] = []
    for path in paths:
        try:
            found = path.stat()
            numbers += [found.st_mtime_ns, found.st_size]
        except OSError:
            numbers += [0, 0]
    return tuple(numbers)


def _summarize_run(run: Run, place: str, study: str | None) -> RunSummary:
    latest: dict[str, float] = {}
    for record in run.measured:
        latest.update(record["metrics"])
    key = next((key for key in JUDGED_BY if key in latest), "train/loss")
    curve = [record["metrics"][key] for record in run.measured if key in record["metrics"]]
    started = float(run.manifest["started"])
    running = run.status == "running"
    return RunSummary(
        place=place,
        study=study,
        status=run.status,
        reason=run.reason,
        started=started,
        ended=run.manifest.get("ended"),
        stages=tuple(stage["name"] for stage in run.manifest.get("stages", ())),
        photos=int(run.manifest.get("counts", {}).get("val", 0)),
        latest=latest,
        curve=tuple(value for value in curve if math.isfinite(value)),
        progress=run_progress(run) if running else None,
        order=newest(run.folder),
        looks=int(run.manifest.get("looked", {}).get("photos", 0)),
    )


def _summarize_study(study: Study, place: str) -> StudySummary:
    lower = study.design.file.objective.lower_is_better
    means = [mean for cell in study.cells if (mean := study.objective(cell)) is not None]
    return StudySummary(
        place=place,
        question=study.design.file.question,
        metric=study.design.metric,
        states=study.states(),
        best=(min if lower else max)(means, default=None),
        seconds_left=study_seconds_left(study),
        order=newest(study.folder),
        later=study.plan().later * study.design.file.seeds,
    )

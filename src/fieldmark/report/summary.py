"""A line for each run and study of a folder, from as little reading as will do."""

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fieldmark import durable
from fieldmark.errors import FieldmarkError
from fieldmark.machine import cache_home
from fieldmark.metrics import wilson_interval
from fieldmark.report.page import CellRow, State
from fieldmark.studies.run import MANIFEST, METRICS, RECIPE
from fieldmark.studies.study import JOURNAL, Study

DEEPEST = 4  # folders below the one looked at
POINTS = 16  # of a sparkline
KEPT = 1  # raise it whenever a row's fields change
_KEYS = ("val/top1", "out_of_fold/top1")


@dataclass(frozen=True)
class Found:
    """Runs and studies below a folder, as paths relative to it."""

    runs: tuple[str, ...]
    studies: tuple[str, ...]


def find(folder: Path) -> Found:
    """Runs and studies at most `DEEPEST` folders down; links are not followed."""
    runs: list[str] = []
    studies: list[str] = []
    for path, names in _walk(folder, DEEPEST):
        place = path.relative_to(folder).as_posix()
        if JOURNAL in names:
            studies.append(place)
        elif {MANIFEST, METRICS, RECIPE} <= names:
            runs.append(place)
    return Found(tuple(sorted(runs)), tuple(sorted(studies)))


def _walk(folder: Path, left: int) -> Iterator[tuple[Path, set[str]]]:
    """Folders with the names in them; what is in a run or study is its own."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    names = {entry.name for entry in entries}
    yield folder, names
    if left == 0 or JOURNAL in names or MANIFEST in names:
        return
    for entry in entries:
        with suppress(OSError):
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from _walk(Path(entry.path), left - 1)


class RunRows:
    """Lines of the runs in a folder, kept in the cache: only what has changed is read again.

    Args:
        folder: That the runs are in.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        name = hashlib.sha256(str(folder.resolve()).encode(errors="surrogateescape")).hexdigest()
        self._path = cache_home() / "page" / f"runs-{name[:16]}.json"
        self._kept: dict[str, Any] = {}
        with suppress(OSError, ValueError):
            content = json.loads(self._path.read_bytes())
            self._kept = content["rows"] if content["version"] == KEPT else {}

    def rows(self, places: Iterable[str]) -> list[CellRow]:
        """A line for each run, in their order."""
        found, kept = [], {}
        for place in places:
            stamp = _stamp(self.folder / place)
            old = self._kept.get(place)
            row = CellRow(**old[1]) if old and old[0] == stamp else run_row(self.folder, place)
            found.append(row)
            kept[place] = [stamp, asdict(row)]
        if kept != self._kept:
            content = json.dumps({"version": KEPT, "rows": kept}).encode()
            with suppress(OSError, FieldmarkError):  # no cache is no reason to stop
                durable.make_folder(self._path.parent)
                durable.replace(self._path, content)
        return found


def _stamp(folder: Path) -> list[int]:
    """What changes whenever a run's records do."""
    stamp: list[int] = []
    for name in (MANIFEST, METRICS):
        with suppress(OSError):
            status = (folder / name).stat()
            stamp += [status.st_size, status.st_mtime_ns]
    return stamp


def run_row(folder: Path, place: str) -> CellRow:
    """What a run came to so far; one whose records can't be read says why."""
    try:
        manifest = json.loads((folder / place / MANIFEST).read_bytes())
        values = _values(durable.read(folder / place / METRICS))
        return _row(place, manifest, values)
    except KeyError as missing:
        reason = f"`{MANIFEST}` has no `{missing.args[0]}`"
    except (FieldmarkError, OSError, ValueError, TypeError, AttributeError) as error:
        reason = str(error)
    return CellRow(place, [], None, state="failed", reason=reason)


def study_row(folder: Path, place: str) -> CellRow:
    """How far a study is and what is best in it."""
    try:
        study = Study.open(folder / place)
        states = study.states()
        values = [value for cell in study.cells if (value := study.objective(cell)) is not None]
        lower = study.design.file.objective.lower_is_better
    except (FieldmarkError, OSError, ValueError, KeyError) as error:
        return CellRow(place, (), None, state="failed", reason=str(error))
    done = sum(state in {"finished", "failed", "pruned"} for state in states.values())
    found = set(states.values())
    return CellRow(
        name=place,
        settings=(study.design.file.question, f"{done} / {len(states)}"),
        value=(min if lower else max)(values, default=None),
        state=state_of_all(found, done=not found & {"running", "waiting"}),
        seconds=study.records.seconds,
        run=place,
    )


def state_of_all(states: Collection[State], *, done: bool) -> State:
    """Finished where all are done and one came to its end, else the state furthest from that."""
    order: tuple[State, ...] = ("running", "waiting", "failed", "pruned", "finished")
    if done and "finished" in states:
        return "finished"
    return next((state for state in order if state in states), "waiting")


def _state(status: object) -> State:
    known: dict[object, State] = {s: s for s in ("finished", "failed", "pruned")}
    return known.get(status, "running")


def _row(place: str, manifest: Mapping[str, Any], values: list[float]) -> CellRow:
    photos = int(manifest.get("counts", {}).get("val", 0))
    value = values[-1] if values else None
    low, high = wilson_interval(value, photos) if value is not None and photos else (None, None)
    ended = manifest.get("ended") or manifest["started"]
    step = max(1, -(-len(values) // POINTS))
    return CellRow(
        name=place,
        settings=[stage["name"] for stage in manifest.get("stages", [])],
        value=value,
        low=low,
        high=high,
        seeds=1,
        state=_state(manifest["status"]),
        seconds=float(ended) - float(manifest["started"]),
        reason=manifest.get("reason"),
        curve=values[::-1][::step][::-1],
        run=place,
        started=float(manifest["started"]),
    )


def _values(records: list[dict[str, Any]]) -> list[float]:
    """Top-1 on the way, whichever split it was judged by, less what a resumed run took again."""
    kept: list[dict[str, Any]] = []
    for record in records:
        if record.get("event") == "resumed":
            del kept[record["keep"] :]
        elif "metrics" in record:
            kept.append(record["metrics"])
    for key in _KEYS:
        if values := [float(metrics[key]) for metrics in kept if key in metrics]:
            return values
    return []

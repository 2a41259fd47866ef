"""What came of each run of a study, one record a run, whoever is killed or stopped whenever.

A record is made once, ``cells/<hash>/seed-<n>.<token>.json`` beside its run, and never changed:
with it the run is done. The token is that of the lease (`studies.lease`) it was made under. Whoever
takes over a lease first puts the record `lost` where the lost holders' records would go; of two who
make one file only one can. So a holder that wakes up finds its places taken, and a run has one
result.

A failure can be taken back, by the file ``seed-<n>.<token>.taken-back``; then the run is made again
under the next token.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from fieldmark import durable
from fieldmark.errors import SettingError
from fieldmark.recipe import Recipe
from fieldmark.studies.design import Cell
from fieldmark.studies.lease import Lease
from fieldmark.studies.trial import Outcome, Trial

LOST = json.dumps({"status": "lost"}).encode()


@dataclass(frozen=True)
class Slot:
    """A cell and a seed: what becomes one run."""

    cell: Cell
    seed: int

    @property
    def key(self) -> tuple[str, int]:
        """The cell's hash and the seed."""
        return self.cell.hash, self.seed

    @cached_property
    def recipe(self) -> Recipe:
        """The cell's, with this seed."""
        return self.cell.recipe.model_copy(update={"seed": self.seed})


@dataclass(frozen=True)
class Result:
    """What came of a slot; `folder` is its run's, if it got so far as to make one."""

    cell: str
    seed: int
    status: Literal["finished", "failed", "pruned"]
    metrics: dict[str, float]
    seconds: float
    reason: str | None
    folder: Path
    time: float


class Results:
    """The records in a study's folder; those it has found it keeps, since they never change.

    Args:
        folder: The study's.
        metric: The objective, which a finished run must have.
    """

    def __init__(self, folder: Path, metric: str) -> None:
        self.folder = folder
        self.metric = metric
        self._found: dict[tuple[str, int], Result] = {}

    def of(self, slot: Slot) -> Result | None:
        """What came of a slot, if anything did yet."""
        known = self._found.get(slot.key)
        if known is None or known.status == "failed":  # which may have been taken back
            self._found.pop(slot.key, None)
            for token, record in self._records(slot):
                if record["status"] != "lost" and not self._taken_back(slot, token).exists():
                    self._found[slot.key] = _result(slot, record, self._place(slot))
        return self._found.get(slot.key)

    def take_back(self, slot: Slot, by: str) -> None:
        """Have a failed slot run again; its record stays, beside who wished so.

        Raises:
            SettingError: it has not failed. What finished is never run again: picking the better
                of two would flatter it.
        """
        result = self.of(slot)
        if result is None or result.status != "failed":
            state = result.status if result else "without a result"
            raise SettingError(
                f"Only what failed can be run again; cell {slot.cell.hash}, seed {slot.seed} is "
                f"{state}."
            )
        content = json.dumps({"by": by, "time": durable.now()}, ensure_ascii=False)
        for token, record in self._records(slot):
            if record["status"] == "failed":
                _create(self._taken_back(slot, token), content.encode(errors="backslashreplace"))

    def of_others(self, slots: Sequence[Slot]) -> int:
        """How many results lie in the folder that belong to none of these slots."""
        mine, others = {slot.key for slot in slots}, set[tuple[str, int]]()
        for path in self.folder.glob("cells/*/seed-*.*.json"):
            key = path.parent.name, int(path.name.removeprefix("seed-").partition(".")[0])
            if key not in mine | others and json.loads(path.read_bytes())["status"] == "finished":
                others.add(key)
        return len(others)

    @property
    def seconds(self) -> float:
        """What the runs took of which results were found so far."""
        return sum(result.seconds for result in self._found.values())

    def trial(self, slot: Slot, lease: Lease, suffix: str = "") -> Trial:
        """The slot as a trial under a lease, in a folder that no other attempt uses."""
        folder = self._place(slot) / f"seed-{slot.seed}.{lease.token}{suffix}"
        return Trial(slot.recipe, folder, slot.cell.folds)

    def fence_off(self, slots: Sequence[Slot], lease: Lease) -> None:
        """Spoil the places where lost holders of the lease would put records of these slots."""
        for slot in slots:
            for token in lease.lost:
                path = self._path(slot, token)
                if not path.exists():
                    _create(path, LOST)

    def lost_in_a_row(self, slots: Sequence[Slot], lease: Lease) -> int:
        """How many holders before this one were lost, one after the other, without any result."""
        fruitful = {
            token
            for slot in slots
            for token, record in self._records(slot)
            if record["status"] != "lost"
        }
        barren = set(lease.lost) - fruitful
        count = 0
        while lease.token - 1 - count in barren:
            count += 1
        return count

    def record(self, slot: Slot, lease: Lease, outcome: Outcome) -> Result | None:
        """Write down what came of a slot; None where the lease was lost, and the outcome with it.

        An outcome whose objective is no number is a failure.
        """
        value = outcome.metrics.get(self.metric)
        if outcome.status == "finished" and (value is None or not math.isfinite(value)):
            outcome = replace(outcome, status="failed", reason=f"`{self.metric}` is {value}.")
        record = {
            "status": outcome.status,
            "metrics": {k: v if math.isfinite(v) else None for k, v in outcome.metrics.items()},
            "seconds": outcome.seconds,
            "reason": outcome.reason,
            "folder": outcome.folder.name,
            "owner": lease.owner,
            "time": durable.now(),
        }
        content = json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace")
        if not lease.is_held or not _create(self._path(slot, lease.token), content):
            return None
        self._found[slot.key] = _result(slot, record, self._place(slot))
        return self._found[slot.key]

    def _place(self, slot: Slot) -> Path:
        return self.folder / "cells" / slot.cell.hash

    def _path(self, slot: Slot, token: int) -> Path:
        return self._place(slot) / f"seed-{slot.seed}.{token}.json"

    def _taken_back(self, slot: Slot, token: int) -> Path:
        return self._place(slot) / f"seed-{slot.seed}.{token}.taken-back"

    def _records(self, slot: Slot) -> list[tuple[int, dict[str, Any]]]:
        """Each token that left a record of this slot, and the record."""
        found = self._place(slot).glob(f"seed-{slot.seed}.*.json")
        return [(int(path.name.split(".")[1]), json.loads(path.read_bytes())) for path in found]


def _create(path: Path, content: bytes) -> bool:
    """Make the file, and its folder; False where it is there."""
    if not path.parent.is_dir():
        durable.make_folder(path.parent)
    try:
        durable.replace(path, content, new=True)
    except FileExistsError:
        return False
    return True


def _result(slot: Slot, record: dict[str, Any], folder: Path) -> Result:
    return Result(
        *slot.key,
        status=record["status"],
        metrics={k: math.nan if v is None else v for k, v in record["metrics"].items()},
        seconds=record["seconds"],
        reason=record["reason"],
        folder=folder / record["folder"],
        time=record["time"],
    )

"""Time, disk and memory as foreseen, and those of a pass over photos, from a short probe."""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from fieldmark import machine, probe
from fieldmark.build import Task, build, check_files, checked_photos, content_ids, features_key
from fieldmark.data.audit import check_photos, unchecked
from fieldmark.data.dataset import Photo
from fieldmark.probe import Seen, Timed, see_photos
from fieldmark.recipe import Recipe
from fieldmark.shards import write_shard
from fieldmark.training.features import FeatureStore

MOST_HASHED = 2048  # photos that are looked for in the store; of more, a sample
CHECKED = 64  # photos that the cost of a first check is measured on
READ = 128  # photos whose maps are read from the store to time it
READ_SPEED = 1e9  # bytes a second of kept maps, of one core
DRIFT = 0.22  # by so much a busy machine is faster or slower later; bench/interval.py, seed 0


@dataclass(frozen=True)
class Share:
    """One part of the time a study takes.

    Attributes:
        what: In words.
        seconds: As foreseen.
        error: Standard error of it, from the probe's own scatter.
    """

    what: str
    seconds: float
    error: float = 0.0


@dataclass
class Cost:
    """What a study, or a part of one, takes.

    Attributes:
        shares: Of the time.
        disk: Bytes written, those of kept features too.
        memory: Bytes at the fullest moment, those of the process itself too; of one worker.
    """

    shares: list[Share] = field(default_factory=list)
    disk: int = 0
    memory: int = 0

    def add(self, what: str, timed: Timed | float, times: float = 1.0) -> None:
        """Note a part that comes so many times."""
        one = timed if isinstance(timed, Timed) else Timed((timed,))
        self.shares.append(Share(what, times * one.seconds, times * one.error))

    def __iadd__(self, other: "Cost") -> "Cost":
        """Both, one after the other."""
        self.shares += other.shares
        self.disk += other.disk
        self.memory = max(self.memory, other.memory)
        return self

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(share.seconds for share in self.shares)

    @property
    def interval(self) -> tuple[float, float]:
        """Seconds between which it lies in 19 of 20 cases.

        The probe's own scatter, and what a machine differs by from hour to hour.
        """
        scatter = 2 * sum(share.error**2 for share in self.shares) ** 0.5 / max(self.seconds, 1e-9)
        factor = 1 + (scatter**2 + (2 * DRIFT) ** 2) ** 0.5
        return self.seconds / factor, self.seconds * factor

    def by_part(self) -> dict[str, float]:
        """Seconds by what they go into, in the order it comes."""
        found: dict[str, float] = defaultdict(float)
        for share in self.shares:
            found[share.what] += share.seconds
        return dict(found)


class Pass:
    """A way of seeing photos that some trials share, and what it costs to begin with it.

    Args:
        recipe: One of theirs.
        store: Of the features kept.
        before: Passes by the key of their features; those that are alike are probed once.
    """

    def __init__(self, recipe: Recipe, store: FeatureStore, before: dict[str, "Pass"]) -> None:
        machine.tune_allocator()
        torch.set_num_threads(recipe.threads or machine.cores())
        started = probe.clock()
        self.task: Task = build(recipe)
        self.building = probe.clock() - started
        self.checking = 0.0  # seconds, where all files were checked before
        self.store = store
        self.photos = [*self.task.part("train"), *self.task.part("val")]
        started = probe.clock()
        self._key = features_key(self.task)
        self._naming = probe.clock() - started  # of all that decides over features
        self._first = before.setdefault(self._key, self)
        self._looked: set[str] = set()  # photos of this way of seeing that the study will have seen

    @property
    def side(self) -> str:
        """What to call it."""
        return f"{self.task.recipe.data.image_size} px"

    def check(self, cost: Cost, known: set[tuple[Path, str]]) -> None:
        """Add what checking the files takes, which in a study comes once to each.

        Args:
            cost: Is added to.
            known: Files that the study will have checked, by folder and photo; is added to.
        """
        memory = checked_photos(self.task, self.store.folder / "checked")
        if not known:  # photos are looked at before the study begins
            cost.add("building", self.building)
        unseen = unchecked(self.photos, memory)
        new = [photo for photo in unseen if (memory, photo.key) not in known]
        known |= {(memory, photo.key) for photo in self.photos}
        if unseen and not new:  # an earlier pass of the study will have looked at them
            return
        if new:
            with TemporaryDirectory() as folder:
                shown = new[:: max(1, len(new) // CHECKED)]
                started = probe.clock()
                check_photos(shown, Path(folder) / "one.json", workers=machine.cores())
                each = (probe.clock() - started) / len(shown)
                cost.disk += size_of(Path(folder)) * len(new) // len(shown)
            cost.add("checking files", each, len(new))
            return
        checked = partial(check_files, self.task, self.store.folder / "checked")
        self.checking = probe.seconds(checked)
        cost.add("checking files", self.checking, 2)

    @cached_property
    def _sample(self) -> list[Photo]:
        return self.photos[:: -(-len(self.photos) // MOST_HASHED)]

    @cached_property
    def _ids(self) -> tuple[list[str], float]:
        """Of the sample, and the seconds they took."""
        started = probe.clock()
        ids = content_ids(self._sample, self.task.eval_view)
        return ids, probe.clock() - started

    @cached_property
    def missing(self) -> float:
        """Share of the photos that have no map yet when the study begins."""
        ids, _ = self._ids
        return len(self.store.missing(self._key, ids)) / len(ids)

    @property
    def seen(self) -> Seen:
        """What the backbone makes of some photos, and takes for it."""
        return self._first._seen

    @property
    def maps(self) -> Tensor:
        """Maps of some photos, computed or as kept."""
        return self.seen.maps if self._first.missing else self._first._kept[0]

    @cached_property
    def _seen(self) -> Seen:
        return see_photos(self.task, self._sample)

    @cached_property
    def _kept(self) -> tuple[Tensor, Timed]:
        """Some maps that are there, and the seconds to read one."""

        def never(positions: list[int]) -> Iterator[tuple[list[int], Tensor]]:
            raise AssertionError(positions)

        ids = self._ids[0][:: max(1, len(self._sample) // READ)]
        started = probe.clock()
        maps = torch.cat([part.float() for _, part in self.store.features(self._key, ids, never)])
        return maps[:32], Timed(((probe.clock() - started) / len(maps),))

    def look(self, cost: Cost) -> None:
        """Add a pass over all photos: from files the first time, then from what was kept."""
        first, count, everyone = self._first, len(self.photos), {p.key for p in self.photos}
        cost.add("finding photos in the cache", self._ids[1], count / len(self._sample))
        cost.add("finding photos in the cache", self._naming)
        missing = self.missing * len(everyone - first._looked) / len(everyone)
        if missing:
            what = f"{self.side}: through the backbone"
            cost.add(what, self.seen.photo, missing * count)
            cost.add(what, self._keeping(), missing * count)
            cost.disk += round(missing * count * self.seen.map_bytes)
        if missing < 1:
            read = Timed((self.seen.map_bytes / READ_SPEED,)) if first.missing else first._kept[1]
            cost.add(f"{self.side}: kept features", read, (1 - missing) * count)
        first._looked |= everyone

    def _keeping(self) -> Timed:
        """Seconds to write a photo's map."""
        maps = self.seen.maps
        names = [str(number) for number in range(len(maps))]
        with TemporaryDirectory() as folder:
            started = probe.clock()
            write_shard(Path(folder), names, maps)
            return Timed(((probe.clock() - started) / len(maps),))


def own_memory() -> int:
    """Bytes this process has to itself now: what files it maps can be given back."""
    try:
        _, resident, shared, *_ = Path("/proc/self/statm").read_bytes().split()
        return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 300 << 20  # torch and what it needs, on the systems it was seen on


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(
        (Path(where) / name).stat().st_size for where, _, names in os.walk(folder) for name in names
    )

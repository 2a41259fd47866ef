"""A disk in memory that tells synced from unsynced, and an explorer of all its crashes.

A power cut is played out in each legal way: any prefix of a file's unsynced writes, the last one
torn at any byte or with pages of zeros; any prefix of a folder's unsynced entries. A kill keeps
all, but nothing becomes synced by it.
"""

import errno
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from fieldmark import durable
from fieldmark.errors import RecordError

ROOT = Path("/run")
FOLDER = -1


class Crash(BaseException):
    """The process is gone."""


@dataclass
class File:
    live: bytes = b""
    synced: bytes = b""
    pending: list[bytes | int] = field(default_factory=list)  # a write's bytes or a truncation
    lost: list[tuple[int, int]] = field(default_factory=list)  # dropped by a failed fsync

    def apply(self, operation: bytes | int) -> None:
        if isinstance(operation, int):
            self.live = self.live[:operation]
            self.lost = [(a, min(b, operation)) for a, b in self.lost if a < operation]
        else:
            self.live += operation
        self.pending.append(operation)

    def sync(self) -> None:
        self.synced, self.pending = self.live, []
        for a, b in self.lost:
            self.synced = self.synced[:a] + bytes(b - a) + self.synced[b:]

    def fail_sync(self) -> None:
        """As Linux does: the pages stay readable, are marked clean, and never reach the disk."""
        self.lost.append((min(len(self.synced), len(self.live)), len(self.live)))
        self.pending = []

    def after_power_cut(self) -> set[bytes]:
        states, content = {self.synced}, self.synced
        for operation in self.pending:
            if isinstance(operation, int):
                content = content[:operation]
            else:
                for i in range(1, len(operation)):
                    zeros = bytes(i)
                    states.add(content + operation[:i])
                    states.add(content + operation[:i] + bytes(len(operation) - i))
                    states.add(content + zeros + operation[i:])
                content += operation
            states.add(content)
        return states


class MemoryDisk:
    """The seam's methods over synced and unsynced state; `left` operations until the crash."""

    def __init__(self) -> None:
        self.files: dict[int, File] = {}
        self.entries = {Path("/"): FOLDER, ROOT: FOLDER}
        self.synced_entries = dict(self.entries)
        self.moves: list[dict[Path, int | None]] = []  # unsynced changes of folders, in order
        self.locked: set[int] = set()
        self.left: float = float("inf")
        self.half: tuple[int, bytes] | None = None  # the write the crash interrupted
        self.fault: Callable[[str], OSError | None] = lambda operation: None

    def copy(self) -> "MemoryDisk":
        twin = type(self)()
        twin.files = {
            n: File(f.live, f.synced, list(f.pending), list(f.lost)) for n, f in self.files.items()
        }
        twin.entries, twin.synced_entries = dict(self.entries), dict(self.synced_entries)
        twin.moves = list(self.moves)
        return twin

    def key(self) -> object:
        files = [
            (n, f.live, f.synced, tuple(f.pending), tuple(f.lost)) for n, f in self.files.items()
        ]
        moves = [tuple(change.items()) for change in self.moves]
        entries = frozenset(self.entries.items()), frozenset(self.synced_entries.items())
        return (*entries, tuple(files), tuple(moves))

    def step(self, operation: str) -> None:
        if self.left == 0:
            raise Crash
        self.left -= 1
        if error := self.fault(operation):
            raise error

    def change(self, change: dict[Path, int | None]) -> None:
        self.moves.append(change)
        apply(self.entries, change)

    def read(self, path: Path) -> bytes:
        if path not in self.entries:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        return self.files[self.entries[path]].live

    def names(self, folder: Path) -> list[str]:
        return [path.name for path in self.entries if path.parent == folder and path != folder]

    def is_folder(self, path: Path) -> bool:
        return self.entries.get(path) == FOLDER

    def open(self, path: Path, *, new: bool) -> int:
        if path not in self.entries:
            self.step("open")
            inode = len(self.files)
            self.files[inode] = File()
            self.change({path: inode})
        elif new:
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        return self.entries[path]

    def lock(self, file: int) -> None:
        if file in self.locked:
            raise BlockingIOError
        self.locked.add(file)

    def write(self, file: int, content: bytes) -> None:
        if self.left == 0 and self.half is None:
            self.half = (file, content)
        try:
            self.step("write")
        except OSError:
            self.files[file].apply(content[: len(content) // 2])  # the disk filled up half-way
            raise
        self.files[file].apply(content)

    def truncate(self, file: int, size: int) -> None:
        self.step("truncate")
        self.files[file].apply(size)

    def fsync(self, file: int) -> None:
        try:
            self.step("fsync")
        except OSError:
            self.files[file].fail_sync()
            raise
        self.files[file].sync()

    def close(self, file: int) -> None:
        self.locked.discard(file)

    def fsync_path(self, path: Path) -> None:
        if self.entries[path] != FOLDER:
            self.fsync(self.entries[path])
            return
        self.step("fsync folder")
        mine = [change for change in self.moves if parent(change) == path]
        self.moves = [change for change in self.moves if parent(change) != path]
        for change in mine:
            apply(self.synced_entries, change)

    def rename(self, source: Path, target: Path) -> None:
        self.step("rename")
        self.change({source: None, target: self.entries[source]})

    def link(self, source: Path, target: Path) -> None:
        self.step("link")
        if target in self.entries:
            raise FileExistsError(errno.EEXIST, "File exists", str(target))
        self.change({target: self.entries[source]})

    def unlink(self, path: Path) -> None:
        if path not in self.entries:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        self.step("unlink")
        self.change({path: None})

    def mkdir(self, path: Path) -> None:
        self.step("mkdir")
        self.change({path: FOLDER})

    def now(self) -> float:
        return 0.0


def parent(change: dict[Path, int | None]) -> Path:
    return next(iter(change)).parent


def apply(entries: dict[Path, int], change: dict[Path, int | None]) -> None:
    for path, inode in change.items():
        if inode is None:
            entries.pop(path, None)
        else:
            entries[path] = inode


def power_cuts(disk: MemoryDisk) -> Iterator[MemoryDisk]:
    """Every disk that may be found when the power comes back."""
    folders = {parent(change) for change in disk.moves}
    queues = [[c for c in disk.moves if parent(c) == folder] for folder in folders]
    contents = {inode: file.after_power_cut() for inode, file in disk.files.items()}
    for kept in itertools.product(*(range(len(queue) + 1) for queue in queues)):
        entries = dict(disk.synced_entries)
        for queue, count in zip(queues, kept, strict=True):
            for change in queue[:count]:
                apply(entries, change)
        reachable = {p: i for p, i in entries.items() if set(p.parents) <= entries.keys()}
        named = sorted({inode for inode in reachable.values() if inode != FOLDER})
        for bodies in itertools.product(*(contents[inode] for inode in named)):
            twin = type(disk)()
            twin.entries, twin.synced_entries = dict(reachable), dict(reachable)
            found = dict(zip(named, bodies, strict=True))
            twin.files = {i: File(found.get(i, b""), found.get(i, b"")) for i in disk.files}
            yield twin


def aftermaths(disk: MemoryDisk) -> Iterator[MemoryDisk]:
    """Every disk the next process may find: after a kill, and after a power cut."""
    file, content = disk.half or (0, b"")
    for count in range(len(content) + 1):
        killed = disk.copy()
        if count:
            killed.files[file].apply(content[:count])
        yield killed
    yield from power_cuts(killed)  # of the whole write, so of each part of it


@dataclass
class Told:
    """What was tried, and what the program was told is safe."""

    tried: tuple[int, ...] = ()
    safe: tuple[int, ...] = ()

    def attempt(self) -> int:
        self.tried += (len(self.tried) + 1,)
        return self.tried[-1]

    def promise(self, *numbers: int) -> None:
        self.safe = tuple(sorted({*self.safe, *numbers}))


Life = Callable[[Told], None]
Judge = Callable[[MemoryDisk, Told], str | None]


def explore(life: Life, judge: Judge, lives: int = 2) -> Iterator[str | None]:
    """Crash each life before each of its operations; a complaint or None for each state found."""
    frontier = [(MemoryDisk(), Told())]
    for _ in range(lives):
        found: dict[object, tuple[MemoryDisk, Told]] = {}
        for now, here, complaint in itertools.chain.from_iterable(
            crashes(life, disk, told) for disk, told in frontier
        ):
            if complaint:
                yield complaint
            for after in aftermaths(now):
                key = (after.key(), here.tried, here.safe)
                if key not in found:
                    found[key] = (after, here)
                    durable._disk = after.copy()
                    yield judge(durable._disk, here)
        frontier = list(found.values())


def crashes(life: Life, disk: MemoryDisk, told: Told) -> Iterator[tuple[MemoryDisk, Told, str]]:
    """The disk and what was promised when the life stops before operation 0, 1, 2 ... or ends."""
    ended, complaint = False, ""
    for crash_at in itertools.count():
        now, here = disk.copy(), Told(told.tried, told.safe)
        now.left = crash_at
        durable._disk = now
        try:
            life(here)
            ended = True
        except Crash:
            pass
        except (RecordError, ValueError) as error:
            ended, complaint = True, f"can't go on: {error}"
        yield now, here, complaint
        if ended:
            return


@pytest.fixture(autouse=True)
def _real_disk_comes_back(monkeypatch):
    monkeypatch.setattr(durable, "_disk", durable._disk)


@pytest.fixture
def world() -> SimpleNamespace:
    """What stands above; test modules can't import from one another."""
    return SimpleNamespace(MemoryDisk=MemoryDisk, Told=Told, aftermaths=aftermaths, explore=explore)

"""Caches that do not outgrow a bound: what lies in them, who uses it, and what goes first.

A cache is a folder of entries, each a folder of shards (`shards`) whose name says what it holds.
A process that uses an entry holds a lock beside its shards until it ends, and another that wants
room passes it over; of the others those unused for longest go first. Should a lock be no use, as on
some network disks, little is lost: what was mapped stays mapped, and what is gone is made again.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fieldmark import durable, machine

if sys.platform != "win32":
    import fcntl

MOST_GB = 20.0  # unless $FIELDMARK_CACHE_GB says otherwise
RESIZED = "resized"  # the folder of entries that are photos, among those of features
_LOCK, _USED = "lock", "used"
_held: dict[Path, int] = {}  # open files, for as long as the process lasts


def most_bytes() -> int:
    """How large a cache may grow.

    Raises:
        SettingError: $FIELDMARK_CACHE_GB is no size.
    """
    return machine.gigabytes("FIELDMARK_CACHE_GB", MOST_GB, "the cache may hold")


@dataclass(frozen=True)
class Entry:
    """What was kept of photos in one way.

    Attributes:
        folder: Its name is the key.
        files: Of its shards.
        size: Bytes of them.
        used: Seconds since the epoch when it was last asked for.
    """

    folder: Path
    files: tuple[Path, ...]
    size: int
    used: float


def entries(root: Path) -> list[Entry]:
    """All entries of a cache, those unused for longest first."""
    return sorted(_entries(root), key=lambda entry: (entry.used, entry.folder))


def use(folder: Path) -> None:
    """Note that an entry is used now, and hold it until this process ends."""
    while folder not in _held:
        durable.make_folder(folder)
        with suppress(FileNotFoundError):  # another process is just removing it
            with suppress(FileExistsError):
                durable.replace(folder / _LOCK, b"", sync=False, new=True)
            with (folder / _LOCK).open("rb") as file:
                if _locked(file, exclusive=False) and _is_same(file, folder / _LOCK):
                    _held[folder] = os.dup(file.fileno())  # a lock lasts as long as any of them
    durable.make_folder(folder)  # by hand it can be removed at any time
    durable.replace(folder / _USED, b"", sync=False)


def clear(entry: Entry) -> bool:
    """Remove an entry; False where a process uses it."""
    lock = entry.folder / _LOCK
    try:
        with lock.open("rb") as file:
            if not _locked(file, exclusive=True):
                return False
            durable.remove(entry.folder)
    except FileNotFoundError:  # of a version that knew no locks
        durable.remove(entry.folder)
    return True


def make_room(root: Path, size: int) -> bool:
    """Remove what was unused for longest until `size` more bytes fit; False where they don't."""
    most, found = most_bytes() - size, entries(root)
    total = sum(entry.size for entry in found)
    for entry in found:
        if total <= most:
            break
        if clear(entry):
            total -= entry.size
    return total <= most


def _entries(root: Path) -> Iterator[Entry]:
    for folder in (*root.glob("*/"), *(root / RESIZED).glob("*/")):
        files = tuple(sorted(folder.glob("*.safetensors")))
        sizes = [stat.st_size for stat in map(_stat, files) if stat]
        used = _stat(folder / _USED) or _stat(folder)
        if files or (folder / _USED).exists():
            yield Entry(folder, files, sum(sizes), used.st_mtime if used else 0.0)


def _stat(path: Path) -> os.stat_result | None:
    with suppress(FileNotFoundError):  # another process removed it
        return path.stat()
    return None


def _locked(file: BinaryIO, *, exclusive: bool) -> bool:
    """Whether the lock could be had; on a system without locks, whether nobody can hold one."""
    if sys.platform == "win32":  # an open or mapped file can't be removed there
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        return not isinstance(error, BlockingIOError)
    return True


def _is_same(file: BinaryIO, path: Path) -> bool:
    now = _stat(path)
    return now is not None and os.path.samestat(os.fstat(file.fileno()), now)

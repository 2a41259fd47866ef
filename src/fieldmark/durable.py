r"""The only door to the disk: append a record, replace a file, make a folder, tell the time.

What returned is on the disk: it outlives a kill, a crash and a power cut.

* ``append`` and ``Journal`` add one record as one line, ``JSON <tab> crc32 in hex <newline>``, in
  one write and one fsync. A crash can tear only the last line; opening the journal cuts it off. A
  bad line anywhere else is damage, never repaired in silence.
* ``replace`` and ``replacing`` write a temporary neighbour, ``.<name>.<pid>-<n>.tmp``, and rename
  it: a reader sees the old file or the new one, never a mix. What a killed process leaves behind
  is harmless, and swept by the next replacement of the same name.

A disk without room is a ``DiskError`` that says where and how much, before a large file is begun
where its size is known; what was there stays whole, so that the work can go on later.

Lines are strict JSON: NaN and the infinities, which JSON lacks, are written as
``{"$float": "nan"}`` and read back as floats. Every primitive goes through ``_disk``, so that a
test can stop the world before any of them, or put another disk in its place.
"""

import contextlib
import errno
import itertools
import json
import math
import os
import re
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias, cast

from pydantic_core import from_json

from fieldmark import processes
from fieldmark.disk_room import check_room, naming
from fieldmark.errors import RecordError, SettingError

if sys.platform != "win32":
    import fcntl

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

_BINARY = getattr(os, "O_BINARY", 0)  # Windows would turn \n into \r\n
_FLOAT = "$float"
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM}


class _Disk:
    """The primitive operations, one method each."""

    def read(self, path: Path) -> bytes:
        return path.read_bytes()

    def names(self, folder: Path) -> list[str]:
        return [path.name for path in folder.iterdir()]

    def is_folder(self, path: Path) -> bool:
        return path.is_dir()

    def open(self, path: Path, *, new: bool) -> int:
        """Open for appending; `new` fails where the file exists, else it is made when missing."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | _BINARY
        return os.open(path, flags | (os.O_EXCL if new else 0), 0o666)

    def lock(self, file: int) -> None:
        """Hold the file until it is closed; raise BlockingIOError where another holds it."""
        if sys.platform != "win32":
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if isinstance(error, BlockingIOError):
                    raise  # any other: a network filesystem without locks, so go on without

    def write(self, file: int, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(file, rest) :]

    def truncate(self, file: int, size: int) -> None:
        os.ftruncate(file, size)

    def fsync(self, file: int) -> None:
        os.fsync(file)

    def close(self, file: int) -> None:
        os.close(file)

    def fsync_path(self, path: Path) -> None:
        """Sync a file, or a folder where the system lets us open one."""
        folder = path.is_dir()
        try:
            file = os.open(path, os.O_RDONLY if folder else os.O_RDWR | _BINARY)
            try:
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            if not (folder and error.errno in _NO_FOLDER_SYNC):
                raise

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        target.hardlink_to(source)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def rmdir(self, path: Path) -> None:
        path.rmdir()

    def mkdir(self, path: Path) -> None:
        path.mkdir(exist_ok=True)

    def now(self) -> float:
        return time.time()


_disk = _Disk()
# Not from 0: in a container a killed process and its successor often have the same id.
_counter = itertools.count(int.from_bytes(os.urandom(3)))
_in_flight: set[str] = set()  # temporary names this process is writing now


def now() -> float:
    """Seconds since the epoch: the package's only clock."""
    return _disk.now()


def append(path: Path, record: Mapping[str, JSON]) -> None:
    """Add one record to a journal: open it, mend it, append, close it; raises as `Journal` does."""
    with Journal(path) as journal:
        journal.append(record)


def read(path: Path) -> list[dict[str, Any]]:
    """All whole records of a journal, while it is being written too; a torn last line is skipped.

    Raises:
        RecordError: there is no such file, or a line other than the last is damaged.
    """
    try:
        content = _disk.read(path)
    except FileNotFoundError:
        raise RecordError(f"There is no journal `{path}`.") from None
    lines = _whole_lines(path, content)
    array = b"[" + b",".join(line[:-9] for line in lines) + b"]"
    if _FLOAT.encode() not in content:
        with contextlib.suppress(ValueError):  # of a surrogate, which only the slower one reads
            return cast("list[dict[str, Any]]", from_json(array))
    return cast("list[dict[str, Any]]", json.loads(array, object_hook=_revive))


class Journal:
    """A file of records held open by its one writer; made when missing, in a folder that exists.

    Raises:
        RecordError: the journal is damaged, or another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._file: int | None = None
        with naming(self.path):
            file = _disk.open(self.path, new=False)
        try:
            _disk.lock(file)
            content = _disk.read(self.path)
            self._size = sum(len(line) + 1 for line in _whole_lines(self.path, content))
            self._torn = len(content) > self._size
            # Synced even when nothing was cut: the process that made the file, or wrote the last
            # line, may have been killed before its own fsync.
            self._cut_torn_tail(file)
            _disk.fsync(file)
            _disk.fsync_path(self.path.parent)
        except BaseException as error:
            _disk.close(file)
            if isinstance(error, BlockingIOError):
                raise RecordError(
                    f"`{path}` is being written by another process. "
                    "Wait until it ends, or stop it, and try again."
                ) from None
            raise
        self._file = file

    def append(self, record: Mapping[str, JSON]) -> None:
        """Add one record; once this returns, it is on the disk.

        Raises:
            OSError: the disk refused, as a `DiskError` where it is full; the record is not in the
                journal, and the next append tries again from the last good line.
            SettingError: the record holds something JSON has no word for.
        """
        line = _encode(record)
        if self._file is None:
            raise RecordError(f"The journal `{self.path}` is closed. Open it again to append.")
        with naming(self.path):
            self._cut_torn_tail(self._file)
            self._torn = True
            _disk.write(self._file, line)
            _disk.fsync(self._file)
            self._torn = False
        self._size += len(line)

    def close(self) -> None:
        """Let go of the file and its lock."""
        if self._file is not None:
            file, self._file = self._file, None
            _disk.close(file)

    def __enter__(self) -> Self:
        """Enter a `with` block that closes the journal."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the journal."""
        self.close()

    def _cut_torn_tail(self, file: int) -> None:
        if self._torn:
            _disk.truncate(file, self._size)
            _disk.fsync(file)
            self._torn = False


@contextlib.contextmanager
def replacing(path: Path, *, size: int = 0, sync: bool = True, new: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to; on a clean exit it becomes `path` in one step.

    There must be room for `size` bytes first, or it is a `DiskError`. Without `sync` a power cut
    may empty the file: only for what can be made again, as in a cache. If `new`, a file already
    there stays and FileExistsError is raised: of many that try, one wins.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}-{next(_counter)}.tmp"
    _in_flight.add(temporary.name)
    try:
        with naming(path):
            if sync:
                _sweep(path)
            check_room(path, size)
            yield temporary
            if sync:
                _disk.fsync_path(temporary)
            (_disk.link if new else _disk.rename)(temporary, path)
            if sync:
                _disk.fsync_path(path.parent)
    finally:
        _in_flight.discard(temporary.name)
        with contextlib.suppress(OSError):
            _disk.unlink(temporary)  # gone already where it was renamed


def replace(path: Path, content: bytes, *, sync: bool = True, new: bool = False) -> None:
    """Make `path` hold `content`, or leave it as it was; `sync` and `new` as for `replacing`."""
    with replacing(path, size=len(content), sync=sync, new=new) as temporary:
        file = _disk.open(temporary, new=True)
        try:
            _disk.write(file, content)
        finally:
            _disk.close(file)


def append_text(path: Path, text: str) -> None:
    """Add lines to a text for people, such as a log: no checksum, and no waiting for the disk."""
    with naming(Path(path)):
        file = _disk.open(Path(path), new=False)
        try:
            _disk.write(file, text.encode(errors="backslashreplace"))
        finally:
            _disk.close(file)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is what a killed process left of a replacement."""
    return re.fullmatch(r"\..+\.\d+-\d+\.tmp", name) is not None


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents, each synced into the folder above it."""
    path = Path(path).absolute()
    missing = list(itertools.takewhile(lambda p: not _disk.is_folder(p), [path, *path.parents]))
    deepest = missing[-1].parent if missing else path
    _disk.fsync_path(deepest.parent)  # it may be a killed process's, made but not yet synced
    for folder in reversed(missing):
        with naming(folder):
            _disk.mkdir(folder)
            _disk.fsync_path(folder.parent)


def remove(folder: Path) -> None:
    """Delete a folder of files that can be made again; what others add meanwhile stays."""
    with contextlib.suppress(OSError):
        for name in _disk.names(folder):
            _disk.unlink(folder / name)
        _disk.rmdir(folder)


def _whole_lines(path: Path, content: bytes) -> list[bytes]:
    """The lines, without their newlines, up to the torn last one; each checked by its checksum."""
    *lines, tail = content.split(b"\n")
    for number, line in enumerate(lines):
        if b"\t%08x" % zlib.crc32(line[:-9]) != line[-9:]:
            if number == len(lines) - 1 and not tail:  # the last write, its pages out of order
                return lines[:-1]
            raise RecordError(
                f"Line {number + 1} of `{path}` is damaged: its checksum does not fit, and it is "
                f"not the last one. Restore the file from a copy, or keep its first {number} lines."
            )
    return lines


def _encode(record: Mapping[str, JSON]) -> bytes:
    text = json.dumps(_plain(record), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    body = text.encode(errors="surrogatepass")  # a file name need not be Unicode; json reads it so
    return b"%b\t%08x\n" % (body, zlib.crc32(body))


def _plain(value: JSON) -> JSON:
    """The same value in what strict JSON can say."""
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: repr(float(value))}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping) and _FLOAT not in value:
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    raise SettingError(
        f"A record is made of None, bool, int, float, str, list and dict (without the key "
        f"`{_FLOAT}`), got {value!r}, a {type(value).__name__}. Convert it first."
    )


def _revive(item: dict[str, Any]) -> Any:
    return float(item[_FLOAT]) if item.keys() == {_FLOAT} else item


def _sweep(path: Path) -> None:
    """Remove the temporary files of dead processes that were replacing `path`."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.(\d+)-\d+\.tmp")
    for name in _disk.names(path.parent):
        match = ours.fullmatch(name)
        if match and name not in _in_flight and not processes.is_another(int(match[1])):
            with contextlib.suppress(FileNotFoundError):
                _disk.unlink(path.parent / name)

"""Whether the disk has room for a file; where it has none, that in plain words."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from fieldmark.errors import DiskError

LARGE = 1 << 20  # bytes from which on it is asked first whether there is room
RESERVE = 16_000_000  # bytes left for records, the first of which says why a run stopped
_FULL = {errno.ENOSPC, errno.EDQUOT}


def free_bytes(folder: Path) -> int:
    """What this user may still write there."""
    return shutil.disk_usage(folder).free


def check_room(path: Path, size: int) -> None:
    """Refuse to begin a large file that the disk has no room for.

    Args:
        path: the file; its folder exists.
        size: bytes that will be written, besides what is at `path` now.

    Raises:
        DiskError: it would leave less than `RESERVE` free.
    """
    if size >= LARGE and free_bytes(path.parent) < size + RESERVE:
        raise _full(path, f"needs {size / 1e6:,.0f} MB and {RESERVE / 1e6:.0f} MB in reserve")


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Tell a full disk in plain words, and put the path into any other OSError that lacks it.

    Raises:
        DiskError: there was no room; also where a library told so by an error of its own.
    """
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise _full(path, "did not fit") from error
        if error.filename is None:
            error.filename = str(path)
        raise
    except Exception as error:
        if "No space left on device" in str(error):  # safetensors
            raise _full(path, "did not fit") from error
        raise


def _full(path: Path, what: str) -> DiskError:
    free = "?"
    with contextlib.suppress(OSError):
        free = f"{free_bytes(path.parent) / 1e6:,.1f}"
    return DiskError(
        f"The disk of `{path.parent}` is full: `{path.name}` {what}, {free} MB are free. "
        "Make room there and go on, a training with `fieldmark train --resume RUN`: what was "
        "written before is whole."
    )

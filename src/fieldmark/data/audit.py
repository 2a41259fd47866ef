"""Checks on the files themselves, before anything is trained: does each one open as a photo?

What was found is remembered by path, size and time of change, so that a file is decoded once, not
once a run; so are its content hash, what it looks like and its colour modes, for `twins` and
`colour`.
"""

import json
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from fieldmark import durable
from fieldmark.data.colour import is_grey
from fieldmark.data.dataset import Photo, content_hash
from fieldmark.data.decoding import decode_whole
from fieldmark.data.transform import PIXELS_VERSION
from fieldmark.data.twins import fingerprint, thumbnail
from fieldmark.errors import DataError

_VERSION = f"2.{PIXELS_VERSION['squash']}"  # of what is remembered


@dataclass(frozen=True)
class Finding:
    """A file that can't be used, and why."""

    path: Path
    key: str
    reason: str


@dataclass(frozen=True)
class Audit:
    """What a check found.

    Attributes:
        findings: Files that can't be read as photos, in the order of the photos given.
        hashes: Content hash of each readable photo, by key.
        prints: Perceptual fingerprint of each, empty where it has none, by key.
        modes: Colour modes of each that are unlike a plain photo's, by key.
        seen: Whether any photo was known from an earlier check.
        new: Keys of photos at paths no earlier check saw.
    """

    findings: tuple[Finding, ...]
    hashes: Mapping[str, str]
    prints: Mapping[str, str]
    modes: Mapping[str, Sequence[str]]
    seen: bool
    new: frozenset[str]


@dataclass(frozen=True)
class _Verdict:
    size: int
    mtime_ns: int
    reason: str | None
    content: str
    looks: str = ""
    modes: Sequence[str] = ()
    lasts: bool = True  # False for what may pass, such as a lack of memory


def check_photos(
    photos: Sequence[Photo],
    remembered: Path,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Decode every photo that has not been decoded before, and list those that can't be.

    Args:
        photos: What is to be checked; no other file is opened.
        remembered: File of earlier verdicts; it may be missing, and is written anew.
        workers: Threads that decode.
        progress: Is told how many of how many are done.
    """
    known = _recall(remembered)
    verdicts = {key: known[key] for photo in photos if (key := _name(photo)) in known}
    stale = unchecked(photos, remembered)
    done = len(photos) - len(stale)
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="fieldmark-audit")
    try:
        waiting = {pool.submit(_judge, photo.path): photo for photo in stale}
        for verdict in as_completed(waiting):
            verdicts[_name(waiting[verdict])] = verdict.result()
            done += 1
            if progress:
                progress(done, len(photos))
    finally:  # an interrupted check goes on where it was
        pool.shutdown(cancel_futures=True)
        if stale:
            _remember(remembered, known | verdicts)
    found = [(photo, verdicts[_name(photo)]) for photo in photos]
    good = {photo.key: verdict for photo, verdict in found if verdict.reason is None}
    return Audit(
        findings=tuple(Finding(p.path, p.key, v.reason) for p, v in found if v.reason is not None),
        hashes={key: verdict.content for key, verdict in good.items()},
        prints={key: verdict.looks for key, verdict in good.items()},
        modes={key: verdict.modes for key, verdict in good.items()},
        seen=any(_name(photo) in known for photo in photos),
        new=frozenset(photo.key for photo in photos if _name(photo) not in known),
    )


def unchecked(photos: Sequence[Photo], remembered: Path) -> list[Photo]:
    """The photos that `check_photos` would decode."""
    known = _recall(remembered)
    return [photo for photo in photos if not _is_current(photo, known.get(_name(photo)))]


def _name(photo: Photo) -> str:
    return str(photo.path.absolute())


def _is_current(photo: Photo, verdict: _Verdict | None) -> bool:
    if verdict is None:
        return False
    try:
        now = photo.path.stat()
    except OSError:
        return False
    return (now.st_size, now.st_mtime_ns) == (verdict.size, verdict.mtime_ns)


def _judge(path: Path) -> _Verdict:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # reading a pipe would wait for ever
            return _Verdict(0, 0, "it is no regular file", "", lasts=False)
        content = content_hash(path)
    except OSError as error:
        return _Verdict(0, 0, error.strerror or str(error), "", lasts=False)
    try:
        decoded = decode_whole(path)
    except DataError as error:
        reason = str(error).removeprefix(f"`{path}` can't be read as a photo: ").rstrip(".")
        passes = isinstance(error.__cause__, MemoryError) or getattr(error.__cause__, "errno", None)
        return _Verdict(found.st_size, found.st_mtime_ns, reason, content, lasts=not passes)
    small = thumbnail(decoded.image)
    modes = (["grey"] if is_grey(small) else []) + list(decoded.modes)
    return _Verdict(
        found.st_size, found.st_mtime_ns, None, content, looks=fingerprint(small), modes=modes
    )


def _recall(path: Path) -> dict[str, _Verdict]:
    """Earlier verdicts; none where the file is missing, damaged or of another version."""
    try:
        written: dict[str, Any] = json.loads(path.read_bytes())
        if written["version"] != _VERSION:
            return {}
        return {name: _Verdict(*values) for name, values in written["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _remember(path: Path, verdicts: Mapping[str, _Verdict]) -> None:
    files = {
        name: list(astuple(verdict))[:-1]  # all but `lasts`
        for name, verdict in verdicts.items()
        if verdict.lasts
    }
    durable.make_folder(path.parent)
    text = json.dumps({"version": _VERSION, "files": files})
    durable.replace(path, text.encode(), sync=False)

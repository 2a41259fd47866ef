"""Checks on the files themselves, before anything is trained: does each one open as a photo?

What was found is remembered by path, size and time of change, so that a file is decoded once, not
once a run.
"""

import json
import stat
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fieldmark import durable
from fieldmark.data.dataset import Photo, content_hash, listed
from fieldmark.data.decoding import decode
from fieldmark.data.transform import PIXELS_VERSION
from fieldmark.errors import DataError

_VERSION = f"1.{PIXELS_VERSION}"  # of what is remembered


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
        seen: Whether any photo was known from an earlier check.
        new: Keys of photos at paths no earlier check saw.
    """

    findings: tuple[Finding, ...]
    hashes: Mapping[str, str]
    seen: bool
    new: frozenset[str]


@dataclass(frozen=True)
class _Verdict:
    size: int
    mtime_ns: int
    reason: str | None
    content: str
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
    stale = [photo for photo in photos if not _is_current(photo, verdicts.get(_name(photo)))]
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
    return Audit(
        findings=tuple(Finding(p.path, p.key, v.reason) for p, v in found if v.reason is not None),
        hashes={photo.key: verdict.content for photo, verdict in found if verdict.reason is None},
        seen=any(_name(photo) in known for photo in photos),
        new=frozenset(photo.key for photo in photos if _name(photo) not in known),
    )


def twin_notes(
    parts: Mapping[str, Sequence[Photo]], hashes: Mapping[str, str], class_names: Sequence[str]
) -> list[str]:
    """What is to be said of photos that are byte for byte the same.

    Twins in two parts let a score be remembered and not earned; twins in two classes make one of
    the labels wrong.
    """
    copies: dict[str, list[tuple[str, Photo]]] = defaultdict(list)
    for part, photos in parts.items():
        for photo in photos:
            if photo.key in hashes:
                copies[hashes[photo.key]].append((part, photo))
    notes: list[str] = []
    across = [
        " = ".join(f"{part}: {photo.key}" for part, photo in twins)
        for twins in copies.values()
        if len({part for part, _ in twins}) > 1
    ]
    if across:
        notes.append(
            f"{len(across)} photo(s) are byte for byte in more than one part: "
            f"{listed(across, between='; ')}"
        )
    torn = [
        " = ".join(f"{photo.key} ({class_names[photo.label]})" for _, photo in twins)
        for twins in copies.values()
        if len({photo.label for _, photo in twins}) > 1
    ]
    if torn:
        notes.append(
            f"{len(torn)} photo(s) are byte for byte in more than one class: "
            f"{listed(torn, between='; ')}"
        )
    return notes


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
        decode(path)
    except DataError as error:
        reason = str(error).removeprefix(f"`{path}` can't be read as a photo: ").rstrip(".")
        passes = isinstance(error.__cause__, MemoryError) or getattr(error.__cause__, "errno", None)
        return _Verdict(found.st_size, found.st_mtime_ns, reason, content, lasts=not passes)
    return _Verdict(found.st_size, found.st_mtime_ns, None, content)


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
        name: [verdict.size, verdict.mtime_ns, verdict.reason, verdict.content]
        for name, verdict in verdicts.items()
        if verdict.lasts
    }
    durable.make_folder(path.parent)
    text = json.dumps({"version": _VERSION, "files": files})
    durable.replace(path, text.encode(), sync=False)

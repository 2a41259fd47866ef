"""Leases: of many workers on one folder, who may work on what, and who no longer may.

A lease is the file ``<folder>/<name>/<token>.json``. Whoever makes the file of the next token has
it; of many that try, one can. The holder rewrites it again and again. An observer takes it over
only when it has itself watched it unchanged for `lapse` seconds of its own monotonic clock: no two
machines' clocks are ever compared, and a clock that is set changes nothing. It need not wait for a
holder that it knows to be dead: a process of the same machine, and gone (`processes`).

A holder that slept through this (a stopped process, a paused machine) can't know it. So a token is
a fence: the new holder spoils the place where an earlier token would put its results, before it
begins; see `studies.study`. After Kleppmann, "How to do distributed locking" (2016).
"""

import contextlib
import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from fieldmark import durable, processes

LAPSE = 30.0  # seconds; long against a garbage collection, short against a night
BEATS = 6  # heartbeats in that time


@dataclass
class Lease:
    """A lease that was taken; a context that keeps it alive and lets go of it in the end.

    Attributes:
        folder: Of the leases of this name.
        token: Greater than that of any holder before.
        lost: Earlier tokens that were not let go of: their holders may wake up.
        owner: Told to whoever looks.
        lapse: Seconds without a heartbeat after which it may be taken over.
    """

    folder: Path
    token: int
    lost: tuple[int, ...]
    owner: str
    lapse: float
    _beat: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)
    _heart: threading.Thread | None = None

    @property
    def is_held(self) -> bool:
        """Whether nobody has taken it over, as far as one can see now."""
        return not (self.folder / _name(self.token + 1)).exists()

    def __enter__(self) -> Self:
        """Begin to beat."""
        self._heart = threading.Thread(target=self._keep_alive, daemon=True)
        self._heart.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Let go, so that others need not wait."""
        self._ended.set()
        if self._heart:
            self._heart.join()
        self._write(released=True)

    def _keep_alive(self) -> None:
        while not self._ended.wait(self.lapse / BEATS) and self.is_held:
            self._beat += 1
            with contextlib.suppress(OSError):  # a full disk may have room again at the next beat
                self._write()

    def _write(self, *, released: bool = False) -> None:
        content = _content(self.owner, self._beat, released=released)
        durable.replace(self.folder / _name(self.token), content, sync=False)


class Leases:
    """The leases in a folder, as one observer sees them; what it has watched it remembers.

    Args:
        folder: Where they are; made when missing.
        owner: Who takes them.
        lapse: Seconds without a heartbeat after which a lease is taken over.
    """

    def __init__(self, folder: Path, owner: str, *, lapse: float = LAPSE) -> None:
        self.folder = folder
        self.owner = owner
        self.lapse = lapse
        self._watched: dict[str, tuple[int, bytes, float]] = {}

    def take(self, name: str) -> Lease | None:
        """The lease of this name, or None where another has it; use it in a `with` block."""
        folder = self.folder / name
        tokens = tokens_of(folder)
        newest = tokens[-1] if tokens else 0
        if newest and not self._is_free(name, newest):
            return None
        if not newest:
            durable.make_folder(folder)
        try:
            first = _content(self.owner, 0)
            durable.replace(folder / _name(newest + 1), first, new=True)
        except FileExistsError:
            return None
        lost = tuple(token for token in tokens if not _is_released(_read(folder, token)))
        return Lease(folder, newest + 1, lost, self.owner, self.lapse)

    def _is_free(self, name: str, token: int) -> bool:
        content, now = _read(self.folder / name, token), time.monotonic()
        if _is_released(content) or processes.is_surely_dead(_process(content)):
            return True
        before = self._watched.get(name)
        if before is None or before[:2] != (token, content):
            self._watched[name] = (token, content, now)
            return False
        return now - before[2] >= self.lapse


def holder_of(folder: Path, name: str) -> str | None:
    """Who has the lease of this name; None: nobody, or one of this machine that is dead.

    Whoever died on another machine has it until it is taken over.
    """
    tokens = tokens_of(folder / name)
    content = _read(folder / name, tokens[-1]) if tokens else b""
    is_over = not content or _is_released(content) or processes.is_surely_dead(_process(content))
    return None if is_over else json.loads(content)["owner"]


def tokens_of(folder: Path) -> list[int]:
    """The tokens handed out so far, sorted; what a file system puts beside them is none."""
    return sorted(int(path.stem) for path in folder.glob("[0-9]*.json"))


def _name(token: int) -> str:
    return f"{token}.json"


def _content(owner: str, beat: int, *, released: bool = False) -> bytes:
    holder = {"owner": owner, "process": processes.mark()}
    return json.dumps({**holder, "beat": beat, "released": released}).encode()


def _read(folder: Path, token: int) -> bytes:
    return (folder / _name(token)).read_bytes()


def _process(content: bytes) -> str | None:
    """The mark of the holder's process; none in a file that a power cut emptied."""
    return json.loads(content).get("process") if content else None


def _is_released(content: bytes) -> bool:
    """Whether its holder let go of it; a power cut may have emptied the file, which is no."""
    return bool(content) and bool(json.loads(content)["released"])

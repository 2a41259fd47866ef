"""What is asked of work under way by somebody who looks on: to pause, to go on, to stop.

A journal ``control.jsonl`` in the folder of a run or of a study says who asked for what, and when,
and when the work heeded it. The work looks at it where it can stop without loss: a run between two
steps, a study between two results. No signal is sent, so it reaches every machine that shares the
disk. The newest wish holds; to start the work again is to ask that it goes on.
"""

import getpass
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fieldmark import durable
from fieldmark.errors import RecordError, SettingError

CONTROL = "control.jsonl"
Wish = Literal["pause", "go on", "stop"]
WISHES: tuple[Wish, ...] = ("pause", "go on", "stop")
LOOKS = 0.25  # seconds between two looks while paused
MOST_TRIES = 50  # at a journal that another process is writing to, 20 ms apart


@dataclass(frozen=True)
class Order:
    """The newest wish in a folder.

    Attributes:
        wish: What is asked for.
        by: Who asked.
        time: When, in seconds since the epoch.
        heeded: Whether some worker has written that it does so.
    """

    wish: Wish
    by: str
    time: float
    heeded: bool

    def describe(self) -> str:
        """As in `paused by ada@finch`."""
        done = {"pause": "paused", "go on": "set going", "stop": "stopped"}[self.wish]
        return f"{done} by {self.by}"


def ask(folder: Path, wish: Wish, by: str) -> None:
    """Write down what somebody wishes of the work in a folder.

    Raises:
        SettingError: there is no such wish.
        RecordError: others write there without end.
    """
    if wish not in WISHES:
        raise SettingError(f"A wish is one of {', '.join(WISHES)}, got {wish!r}.")
    _append(folder, {"event": "asked", "wish": wish, "by": by, "time": durable.now()})


def newest(folder: Path) -> Order | None:
    """What was asked for last; None where nothing ever was."""
    path = folder / CONTROL
    found: Order | None = None
    for record in durable.read(path) if path.exists() else []:
        if record["event"] == "asked":
            found = Order(record["wish"], record["by"], record["time"], heeded=False)
        elif found and record["wish"] == found.wish:
            found = Order(found.wish, found.by, found.time, heeded=True)
    return found


def begin(folder: Path) -> None:
    """Starting the work again is asking that it goes on, where it was paused or stopped."""
    order = newest(folder)
    if order is not None and order.wish != "go on":
        ask(folder, "go on", this_person())


def this_person() -> str:
    """Who runs this process, as in `ada@finch`."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container may have no name for its user
        name = f"user {os.getuid()}" if hasattr(os, "getuid") else "somebody"
    return f"{name}@{socket.gethostname()}"


class Orders:
    """The wishes in a folder as the work sees them: cheap to look at between two steps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._size = -1
        self._newest: Order | None = None

    def pending(self) -> Order | None:
        """A wish to pause or to stop; None where the work may go on."""
        try:
            size = os.stat(self.folder / CONTROL).st_size  # noqa: PTH116 - between all steps
        except OSError:
            return None
        if size != self._size:
            self._newest, self._size = newest(self.folder), size
        return self._newest if self._newest and self._newest.wish != "go on" else None

    def heed(self, say: Callable[[str], None] = lambda _: None) -> Order | None:
        """Wait as long as a pause is wished; returns the wish to stop, if that is what comes.

        Args:
            say: Is told when it pauses and when it goes on.
        """
        order = self.pending()
        if order is None:
            return None
        if order.wish == "pause":
            self._note("pause")
            say(order.describe())
            while order is not None and order.wish == "pause":
                time.sleep(LOOKS)
                order = self.pending()
        self._note(order.wish if order else "go on")
        if order is None and self._newest:
            say(self._newest.describe())
        return order

    def _note(self, wish: Wish) -> None:
        """Write down that a wish was heeded."""
        who = f"{socket.gethostname()}-{os.getpid()}"
        _append(self.folder, {"event": "heeded", "wish": wish, "by": who, "time": durable.now()})


def _append(folder: Path, record: dict[str, durable.JSON]) -> None:
    """Append, though several write here and each holds the journal only for a moment."""
    for left in reversed(range(MOST_TRIES)):
        try:
            durable.append(folder / CONTROL, record)
        except RecordError:
            if not left:
                raise
            time.sleep(0.02)
        else:
            return

"""Tells open pages what changed: one look at the folder for all of them, as long as any is open.

An event says which places changed, not what: a page asks anew for what it shows. So an event that
comes late, or for two changes at once, loses nothing, and a page that was away learns from the
version whether it missed one.
"""

import asyncio
import contextlib
import json
import math
import secrets
import threading
import time
from collections.abc import AsyncIterator

from fieldmark.studies.catalog import Catalog, Seen

EVERY = 1.0  # seconds between two looks
STILL_THERE = 15.0  # seconds after which silence is broken; live.js waits for it


class Feed:
    """The folder's catalogue, kept up to date, and who listens.

    Attributes:
        version: Grows with every change.
        mark: Of this very server; the versions of another say nothing beside it.
        every: Seconds between two looks.
    """

    def __init__(self, catalog: Catalog, *, every: float = EVERY) -> None:
        self._catalog = catalog
        self._lock = threading.Lock()
        self.version = 0
        self.mark = secrets.token_hex(4)
        self.every = every
        self._looked = -math.inf
        self._changed_at: dict[str, int] = {}
        self._listeners = 0
        self._watching: asyncio.Task[None] | None = None
        self._pulse = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False

    def look(self) -> None:
        """Look at the folder now, unless another just did."""
        with self._lock:
            if time.monotonic() - self._looked < self.every / 2:
                return
            changed = self._catalog.look()
            self._looked = time.monotonic()
            if changed:
                self.version += 1
                self._changed_at.update(dict.fromkeys(changed, self.version))

    def look_again(self) -> None:
        """Look at the folder though another just did: something was written meanwhile."""
        with self._lock:
            self._looked = -math.inf
        self.look()

    def seen(self) -> Seen:
        """What was in the folder at the last look."""
        with self._lock:
            return self._catalog.seen()

    def version_of(self, place: str) -> int:
        """Of a place with all that is in it: a page of it is out of date where this grew."""
        with self._lock:
            inside = [v for p, v in self._changed_at.items() if is_inside(p, place)]
        return max(inside, default=0)

    async def listen(self) -> AsyncIterator[str]:
        """Server-sent events: first the version, then the places that changed, as they do."""
        self._listeners += 1
        self._loop = asyncio.get_running_loop()
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())
        try:
            told = self.version
            yield _event("version", f"{self.mark}-{told}")
            while not self._is_closed:
                pulse = self._pulse
                if self.version == told:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(pulse.wait(), STILL_THERE)
                with self._lock:
                    changed = sorted(p for p, v in self._changed_at.items() if v > told)
                    told = self.version
                yield _event("changed", changed) if changed else _event("still", told)
        finally:
            self._listeners -= 1

    def close(self) -> None:
        """End what all are listening to, as the server is about to end; from any thread."""
        self._is_closed = True
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._announce)

    def _announce(self) -> None:
        self._pulse.set()
        self._pulse = asyncio.Event()

    async def _watch(self) -> None:
        """Look again and again while anybody listens."""
        announced = self.version
        while self._listeners and not self._is_closed:
            await asyncio.to_thread(self.look)
            if self.version != announced:
                announced = self.version
                self._announce()
            await asyncio.sleep(self.every)


def is_inside(place: str, outer: str) -> bool:
    """Whether a place is another, or lies in it."""
    return outer in {".", place} or place.startswith(f"{outer}/")


def _event(name: str, data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"

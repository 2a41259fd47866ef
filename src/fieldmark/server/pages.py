"""From a place in the folder to its page; each page is made once for all who read it.

An address is looked up among the runs and studies that were found in the folder. It is never made
into a path, so nothing else can be asked for.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode
from weakref import WeakValueDictionary

from fieldmark import durable
from fieldmark.language import Lang, Words
from fieldmark.report.page import Page
from fieldmark.report.render import render
from fieldmark.server.contents import Contents
from fieldmark.server.feed import Feed
from fieldmark.server.look import link, template

KEPT = 64  # pages
Query = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Reader:
    """Who reads a page.

    Attributes:
        lang: Their language.
        may_control: Whether they are shown what pauses and stops.
    """

    lang: Lang
    may_control: bool


@dataclass(frozen=True)
class Crumb:
    """A step of the way from the folder to a page."""

    name: str
    url: str


@dataclass(frozen=True)
class Here:
    """What a live page knows of itself, for its templates.

    Attributes:
        place: Of what it shows.
        version: Of the folder when it was made, as the feed tells it.
        crumbs: The way to it.
        now: Seconds since the epoch.
        may_control: As its reader.
        names_photos: Whether photos can be given to be named.
        query: Of its address, without the language.
    """

    place: str
    version: str
    crumbs: tuple[Crumb, ...]
    now: float
    may_control: bool
    names_photos: bool
    query: Query = ()

    def query_with(self, **more: str) -> str:
        """The address's query with other values."""
        return urlencode([*self.query, *more.items()])


Key = tuple[str | Reader, ...]


class Pages:
    """Makes pages and keeps them until what they show has changed.

    Args:
        feed: Of the folder.
        contents: What is on a page.
        names_photos: Whether photos can be given to be named.
    """

    def __init__(self, feed: Feed, contents: Contents, *, names_photos: bool = False) -> None:
        self.feed = feed
        self.contents = contents
        self.names_photos = names_photos
        self._kept: OrderedDict[Key, tuple[int, str]] = OrderedDict()
        # Held by who makes a page or waits for it, so that no refused address is remembered.
        self._making: WeakValueDictionary[Key, threading.Lock] = WeakValueDictionary()
        self._lock = threading.Lock()

    def page(self, place: str, reader: Reader) -> str | None:
        """The page of a run, a study or the folder; None where there is none.

        Raises:
            FieldmarkError: its records can't be read.
        """
        self.feed.look()
        if not self._is_known(place):
            self.feed.look_again()  # it may have begun since
            if not self._is_known(place):
                return None

        return self._once(place, ("page", place, reader), reader, lambda: self.contents.of(place))

    def compare(self, a: str, b: str, reader: Reader) -> str:
        """The page that compares two places: runs, or cells with all their seeds.

        Raises:
            FieldmarkError: they can't be compared.
        """
        self.feed.look()

        def make() -> Page:
            return self.contents.comparison(a, b, Words(reader.lang))

        return self._once(".", ("compare", a, b, reader), reader, make, (("run", a), ("run", b)))

    def naming(self, reader: Reader, most_megabytes: int) -> str:
        """The page on which a photo is named."""
        page = self.contents.naming(most_megabytes, Words(reader.lang))
        return self._render(page, ".", reader, self.feed.version)

    def _is_known(self, place: str) -> bool:
        seen = self.feed.seen()
        return place == "." or place in seen.runs or place in seen.studies

    def _once(
        self, place: str, key: Key, reader: Reader, make: Callable[[], Page], query: Query = ()
    ) -> str:
        """The kept page, or a new one; of many who ask for it at once, one makes it."""
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            now, version = self.feed.version, self.feed.version_of(place)
            with self._lock:
                kept = self._kept.get(key)
            if kept and kept[0] == version:
                return kept[1]
            html = self._render(make(), place, reader, now, query)
            with self._lock:
                self._kept[key] = version, html
                self._kept.move_to_end(key)
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            return html

    def _render(
        self, page: Page, place: str, reader: Reader, version: int, query: Query = ()
    ) -> str:
        here = Here(
            place=place,
            version=f"{self.feed.mark}-{version}",  # what changed since is told, and shown then
            crumbs=self._crumbs(place, page),
            now=durable.now(),
            may_control=reader.may_control,
            names_photos=self.names_photos,
            query=query,
        )

        def link_inside(below: str) -> str:
            return link(below if place == "." else f"{place}/{below}")

        return render(
            page, lang=reader.lang, live=True, template=template(), here=here, link=link_inside
        )

    def _crumbs(self, place: str, page: Page) -> tuple[Crumb, ...]:
        """The folder, the study, the run: as far as the place is inside; last, what is neither."""
        seen = self.feed.seen()
        way = [Crumb(seen.folder.name or str(seen.folder), link("."))]
        run = seen.runs.get(place)
        outer = run.study if run and run.study not in {None, "."} else None
        if outer:
            way.append(Crumb(outer, link(outer)))
        if place != ".":
            way.append(Crumb(place.removeprefix(f"{outer}/"), link(place)))
        if page.kind in {"comparison", "photo"}:
            way.append(Crumb(page.title, ""))
        return tuple(way)

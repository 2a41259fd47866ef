"""What changes is told to all who listen, over real connections, while others write."""

import asyncio
import http.client
import json
import sys
import threading
import time

import pytest

from fieldmark import durable
from fieldmark.server.app import create_app
from fieldmark.server.feed import Feed, is_inside
from fieldmark.server.pages import Reader
from fieldmark.studies.catalog import Catalog
from fieldmark.studies.study import Study

READERS = 50


class Listener:
    """An open page's connection; reads events one by one."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.connection.request("GET", "/events")
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200
        assert self.answer.headers["content-type"].startswith("text/event-stream")

    def next(self) -> tuple[str, object]:
        """Name and data of the next event."""
        lines = []
        while (line := self.answer.fp.readline().decode().strip()) or not lines:
            if ": " in line and not line.startswith(":"):
                lines.append(line.split(": ", 1)[1])
        return lines[0], json.loads(lines[1])

    def until(self, place: str) -> None:
        """Read until a place is told to have changed."""
        while True:
            name, data = self.next()
            if name == "changed" and place in data:
                return

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


@pytest.fixture
def app(folder):
    app = create_app(folder)
    app.state.feed.every = 0.05
    return app


def test_fifty_readers_are_told_of_every_run(app, folder, make_run, serving):
    with serving(app) as port:
        listeners = [Listener(port) for _ in range(READERS)]
        assert {listener.next() for listener in listeners} == {
            ("version", f"{app.state.feed.mark}-1")
        }
        told: list[set[str]] = [set() for _ in listeners]
        names = {f"runs/new-{number}" for number in range(12)}

        def hear(listener: Listener, heard: set[str]) -> None:
            while not names <= heard:
                _, changed = listener.next()
                heard.update(changed)

        threads = [
            threading.Thread(target=hear, args=pair) for pair in zip(listeners, told, strict=True)
        ]
        for thread in threads:
            thread.start()
        for name in sorted(names):
            make_run(folder / name)
        for thread in threads:
            thread.join(30)
        for listener in listeners:
            listener.close()
    assert all(names <= heard for heard in told)


def test_fifty_readers_of_a_page_that_grows_all_end_with_the_newest(app, folder, make_run, serving):
    """Each asks again whenever it is told of a change, as live.js does; none misses the last."""
    with make_run(folder / "runs" / "toy-3", finish=False) as writer, serving(app) as port:
        seen = [b""] * READERS

        def read(number: int) -> None:
            listener = Listener(port)
            while b"Stage head, step 77 of 100" not in seen[number]:
                listener.next()
                asked = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                asked.request("GET", "/")
                seen[number] = asked.getresponse().read()
                asked.close()
            listener.close()

        threads = [threading.Thread(target=read, args=(number,)) for number in range(READERS)]
        for thread in threads:
            thread.start()
        for step in range(50, 78):
            writer.record({"train/loss": 0.1}, step=step, stage="head")
            time.sleep(0.01)
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)


def test_a_half_written_line_is_waited_for(app, folder, make_run, serving):
    record = {"step": 90, "epoch": 9.0, "stage": "head", "metrics": {"val/top1": 1.0}, "time": 1.0}
    line = durable._encode(record)
    with make_run(folder / "runs" / "toy-3", finish=False) as writer, serving(app) as port:
        listener = Listener(port)
        listener.next()
        for part, step in ((line[:25], 40), (line[25:], 90)):
            with (writer.folder / "metrics.jsonl").open("ab") as file:
                file.write(part)
            if step == 90:
                listener.until("runs/toy-3")
            asked = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            asked.request("GET", "/page/runs/toy-3")
            answer = asked.getresponse()
            assert answer.status == 200
            assert f"step {step} of 100" in answer.read().decode()
            asked.close()
        listener.close()


def test_who_was_away_learns_from_the_version_of_a_change(app, folder, make_run, serving):
    with serving(app) as port:
        first = Listener(port)
        mark = app.state.feed.mark
        assert first.next() == ("version", f"{mark}-1")
        first.close()
        make_run(folder / "runs" / "new")
        app.state.feed.look_again()
        again = Listener(port)
        assert again.next() == ("version", f"{mark}-2")
        again.close()
    assert create_app(folder).state.feed.mark != mark  # another server's numbers say nothing


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
def test_an_open_page_is_told_that_a_worker_was_killed(app, folder, design, serving, holding):
    """It writes nothing more, and its page must not go on saying `running`."""
    study = Study.create(folder / "sizes", design())
    pages, reader = app.state.pages, Reader("en", may_control=False)
    with serving(app) as port, holding(study.folder / "leases", study.groups()[0].key) as holder:
        app.state.feed.look_again()
        assert "running" in pages.page("sizes", reader)
        listener = Listener(port)  # of what changes from here on
        holder.kill()
        holder.wait()
        listener.until("sizes")
        listener.close()
        assert "running" not in pages.page("sizes", reader)


def test_nobody_listens_nobody_looks(folder):
    looks = []

    class Watched(Catalog):
        def look(self):
            looks.append(time.monotonic())
            return super().look()

    async def listen_a_little() -> None:
        feed = Feed(Watched(folder), every=0.01)
        events = feed.listen()
        assert (await anext(events)).startswith("event: version")
        await asyncio.sleep(0.3)
        assert len(looks) > 2
        await events.aclose()
        await asyncio.sleep(0.1)
        count = len(looks)
        await asyncio.sleep(0.2)
        assert len(looks) == count

    asyncio.run(listen_a_little())


def test_two_that_ask_at_once_share_a_look(folder):
    looks = []

    class Watched(Catalog):
        def look(self):
            looks.append(1)
            time.sleep(0.1)
            return super().look()

    feed = Feed(Watched(folder), every=10)
    askers = [threading.Thread(target=feed.look) for _ in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert len(looks) == 1


def test_a_page_is_made_once_for_all_who_ask_at_once(folder, monkeypatch):
    app = create_app(folder)
    pages, made = app.state.pages, []
    make = pages.contents.of

    def of(place):
        made.append(place)
        time.sleep(0.1)
        return make(place)

    monkeypatch.setattr(pages.contents, "of", of)
    got: list[str] = []
    reader = Reader("en", may_control=False)
    askers = [
        threading.Thread(target=lambda: got.append(pages.page("runs/toy-1", reader)))
        for _ in range(8)
    ]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert made == ["runs/toy-1"]
    assert len(set(got)) == 1
    assert len(got) == 8


def test_a_run_that_just_began_has_a_page_at_once(folder, make_run):
    app = create_app(folder)
    app.state.feed.every = 1000
    reader = Reader("en", may_control=False)
    assert app.state.pages.page("runs/new", reader) is None
    make_run(folder / "runs" / "new")
    assert "runs/new" in app.state.pages.page("runs/new", reader)


def test_a_page_claims_no_change_that_came_while_it_was_made(folder, make_run, monkeypatch):
    app = create_app(folder)
    feed, pages = app.state.feed, app.state.pages
    make = pages.contents.of

    def of(place):
        page = make(place)
        make_run(folder / "runs" / "late")
        feed.look_again()
        return page

    monkeypatch.setattr(pages.contents, "of", of)
    html = pages.page(".", Reader("en", may_control=False))
    assert feed.version == 2
    assert "runs/late" not in html
    assert f'data-version="{feed.mark}-1"' in html  # so a reader is told that there is more


def test_a_page_is_made_anew_only_when_what_it_shows_changed(folder, make_run):
    app = create_app(folder)
    app.state.feed.every = 0
    pages = app.state.pages
    reader = Reader("en", may_control=False)
    run, all_runs = pages.page("runs/toy-1", reader), pages.page(".", reader)
    make_run(folder / "runs" / "new")
    assert pages.page("runs/toy-1", reader) is run
    assert "runs/new" in pages.page(".", reader)
    assert pages.page(".", reader) != all_runs


@pytest.mark.parametrize(
    ("place", "outer", "inside"),
    [
        ("a/b", "a", True),
        ("a", "a", True),
        ("a", ".", True),
        (".", ".", True),
        ("ab", "a", False),
        ("a", "a/b", False),
        (".", "a", False),
    ],
)
def test_what_lies_in_what(place, outer, inside):
    assert is_inside(place, outer) is inside

"""A real browser that may reach nothing but this machine, and pages of servers it is pointed at."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, Route, expect, sync_playwright

from fieldmark.server.app import create_app
from fieldmark.studies.run import RunWriter

ROOT = Path(__file__).parents[2]
AXE = (ROOT / ".venv" / "npm", Path("/tmp/npm"))  # where axe-core may have been installed
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 30_000  # milliseconds; a busy machine is slow, and no test waits in vain
expect.set_options(timeout=PATIENCE)


def missing(what: str) -> None:
    """Skip, or fail where all is to be tried."""
    told = f"{what} is not installed; `.ci/run` installs it"
    if os.environ.get("FIELDMARK_CI"):
        pytest.fail(told)
    pytest.skip(told)


@pytest.fixture(scope="module")  # while it lives, no other event loop can run in this thread
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        missing("Debian's chromium")
    browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core, which finds what people who can't see or point would stumble over."""
    for place in AXE:
        script = place / "node_modules" / "axe-core" / "axe.min.js"
        if script.is_file():
            return script.read_text(encoding="utf-8")
    missing("npm's axe-core")
    return ""


@pytest.fixture
def folder(tmp_path: Path, make_run: Callable[..., RunWriter]) -> Path:
    """Two finished runs."""
    inside = tmp_path / "here"
    make_run(inside / "runs" / "toy-1")
    make_run(inside / "runs" / "toy-2", right=38, lr=2)
    return inside


class Server:
    """A real server that can end, and come back at the same address."""

    def __init__(self, folder: Path, serving: Callable[..., AbstractContextManager[int]]) -> None:
        self.folder = folder
        self._serving = serving
        self._port = 0
        self._open = ExitStack()

    def start(self, token: str = "known", *, private: bool = False) -> None:
        """Begin anew, as another process would."""
        self.app = create_app(
            self.folder,
            lambda photo: [("raven", 0.75), ("crow", 0.25)],
            allow_control=True,
            token=token,
            private=private,
        )
        self.app.state.feed.every = 0.1
        self._port = self._open.enter_context(self._serving(self.app, self._port))

    def stop(self) -> None:
        """End, as by Ctrl-C."""
        self._open.close()

    def cut(self) -> None:
        """Break every connection, as a router would that forgets them."""
        for each in list(self.app.state.server.server_state.connections):
            self.app.state.feed._loop.call_soon_threadsafe(each.transport.abort)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}"


@pytest.fixture
def server(folder: Path, serving: Callable[..., AbstractContextManager[int]]) -> Iterator[Server]:
    started = Server(folder, serving)
    started.start()
    yield started
    started.stop()


@pytest.fixture
def address(server: Server) -> str:
    """Of a real server."""
    return server.address


@pytest.fixture
def excused() -> list[str]:
    """Beginnings of what a browser itself will say of what a test does to its connection."""
    return []


OpenPage = Callable[..., Page]


@pytest.fixture
def open_page(chromium: Browser, address: str, excused: list[str]) -> Iterator[OpenPage]:
    """Opens a place in a window of its own; what goes wrong in any of them fails the test."""
    wrong: list[str] = []
    contexts = []

    def stay_here(route: Route) -> None:
        if not route.request.url.startswith((f"{address}/", "data:", "blob:")):
            wrong.append(f"asked for {route.request.url}")
            route.abort()
        else:
            route.continue_()

    def opened(
        place: str = "/", *, width: int = 1280, theme: str = "light", clock: bool = False
    ) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, locale="en-GB"
        )
        contexts.append(context)
        context.route("**/*", stay_here)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        if clock:
            page.clock.install()
        joined = f"{address}{place}{'&' if '?' in place else '?'}token=known"
        page.goto(joined)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not [said for said in wrong if not said.startswith(tuple(excused))]


@pytest.fixture
def study(fake: str, design: Callable[..., object], folder: Path) -> str:
    """The place of a study of which a quarter has failed."""
    from fieldmark.studies.executor import LocalExecutor
    from fieldmark.studies.study import Study

    made = Study.create(folder / "sizes", design())
    list(LocalExecutor(f"{fake}:raises").run(made))
    return "/page/sizes"

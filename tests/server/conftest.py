"""A folder of runs whose every number is known, and a client of its server."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from fieldmark.report import assets
from fieldmark.server.app import create_app
from fieldmark.studies.run import RunWriter


@pytest.fixture(scope="module", autouse=True)
def _charts_script() -> Iterator[None]:
    """A stand-in for the bundled charts' script, which takes seconds to make."""
    patch = pytest.MonkeyPatch()
    patch.setattr(assets, "_vega", lambda: "// charts")
    assets.asset.cache_clear()
    yield
    patch.undo()
    assets.asset.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, make_run: Callable[..., RunWriter]) -> Path:
    """Two finished runs."""
    inside = tmp_path / "here"
    make_run(inside / "runs" / "toy-1")
    make_run(inside / "runs" / "toy-2", right=38, lr=2)
    return inside


def browser(app: Starlette, host: str = "localhost", **more: object) -> TestClient:
    """A client that calls the server by this name; each of its requests looks at the folder."""
    app.state.feed.every = 0
    return TestClient(app, base_url=f"http://{host}", follow_redirects=False, **more)  # type: ignore[arg-type]


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    """Of a server that only shows."""
    with browser(create_app(folder)) as client:
        yield client


@pytest.fixture
def connect() -> Callable[..., TestClient]:
    return browser

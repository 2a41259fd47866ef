"""A folder of runs whose every number is known, and a client of its server."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from fieldmark.report import assets
from fieldmark.server.app import create_app
from fieldmark.studies.run import RunWriter

NAMES = ["crow", "raven"]
PHOTOS = 40
RECIPE = """\
seed: %d
data: {folder: photos}
stages: [{name: head, train: head, lr: %g, length: 10 epochs, batch_size: 16}]
"""
MANIFEST = {
    "class_names": NAMES,
    "counts": {"train": 160, "minitrain": 40, "val": PHOTOS, "test": 0},
    "stages": [],
    "notes": [],
    "view": {"image_size": 32, "resize_size": 36},
    "machine": {"cpu": "a toy"},
}

MakeRun = Callable[..., RunWriter]


@pytest.fixture(scope="session", autouse=True)
def _charts_script() -> Iterator[None]:
    """A stand-in for the bundled charts' script, which takes seconds to make."""
    patch = pytest.MonkeyPatch()
    patch.setattr(assets, "_vega", lambda: "// charts")
    assets.asset.cache_clear()
    yield
    patch.undo()
    assets.asset.cache_clear()


def write_run(
    folder: Path, *, right: int = 30, lr: float = 1, seed: int = 0, finish: bool = True
) -> RunWriter:
    """A run that names the first `right` of 40 photos rightly."""
    writer = RunWriter.create(folder, RECIPE % (seed, lr), MANIFEST)
    for step in range(0, 50, 10):
        writer.record({"train/loss": 1 / (1 + step), "train/lr": lr}, step=step, stage="head")
        top1 = right / PHOTOS * (step + 10) / 50
        found = {"val/top1": top1, "val/loss": 1.0, "minitrain/top1": top1, "minitrain/loss": 0.9}
        writer.record(found, step=step, stage="head")
    if finish:
        labels = np.arange(PHOTOS) % 2
        named = np.where(np.arange(PHOTOS) < right, labels, 1 - labels)
        paths = [f"{NAMES[label]}/{number:03}.png" for number, label in enumerate(labels)]
        writer.predictions("val", paths, labels, np.eye(2)[named] * 0.8 + 0.1)
        writer.finish()
    return writer


@pytest.fixture
def make_run() -> MakeRun:
    return write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two finished runs."""
    inside = tmp_path / "here"
    write_run(inside / "runs" / "toy-1")
    write_run(inside / "runs" / "toy-2", right=38, lr=2)
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

"""What every test starts from; and a base recipe, designs on it, and a stand-in for training that
real processes can import.
"""

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import uvicorn
from hypothesis import settings
from PIL import Image

from fieldmark import durable
from fieldmark.studies.design import Design
from fieldmark.studies.run import RunWriter

# A busy machine fails nothing, and CI draws the same examples each time.
settings.register_profile("untimed", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("untimed")

DrawSquares = Callable[..., Path]
COLOURS = {"amber": (220, 150, 40), "olive": (110, 120, 40), "teal": (30, 120, 120)}

BASE = """\
name: base
data: {folder: photos, image_size: 224}
pooling: {name: compact_bilinear, sketch_dim: 8192}
stages:
  - {name: head, train: head, lr: 1, length: 60 epochs}
"""

STUDY = """\
name: sizes
question: Which matters more, the photos' size or the sketch's?
base: base
axes:
  - {key: data.image_size, values: [224, 336, 448]}
  - {key: pooling.sketch_dim, values: [1024, 2048, 4096, 8192]}
"""

# top1 grows with image_size and with the sketch; lr above 5 diverges. Each trial leaves a trace.
FAKE = """
import os
import time
from pathlib import Path

from fieldmark.studies.run import RunWriter
from fieldmark.studies.trial import Outcome

PAUSE = float(os.environ.get("PAUSE", 0))
TRACE = os.environ.get("TRACE")


def run_trials(trials):
    for trial in trials:
        if TRACE:
            with open(TRACE, "a") as file:
                file.write(f"{trial.folder.parent.name} {trial.recipe.seed} {len(trials)}\\n")
        time.sleep(PAUSE)
        yield outcome(trial)


def outcome(trial):
    recipe = trial.recipe
    if recipe.stages[0].lr > 5:
        return Outcome(trial.folder, "failed", seconds=1, reason="The loss became nan.")
    top1 = recipe.data.image_size / 1000 + (recipe.pooling.sketch_dim or 0) / 100_000
    split = "out_of_fold" if trial.folds else "val"
    metrics = {f"{split}/top1": top1 + recipe.seed / 1000, f"{split}/loss": recipe.stages[0].lr}
    return Outcome(trial.folder, "finished", metrics, seconds=1)


def raises(trials):
    for trial in trials:
        if trial.recipe.data.image_size == 336:
            raise RuntimeError("out of memory")
        yield outcome(trial)


def raises_at_once(trials):
    raise RuntimeError("no such device")


def forgets(trials):
    for trial in trials[1:]:
        yield outcome(trial)


def not_a_number(trials):
    for trial in trials:
        yield Outcome(trial.folder, "finished", {"out_of_fold/top1": float("nan")})


def watched(trials):
    # Real run folders whose val rises to lr in ten evaluations, after a stage that does not count.
    # Before the run whose number stands in the file TRACE the worker is killed.
    for trial in trials:
        begun = len(list(trial.folder.parent.parent.glob("*/*/manifest.json")))
        if TRACE and open(TRACE).read() == str(begun):
            open(TRACE, "w").close()
            os.kill(os.getpid(), 9)
        yield one_watched(trial)


def one_watched(trial):
    lr = trial.recipe.stages[-1].lr
    with RunWriter.create(trial.folder, trial.recipe.to_yaml(), {"class_names": []}) as writer:
        writer.record({"val/top1": 0.9}, step=5, stage="head")
        writer.record({"val/top1": 0.9}, step=5, stage="all")
        for number in range(1, 11):
            found = {"val/top1": lr * number / 10}
            writer.record(found, step=5 + number, stage="all")
            reason = trial.watch(10, found) if trial.watch else None
            if reason and number < 10:
                writer.fail(reason, status="pruned")
                return Outcome(trial.folder, "pruned", found, seconds=number, reason=reason)
        writer.finish()
    return Outcome(trial.folder, "finished", found, seconds=10)


def kills_itself(trials):
    os.kill(os.getpid(), 9)
    yield


def kills_itself_once(trials):
    for number, result in enumerate(run_trials(trials)):
        if number == 2 and not os.path.exists(TRACE + ".killed"):
            open(TRACE + ".killed", "w").close()
            os.kill(os.getpid(), 9)
        yield result
"""


@pytest.fixture(autouse=True)
def the_same_chance_in_every_run():
    """Tests that draw from torch's global generator draw the same, alone or among others."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def the_disk_is_left_as_it_was() -> Iterator[None]:
    """A test that puts another disk in its place takes it away again, or later ones write there."""
    disk = durable._disk
    yield
    left, durable._disk = durable._disk, disk
    assert left is disk, f"the test left {type(left).__name__} behind as `durable._disk`"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module of functions that run trials, on the path of child processes too."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "fake_training.py").write_text(FAKE, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    return "fake_training"


@pytest.fixture
def design() -> Callable[..., Design]:
    """A design of a study file's text on the base recipe."""

    def make(text: str = STUDY, *overrides: str, base: str = BASE) -> Design:
        return Design.read(textwrap.dedent(text), lambda _: base, overrides, name="study.yaml")

    return make


CLASSES = ["crow", "raven"]
PHOTOS = 40
RUN = """\
seed: %d
data: {folder: photos}
stages: [{name: head, train: head, lr: %g, length: 10 epochs, batch_size: 16}]
"""
MANIFEST = {
    "class_names": CLASSES,
    "counts": {"train": 160, "minitrain": 40, "val": PHOTOS, "test": 0},
    "stages": [],
    "notes": [],
    "view": {"image_size": 32, "resize_size": 36},
    "machine": {"cpu": "a toy"},
}


def write_run(
    folder: Path, *, right: int = 30, lr: float = 1, seed: int = 0, finish: bool = True
) -> RunWriter:
    """A run that names the first `right` of 40 photos rightly."""
    writer = RunWriter.create(folder, RUN % (seed, lr), MANIFEST)
    for step in range(0, 50, 10):
        writer.record({"train/loss": 1 / (1 + step), "train/lr": lr}, step=step, stage="head")
        top1 = right / PHOTOS * (step + 10) / 50
        found = {"val/top1": top1, "val/loss": 1.0, "minitrain/top1": top1, "minitrain/loss": 0.9}
        writer.record(found, step=step, stage="head")
    if finish:
        labels = np.arange(PHOTOS) % 2
        named = np.where(np.arange(PHOTOS) < right, labels, 1 - labels)
        paths = [f"{CLASSES[label]}/{number:03}.png" for number, label in enumerate(labels)]
        writer.predictions("val", paths, labels, np.eye(2)[named] * 0.8 + 0.1)
        writer.finish()
    return writer


@pytest.fixture
def make_run() -> Callable[..., RunWriter]:
    return write_run


@contextmanager
def serving(app, port: int = 0) -> Iterator[int]:
    """A real server in a thread of its own; its port, any that is free unless given."""
    config = uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=1)
    server = app.state.server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    end = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < end, "the server does not start"
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        app.state.feed.close()
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


HOLD = """
import sys
from pathlib import Path
from fieldmark.studies.lease import Leases
with Leases(Path(sys.argv[1]), "a").take(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holding(folder: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that has the lease of this name in a folder, to be killed."""
    command = [sys.executable, "-c", HOLD, str(folder), name]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()


@pytest.fixture(name="holding")
def _holding() -> Callable[..., AbstractContextManager[subprocess.Popen[str]]]:
    return holding


@pytest.fixture(name="serving")
def _serving() -> Callable[..., AbstractContextManager[int]]:
    return serving


@pytest.fixture(scope="session")
def draw_squares() -> DrawSquares:
    """Fills a folder with photos that a tiny network tells apart: a colour a class, in noise."""

    def draw(
        folder: Path,
        classes: Iterable[str] = COLOURS,
        *,
        per_class: int = 20,
        noise: float = 60,
        suffix: str = "png",
    ) -> Path:
        generator = np.random.default_rng(0)
        for name in classes:
            (folder / name).mkdir(parents=True)
            for number in range(per_class):
                drawn = generator.normal(0, noise, size=(40, 48, 3))
                pixels = np.clip(np.array(COLOURS[name]) + drawn, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / name / f"{number:02}.{suffix}", quality=95)
        return folder

    return draw

"""A base recipe, designs on it, and a stand-in for training that real processes can import."""

import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from fieldmark.studies.design import Design
from fieldmark.studies.ray_executor import RayExecutor

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


@pytest.fixture(scope="session")
def cluster():
    """Two nodes of one core each, which this machine stands for."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    found = Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    found.add_node(num_cpus=1)
    yield found
    found.shutdown()


@pytest.fixture
def on_two_nodes(cluster) -> Callable[..., RayExecutor]:
    """An executor of an import path, whose workers see what this process sees now."""

    def make(path: str, lapse: float = 2) -> RayExecutor:
        seen = {name: os.environ[name] for name in ("TRACE", "PAUSE") if name in os.environ}
        seen["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
        return RayExecutor(path, cluster.address, lapse, {"env_vars": seen})

    return make

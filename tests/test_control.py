"""A training that is paused or stopped by somebody who looks on loses nothing."""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark.checked_yaml import check_text
from fieldmark.errors import TrainingError
from fieldmark.ledger import Silent
from fieldmark.recipe import Recipe
from fieldmark.resume import resume
from fieldmark.studies import control
from fieldmark.studies.run import Run
from fieldmark.train import train
from fieldmark.training.features import FeatureStore

RECIPE = """\
name: squares
data: {folder: "%s", image_size: 32, resize_size: 36}
backbone: {name: test_resnet, weights: none}
pooling: {name: average}
threads: 1
stages:
  - {name: all, train: all, lr: 0.01, length: 24 steps, batch_size: 8, eval_every: 6 steps}
"""
ASKED_AT = 5  # steps: `progress` is told of each


class Asker(Silent):
    """Looks on, and asks for something at a step."""

    def __init__(self, folder: Path, wish: control.Wish | None = None) -> None:
        self.folder, self.wish = folder, wish
        self.steps: list[int] = []

    def progress(self, task: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        if task == "all":
            self.steps.append(done)
            if done == ASKED_AT and self.wish:
                control.ask(self.folder, self.wish, "ada@finch")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("squares")
    generator = np.random.default_rng(0)
    for name, shade in {"dark": 60, "light": 190}.items():
        (folder / name).mkdir()
        for number in range(20):
            pixels = np.clip(shade + generator.normal(0, 40, size=(40, 40, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return check_text(RECIPE % folder, Recipe, name="recipe.yaml")


@pytest.fixture(scope="module")
def undisturbed(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run")
    return train(recipe, folder / "run", store=FeatureStore(folder), reporter=Asker(folder))


def _numbers(run: Run) -> dict[str, list[float]]:
    measured = [key for key in run.keys if not key.endswith("seconds")]
    return {key: run.series(key)[1].tolist() for key in measured}


def _wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_a_paused_run_waits_between_two_steps_and_ends_the_same(
    recipe: Recipe, undisturbed: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    asker = Asker(folder, "pause")
    store = FeatureStore(tmp_path)
    training = threading.Thread(
        target=train, args=(recipe, folder), kwargs={"store": store, "reporter": asker}
    )
    training.start()
    _wait_for(lambda: (order := control.newest(folder)) and order.heeded)
    paused = time.monotonic()
    assert (folder / "last.safetensors").exists()  # a power cut now would cost nothing
    time.sleep(1)
    assert asker.steps[-1] == ASKED_AT
    waited = time.monotonic() - paused
    control.ask(folder, "go on", "grace@finch")
    training.join(60)
    run = Run(folder)
    assert run.status == "finished"
    assert _numbers(run) == _numbers(undisturbed)
    log = (folder / "log.txt").read_text()
    assert log.index("paused by ada@finch") < log.index("set going by grace@finch")
    assert max(run.series("train/compute_seconds")[1]) < waited  # a pause is not computing


def test_a_stopped_run_says_who_did_it_and_goes_on_when_resumed(
    recipe: Recipe, undisturbed: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    store = FeatureStore(tmp_path)
    told = rf"stopped by ada@finch at step {ASKED_AT}\. Go on with: fieldmark train --resume"
    with pytest.raises(TrainingError, match=told):
        train(recipe, folder, store=store, reporter=Asker(folder, "stop"))
    stopped = Run(folder)
    assert stopped.status == "failed"
    assert stopped.reason is not None
    assert "stopped by ada@finch" in stopped.reason
    asker = Asker(folder)
    run = resume(folder, store=store, reporter=asker)
    assert asker.steps[0] == ASKED_AT + 1
    assert run.status == "finished"
    assert _numbers(run) == _numbers(undisturbed)

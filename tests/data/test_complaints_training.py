"""What people lost days to while training, each as a test of what prevents it here."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fieldmark.build import build
from fieldmark.checked_yaml import check_text
from fieldmark.errors import TrainingError
from fieldmark.layers.pooling import make_pooling
from fieldmark.ledger import Silent
from fieldmark.predict import Predictor
from fieldmark.recipe import Recipe
from fieldmark.resume import resume
from fieldmark.studies.run import Run
from fieldmark.train import Training, train
from fieldmark.training.features import FeatureStore

RECIPE = """\
data: {folder: "%s", image_size: 32, resize_size: 36, mirror: true}
backbone: {name: test_resnet, weights: none}
pooling: {name: average}
threads: 1
stages:
  - {name: head, train: head, lr: 1, length: 2 epochs, batch_size: 8}
  - {name: all, train: {"backbone.*": 0.1, "*": 1}, lr: 0.05, length: 2 epochs, batch_size: 8}
"""
ONE_STAGE = "stages=[{name: head, train: head, lr: 1, length: 3 steps, batch_size: 8}]"
COLOURS = {"amber": (220, 150, 40), "teal": (30, 120, 120)}


class Listener(Silent):
    """Is told everything, and stops where it is asked to."""

    def __init__(self, stop: tuple[str, int] | None = None) -> None:
        self.lines: list[str] = []
        self.stop = stop

    def say(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, task: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        if (task, done) == self.stop:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for number in range(20):
            noisy = np.clip(np.array(colour) + rng.normal(0, 60, (40, 48, 3)), 0, 255)
            Image.fromarray(noisy.astype(np.uint8)).save(folder / name / f"{number:02}.png")
    return folder


def load(photos: Path, *overrides: str) -> Recipe:
    return check_text(RECIPE % photos, Recipe, overrides)


def run(photos: Path, folder: Path, *overrides: str, told: Listener | None = None) -> Run:
    return train(
        load(photos, *overrides),
        folder,
        store=FeatureStore(folder.parent / "features"),
        reporter=told or Listener(),
        checkpoint_seconds=0,
    )


def test_a_frozen_backbone_stands_still_with_its_batch_norm(photos: Path, tmp_path: Path) -> None:
    """B3: layers said to be frozen go on moving, by their BatchNorm statistics."""
    before = build(load(photos, ONE_STAGE)).model.state_dict()
    found = run(photos, tmp_path / "a", ONE_STAGE)
    after = load_file(found.weights_path)
    frozen = [key for key in before if key.startswith("backbone.")]
    assert any("running_mean" in key for key in frozen)
    assert [key for key in frozen if not torch.equal(before[key], after[key])] == []
    assert [key for key in before if not torch.equal(before[key], after[key])] != []
    assert len(found.manifest["stages"][0]["frozen_hash"]) == 64


@pytest.mark.parametrize("stop", [("head", 3), ("all", 2)])
def test_a_stage_goes_on_after_an_interruption_as_if_there_was_none(
    photos: Path, tmp_path: Path, stop: tuple[str, int]
) -> None:
    """B4: after a resume the backbone is frozen again, or parameter groups do not fit."""
    whole = run(photos, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "cut", told=Listener(stop))
    store = FeatureStore(tmp_path / "features")
    found = resume(tmp_path / "cut", store=store, reporter=Listener(), checkpoint_seconds=0)
    ours, theirs = load_file(found.weights_path), load_file(whole.weights_path)
    assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []
    assert list(found.series("train/loss")[1]) == list(whole.series("train/loss")[1])


def test_the_second_stage_begins_where_the_first_ended_or_not_at_all(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B5: the second stage falls to chance, because it does not start from the first's weights."""
    told = Listener()
    run(photos, tmp_path / "a", "stages.0.length=6 epochs", told=told)
    assert any(line.strip().startswith("hand-over: val top-1") for line in told.lines)
    enter = Training.enter

    def forget(self: Training, stage):
        found = enter(self, stage)
        if stage.name == "all":
            torch.nn.init.zeros_(next(self.model.head.parameters()).data)
        return found

    monkeypatch.setattr(Training, "enter", forget)
    with pytest.raises(TrainingError, match=r"Stage all starts at .* the stage before ended at"):
        run(photos, tmp_path / "b", "stages.0.length=6 epochs")


@pytest.mark.parametrize(
    ("name", "options"), [("bilinear", {}), ("compact_bilinear", {"sketch_dim": 32})]
)
def test_the_root_at_zero_has_a_finite_slope(name: str, options: dict[str, int]) -> None:
    """B6: the bilinear head's square root gives NaN where a feature is 0, and 0.5 % for ever."""
    maps = torch.zeros(2, 8, 3, 3, requires_grad=True)
    pooled = make_pooling(name, 8, seed=0, **options)(maps)
    pooled.sum().backward()
    assert torch.isfinite(pooled).all()
    assert maps.grad is not None
    assert torch.isfinite(maps.grad).all()


def test_a_loss_that_is_no_number_stops_at_once_and_names_its_photos(
    photos: Path, tmp_path: Path
) -> None:
    """B6: NaN goes unnoticed, or is told without a step or a photo."""
    with pytest.raises(TrainingError, match=r"step \d+.*(amber|teal)/\d\d\.png"):
        run(photos, tmp_path / "a", "stages.all.lr=1e30", "stages.all.momentum=0")


def test_train_and_val_are_measured_alike(photos: Path, tmp_path: Path) -> None:
    """B22: train looks worse than val, as it alone is augmented, smoothed and dropped from."""
    found = run(
        photos,
        tmp_path / "a",
        "augment={crop_area: [0.3, 1], policy: randaugment, erase: 0.5, mixup: 0.4}",
        "head.drop_rate=0.5",
        "stages.all.label_smoothing=0.2",
    )
    task = build(load(photos))
    minitrain = task.part("minitrain")
    assert len(minitrain) == len(task.part("val")) > 0
    assert {photo.key for photo in minitrain} <= {photo.key for photo in task.part("train")}
    predicted = Predictor(found.folder).predict([photo.path for photo in minitrain], top=2)
    likelihoods = [
        dict(zip(one.classes, one.probabilities, strict=True))[task.photos.class_names[photo.label]]
        for one, photo in zip(predicted, minitrain, strict=True)
    ]
    plain = -np.mean(np.log(likelihoods))  # cross-entropy through the eval view, nothing added
    assert found.series("minitrain/loss")[1][-1] == pytest.approx(plain, rel=1e-3)


def test_less_memory_takes_the_same_steps_and_the_batch_is_the_one_asked_for(
    photos: Path, tmp_path: Path
) -> None:
    """B23: a batch size found by trying runs out of memory later, or changes the training."""
    settings = ("precision=float32", "data.mirror=false")
    one = run(photos, tmp_path / "a", *settings)
    halves = tuple(
        f"stages.{stage}.{change}"
        for stage in (0, 1)
        for change in ("batch_size=4", "accumulate=2")
    )
    two = run(photos, tmp_path / "b", *settings, *halves)
    assert "batch_size: 8" in one.recipe_text
    assert "batch_size: 4" in two.recipe_text
    # Into the second stage; later, other rounding has grown by the steps themselves.
    losses = [list(each.series("train/loss")[1])[:10] for each in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)

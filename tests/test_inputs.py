"""Which batches a stage is fed, and what a change of view costs the features kept."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark import train as training
from fieldmark.build import Task, build, content_ids, features_key
from fieldmark.checked_yaml import check_text
from fieldmark.data import decoding
from fieldmark.errors import RecipeError, SettingError, TrainingError
from fieldmark.frozen_rows import frozen_rows
from fieldmark.inputs import (
    PhotoInputs,
    drawn_views,
    make_inputs,
    stage_loss,
    training_steps,
)
from fieldmark.recipe import Recipe
from fieldmark.training.features import FeatureStore
from fieldmark.training.optim import parameter_plan
from fieldmark.training.stage import Batch, set_trainable
from fieldmark.training.world import World

RECIPE = """\
data: {folder: "%s", image_size: 32, resize_size: 36}
backbone: {name: test_resnet, weights: none}
pooling: {name: average}
stages:
  - {name: all, train: all, lr: 0.1, length: 1 epoch, batch_size: 4}
"""
AUGMENTATIONS = [
    *("augment.crop_area=[0.3, 1]", "augment.brightness=0.4", "augment.contrast=0.4"),
    *("augment.saturation=0.4", "augment.hue=0.1", "augment.policy=randaugment"),
    *("augment.policy=trivialaugment", "augment.erase=1", "data.mirror=true"),
]
MIXINGS = ["augment.mixup=0.4", "augment.cutmix=1"]
FOR_ALL = ["data.resize=keep_aspect", "data.resize_size=40", "data.box_margin=0.1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 10, 10 and 4 photos."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for name, count in (("ani", 10), ("tern", 10), ("wren", 4)):
        (folder / name).mkdir()
        for number in range(count):
            pixels = generator.integers(0, 256, (40, 52, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
    return folder


def task(folder: Path, *overrides: str) -> Task:
    return build(check_text(RECIPE % folder, Recipe, overrides))


def epoch(task: Task, *, number: int = 0, first: int = 0) -> list[Batch]:
    count = len(task.split.train)
    groups = [list(range(at, count, 4)) for at in range(4)]  # each of every class
    return list(PhotoInputs(task).epoch(groups, seed=3, epoch=number, first=first))


class Noting:
    """Inputs that only say what they are asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def epoch(
        self, groups: Sequence[Sequence[int]], *, seed: int, epoch: int, first: int
    ) -> Iterator[Batch]:
        self.asked.append((epoch, first))
        for group in groups[first:]:
            yield Batch(torch.tensor(group), torch.empty(0), torch.empty(0))


def told(first: int, count: int, **settings) -> list[list[list[int]]]:
    steps = training_steps(
        Noting(), [0] * 9 + [1], batch_size=2, accumulate=2, seed=0, first=first, **settings
    )
    return [[batch.indices.tolist() for batch in step] for step in islice(steps, count)]


@pytest.mark.parametrize("sampling", ["shuffled", "balanced"])
def test_steps_passed_over_are_those_that_were_taken(sampling):
    whole = told(0, 9, sampling=sampling)
    for first in range(8):
        assert told(first, 9 - first, sampling=sampling) == whole[first:]


def test_an_epoch_has_each_sample_once_and_the_batches_of_an_interrupted_one_keep_their_numbers():
    steps = told(0, 3)
    assert [list(map(len, step)) for step in steps] == [[2, 2], [2, 2], [2]]
    assert sorted(i for step in steps for batch in step for i in batch) == list(range(10))
    noting = Noting()
    next(training_steps(noting, [0] * 10, batch_size=2, accumulate=2, seed=0, first=4))
    assert noting.asked == [(1, 2)]


def test_balanced_epochs_are_as_long_and_half_of_each_class():
    steps = told(0, 3, sampling="balanced")
    drawn = [i for step in steps for batch in step for i in batch]
    assert len(drawn) == 10
    assert drawn.count(9) == 5


@pytest.mark.parametrize("change", AUGMENTATIONS)
def test_a_change_by_chance_changes_training_and_nothing_else(folder: Path, change: str):
    plain, changed = task(folder), task(folder, change)
    assert changed.eval_view == plain.eval_view
    assert features_key(changed) == features_key(plain)
    pairs = zip(epoch(plain), epoch(changed), strict=True)
    assert any(not torch.equal(a.inputs, b.inputs) for a, b in pairs)
    for a, b in zip(epoch(changed), epoch(changed), strict=True):
        assert torch.equal(a.inputs, b.inputs)


@pytest.mark.parametrize("change", MIXINGS)
def test_mixing_is_of_the_batch_and_by_its_number(folder: Path, change: str):
    plain, mixed = task(folder), task(folder, change)
    assert features_key(mixed) == features_key(plain)
    batches = epoch(mixed)
    assert all(batch.labels.shape == (len(batch.indices), 3) for batch in batches)
    shares = {round(batch.labels.max(1).values.min().item(), 4) for batch in batches}
    assert len(shares) > 1
    for a, b in zip(batches[2:], epoch(mixed, first=2), strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.labels, b.labels)
    again = epoch(mixed, number=1)
    assert not any(torch.equal(a.labels, b.labels) for a, b in zip(batches, again, strict=True))


@pytest.mark.parametrize("change", FOR_ALL)
def test_what_evaluation_sees_too_makes_other_features(folder: Path, change: str):
    assert features_key(task(folder, change)) != features_key(task(folder))


def test_other_decoders_make_other_features(folder: Path, monkeypatch: pytest.MonkeyPatch):
    one = task(folder)
    before = features_key(one)
    monkeypatch.setattr(decoding, "_DECODE_JPEG", None)
    assert features_key(one) != before


def test_a_box_is_part_of_what_a_photo_is_where_it_counts(folder: Path):
    plain, boxed = task(folder), task(folder, "data.box_margin=0.1")
    photo = plain.photos.photos[0]
    moved = [replace(photo, box=(1.0, 2.0, 20.0, 30.0)), replace(photo, box=(1.0, 2.0, 20.0, 31.0))]
    assert len(set(content_ids([photo, *moved], plain.eval_view))) == 1
    assert len(set(content_ids([photo, *moved], boxed.eval_view))) == 3


def test_balanced_weights_are_of_the_training_photos(folder: Path):
    one = task(folder, "stages.0.class_weights=balanced", "stages.0.label_smoothing=0.1")
    loss = stage_loss(one, one.recipe.stages[0])
    labels = [photo.label for photo in one.part("train")]
    expected = [len(labels) / (3 * labels.count(label)) for label in range(3)]
    assert loss.class_weights is not None
    assert loss.class_weights.tolist() == pytest.approx(expected)
    assert loss.label_smoothing == 0.1


def test_weights_of_no_class_are_told(folder: Path):
    one = task(folder, "stages.0.class_weights={robin: 2}")
    with pytest.raises(SettingError, match=r"no class of the photos: robin\. .*ani, tern, wren"):
        stage_loss(one, one.recipe.stages[0])


@pytest.mark.parametrize("changes", [[], ["augment.mixup=0.4", "augment.cutmix=1"]])
@pytest.mark.parametrize("sampling", ["shuffled", "balanced"])
def test_processes_see_the_same_photos_step_by_step_as_one_alone(
    folder: Path, changes: list[str], sampling: str
):
    one = task(folder, *changes)
    labels = [photo.label for photo in one.part("train")]

    def steps(world: World) -> list[list[Batch]]:
        inputs = PhotoInputs(one, None, world)
        made = training_steps(inputs, labels, batch_size=4, accumulate=2, seed=3, sampling=sampling)
        return list(islice(made, 5))  # more than an epoch, which ends with a smaller step

    parts = zip(*(steps(World(rank, 3)) for rank in range(3)), strict=True)
    for whole, shared in zip(steps(World()), parts, strict=True):
        for number, batch in enumerate(whole):
            joined = [torch.cat(part) for part in zip(*(p[number] for p in shared), strict=True)]
            assert torch.equal(joined[0], batch.indices)
            assert torch.equal(joined[1], batch.inputs)
            torch.testing.assert_close(joined[2], batch.labels)


def test_photos_and_network_have_their_channels_last(folder: Path):
    one = task(folder)
    (batch,) = PhotoInputs(one).epoch([[0, 1]], seed=0, epoch=0, first=0)
    kernels = [p for p in one.model.backbone.parameters() if p.dim() == 4]
    for tensor in (batch.inputs, *kernels):
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_features_that_are_no_numbers_are_refused_with_their_photos(folder: Path, tmp_path: Path):
    one = task(folder)
    photos = one.part("val")

    class Roots(torch.nn.Module):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return torch.stack([maps.new_ones(2), *maps.new_full((len(maps) - 1, 2), -1)]).sqrt()

    said = rf"features of {photos[1].key}, .* are infinite or nan\. Look at these photos"
    with pytest.raises(TrainingError, match=said):
        frozen_rows(one, FeatureStore(tmp_path), photos, [Roots()], lambda done, total: None)


def test_a_photo_evaluated_by_two_processes_is_a_defect_that_is_told(folder: Path):
    class Both(World):
        def sum(self, tensor: torch.Tensor) -> torch.Tensor:
            return tensor + tensor

    one = task(folder)
    with pytest.raises(TrainingError, match="did not see each photo exactly once"):
        PhotoInputs(one, None, Both()).logits("val")


def test_processes_that_drift_apart_are_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch):
    class Two(World):
        def all_said(self, said: str) -> list[str]:
            return [said, self.other or said]

    Two.other = None
    monkeypatch.setattr(training, "world", lambda: Two(0, 2))
    one = SimpleNamespace(model=task(folder).model)
    training.Training.check_agreement(one)
    Two.other = "f" * 64
    with pytest.raises(TrainingError, match=r"no longer hold the same weights\. Run them on"):
        training.Training.check_agreement(one)


HEAD = "stages.0.train=head"


def test_each_epoch_shows_one_of_the_views_kept_and_the_plain_one_is_among_them(
    folder: Path, tmp_path: Path
):
    store = FeatureStore(tmp_path)
    one, several = task(folder, HEAD), task(folder, HEAD, "stages.0.views=3", "data.mirror=true")
    for each in (one, several):
        plan = parameter_plan(each.model, each.recipe.stages[0].train)
        set_trainable(each.model, plan, train_batch_norm=False)
    (plain, _), (views, labels) = (
        make_inputs(each, store, lambda *_: None, print, views).train  # type: ignore[attr-defined]
        for each, views in ((one, 1), (several, 3))
    )
    count = len(plain)
    assert torch.equal(views[:count], plain)
    assert not torch.equal(views[count : 2 * count], views[2 * count :])
    assert labels.tolist() == 3 * [photo.label for photo in one.part("train")]
    photos = several.part("train")
    shown = [drawn_views(photos, 3, seed=1, epoch=epoch) for epoch in range(100)]
    assert np.bincount(np.concatenate(shown)) == pytest.approx(100 * count / 3, rel=0.15)
    assert np.array_equal(shown[7], drawn_views(photos, 3, seed=1, epoch=7))
    inputs = make_inputs(several, store, lambda *_: None, print, 3)
    (batch,) = inputs.epoch([list(range(count))], seed=1, epoch=7, first=0)
    assert torch.equal(batch.inputs, views.view(3, count, -1)[shown[7], np.arange(count)])


def test_views_are_known_by_their_number_and_by_what_chance_may_do(folder: Path):
    plain, mirrored = task(folder), task(folder, "data.mirror=true")
    keys = {features_key(each, number) for each in (plain, mirrored) for number in range(3)}
    assert len(keys) == 5  # the eval view is one for both


def test_views_of_a_backbone_that_trains_are_refused(folder: Path):
    with pytest.raises(RecipeError, match=r"stage all: `views` are kept of a frozen backbone"):
        task(folder, "stages.0.views=2")

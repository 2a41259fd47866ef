"""Rehearsals of recipes whose faults are planted, and what they must leave alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fieldmark.build import build
from fieldmark.checked_yaml import check_text
from fieldmark.cli import app
from fieldmark.errors import RecipeError, SettingError
from fieldmark.recipe import Recipe
from fieldmark.rehearsal_report import sentences
from fieldmark.rehearse import lead_in_loss, rehearse
from fieldmark.studies.run import Run
from fieldmark.throwaway import SHORT, Throwaway
from fieldmark.train import prepare, settled, train
from fieldmark.training.features import FeatureStore
from fieldmark.trials import Silent

COLOURS = {"amber": (220, 150, 40), "olive": (110, 120, 40), "teal": (30, 120, 120)}
RAW = "backbone.std=[0.00392157, 0.00392157, 0.00392157]"  # photos from 0 to 255
RECIPE = """\
name: squares
data: {folder: "%s", image_size: 32, resize_size: 36, mirror: true}
backbone: {name: test_resnet, weights: none}
pooling: {name: compact_bilinear, sketch_dim: 512}
threads: 1
stages:
  - {name: head, train: head, lr: 4, length: 6 epochs, batch_size: 16, schedule: cosine}
  - {name: all, train: {"backbone.*": 0.1, "*": 1}, lr: 0.05, length: 2 epochs, batch_size: 8}
"""


def draw(folder: Path, colours: dict[str, tuple[int, int, int]]) -> Path:
    generator = np.random.default_rng(0)
    for name, colour in colours.items():
        (folder / name).mkdir()
        for number in range(20):
            noise = generator.normal(0, 45, size=(40, 48, 3)) + generator.normal(0, 40, size=3)
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02}.jpg", quality=95)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three colours; no test photo can be read."""
    folder = draw(tmp_path_factory.mktemp("squares"), COLOURS)
    for photo in build(check_text(RECIPE % folder, Recipe)).part("test"):
        photo.path.write_bytes(b"shut")
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return FeatureStore(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def whole(photos, store, tmp_path_factory):
    """A rehearsal of both stages: its record and its folder."""
    folder = tmp_path_factory.mktemp("rehearsals") / "a"
    recipe = check_text(RECIPE % photos, Recipe)
    return rehearse(recipe, folder, store=store, reporter=Silent(), seeds=2), folder


def only_head(photos, store, folder, *overrides):
    recipe = check_text(RECIPE % photos, Recipe, overrides)
    return rehearse(recipe, folder, store=store, reporter=Silent(), stage="head", seeds=2)


def test_a_sound_recipe_learns_and_looks(whole):
    record, _ = whole
    heart, blank = record["overfit"], record["blank"]
    assert (heart["images"], heart["top1"], heart["trainable"]) == (20, 1.0, 512 * 3 + 3)
    assert 0.05 < heart["loss"] < 0.2
    assert heart["steps"] == 200
    assert blank["images"] == 10
    assert blank["real_top1"] >= 0.7
    assert blank["blank_top1"] in {0.3, 0.4}  # one class, of 3, 3 and 4 photos
    told = sentences(record)
    assert told[0].startswith("It learns a few photos by heart, but slowly: 20 photos named 100%")
    assert told[1].startswith("It looks at the photos: ")


def test_what_the_network_is_fed_is_measured(whole, photos, store, tmp_path):
    fed = whole[0]["fed"]
    pixels = np.stack(
        [
            np.asarray(Image.open(path), float)
            for path in photos.rglob("*.jpg")
            if path.stat().st_size > 99
        ]
    )
    assert fed["images"] == 20
    std = 0.5  # of these weights; resizing calms the noise
    assert fed["spread"] == pytest.approx(pixels.std() / 255 / std, rel=0.2)
    record = only_head(photos, store, tmp_path / "a", "backbone.mean=[0, 0, 0]", RAW)
    assert record["fed"]["mean"] == pytest.approx(pixels.mean(), rel=0.15)
    assert sentences(record)[0].startswith("The network is fed numbers of mean ")


def test_a_lead_in_loss_is_paired_by_photo_and_held_against_a_guess():
    labels = np.array([0, 1, 0, 1])
    real = np.float32([[1, 0], [0, 1], [1, 0], [1, 0]])  # log(1 + e^-1), three times, and that + 1
    own = np.log1p(np.exp(-1)) + np.array([0, 0, 0, 1])
    blank = np.zeros((4, 2), np.float32)
    found = lead_in_loss(real, blank, labels)
    assert found["loss_lead"] == pytest.approx(np.log(2) - own.mean())
    assert found["loss_lead_error"] == pytest.approx(own.std() / 2)
    assert found["guess_loss"] == pytest.approx(np.log(2))
    assert lead_in_loss(real, np.float32([[9, 0]] * 4), labels) == pytest.approx(found)
    unequal, few = np.float32([[1, 0]] * 4), np.array([0, 0, 0, 1])
    assert lead_in_loss(real, unequal, few)["guess_loss"] == pytest.approx(own.mean())
    assert lead_in_loss(real, np.float32([[np.nan, 0]] * 4), labels) == pytest.approx(found)
    assert lead_in_loss(np.float32([[np.nan, 0]] * 4), blank, labels) == {}


def test_the_record_is_what_others_read(whole, photos):
    record, folder = whole
    assert json.loads((folder / "rehearsal.json").read_text()) == record
    assert {path.name for path in folder.iterdir()} == {"rehearsal.json", "recipe.yaml"}
    assert record["recipe_hash"] == settled(check_text(RECIPE % photos, Recipe)).hash()
    assert list(record["range"]) == ["head", "all"]
    for found in record["range"].values():
        assert found["seeds"] == [0, 1]
        assert len(found["loss"]) == 2
        assert {len(losses) for losses in found["loss"]} == {len(found["lr"])}
        assert (found["band"] is None) != (found["reason"] is None)
    assert record["range"]["all"]["after"] == {"head": SHORT}
    low, high = record["range"]["head"]["band"]
    assert low < high
    assert f"Stage head: try lr {low:.2g} to {high:.2g}" in sentences(record)[2]
    assert f"Stage all (begun after {SHORT} steps of head): " in sentences(record)[3]


def test_a_run_begun_later_holds_what_speaks_for_it(whole, photos, store, tmp_path):
    record, folder = whole
    for lr, holds in ((4, True), (2, False)):
        changes = [f"stages.head.lr={lr}", "stages.head.length=1 epochs", "stages.all=null"]
        recipe = check_text(RECIPE % photos, Recipe, changes)
        given = {"store": store, "reporter": Silent(), "rehearsals": folder.parent}
        run = train(recipe, tmp_path / f"run-{lr}", **given)
        kept = json.loads((run.folder / "rehearsal.json").read_text())
        assert kept["range"] == {"head": record["range"]["head"]}
        assert kept["overfit"] == (record["overfit"] if holds else None)
        assert Run(run.folder).status == "finished"


def test_a_repeat_is_equal_bit_for_bit(whole, photos, store, tmp_path):
    first = whole[0]
    again = only_head(photos, store, tmp_path / "b")
    assert again["overfit"] == first["overfit"]
    assert again["blank"] == first["blank"]
    assert again["range"]["head"] == first["range"]["head"]


def test_seeds_begin_differently(whole):
    raw = whole[0]["range"]["all"]["raw"]  # of each seed, of each rate, of each step
    assert len({trainings[0][0] for trainings in raw}) == 2


def test_what_is_tried_is_undone(photos, store):
    recipe = check_text(RECIPE % photos, Recipe, ["seed=5"])
    task = prepare(recipe, store, Silent())
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    copy = Throwaway(task, store, 5, Silent())
    batch = copy.fixed_batch(1, 8)
    assert len(list(zip(range(3), copy.steps(1, [[batch]] * 3), strict=True))) == 3
    copy.enter(0)
    for state in (copy.model.state_dict(), task.model.state_dict()):
        assert all(torch.equal(value, before[name]) for name, value in state.items())


def test_a_rate_that_is_far_too_low_does_not_learn(photos, store, tmp_path):
    record = only_head(photos, store, tmp_path / "a", "stages.head.lr=1e-8")
    assert not record["overfit"]["learned"]
    assert record["overfit"]["steps"] == 200
    assert record["overfit"]["loss"] == pytest.approx(np.log(3), abs=0.1)
    assert record["range"]["head"]["band"] is None
    told = sentences(record)
    assert "does NOT learn a few photos by heart" in told[0]
    assert "no rate is given: flat: the loss hardly falls" in told[2]


def test_a_rate_that_is_far_too_high_gives_no_band(photos, store, tmp_path):
    record = only_head(photos, store, tmp_path / "a", "stages.head.lr=1e8")
    assert record["range"]["head"]["band"] is None
    assert "begin far lower" in sentences(record)[2]
    heart = record["overfit"]
    assert heart["learned"]  # by chance: as a perceptron, whose rate does not matter
    assert heart["steps"] < 200
    assert sentences(record)[0].startswith("It can learn: 20 photos named 100% rightly at loss 0.0")


def test_photos_that_say_nothing_of_their_class_are_as_good_as_blank(store, tmp_path):
    (tmp_path / "photos").mkdir()
    grey = draw(tmp_path / "photos", dict.fromkeys(COLOURS, (128, 128, 128)))
    record = only_head(grey, store, tmp_path / "a")
    blank = record["blank"]
    assert abs(blank["real_top1"] - blank["blank_top1"]) < 0.4
    assert "does NOT look at the photos" in sentences(record)[1]


def test_without_val_photos_blank_ones_are_left_out(photos, store, tmp_path):
    record = only_head(photos, store, tmp_path / "a", "data.val_fraction=0")
    assert record["blank"] is None
    assert len(sentences(record)) == 2


def test_mistakes_are_told_first(photos, store, tmp_path):
    recipe = check_text(RECIPE % photos, Recipe)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    given = {"store": store, "reporter": Silent()}
    with pytest.raises(RecipeError, match="There is no stage 'hed' here; stages: head, all"):
        rehearse(recipe, tmp_path / "a", stage="hed", **given)
    with pytest.raises(SettingError, match=r"`seeds` must be 2 or more, .* got 1"):
        rehearse(recipe, tmp_path / "a", seeds=1, **given)
    with pytest.raises(SettingError, match="full` is not empty"):
        rehearse(recipe, tmp_path / "full", **given)
    assert not (tmp_path / "a").exists()


def test_the_command(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "squares.yaml").write_text(RECIPE % photos)
    done = CliRunner().invoke(app, ["rehearse", "squares.yaml", "--stage", "head"])
    told = " ".join(done.output.split())
    assert done.exit_code == 0, done.output
    assert "It learns a few photos by heart" in told
    assert "Learning-rate range test" in told
    assert "Wrote rehearsals/squares-1/rehearsal.json" in told
    assert (tmp_path / "rehearsals" / "squares-1" / "rehearsal.json").is_file()
    assert "looks in" not in told
    elsewhere = ["rehearse", "squares.yaml", "--stage", "head", "--out", "my tries/a"]
    told = " ".join(CliRunner().invoke(app, elsewhere).output.split())
    assert "A training looks in rehearsals/ alone." in told
    assert told.endswith("fieldmark diagnose RUN --rehearsal 'my tries/a'")

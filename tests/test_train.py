"""Whole trainings on small coloured squares with a tiny network: each takes about a second."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fieldmark import build, machine
from fieldmark.checked_yaml import check_text
from fieldmark.data import transform
from fieldmark.errors import DataError, RecipeError, SettingError, TrainingError
from fieldmark.ledger import Silent
from fieldmark.predict import Predictor
from fieldmark.recipe import Recipe
from fieldmark.steps import StageSteps
from fieldmark.studies.compare import compare_stages
from fieldmark.studies.run import Run
from fieldmark.train import settled, train
from fieldmark.training.features import FeatureStore

RECIPE = """\
name: squares
data: {folder: "%s", image_size: 32, resize_size: 36, mirror: true}
backbone: {name: test_resnet, weights: none}
pooling: {name: compact_bilinear, sketch_dim: 64}
threads: 1
stages:
  - {name: head, train: head, lr: 1, length: 6 epochs, batch_size: 8, schedule: cosine}
  - {name: all, train: {"backbone.*": 0.1, "*": 1}, lr: 0.05, length: 2 epochs, batch_size: 8}
"""


class Listener(Silent):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, task: str, done: int, total: int, metrics: Mapping[str, float]) -> None:
        assert 0 <= done <= total


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, draw_squares) -> Path:
    return draw_squares(tmp_path_factory.mktemp("squares"), noise=45, suffix="jpg")


def run(
    photos: Path,
    folder: Path,
    *overrides: str,
    open_test: bool = False,
    told: Listener | None = None,
) -> Run:
    recipe = check_text(RECIPE % photos, Recipe, overrides)
    store = FeatureStore(folder.parent / "features")
    return train(recipe, folder, store=store, reporter=told or Listener(), open_test=open_test)


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(photos, tmp_path_factory.mktemp("run") / "a", open_test=True)


class TunedError(Exception):
    """In place of tuning the allocator, before anything is built."""


@pytest.mark.parametrize("begin", ["train", "predict"])
def test_the_allocator_is_tuned_before_a_network_is_there(
    begin: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def tune() -> None:
        raise TunedError

    for builder in ("train.build", "predict.make_backbone", "predict.finished_run"):
        monkeypatch.setattr(f"fieldmark.{builder}", None)
    monkeypatch.setattr(machine, "tune_allocator", tune)
    with pytest.raises(TunedError):
        Predictor(tmp_path) if begin == "predict" else run(photos, tmp_path / "a")


def test_it_learns_what_is_easy(finished: Run):
    assert finished.status == "finished"
    assert finished.series("val/top1")[1][-1] > 0.8
    losses = finished.series("train/loss")[1]
    assert losses[-1] < losses[0]


def test_the_run_folder_holds_all_it_should(finished: Run):
    names = {path.name for path in finished.folder.iterdir()}
    assert names >= {
        "recipe.yaml",
        "manifest.json",
        "metrics.jsonl",
        "predictions",
        "weights.safetensors",
        "log.txt",
    }
    manifest = finished.manifest
    assert manifest["class_names"] == ["amber", "olive", "teal"]
    assert manifest["counts"] == {"train": 38, "minitrain": 10, "val": 10, "test": 12}
    stages = manifest["stages"]
    assert [stage["name"] for stage in stages] == ["head", "all"]
    assert [stage["last_step"] for stage in stages] == [30, 40]
    assert "frozen" in stages[0]["plan"][0]


def test_photos_kept_resized_change_nothing(finished: Run, photos: Path, tmp_path: Path):
    kept = run(photos, tmp_path / "kept", "data.cache=0.1")
    assert list((tmp_path / "features" / "resized").glob("*/*.safetensors"))
    assert kept.manifest["recipe_hash"] == finished.manifest["recipe_hash"]
    weights = [load_file(one.weights_path) for one in (kept, finished)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_the_recipe_in_the_folder_is_the_one_that_ran(finished: Run, photos: Path):
    asked, ran = (check_text(text, Recipe) for text in (RECIPE % photos, finished.recipe_text))
    assert ran == settled(asked)


def test_what_auto_means_is_settled_when_a_run_begins(finished: Run, photos: Path):
    asked = check_text(RECIPE % photos, Recipe, ["threads=null"])
    one = settled(asked)
    assert one.precision in {"float32", "bfloat16"}
    assert one.precision == finished.manifest["precision"]
    assert one.threads == machine.cores()
    assert settled(one) == one
    ran = check_text(finished.recipe_text, Recipe)
    assert ran.hash() == finished.manifest["recipe_hash"] != asked.hash()


def test_evaluations_are_where_the_recipe_puts_them(finished: Run):
    steps = list(finished.series("val/top1")[0])
    assert steps == [0, 5, 10, 15, 20, 25, 30, 30, 35, 40]


def test_the_second_stage_starts_where_the_first_ended(finished: Run):
    steps, values = finished.series("val/loss")
    ended, begun = (value for step, value in zip(steps, values, strict=True) if step == 30)
    assert begun == pytest.approx(ended, rel=0.01)


def test_what_val_got_is_kept_between_stages(finished: Run):
    ended = dict(zip(*finished.series("val/top1"), strict=True))
    between, end = finished.predictions("val_after_head"), finished.predictions("val")
    assert between["path"].equals(end["path"])
    steps, values = finished.series("val/top1")
    at_end_of_head = next(v for s, v in zip(steps, values, strict=True) if s == 30)
    assert (between["label"] == between["predicted"]).mean() == pytest.approx(at_end_of_head)
    assert (end["label"] == end["predicted"]).mean() == pytest.approx(ended[40])
    ((before, after, verdict),) = compare_stages(finished)
    assert (before, after, verdict.about, verdict.photos) == ("head", "all", "models", 10)
    assert verdict.difference == pytest.approx(ended[40] - at_end_of_head)


def test_the_test_split_was_opened_once_and_said_so(finished: Run):
    assert finished.test_openings == 1
    assert len(finished.series("test/top1")[1]) == 1
    assert len(finished.predictions("test")) == 12


def test_without_the_flag_no_test_photo_is_read(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    read: set[str] = set()
    original = transform.decode_reduced
    monkeypatch.setattr(
        transform,
        "decode_reduced",
        lambda path, most: read.add(str(path)) or original(path, most),
    )
    found = run(photos, tmp_path / "a")
    written = json.loads((found.folder / "split.json").read_text())
    test = {str(photos / key) for key in written["test"]}
    assert len(test) == 12
    assert read
    assert not read & test
    assert found.test_openings == 0
    assert not list(found.series("test/top1")[1])


def test_the_same_recipe_gives_the_same_numbers_bit_for_bit(
    finished: Run, photos: Path, tmp_path: Path
):
    torch.rand(3)  # the global generator must not matter
    again = run(photos, tmp_path / "a")
    for key in ("train/loss", "val/loss", "minitrain/top1"):
        assert list(again.series(key)[1]) == list(finished.series(key)[1]), key
    ours, theirs = load_file(again.weights_path), load_file(finished.weights_path)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_another_seed_gives_other_numbers_on_the_same_photos(
    finished: Run, photos: Path, tmp_path: Path
):
    other = run(photos, tmp_path / "a", "seed=1")
    splits = [(one.folder / "split.json").read_text() for one in (other, finished)]
    assert splits[0] == splits[1]
    assert list(other.series("train/loss")[1]) != list(finished.series("train/loss")[1])


def test_predict_says_what_training_said(finished: Run, photos: Path):
    table = finished.predictions("val")
    paths = [photos / key for key in table["path"]]
    said = list(Predictor(finished.folder).predict(paths, top=1))
    assert [found.classes[0] for found in said] == table["predicted"].to_list()
    assert [found.path for found in said] == paths
    best = [max(row) for row in table["probabilities"].to_list()]
    assert [found.probabilities[0] for found in said] == pytest.approx(best, rel=1e-3)


def test_a_photo_in_memory_is_named_as_its_file_is(finished: Run, photos: Path):
    predictor = Predictor(finished.folder)
    path = photos / finished.predictions("val")["path"][0]
    (said,) = predictor.predict([path], top=2)
    named = predictor.name(path.read_bytes(), top=2)
    assert [name for name, _ in named] == list(said.classes)
    assert [share for _, share in named] == pytest.approx(said.probabilities, rel=1e-3)
    with pytest.raises(DataError, match=r"What was given can't be read as a photo: it is in no"):
        predictor.name(b"no photo")


def test_training_on_all_photos_has_no_val(photos: Path, tmp_path: Path):
    found = run(photos, tmp_path / "a", "data.val_fraction=0", "stages.0.length=1 epoch")
    assert found.manifest["counts"]["val"] == 0
    assert not list(found.series("val/top1")[1])
    assert list(found.series("minitrain/top1")[1])


def test_a_rate_far_too_high_stops_the_run_and_says_where(photos: Path, tmp_path: Path):
    told = Listener()
    with pytest.raises(TrainingError, match=r"became (nan|inf) at step \d+.*amber|olive|teal"):
        run(photos, tmp_path / "a", "stages.all.lr=1e30", "stages.all.momentum=0", told=told)
    failed = Run(tmp_path / "a")
    assert failed.status == "failed"


def test_a_folder_in_use_is_not_overwritten(finished: Run, photos: Path):
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")}
    with pytest.raises(SettingError, match="is not empty"):
        run(photos, finished.folder)
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")} == before


@pytest.mark.parametrize("there", ["a file", "another run", "one photo"])
def test_a_folder_in_use_is_told_before_a_photo_is_read(
    there: str, finished: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def read(*_: object, **__: object) -> None:
        pytest.fail("a photo was read")

    monkeypatch.setattr(build, "check_photos", read)
    folder = finished.folder if there == "another run" else tmp_path / "out"
    if there == "a file":
        folder.touch()
    elif there == "one photo":
        folder.mkdir()
        (folder / "a.jpg").touch()
    with pytest.raises(SettingError, match=f"`{folder}` is not empty, or a file. Name another, or"):
        run(photos, folder)
    with pytest.raises(pytest.fail.Exception, match="a photo was read"):
        run(photos, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_pattern_that_decides_over_nothing_stops_before_training(photos: Path, tmp_path: Path):
    with pytest.raises(RecipeError, match=r"decide over no parameter: bakbone\.\*"):
        run(photos, tmp_path / "a", 'stages.all.train={"bakbone.*": 0, "*": 1}')


def test_a_stage_that_moved_what_it_froze_is_stopped(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def break_in(self: StageSteps) -> None:
        next(self.task.model.backbone.parameters()).data.add_(1)

    monkeypatch.setattr(StageSteps, "run", break_in)
    with pytest.raises(TrainingError, match=r"head moved parameters it had frozen \(\w+ became"):
        run(photos, tmp_path / "a")


def test_accumulation_takes_the_steps_of_the_larger_batch(photos: Path, tmp_path: Path):
    one = run(photos, tmp_path / "a", "stages.0.batch_size=8", "precision=float32")
    two = run(
        photos,
        tmp_path / "b",
        "stages.0.batch_size=4",
        "stages.0.accumulate=2",
        "precision=float32",
    )
    ours, theirs = one.series("train/loss")[1], two.series("train/loss")[1]
    assert list(ours)[:30] == pytest.approx(list(theirs)[:30], rel=1e-4)


def test_it_learns_from_photos_changed_by_chance(photos: Path, tmp_path: Path):
    found = run(
        photos,
        tmp_path / "a",
        "augment={crop_area: [0.3, 1], hue: 0.02, policy: randaugment, erase: 0.2, mixup: 0.2}",
        "stages.0.sampling=balanced",
        "stages.0.class_weights=balanced",
        "stages.all.label_smoothing=0.1",
    )
    assert found.status == "finished"
    assert found.series("val/top1")[1][-1] > 0.8
    assert "randaugment" in found.manifest["train_view"]


def test_resized_photos_that_can_not_be_kept_stop_before_training(photos: Path, tmp_path: Path):
    with pytest.raises(SettingError, match=r"can be kept only where all are squashed"):
        run(photos, tmp_path / "a", "data.cache=0.1", "augment.crop_area=[0.5, 1]")
    assert not (tmp_path / "a").exists()


def test_a_weight_for_no_class_stops_before_training(photos: Path, tmp_path: Path):
    with pytest.raises(SettingError, match=r"no class of the photos: robin"):
        run(photos, tmp_path / "a", "stages.all.class_weights={robin: 2}")
    assert not (tmp_path / "a").exists()


def test_a_stage_stops_when_val_no_longer_gains(photos: Path, tmp_path: Path):
    told = Listener()
    found = run(
        photos,
        tmp_path / "a",
        "stages=[{name: head, train: head, lr: 1e-12, length: 50 epochs, stop_after: 3}]",
        told=told,
    )
    # Nothing moves at such a rate: the first evaluation after the start is the lowest there is.
    assert found.manifest["stages"][0]["last_step"] <= 2 * 4
    assert any("3 evaluations without a lower loss on val" in line for line in told.lines)


def test_a_plateau_lowers_the_rate(photos: Path, tmp_path: Path):
    found = run(
        photos,
        tmp_path / "a",
        "stages=[{name: head, train: head, lr: 1e-12, length: 9 epochs,"
        " schedule: {name: plateau, patience: 2}}]",
    )
    rates = list(found.series("train/lr")[1])
    assert rates[0] == 1e-12
    assert rates[-1] == pytest.approx(1e-16)


def test_snapshots_are_the_weights_of_their_steps(photos: Path, tmp_path: Path):
    found = run(photos, tmp_path / "a", "stages.all.snapshot_every=5 steps")
    names = sorted(path.name for path in (found.folder / "snapshots").iterdir())
    assert names == ["step-0000035.safetensors", "step-0000040.safetensors"]
    last = load_file(found.folder / "snapshots" / names[-1])
    final = load_file(found.weights_path)
    assert all(torch.equal(last[key], final[key]) for key in final)


def test_the_best_weights_are_kept_beside_the_last(finished: Run):
    best = load_file(finished.folder / "best.safetensors")
    assert best.keys() == load_file(finished.weights_path).keys()


def test_what_a_step_costs_and_does_is_recorded(finished: Run):
    for key in ("grad_norm", "update_ratio", "data_seconds", "compute_seconds"):
        values = finished.series(f"train/{key}")[1]
        assert len(values) == 40
        assert all(values >= 0)


def test_a_stage_of_the_head_leaves_the_power_of_gem_alone(photos: Path, tmp_path: Path):
    """At a head's rate p explodes; a stage of all layers may train it."""
    wide = ("pooling={name: gem}", "data.image_size=64", "data.resize_size=72")  # maps of 2 x 2
    found = run(photos, tmp_path / "run", *wide)
    for stage, moves in zip(found.manifest["stages"], (False, True), strict=True):
        plan = [line for line in stage["plan"] if "pooling" in line]
        assert all(("frozen" in line) != moves for line in plan), plan
    assert load_file(found.weights_path)["pooling.p"] != 3
    head = run(photos, tmp_path / "head", *wide, "stages.all=null")
    assert load_file(head.weights_path)["pooling.p"] == 3


@pytest.mark.parametrize(
    ("setting", "key"), [("stop_after=1", "stop_after"), ("schedule=plateau", "plateau")]
)
def test_what_goes_by_the_loss_on_val_is_refused_where_there_is_no_val(
    photos: Path, tmp_path: Path, setting: str, key: str
):
    """Else a stage would end after its second evaluation, as if val had stood still."""
    told = rf"Stage head goes by the loss on `val` \(`{key}`\), and no photo is in `val`\. Set"
    with pytest.raises(SettingError, match=told):
        run(photos, tmp_path / "run", "data.val_fraction=0", f"stages.head.{setting}")
    assert not (tmp_path / "run").exists()


def test_a_last_step_into_nothing_is_no_finished_run(photos: Path, tmp_path: Path):
    """No loss is taken after it, so what it did is seen by evaluation alone."""
    told = (
        r"At step 1 of the training, the logits of .*\.jpg.* became infinite or nan\. First bad: "
    )
    once = ("stages.all.length=1 step", "stages.all.lr=1e38", "stages.head=null")
    with pytest.raises(TrainingError, match=told):
        run(photos, tmp_path / "run", *once)
    found = Run(tmp_path / "run")
    assert found.status == "failed"
    assert len(found.series("val/loss")[0]) == 1  # that before the step

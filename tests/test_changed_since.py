"""What changes under a run, while it trains or after, is refused or told: never a silent number."""

import json
from pathlib import Path

import pytest

from fieldmark.checked_yaml import check_text
from fieldmark.errors import DataError, FieldmarkError, RecordError
from fieldmark.evaluate import evaluate_run
from fieldmark.ledger import Silent
from fieldmark.recipe import Recipe
from fieldmark.resume import resume
from fieldmark.studies.run import Run
from fieldmark.train import train
from fieldmark.training.features import FeatureStore

RECIPE = """\
data: {folder: "%s", image_size: 32, resize_size: 36, corrections: "%s"}
backbone: {name: test_resnet, weights: none}
pooling: {name: average}
threads: 1
stages:
  - {name: all, train: all, lr: 0.01, length: 4 steps, batch_size: 8}
"""
TABLE = "path,action,value\namber/00.png,relabel,olive\n"


class AtStep(Silent):
    """Does something when so many steps are taken."""

    def __init__(self, step: int, what) -> None:
        self.step, self.what = step, what
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, task: str, done: int, total: int, metrics) -> None:
        if task == "all" and done == self.step:
            self.what()


def stop() -> None:
    raise KeyboardInterrupt


@pytest.fixture
def photos(tmp_path: Path, draw_squares) -> Path:
    (tmp_path / "table.csv").write_text(TABLE)
    return draw_squares(tmp_path / "photos", per_class=8)


def begin(photos: Path, reporter: Silent) -> Run:
    recipe = check_text(RECIPE % (photos, photos.parent / "table.csv"), Recipe)
    store = FeatureStore(photos.parent / "features")
    folder = photos.parent / "run"
    return train(recipe, folder, store=store, reporter=reporter, checkpoint_seconds=0)


def go_on(photos: Path) -> Run:
    store = FeatureStore(photos.parent / "features")
    return resume(photos.parent / "run", store=store, reporter=Silent())


def repaint(photos: Path, split: str) -> str:
    """Give a photo of a split the pixels of one of another class; return its key."""
    key = json.loads((photos.parent / "run" / "split.json").read_text())[split][0]
    other = "teal" if key.startswith("amber") else "amber"
    (photos / key).write_bytes((photos / other / "01.png").read_bytes())
    return key


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_photo_repainted_since_stops_a_resumed_run(photos: Path, split: str):
    with pytest.raises(KeyboardInterrupt):
        begin(photos, AtStep(2, stop))
    key = repaint(photos, split)
    with pytest.raises(DataError, match=rf"^1 photo changed since .*/run began: {key}\."):
        go_on(photos)


def test_a_photo_that_was_only_touched_stops_nothing(photos: Path):
    with pytest.raises(KeyboardInterrupt):
        begin(photos, AtStep(2, stop))
    for path in photos.rglob("*.png"):
        path.touch()
    assert go_on(photos).status == "finished"


def test_a_recipe_edited_since_stops_a_resumed_run(photos: Path):
    with pytest.raises(KeyboardInterrupt):
        begin(photos, AtStep(2, stop))
    path = photos.parent / "run" / "recipe.yaml"
    whole = path.read_text()
    path.write_text(whole.replace("lr: 0.01", "lr: 0.5"))
    with pytest.raises(RecordError, match=r"recipe\.yaml` is not what it was when .*/run began"):
        go_on(photos)
    path.write_text(whole + "# a remark\n")
    assert go_on(photos).status == "finished"


def test_a_finished_run_is_measured_on_what_it_saw_or_not_at_all(photos: Path):
    run = begin(photos, Silent())
    found = evaluate_run(run.folder)
    (photos.parent / "table.csv").write_text(TABLE.replace("00", "01"))
    with pytest.raises(DataError, match=r"Changed since .*/run began: .*table\.csv"):
        evaluate_run(run.folder)
    (photos.parent / "table.csv").write_text(TABLE)
    assert evaluate_run(run.folder) == found
    key = repaint(photos, "val")
    with pytest.raises(DataError, match=rf"^1 photo changed since .*: {key}\."):
        evaluate_run(run.folder)
    assert evaluate_run(run.folder, "train")["loss"] > 0  # none of whose photos changed
    repaint(photos, "test")  # never opened, so nothing is known of it
    assert evaluate_run(run.folder, "test", open_test=True)["loss"] > 0


def test_a_photo_that_changes_while_it_is_trained_on_is_told(photos: Path):
    keys: list[str] = []
    reporter = AtStep(2, lambda: keys.append(repaint(photos, "train")))
    run = begin(photos, reporter)
    told = f"1 photo changed while they were trained on: {keys[0]}"
    assert told in reporter.lines
    assert told in run.manifest["notes"]


def test_a_photo_that_breaks_while_it_is_trained_on_is_named(photos: Path):
    def tear() -> None:
        for key in json.loads((photos.parent / "run" / "split.json").read_text())["train"]:
            (photos / key).write_bytes(b"")

    with pytest.raises(FieldmarkError, match=r"\.png` can't be read as a photo: it is in no known"):
        begin(photos, AtStep(1, tear))
    assert Run(photos.parent / "run").status == "failed"

"""A rehearsal speaks for what it depends on, and for nothing else."""

import json

import pytest

from fieldmark.checked_yaml import check_text
from fieldmark.recipe import Recipe
from fieldmark.rehearsed import RECORD, alike, keep_what_holds, what_holds

RECIPE = """\
name: mine
data: {folder: photos, image_size: 224}
pooling: {name: compact_bilinear, sketch_dim: 512}
stages:
  - {name: head, train: head, lr: 4, length: 6 epochs, batch_size: 16, schedule: cosine}
  - {name: all, train: all, lr: 0.05, length: 2 epochs, batch_size: 8}
"""


def recipe(*overrides):
    return check_text(RECIPE, Recipe, overrides)


def same(stage, *overrides):
    """Whether what was tried at its own rate, and the range test, speak for the changed recipe."""
    before, after = (alike(each, stage) for each in (recipe(), recipe(*overrides)))
    return before["at_its_rate"] == after["at_its_rate"], before["range"] == after["range"]


@pytest.mark.parametrize(
    "override",
    [
        *("name=other", "seed=7", "stages.head.length=60 epochs", "stages.head.average=0.9"),
        *("stages.head.eval_every=2 epochs", "stages.head.stop_after=3", "stages.all.lr=1"),
        *("stages.all=null", "data.cache=1"),
    ],
)
def test_what_a_rehearsal_does_not_see_changes_nothing(override):
    assert same("head", override) == (True, True)


@pytest.mark.parametrize("override", ["stages.head.lr=2", "stages.head.schedule=constant"])
def test_a_range_test_speaks_for_every_rate_and_what_was_tried_at_one_does_not(override):
    assert same("head", override) == (False, True)
    assert same("all", override) == (False, False)  # the stage before it is begun with


@pytest.mark.parametrize(
    "override",
    [
        *("stages.head.batch_size=32", "stages.head.weight_decay=0.1", "data.image_size=336"),
        *("pooling.sketch_dim=1024", "stages.head.optimizer=adam", "augment.crop_area=[0.5, 1]"),
        *("precision=float32", "data.folder=others", "stages.head.label_smoothing=0.1"),
    ],
)
def test_all_else_matters(override):
    assert same("head", override) == (False, False)


def write(folder, time, *overrides, stages=("head", "all")):
    """A rehearsal whose numbers say when it was made."""
    rehearsed = recipe(*overrides)
    record = {
        "recipe": "mine",
        "alike": {name: alike(rehearsed, name) for name in stages},
        "stage": stages[0],
        "classes": 3,
        "overfit": {"made": time},
        "blank": None,
        "range": {name: {"made": time} for name in stages},
        "time": time,
        "seconds": 2.0,
    }
    folder.mkdir(parents=True)
    (folder / RECORD).write_text(json.dumps(record))


def test_of_several_the_newest_speaks_each_for_what_holds(tmp_path):
    write(tmp_path / "a", 10.0)
    write(tmp_path / "b", 20.0, "stages.head.lr=1", stages=("head",))
    write(tmp_path / "c", 30.0, "data.image_size=96")  # of other photos
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / RECORD).write_text('{"alike": ')
    found = what_holds(recipe(), tmp_path)
    assert found["overfit"] == {"made": 10.0}  # b tried another rate
    assert found["range"] == {"head": {"made": 20.0}, "all": {"made": 10.0}}
    assert list(found["range"]) == ["head", "all"]
    assert [each["name"] for each in found["from"]] == ["b", "a"]


def test_at_another_rate_only_the_range_test_holds(tmp_path):
    write(tmp_path / "a", 10.0)
    found = what_holds(recipe("stages.head.lr=1", "stages.all=null"), tmp_path)
    assert found["overfit"] is None
    assert found["range"] == {"head": {"made": 10.0}}


def test_a_run_gets_what_holds_and_nothing_where_nothing_does(tmp_path):
    (tmp_path / "run").mkdir()
    keep_what_holds(recipe(), tmp_path / "not-there", tmp_path / "run")
    write(tmp_path / "rehearsals" / "a", 10.0, "data.image_size=96")
    keep_what_holds(recipe(), tmp_path / "rehearsals", tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())
    write(tmp_path / "rehearsals" / "b", 20.0)
    keep_what_holds(recipe(), tmp_path / "rehearsals", tmp_path / "run")
    kept = json.loads((tmp_path / "run" / RECORD).read_text())
    assert kept == what_holds(recipe(), tmp_path / "rehearsals")
    assert kept["from"] == [{"name": "b", "time": 20.0, "seconds": 2.0}]

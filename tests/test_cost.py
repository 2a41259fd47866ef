"""What a study takes, foreseen: counts by hand; whether seconds are right is for bench/forecast."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark import head_cost
from fieldmark.build import build, checked_photos
from fieldmark.checked_yaml import check_text
from fieldmark.cost import Cost, Pass, size_of
from fieldmark.head_cost import SEEING
from fieldmark.head_order import Order
from fieldmark.probe import Timed, intervals, time_stage
from fieldmark.recipe import Recipe
from fieldmark.shipped import base_text
from fieldmark.studies.design import Design
from fieldmark.studies.executor import LocalExecutor
from fieldmark.studies.study import Study
from fieldmark.study_cost import foresee
from fieldmark.study_plan import between, duration, size
from fieldmark.training.features import FeatureStore

BASE = """\
data: {folder: "%s", image_size: 32, resize_size: 36}
backbone: {name: test_resnet, weights: none}
pooling: {name: average}
threads: 1
stages:
  - {name: head, train: head, lr: 1, length: 3 epochs, batch_size: 8}
  - {name: all, train: all, lr: 0.01, length: 1 epoch, batch_size: 8}
"""
STUDY = """\
name: rates
question: Which rate?
base: %s
axes:
  - {key: stages.head.lr, values: [0.1, 1]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cost")
    generator = np.random.default_rng(0)
    for name in ("amber", "olive"):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(20):
            pixels = generator.integers(0, 255, (40, 48, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number}.png")
    (folder / "base.yaml").write_text(BASE % (folder / "photos"))
    return folder


FRACTIONS = STUDY.replace(
    "stages.head.lr, values: [0.1, 1]", "data.train_fraction, values: [0.25, 1]"
)


def study(folder: Path, out: Path, base: str, *overrides: str, text: str = STUDY) -> Study:
    text %= folder / base
    return Study.create(out, Design.read(text, base_text, overrides))


def test_times_add_up_and_their_interval_holds_them():
    cost = Cost()
    cost.add("steps", Timed((1.0, 2.0, 9.0)), 10)
    cost.add("runs", 5.0)
    cost.add("steps", Timed((1.0, 1.0)), 3)
    assert cost.by_part() == {"steps": 23.0, "runs": 5.0}
    low, high = cost.interval
    assert low * high == pytest.approx(cost.seconds**2)
    assert low < cost.seconds / 1.2


def test_seconds_are_those_waited_for():
    assert [item for item, seconds in intervals("abc") if seconds >= 0] == list("abc")


def test_a_cold_cache_is_a_pass_and_a_warm_one_is_not(folder: Path, tmp_path: Path):
    store = FeatureStore(tmp_path / "cache")
    asked = study(folder, tmp_path / "study", "base.yaml@head", "seeds=2")
    cold, photos = foresee(asked, store)
    assert not store.folder.exists()  # nothing is left of it
    shared = Pass(asked.plan().groups[0].slots[0].recipe, store, {})
    assert shared.missing == 1
    assert photos == len(shared.photos)
    assert "32 px: through the backbone" in cold.by_part()
    assert SEEING in cold.by_part()  # one head is trained again
    results = list(LocalExecutor("fieldmark.trials:run_trials").run(asked))
    assert [result.status for result in results] == ["finished"] * 4


@pytest.mark.parametrize(
    ("base", "text", "overrides"),
    [
        ("base.yaml@head", STUDY, ["seeds=3"]),
        ("base.yaml@head", FRACTIONS, ["objective.folds=none"]),
        ("base.yaml", STUDY, ["data.cache=1", "stages.all.snapshot_every=2 steps"]),
    ],
    ids=["heads", "fractions", "all layers, photos kept"],
)
def test_disk_is_what_is_written(
    base: str,
    text: str,
    overrides: list[str],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))
    store = FeatureStore(tmp_path / "cache" / "features")
    asked = study(folder, tmp_path / "study", base, *overrides, text=text)
    told, _ = foresee(asked, store)
    before = size_of(tmp_path / "study")
    results = list(LocalExecutor("fieldmark.trials:run_trials").run(asked))
    assert {result.status for result in results} == {"finished"}
    written = size_of(tmp_path) - before
    assert told.disk == pytest.approx(written, rel=0.25)
    again = study(folder, tmp_path / "again", base, *overrides, text=text)
    warm, _ = foresee(again, store)
    assert not {"32 px: through the backbone", "decoding photos once"} & warm.by_part().keys()
    assert warm.disk < told.disk
    assert ("decoding photos once" in told.by_part()) == ("data.cache=1" in overrides)


def test_heads_on_a_fraction_of_the_photos_take_fewer_steps(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[tuple[int, int]] = []

    def note(cost: Cost, shared: Pass, order: Order, *_: object) -> None:
        seen.append((len(order.train), len(order.steps)))

    monkeypatch.setattr(head_cost, "_add_order", note)
    asked = study(folder, tmp_path / "study", "base.yaml@head", text=FRACTIONS)
    _, judged = foresee(asked, FeatureStore(tmp_path / "cache"))
    # Of 32 photos 25 are outside the first of five folds; a quarter of them are one batch of 8.
    assert judged == 32
    # A third is the one that is trained again to see where it looked.
    assert seen[:2] == [(6, 3), (25, 12)]
    assert len(seen) == 3


def test_exact_heads_are_not_told_as_steps(folder: Path, tmp_path: Path):
    exact = "stages=[{name: head, train: head, solver: lbfgs, weight_decay: 1e-3}]"
    text = STUDY.replace("lr, values: [0.1, 1]", "weight_decay, values: [1e-4, 1e-3]")
    asked = study(folder, tmp_path / "study", "base.yaml@head", exact, text=text)
    parts = foresee(asked, FeatureStore(tmp_path / "cache"))[0].by_part()
    assert "32 px: solving heads" in parts
    assert "32 px: training heads" not in parts


def test_a_stage_of_features_and_one_of_photos_are_timed(folder: Path, tmp_path: Path):
    recipe = check_text((folder / "base.yaml").read_text(), Recipe)
    shared = Pass(recipe, FeatureStore(tmp_path), {})
    head = time_stage(build(recipe), recipe.stages[0], 0, shared.seen)
    whole = time_stage(build(recipe), recipe.stages[1], 1, shared.seen)
    assert head.rows == 4 * shared.task.model.pooling.out_features
    assert whole.rows == 0
    assert 0 < head.step.seconds < whole.step.seconds
    assert whole.judged.seconds > shared.seen.photo.seconds


def test_trainings_are_counted_with_their_steps(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ticks = itertools.count()
    monkeypatch.setattr("fieldmark.probe.clock", lambda: float(next(ticks)))
    asked = study(folder, tmp_path / "study", "base.yaml")
    assert asked.design.folds is None
    told, photos = foresee(asked, FeatureStore(tmp_path / "cache"))
    parts = told.by_part()
    assert photos == len(build(asked.cells[0].recipe).split.val)
    assert {"32 px: stage head", "32 px: stage all"} <= parts.keys()
    assert SEEING not in parts  # such runs keep it as they end
    longer = study(folder, tmp_path / "longer", "base.yaml", "stages.all.length=40 epochs")
    more = foresee(longer, FeatureStore(tmp_path / "cache"))[0].by_part()
    assert more["32 px: stage all"] > 5 * parts["32 px: stage all"]


def test_checked_photos_are_known_by_their_folder(folder: Path, tmp_path: Path):
    task = build(check_text((folder / "base.yaml").read_text(), Recipe))
    path = checked_photos(task, tmp_path)
    assert path.parent == tmp_path
    assert not path.exists()
    assert json.dumps(str(path)).endswith('.json"')


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (120, "about 2 min (1.6 to 2.5)"),
        (8, "about 8 s (6.4 to 10)"),
        (140, "about 2.3 min (1.9 to 2.9)"),
        (7200, "about 2 h (1.6 to 2.5)"),
        (4000, "about 67 min (53 to 83)"),
    ],
)
def test_time_is_told_with_its_interval(seconds: float, told: str):
    assert between(seconds, seconds / 1.25, seconds * 1.25) == told


def test_sizes_and_lengths_are_told_in_two_digits():
    assert [duration(s) for s in (0.34, 14.2, 190)] == ["0.3 s", "14 s", "3.2 min"]
    assert [size(n) for n in (1_234_000_000, 3_400_000)] == ["1.2 GB", "3.4 MB"]

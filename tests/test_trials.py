"""Trials trained together are what each would be alone."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from torch import Tensor

from fieldmark import frozen_rows, trials
from fieldmark.build import build
from fieldmark.checked_yaml import check_text
from fieldmark.recipe import Recipe
from fieldmark.studies.pruner import curves_of
from fieldmark.studies.run import Run
from fieldmark.studies.trial import OUT_OF_FOLD, Outcome, Trial
from fieldmark.training.features import FeatureStore
from fieldmark.trials import run_trials

PER_CLASS = 20

RECIPE = """\
data: {folder: "%s", image_size: 32, resize_size: 36, test_fraction: 0.1%s}
backbone: {name: test_resnet, weights: none}
pooling: {name: %s}
%s
precision: float32
threads: 1
stages:
  - {name: head, train: head, lr: %g, length: 4 epochs, batch_size: 8, schedule: cosine%s}
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, draw_squares) -> Path:
    return draw_squares(tmp_path_factory.mktemp("squares"), per_class=PER_CLASS, noise=90)


def _recipe(
    photos: Path,
    *,
    pooling: str = "average",
    head: str = "",
    lr: float = 1,
    more: str = "",
    data: str = "",
) -> Recipe:
    return check_text(RECIPE % (photos, data, pooling, head, lr, more), Recipe, name="recipe.yaml")


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features")


def _run(asked: Sequence[Trial], store: FeatureStore) -> list[Outcome]:
    return list(run_trials(asked, store=store))


def _probabilities(folder: Path, split: str) -> tuple[list[str], np.ndarray[Any, Any]]:
    table = Run(folder).predictions(split).sort("path")
    return table["path"].to_list(), np.stack(table["probabilities"].to_list())


def _count_looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions of photos a backbone looked at, as they come."""
    looked: list[int] = []
    original = frozen_rows.frozen_maps

    def counted(*arguments: Any) -> Iterator[tuple[list[int], Tensor]]:
        for positions, maps in original(*arguments):
            looked.extend(positions)
            yield positions, maps

    monkeypatch.setattr(frozen_rows, "frozen_maps", counted)
    return looked


@pytest.mark.parametrize("folds", [None, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 1.0},
        {"lr": 0.3, "more": ", optimizer: nesterov, weight_decay: 0.01, label_smoothing: 0.1"},
        {"lr": 0.5, "more": ", accumulate: 2, sampling: balanced, momentum: 0"},
        {"lr": 0.5, "pooling": "compact_bilinear, sketch_dim: 300"},
        {"data": ", train_fraction: 0.4"},
        {"lr": 0.5, "data": ", mirror: true", "more": ", views: 3"},
        {"head": "head: {drop_rate: 0.4}", "pooling": "compact_bilinear, sketch_dim: 300"},
        {"head": "head: {drop_rate: 0.4}", "data": ", mirror: true", "more": ", views: 3"},
        {"head": "head: {drop_rate: 0.2}", "more": ", optimizer: nesterov, accumulate: 2"},
    ],
)
def test_together_is_alone(
    settings: dict[str, Any],
    folds: int | None,
    photos: Path,
    store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = _recipe(photos, **settings)
    (together,) = _run([Trial(recipe, tmp_path / "together", folds)], store)
    monkeypatch.setattr(trials, "start_head", lambda *_: None)
    (alone,) = _run([Trial(recipe, tmp_path / "alone", folds)], store)
    split = OUT_OF_FOLD if folds else "val"
    paths, of_together = _probabilities(together.folder, split)
    same_paths, of_alone = _probabilities(alone.folder, split)
    assert paths == same_paths
    if folds:
        tables = [Run(one.folder).predictions(split).sort("path") for one in (together, alone)]
        assert tables[0]["fold"].to_list() == tables[1]["fold"].to_list()
        assert set(tables[0]["fold"]) == set(range(folds))
    np.testing.assert_allclose(of_together, of_alone, atol=1e-5)
    for key in (f"{split}/top1", f"{split}/loss"):
        assert together.metrics[key] == pytest.approx(alone.metrics[key], abs=1e-5)
    assert together.status == alone.status == "finished"


def test_all_trials_of_a_group_cost_one_pass(
    photos: Path, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = _count_looks(monkeypatch)
    recipes = [
        _recipe(photos, pooling=pooling, lr=lr)
        for pooling in ("average", "max", "compact_bilinear, sketch_dim: 64")
        for lr in (0.1, 1)
    ]
    asked = [Trial(recipe, tmp_path / str(n)) for n, recipe in enumerate(recipes)]
    outcomes = _run(asked, store)
    assert {outcome.folder for outcome in outcomes} == {trial.folder for trial in asked}
    assert len(looked) == len(set(looked)) == 54  # test photos, 6 of 60, stay shut
    assert all(Run(trial.folder).test_openings == 0 for trial in asked)


@pytest.mark.parametrize("folds", [None, 2])
def test_fractions_of_train_share_a_pass_and_are_judged_on_the_same_photos(
    folds: int | None,
    photos: Path,
    store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = _count_looks(monkeypatch)
    asked = [
        Trial(_recipe(photos, data=f", train_fraction: {f}"), tmp_path / str(f), folds)
        for f in (0.25, 0.5, 1)
    ]
    assert len({trial.recipe.group_key() for trial in asked}) == 1
    outcomes = _run(asked, store)
    assert len(looked) == 54  # each photo of train and val once
    split = OUT_OF_FOLD if folds else "val"
    judged = [_probabilities(outcome.folder, split)[0] for outcome in outcomes]
    assert judged[0] == judged[1] == judged[2]
    assert len(judged[0]) == (54 if folds else 11)


def test_out_of_fold_covers_train_and_val_once(
    photos: Path, store: FeatureStore, tmp_path: Path
) -> None:
    (outcome,) = _run([Trial(_recipe(photos), tmp_path / "run", folds=5)], store)
    run = Run(outcome.folder)
    table = run.predictions(OUT_OF_FOLD)
    assert len(table) == table["path"].n_unique() == 54
    right = table.select((pl.col("label") == pl.col("predicted")).mean()).item()
    assert outcome.metrics["out_of_fold/top1"] == pytest.approx(right)
    steps, curve = run.series("out_of_fold/top1")
    assert curve[-1] == pytest.approx(right)
    assert len(steps) > 2


def test_a_trial_that_fails_ends_no_other(
    photos: Path, store: FeatureStore, tmp_path: Path
) -> None:
    asked = [
        Trial(_recipe(photos, lr=1e38), tmp_path / "wild"),
        Trial(_recipe(photos, more=", class_weights: {nobody: 2}"), tmp_path / "wrong"),
        Trial(_recipe(photos), tmp_path / "well"),
        Trial(_recipe(photos / "nowhere"), tmp_path / "lost"),
    ]
    outcomes = {outcome.folder.name: outcome for outcome in _run(asked, store)}
    assert [outcomes[name].status for name in ("wild", "wrong", "well", "lost")] == [
        "failed",
        "failed",
        "finished",
        "failed",
    ]
    assert "The loss became" in str(outcomes["wild"].reason)
    assert "`class_weights` names no class of the photos: nobody" in str(outcomes["wrong"].reason)
    assert "nowhere" in str(outcomes["lost"].reason)
    assert Run(tmp_path / "wild").status == "failed"


def test_what_the_engine_does_not_do_is_trained_alone(
    photos: Path, store: FeatureStore, tmp_path: Path
) -> None:
    asked = [
        Trial(_recipe(photos, lr=0.01, more=", optimizer: adamw"), tmp_path / "adamw"),
        Trial(_recipe(photos, more=", clip_norm: 1"), tmp_path / "clipped", folds=2),
    ]
    for outcome in _run(asked, store):
        assert outcome.status == "finished"
        assert (
            outcome.metrics[f"{OUT_OF_FOLD if outcome.folder.name == 'clipped' else 'val'}/top1"]
            > 0
        )


def test_a_run_is_ended_after_the_warm_up_of_its_last_stage_and_not_before(
    photos: Path, store: FeatureStore, tmp_path: Path
) -> None:
    last = "name: all, train: all, lr: 0.01, length: 4 epochs, batch_size: 8"
    schedule = "schedule: {name: cosine, warmup: 50 %}"
    recipe = _recipe(photos, more=f"}}\n  - {{{last}, {schedule}")
    asked: list[tuple[int, float]] = []

    def watch(evaluations: int, metrics: Mapping[str, float]) -> str:
        asked.append((evaluations, metrics["val/top1"]))
        return "of no use"

    (outcome,) = _run([Trial(recipe, tmp_path / "run", watch=watch)], store)
    assert (outcome.status, outcome.reason) == ("pruned", "of no use")
    assert len(asked) == 3  # two in the warm-up, and the one after
    assert {evaluations for evaluations, _ in asked} == {4}
    assert outcome.metrics["val/top1"] == asked[-1][1]
    run = Run(outcome.folder)
    assert (run.status, run.reason) == ("pruned", "of no use")
    head, trained = run.metrics().partition_by("stage", maintain_order=True)
    steps = trained["step"].unique().sort().to_list()
    assert head["stage"][0] == "head"
    assert steps[-1] - head["step"].max() == 3 / 4 * (4 * -(-len(_train(recipe)) // 8))
    (curve,) = curves_of([run.folder], "val/top1")
    assert list(curve.values) == [value for _, value in asked]


def test_a_watch_that_says_nothing_changes_nothing(
    photos: Path, store: FeatureStore, tmp_path: Path
) -> None:
    recipe = _recipe(photos, more=", optimizer: adamw")
    plain, watched = _run(
        [
            Trial(recipe, tmp_path / "plain"),
            Trial(recipe, tmp_path / "watched", watch=lambda evaluations, metrics: None),
        ],
        store,
    )
    assert plain.status == watched.status == "finished"
    assert plain.metrics == watched.metrics


def _train(recipe: Recipe) -> list[int]:
    return list(build(recipe).split.train)

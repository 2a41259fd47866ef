"""`solver: lbfgs`: what it refuses, and that runs and studies end at scikit-learn's optimum."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn import functional as F

from fieldmark import trials
from fieldmark.checked_yaml import check_text
from fieldmark.errors import RecipeError, SettingError
from fieldmark.frozen_rows import frozen_rows
from fieldmark.predict import Predictor
from fieldmark.recipe import Recipe
from fieldmark.studies.run import Run
from fieldmark.studies.trial import OUT_OF_FOLD, Trial
from fieldmark.train import prepare, train
from fieldmark.training.features import FeatureStore
from fieldmark.trials import Silent, run_trials

RECIPE = """\
data: {folder: "%s", image_size: 32, resize_size: 36}
backbone: {name: test_resnet, weights: none}
pooling: {name: average}
precision: float32
threads: 1
stages:
  - {name: head, train: head, solver: lbfgs, weight_decay: %g}
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, draw_squares: Callable[..., Path]) -> Path:
    return draw_squares(tmp_path_factory.mktemp("colours"))


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features")


def _recipe(photos: Path, *overrides: str, decay: float = 1e-3) -> Recipe:
    return check_text(RECIPE % (photos, decay), Recipe, overrides, name="recipe.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.head.schedule=cosine", r"takes no steps, so `schedule` can't be had with it"),
        ("stages.head.momentum=0.5", r"so `momentum` can't"),
        ("stages.head.label_smoothing=0.1", r"so `label_smoothing` can't"),
        ("stages.head.optimizer=adamw", r"so `optimizer` can't"),
        ("stages.head.weight_decay=0", r"needs a `weight_decay` above 0.* Use 1e-8"),
        ("stages.head.train=all", r"stage head: .* needs features that stand still.* move as well"),
        ("head.drop_rate=0.5", r"stage head: .*these `head.drop_rate` makes by chance"),
    ],
)
def test_what_makes_no_sense_is_refused(photos: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        _recipe(photos, override)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["pooling.name=gem", 'stages.head.train={"backbone.*": 0, "*": 1}'],
            r"trains the classifier's weight and bias.*pooling\.p would make",
        ),
        (
            ['stages.head.train={"backbone.*": 0, "*": {lr: 1, decay: 1}}'],
            "not its bias, got",
        ),
    ],
)
def test_what_only_the_model_tells_is_refused_before_training(
    photos: Path, store: FeatureStore, overrides: list[str], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        prepare(_recipe(photos, *overrides), store, Silent())


def test_rate_and_length_make_no_other_training(photos: Path) -> None:
    plain = _recipe(photos)
    changes = ("stages.head.lr=3", "stages.head.length=60 epochs", "stages.head.batch_size=8")
    assert _recipe(photos, *changes).hash() == plain.hash()
    assert check_text(plain.to_yaml(), Recipe) == plain


@pytest.mark.parametrize("decay", [1e-1, 1e-4])
def test_a_run_ends_at_scikit_learns_optimum(
    photos: Path, store: FeatureStore, tmp_path: Path, decay: float
) -> None:
    recipe = _recipe(photos, decay=decay)
    run = train(recipe, tmp_path / "run", store=store, reporter=Silent())
    task = prepare(recipe, store, Silent())
    part = task.part("train")
    network = nn.Sequential(*task.model.chain()[1:-1])
    (rows,) = frozen_rows(task, store, part, [network], lambda *_: None)
    labels = torch.tensor([photo.label for photo in part])
    peer = LogisticRegression(C=1 / (decay * len(labels)), tol=1e-8, max_iter=10_000)
    peer.fit(rows.double().numpy(), labels.numpy())

    def loss(weight: torch.Tensor, bias: torch.Tensor) -> float:
        logits = rows.double() @ weight.double().T + bias.double()
        return float(F.cross_entropy(logits, labels) + decay / 2 * weight.double().square().sum())

    best = loss(torch.from_numpy(peer.coef_), torch.from_numpy(peer.intercept_))
    head = Predictor(run.folder).model.head.classifier
    assert loss(head.weight.detach(), head.bias.detach()) == pytest.approx(best, abs=1e-5)
    assert run.series("train/loss")[1][-1] == pytest.approx(best, abs=1e-5)
    steps, curve = run.series("val/top1")
    assert (list(steps), len(curve)) == ([0, 1], 2)  # before and after


@pytest.mark.parametrize("folds", [None, 3])
def test_a_study_goes_down_the_path_of_decays_and_ends_where_each_run_does(
    photos: Path,
    store: FeatureStore,
    tmp_path: Path,
    folds: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[list[float]] = []
    original = trials.run_head_trials.__globals__["decay_path"]

    def noting(rows: Any, labels: Any, decays: list[float], **settings: Any) -> Any:
        asked.append(decays)
        return original(rows, labels, decays, **settings)

    monkeypatch.setattr("fieldmark.head_trials.decay_path", noting)
    recipes = [_recipe(photos, decay=decay) for decay in (1e-2, 1e-1, 1e-3)]
    together = list(
        run_trials(
            [Trial(recipe, tmp_path / f"{n}", folds) for n, recipe in enumerate(recipes)],
            store=store,
        )
    )
    assert asked == [[1e-2, 1e-1, 1e-3]] * (folds or 1)
    monkeypatch.setattr(trials, "start_head", lambda *_: None)
    split = OUT_OF_FOLD if folds else "val"
    for n, recipe in enumerate(recipes):
        (alone,) = run_trials([Trial(recipe, tmp_path / f"alone{n}", folds)], store=store)
        tables = [Run(one.folder).predictions(split).sort("path") for one in (together[n], alone)]
        found, wanted = (np.stack(table["probabilities"].to_list()) for table in tables)
        np.testing.assert_allclose(found, wanted, atol=5e-3)

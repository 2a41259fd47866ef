"""Where a study's model looked: the classifier trained again is the one that judged each photo."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fieldmark import durable, head_looks, trials
from fieldmark.checked_yaml import check_text
from fieldmark.errors import DataError, RecordError
from fieldmark.head_looks import add_looks
from fieldmark.recipe import Recipe
from fieldmark.report.looks import has_looks, read_looks
from fieldmark.studies.catalog import Catalog
from fieldmark.studies.judged import LOOKED, judged
from fieldmark.studies.run import Run
from fieldmark.studies.trial import OUT_OF_FOLD, Trial
from fieldmark.training.features import FeatureStore
from fieldmark.trials import run_trials

FOLDS = 3
RECIPE = """\
data: {folder: "%s", image_size: 64, resize_size: 72, test_fraction: 0.1}
backbone: {name: test_resnet, weights: none}
pooling: {name: %s}
precision: float32
threads: 1
stages:
  - {name: head, train: head, lr: 2, length: 6 epochs, batch_size: 8%s}
"""
KINDS = {
    "average": ("average", ""),
    "sketch": ("compact_bilinear, sketch_dim: 300", ""),
    "exact": ("average", ", solver: lbfgs, weight_decay: 0.001"),
    "views": ("compact_bilinear, sketch_dim: 64", ", views: 2"),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, draw_squares: Callable[..., Path]) -> Path:
    return draw_squares(tmp_path_factory.mktemp("squares"), per_class=16, noise=110)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features")


def _recipe(photos: Path, kind: str = "sketch") -> Recipe:
    return check_text(RECIPE % (photos, *KINDS[kind]), Recipe, name="recipe.yaml")


def _run(recipe: Recipe, folder: Path, store: FeatureStore, folds: int | None = FOLDS) -> Run:
    (outcome,) = run_trials([Trial(recipe, folder, folds)], store=store)
    assert outcome.status == "finished", outcome.reason
    return Run(folder)


def _above_mean(run: Run) -> dict[str, float]:
    """How far each photo's guess is above the mean class, by what the run says of it."""
    found = judged(run)
    assert found
    logits = np.log(found.probabilities)
    above = logits.max(1) - logits.mean(1)
    return dict(zip(found.paths, above.tolist(), strict=True))


def _biases(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[Any]]:
    """Those of each fold's classifier, as they are trained again."""
    biases: list[NDArray[Any]] = []
    original = head_looks._with_classifier

    def noted(*arguments: Any) -> Any:
        biases.append(arguments[-1].numpy())
        return original(*arguments)

    monkeypatch.setattr(head_looks, "_with_classifier", noted)
    return biases


def _errors(run: Run, biases: list[NDArray[Any]]) -> list[float]:
    """By how much each photo's shares miss what the run says of it."""
    found, looks, expected = judged(run), read_looks(run), _above_mean(run)
    assert found
    table = run.predictions(found.split)
    folds = table["fold"].to_list() if found.split == OUT_OF_FOLD else [0] * len(table)
    errors = []
    for position in found.telling():
        shares = looks.of(found.paths[position])
        assert shares is not None
        assert shares.ndim == 2
        bias = biases[folds[position]]
        of_bias = float(bias[found.guesses[position]] - bias.mean())
        total = float(shares.astype(np.float64).sum()) + of_bias
        errors.append(abs(total - expected[found.paths[position]]))
    return errors


@pytest.mark.parametrize("folds", [None, FOLDS])
@pytest.mark.parametrize("kind", KINDS)
def test_shares_sum_to_the_score_of_the_head_that_had_not_seen_the_photo(
    kind: str,
    folds: int | None,
    photos: Path,
    store: FeatureStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = _run(_recipe(photos, kind), tmp_path / "run", store, folds)
    assert not has_looks(run)
    biases = _biases(monkeypatch)
    add_looks(run, store)
    assert len(biases) == (folds or 1)
    errors = _errors(run, biases)
    assert max(errors) < 5e-3  # they are kept in half precision
    assert Run(run.folder).manifest["looked"]["photos"] == len(errors)


def test_the_sum_tells_one_fold_s_head_from_another_s(
    photos: Path, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _run(_recipe(photos), tmp_path / "run", store)
    biases, original = _biases(monkeypatch), head_looks._left_out
    monkeypatch.setattr(
        head_looks, "_left_out", lambda head, fold, all_: original(head, (fold + 1) % FOLDS, all_)
    )
    add_looks(run, store)
    assert np.median(_errors(run, biases)) > 0.02


def test_they_are_those_of_models_that_kept_their_weights(
    photos: Path, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = _run(_recipe(photos), tmp_path / "together", store)
    add_looks(together, store)
    monkeypatch.setattr(trials, "start_head", lambda *_: None)
    alone = _run(_recipe(photos), tmp_path / "alone", store)
    monkeypatch.setattr(head_looks, "trained_heads", None)
    add_looks(alone, store)
    found = judged(alone)
    assert found
    for position in found.telling():
        of_both = [read_looks(run).of(found.paths[position]) for run in (together, alone)]
        np.testing.assert_allclose(of_both[0], of_both[1], atol=2e-3)
    assert alone.manifest["view"] == together.manifest["view"]  # as the page cuts photos
    assert sum(alone.manifest["counts"][split] for split in ("train", "val")) == len(found.paths)


def test_photos_that_changed_are_refused(
    photos: Path, store: FeatureStore, tmp_path: Path, draw_squares: Callable[..., Path]
) -> None:
    own = draw_squares(tmp_path / "own", per_class=16, noise=110)
    run = _run(_recipe(own), tmp_path / "run", store)
    first, second = sorted(own.rglob("*.png"))[:2], sorted(own.rglob("*.png"))[-2:]
    for a, b in zip(first, second, strict=True):
        before = a.read_bytes()
        a.write_bytes(b.read_bytes())
        b.write_bytes(before)
    with pytest.raises(RecordError, match=r"was trained again and says something else: prob"):
        add_looks(run, store)
    assert not has_looks(run)


def test_a_report_does_not_see_all_photos_anew(
    photos: Path, store: FeatureStore, tmp_path: Path
) -> None:
    run = _run(_recipe(photos), tmp_path / "run", store)
    with pytest.raises(DataError, match=r"are no longer kept\. Run its study again"):
        add_looks(run, FeatureStore(tmp_path / "empty"), only_from_kept=True)
    add_looks(run, FeatureStore(tmp_path / "empty"))
    assert has_looks(run)


def test_killed_at_any_write_nothing_is_lost(
    photos: Path, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _run(_recipe(photos), tmp_path / "run", store)
    before = {path.name: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    writes = durable.replace
    left = [0]

    def cut_off(path: Path, content: bytes, **more: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        writes(path, content, **more)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "replace", cut_off)
        for number in range(10):
            left[0] = number
            try:
                add_looks(Run(run.folder), store)
            except KeyboardInterrupt:
                now = Run(run.folder)
                assert now.status == "finished"
                assert "looked" not in now.manifest
                assert (now.folder / "manifest.json").read_bytes() == before["manifest.json"]
            else:
                break
    assert 2 <= number < 9
    after = {path.name: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    assert after.keys() - before.keys() == {LOOKED}
    changed = {name for name, content in before.items() if after[name] != content}
    assert changed == {"manifest.json"}


def test_an_open_page_learns_of_it(photos: Path, store: FeatureStore, tmp_path: Path) -> None:
    run = _run(_recipe(photos), tmp_path / "runs" / "one", store)
    catalog = Catalog(tmp_path / "runs")
    assert catalog.look() == {"one"}
    assert catalog.look() == set()
    add_looks(run, store)
    assert catalog.look() == {"one"}


def test_a_run_that_kept_its_weights_needs_no_training(
    photos: Path, store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "start_head", lambda *_: None)
    run = _run(_recipe(photos), tmp_path / "run", store, None)
    kept = read_looks(run)
    (run.folder / "predictions" / LOOKED).unlink()
    monkeypatch.setattr(head_looks, "trained_heads", None)
    add_looks(run, store)
    found = judged(run)
    assert found
    for position in found.telling():
        key = found.paths[position]
        np.testing.assert_allclose(read_looks(run).of(key), kept.of(key), atol=1e-3)

"""The shipped recipes: they load, say what they are for, and give what they promise."""

import os
from pathlib import Path

import pytest

from fieldmark.errors import RecipeError
from fieldmark.ledger import Silent
from fieldmark.metrics import wilson_interval
from fieldmark.recipe import Recipe
from fieldmark.shipped import (
    base_text,
    demo_studies,
    find_design,
    find_recipe,
    recipe_names,
    recipe_text,
)
from fieldmark.studies.design import Design
from fieldmark.train import train
from fieldmark.training.features import FeatureStore

CUB50 = Path(os.environ.get("FIELDMARK_CUB") or Path(__file__).parents[2] / "shared/data/cub50")


@pytest.mark.parametrize("name", recipe_names())
def test_each_loads_and_says_what_it_is_for(name: str, monkeypatch: pytest.MonkeyPatch):
    for variable in ("FIELDMARK_CUB", "FIELDMARK_CUB200", "FIELDMARK_VGG16"):
        monkeypatch.setenv(variable, "/data")
    recipe = find_recipe(name)
    assert recipe.name == name
    assert recipe.about.endswith(".")
    assert recipe.expected or "never measured" in recipe_text(name)


def test_a_file_of_the_same_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("toy").write_text(recipe_text("toy").replace("seed: 0", "seed: 1") + "seed: 7\n")
    assert find_recipe("toy").seed == 7


@pytest.mark.parametrize(("name", "text"), demo_studies().items())
def test_what_the_demo_asks_is_a_study_that_shares_its_features(name: str, text: str):
    design = Design.read(text, base_text, ["data.folder=photos"], name=name)
    cells = design.cells(design.points())
    assert design.file.name == name
    assert len(cells) == 4
    assert design.file.seeds == 3
    assert design.folds == 5
    trained = find_recipe("toy", ["data.folder=photos"]).until("head")
    assert trained.group_key() in {cell.recipe.group_key() for cell in cells}
    assert trained.hash() in {cell.recipe.hash() for cell in cells}


def test_a_missing_variable_is_told_by_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("FIELDMARK_CUB", raising=False)
    with pytest.raises(RecipeError, match=r"FIELDMARK_CUB is not set.*data\.folder=PATH"):
        find_recipe("cub50-lite0")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"stages: [{name: \xff}]", r"base.yaml can't be read: 'utf-8' codec"),
        (b"stages: [{name: head", r"base.yaml, line 1 is not valid YAML: expected ',' or '}'"),
        (b"- head", r"base.yaml must hold keys and values"),
        (b"stages: [head]", r"There is no stage 'head' in .*base.yaml; stages: none\."),
        (b"stages: [{name: one}]", r"There is no stage 'head' in .*base.yaml; stages: one\."),
    ],
)
def test_a_base_that_is_no_recipe_is_told(content: bytes, told: str, tmp_path: Path):
    base = tmp_path / "base.yaml"
    base.write_bytes(content)
    with pytest.raises(RecipeError, match=told):
        base_text(f"{base}@head")


def test_a_study_file_that_is_no_text_is_told(tmp_path: Path):
    (tmp_path / "study.yaml").write_bytes(b"name: \xff")
    with pytest.raises(RecipeError, match=r"study.yaml can't be read: 'utf-8' codec"):
        find_design(str(tmp_path / "study.yaml"))


def test_nearest_names_are_offered():
    with pytest.raises(RecipeError, match=r"Did you mean cub50-lite0\? Shipped: "):
        find_recipe("cub50-lite")


def promised(recipe: Recipe, top1: float, count: int) -> bool:
    """Whether a result is what the recipe states, within its spread or this sample's interval."""
    assert recipe.expected is not None
    low, high = wilson_interval(top1, count)
    value, spread = recipe.expected.value, recipe.expected.spread
    return low - spread <= value <= high + spread and abs(top1 - value) <= 3 * spread


@pytest.mark.slow
@pytest.mark.skipif(not CUB50.is_dir(), reason=f"the photos of cub50 are not at {CUB50}")
def test_real_birds_with_a_trained_head_alone(tmp_path: Path):
    """The floor: 77.5 % of 1,389 test photos from 1,200 training photos and one linear layer."""
    recipe = find_recipe("cub50-lite0", [f"data.folder={CUB50}"]).until("head")
    store = FeatureStore(tmp_path / "features")
    found = train(recipe, tmp_path / "run", store=store, reporter=Silent(), open_test=True)
    assert found.manifest["counts"] == {"train": 1200, "minitrain": 300, "val": 300, "test": 1389}
    assert found.series("test/top1")[1][-1] >= 0.775
    assert found.series("minitrain/top1")[1][-1] > 0.99

"""The keys that say where photos come from: what they accept, and what they say when they don't."""

from pathlib import Path

import pytest

from fieldmark.checked_yaml import check_text
from fieldmark.errors import RecipeError
from fieldmark.recipe import Recipe

RECIPE = "data: {folder: photos}\nstages: [{name: head, train: head, lr: 1, length: 1 epoch}]\n"


def read(*overrides: str) -> Recipe:
    return check_text(RECIPE, Recipe, overrides, name="recipe.yaml")


def test_one_list_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTS", "/lists")
    assert read("data.lists=$LISTS/a.txt").data.lists == {"all": "/lists/a.txt"}
    lists = read("data.lists={train: a.txt, test: ~/b.txt}").data.lists
    assert lists == {"train": "a.txt", "test": str(Path("~/b.txt").expanduser())}


def test_a_recipe_with_every_key_survives_being_written_and_read() -> None:
    recipe = read(
        "data.lists=birds.csv",
        "data.group=bird",
        "data.corrections=mine.csv",
        "data.bad_files=skip",
        "data.split=folds",
        "data.folds=4",
        "data.fold=3",
    )
    assert check_text(recipe.to_yaml(), Recipe) == recipe


@pytest.mark.parametrize(
    "override",
    [
        "data.layout=splits",
        "data.lists=a.txt",
        "data.group_pattern=(.)/",
        "data.corrections=c.csv",
        "data.bad_files=skip",
        "data.split=tutorial",
    ],
)
def test_every_key_is_part_of_the_hash(override: str) -> None:
    assert read(override).hash() != read().hash()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.lists={dev: a.txt}"], r"'all', 'train', 'val' or 'test'"),
        (["data.lists=a.txt", "data.layout=cub"], r"`layout` is for photos in folders"),
        (["data.lists=$NOWHERE/a.txt"], r"NOWHERE is not set"),
        (["data.group=bird"], r"`group` is a column of a table in `lists`\. For folders use"),
        (["data.group_pattern='('"], r"`data\.group_pattern`: is no regular expression"),
        (["data.group_pattern=bird"], r"needs one pair of brackets .* got 0 in 'bird'"),
        (["data.group_pattern='(a)(b)'"], r"got 2 in"),
        (
            ["data.lists=a.csv", "data.group=b", "data.group_pattern=(b)"],
            r"`group` and `group_pattern` say the same",
        ),
        (["data.split=files"], r"`split_files` are given for `split: files`, and only for it"),
        (["data.split_files=split.json"], r"`split_files` are given for `split: files`"),
        (["data.split=files", "data.split_files={all: a, val: b}"], r"one file, or lists for"),
        (["data.fold=1"], r"`folds` and `fold` belong to `split: folds`"),
        (["data.split=folds", "data.fold=5"], r"`fold` is from 0 to 4 with 5 folds, got 5"),
        (["data.split=random"], r"'official', 'tutorial', 'fractions', 'files' or 'folds'"),
    ],
)
def test_what_does_not_fit_is_told(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read(*overrides)

"""Every key is described, listed and documented; every shipped file can be had."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fieldmark.checked_yaml import check_text
from fieldmark.cli import app
from fieldmark.errors import RecipeError, SettingError
from fieldmark.keys import FILES, keys, page
from fieldmark.recipe import Recipe
from fieldmark.shipped import find_design, recipe_names, recipe_text, study_names, study_text

DOCS = Path(__file__).parents[1] / "docs"
MINIMAL = "data: {folder: photos}\nstages: [{name: head, train: head, lr: 1, length: 1 epoch}]\n"
ANEW = "python -c \"from fieldmark.keys import page; print(page(), end='')\" > docs/keys.md"


def told(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("what", FILES)
def test_every_key_says_what_it_is_and_takes(what):
    found = keys(what)
    assert len(found) > 20
    assert [key.key for key in found if not key.meaning or key.takes == ""] == []
    assert len({key.key for key in found}) == len(found)


def test_the_page_is_of_today():
    assert (DOCS / "keys.md").read_text(encoding="utf-8") == page(), f"write it anew: {ANEW}"


def test_defaults_are_those_a_recipe_gets():
    recipe = check_text(MINIMAL, Recipe).model_dump(mode="json")
    for key in keys("recipe"):
        if key.default in ("", "none") or key.key.startswith(("expected", "stages", "pooling")):
            continue
        place = recipe
        for part in key.key.split("."):
            place = place[part]
        if isinstance(place, bool | str):
            assert key.default.strip('"') == str(place).lower().strip('"'), key.key
        elif isinstance(place, int | float):
            assert float(key.default) == place, key.key


def test_keys_are_told_as_they_are_asked_for():
    assert "schedule.warmup" in told("keys", "recipe", "schedule")
    assert "data.folder" not in told("keys", "recipe", "schedule")
    assert "must be given" in told("keys", "study", "question")
    assert told("keys", "study", "--format", "csv").startswith("key,takes,default,meaning")
    done = CliRunner().invoke(app, ["keys", "study", "nonsense"])
    assert isinstance(done.exception, SettingError)
    assert "No key of a study contains 'nonsense'" in str(done.exception)


def test_shipped_studies_are_listed_with_their_questions():
    shown = told("study", "list", "--format", "csv")
    for name in study_names():
        (question,) = re.findall(r"^question: (.+)$", study_text(name), flags=re.MULTILINE)
        assert any(line.startswith(f"{name},") for line in shown.splitlines())
        assert question.strip('"') in shown.replace('""', '"')


@pytest.mark.parametrize("command", [("recipes",), ("study", "list")])
def test_a_shipped_file_is_printed_or_copied_once(command, tmp_path: Path):
    name, text = (
        (recipe_names()[-1], recipe_text) if command == ("recipes",) else ("transfer", study_text)
    )
    copy = tmp_path / "new" / "mine.yaml"
    assert told(*command, name) == text(name)
    assert f"Wrote {copy}" in told(*command, name, "--copy", str(copy))
    assert copy.read_text() == text(name)
    for arguments, message in (
        ([name, "--copy", str(copy)], "is not overwritten. Give another name"),
        (["--copy", str(copy)], "to be copied: fieldmark"),
        (["nonsense"], "Shipped: "),
    ):
        done = CliRunner().invoke(app, [*command, *arguments])
        assert isinstance(done.exception, RecipeError)
        assert message in str(done.exception)


def test_a_copied_study_is_the_shipped_one(tmp_path: Path):
    told("study", "list", "pooling", "--copy", str(tmp_path / "mine.yaml"))
    given = ["data.folder=photos"]
    assert (
        find_design(str(tmp_path / "mine.yaml"), given).file == find_design("pooling", given).file
    )

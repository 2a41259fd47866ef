"""Habits that a reader may rely on, held by tests."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fieldmark
from fieldmark.shipped import recipe_names

ROOT = Path(__file__).parents[1]
COMMANDS = (
    *("demo", "train", "refit", "eval", "predict", "recipes", "inspect", "toy"),
    *("diagnose", "rehearse", "report", "serve", "watch", "cache", "compare", "keys"),
    *("study list", "study plan", "study run", "study show"),
)


def test_exports_are_sorted_complete_and_there():
    assert fieldmark.__all__ == sorted(fieldmark._HOMES)
    for name in fieldmark.__all__:
        assert getattr(fieldmark, name).__module__.startswith("fieldmark.")


def test_an_unknown_export_is_refused_by_name():
    with pytest.raises(AttributeError, match="has no name `trian`"):
        fieldmark.trian  # noqa: B018


def test_the_version_is_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    newest = next(
        line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")
    )
    assert project["version"] == fieldmark.__version__ == newest.removeprefix("## ")


def test_every_dependency_is_explained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    plan = (ROOT / "docs" / "architecture.md").read_text().lower()
    names = [line.split(">")[0].split("=")[0].split("[")[0] for line in project["dependencies"]]
    assert [name for name in names if name.lower() not in plan] == []


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fieldmark", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "100", "PATH": "", "PYTHONPATH": str(ROOT / "src")},
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str):
    found = run(*command.split(), "--help")
    assert found.returncode == 0
    assert f"Example: fieldmark {command}" in found.stdout


def test_help_lists_every_command():
    listed = run("--help").stdout
    assert [command for command in COMMANDS if f" {command.split()[0]} " not in listed] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "nonsense"), "There is neither a file nor a shipped recipe nonsense"),
        (("recipes", "tou"), "Did you mean toy?"),
        (("train", "toy", "seed=x"), "`seed` should be a valid integer"),
        (("train", "toy", "data.folder=/nowhere"), "/nowhere"),
        (("predict", "/nowhere", "photo.jpg"), "/nowhere"),
        (("train",), "Give a recipe to train, or --resume RUN"),
        (("train", "--resume", "/nowhere"), "is no run"),
        (("train", "--resume", "x", "--out", "y"), "give --resume alone"),
        (("eval", "x", "--split", "all"), "--split must be val, minitrain, train or test, got all"),
        (
            ("recipes", "toy", "--copy", __file__),
            "exists and is not overwritten. Give another name",
        ),
    ],
)
def test_a_mistake_is_one_message_and_no_traceback(arguments: tuple[str, ...], message: str):
    found = run(*arguments)
    assert found.returncode == 1
    assert "Traceback" not in found.stderr
    assert found.stderr.startswith("Error: ")
    assert message in " ".join(found.stderr.split())


def test_the_version_is_told():
    assert run("--version").stdout == f"fieldmark {fieldmark.__version__}\n"


@pytest.mark.parametrize("how", ["table", "json", "csv"])
def test_all_recipes_are_listed_where_nothing_they_name_is_there(how: str):
    found = run("recipes", "--format", how)  # without a single variable of the environment
    assert found.returncode == 0, found.stderr
    assert [name for name in recipe_names() if name not in found.stdout] == []


def test_debug_shows_the_traceback():
    assert "Traceback" in run("--debug", "train", "nonsense").stderr

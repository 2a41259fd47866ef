"""Habits that a reader may rely on, held by tests."""

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import fieldmark
from fieldmark.shipped import recipe_names

ROOT = Path(__file__).parents[1]
COMMANDS = (
    *("demo", "train", "refit", "eval", "predict", "recipes", "inspect", "toy"),
    *("diagnose", "rehearse", "report", "serve", "watch", "cache", "compare", "keys"),
    *("study list", "study plan", "study run", "study show"),
)


@pytest.mark.parametrize("package", [fieldmark, fieldmark.layers], ids=lambda one: one.__name__)
def test_exports_are_sorted_complete_and_there(package: ModuleType):
    folders = {"layers"} if package is fieldmark else set()
    assert package.__all__ == sorted(package._HOMES.keys() | folders)
    assert set(package.__all__) <= set(dir(package))
    for name, home in package._HOMES.items():
        assert getattr(package, name).__module__ == home
    (typed,) = (
        one for one in ast.parse(inspect.getsource(package)).body if isinstance(one, ast.If)
    )
    told = {alias.name for line in typed.body for alias in line.names}
    assert told == set(package.__all__), "a type checker is told of other names"


def test_every_public_layer_is_exported():
    public = {
        name
        for file in ("activation", "pooling", "sketch")
        for name, value in vars(import_module(f"fieldmark.layers.{file}")).items()
        if getattr(value, "__module__", "") == f"fieldmark.layers.{file}" and name[0] != "_"
    }
    assert public - set(fieldmark.layers.__all__) == {"sketches_of"}  # without gradients; inside


def test_importing_the_names_loads_nothing():
    code = (
        "import sys, fieldmark; dir(fieldmark.layers)\n"
        "print({'torch', 'numpy', 'polars', 'timm'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize("package", [fieldmark, fieldmark.layers], ids=lambda one: one.__name__)
def test_an_unknown_export_is_refused_by_name(package: ModuleType):
    with pytest.raises(AttributeError, match=f"`{package.__name__}` has no name `trian`"):
        package.trian  # noqa: B018


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


def test_every_dependency_has_an_upper_bound():
    """A major version that is not there yet may change anything."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    asked = [line for group in groups for line in group]
    assert [line for line in asked if not re.search(r",<\d|==\d", line)] == []


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

"""Recipes and studies that come with Fieldmark.

A recipe states its command, result, spread, time and hardware; a study is a tuning question.
"""

import difflib
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from ruamel.yaml import YAML

from fieldmark import checked_yaml
from fieldmark.errors import RecipeError
from fieldmark.expectation import Expectation
from fieldmark.recipe import Recipe, load_recipe
from fieldmark.studies.design import Design


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted."""
    return _names("recipes")


def study_names() -> list[str]:
    """Names of the shipped studies, sorted."""
    return _names("studies")


def _names(kind: str) -> list[str]:
    folder = resources.files(__name__) / kind
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )


def recipe_text(name: str) -> str:
    """The YAML text of a shipped recipe.

    Raises:
        RecipeError: there is none of this name; says which there are.
    """
    return _text("recipes", "recipe", name)


def recipe_summary(name: str) -> tuple[str, Expectation | None]:
    """What a shipped recipe says of itself and of its result.

    The rest is not checked: it may name what is not on this machine.
    """
    content = YAML(typ="safe", pure=True).load(recipe_text(name))
    told = content.get("expected")
    return content.get("about", ""), Expectation.model_validate(told) if told else None


def study_questions() -> dict[str, str]:
    """Name -> question of the shipped studies."""
    reader = YAML(typ="safe", pure=True)
    return {name: str(reader.load(study_text(name))["question"]) for name in study_names()}


def demo_studies() -> dict[str, str]:
    """Name -> YAML text of what the demo asks, in that order."""
    folder = resources.files(__name__) / "demo"
    names = ("size-by-sketch", "decay")
    return {name: (folder / f"{name}.yaml").read_text(encoding="utf-8") for name in names}


def study_text(name: str) -> str:
    """The YAML text of a shipped study, or of the file `name`.

    Raises:
        RecipeError: there is none of this name, and which there are; or the file can't be read.
    """
    if Path(name).is_file():
        return checked_yaml.read_text(Path(name))
    return _text("studies", "study", name)


def base_text(name: str) -> str:
    """The YAML text of a study's base: a recipe's name or file, or up to a stage as `NAME@STAGE`.

    Raises:
        RecipeError: there is no such recipe or stage, or the file can't be read.
    """
    recipe, _, stage = name.partition("@")
    path = Path(recipe)
    text = checked_yaml.read_text(path) if path.is_file() else recipe_text(recipe)
    if not stage:
        return text
    content = checked_yaml.parsed(text, recipe)
    stages = content.get("stages")
    given = stages if isinstance(stages, list) else []
    names = [str(each.get("name")) if isinstance(each, dict) else "" for each in given]
    if stage not in names:
        told = ", ".join(filter(None, names)) or "none"
        raise RecipeError(f"There is no stage {stage!r} in {recipe}; stages: {told}.")
    del content["stages"][names.index(stage) + 1 :]
    stream = io.StringIO()
    YAML(typ="rt").dump(content, stream)
    return stream.getvalue()


def find_design(name: str, overrides: Sequence[str] = ()) -> Design:
    """The study in the file `name`, or the shipped one, checked with every recipe it makes.

    Raises:
        RecipeError: there is none, or it lists every mistake.
    """
    return Design.read(study_text(name), base_text, overrides, name=f"study {name}")


def _text(kind: str, one: str, name: str) -> str:
    names = _names(kind)
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise RecipeError(
            f"There is neither a file nor a shipped {one} {name}.{hint} "
            f"Shipped: {', '.join(names)}."
        )
    return (resources.files(__name__) / kind / f"{name}.yaml").read_text(encoding="utf-8")


def find_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in the file `name`, or the shipped one of that name, with overrides applied.

    Raises:
        RecipeError: there is none, or it lists every mistake.
    """
    path = Path(name)
    if path.is_file():
        return load_recipe(path, overrides)
    return checked_yaml.check_text(recipe_text(name), Recipe, overrides, name=f"recipe {name}")

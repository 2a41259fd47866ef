"""Recipes that come with Fieldmark: each states its command, result, spread, time and hardware."""

import difflib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from fieldmark import checked_yaml
from fieldmark.errors import RecipeError
from fieldmark.recipe import Recipe, load_recipe


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted."""
    folder = resources.files(__name__) / "recipes"
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
    names = recipe_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise RecipeError(
            f"There is neither a file nor a shipped recipe {name}.{hint} "
            f"Shipped: {', '.join(names)}."
        )
    return (resources.files(__name__) / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def find_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in the file `name`, or the shipped one of that name, with overrides applied.

    Raises:
        RecipeError: there is none, or it lists every mistake.
    """
    path = Path(name)
    if path.is_file():
        return load_recipe(path, overrides)
    return checked_yaml.check_text(recipe_text(name), Recipe, overrides, name=f"recipe {name}")

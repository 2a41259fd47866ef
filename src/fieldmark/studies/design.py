"""From a study file to its cells: each a checked recipe, known by what it asks for."""

import copy
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from fieldmark.checked_yaml import check_text, locate
from fieldmark.errors import RecipeError, count_of
from fieldmark.recipe import Recipe
from fieldmark.studies.pruner import unfair
from fieldmark.studies.sampler import Point, drawn
from fieldmark.studies.space import ADAPTIVE, Space, StudyFile

FOLDS = 5
MOST_MISTAKES = 20  # shown at once


@dataclass(frozen=True)
class Cell:
    """One recipe of a study, run once a seed.

    Attributes:
        hash: 12 hex digits of what it asks for: recipe and folds.
        recipe: With the first of the seeds.
        folds: As `Trial.folds`.
        points: Axis -> setting; several where they come to the same recipe.
    """

    hash: str
    recipe: Recipe
    folds: int | None
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Design:
    """A study file and its base recipe, as text and as read; makes cells of points.

    Attributes:
        file: What the study file says.
        base: What the base recipe says, overrides applied.
        texts: Of the study file and of the base, and the overrides: all that `read` needs.
    """

    file: StudyFile
    base: Mapping[str, Any]
    texts: tuple[str, str, tuple[str, ...]]

    @classmethod
    def read(
        cls,
        text: str,
        read_base: Callable[[str], str],
        overrides: Sequence[str] = (),
        *,
        name: str = "<study>",
    ) -> "Design":
        """Read and check a study file, and every recipe it makes.

        Args:
            text: The study file.
            read_base: From the file's `base` to the text of that recipe.
            overrides: `key=value`: of the study where it begins with one of its keys, as
                `seeds=3`, else of the base, as `data.folder=photos`.
            name: What the study file is called in messages.

        Raises:
            RecipeError: lists every mistake with its line: those of the file itself first, then
                those of the recipes.
        """
        ours = [o for o in overrides if re.split(r"[.=]", o)[0] in StudyFile.model_fields]
        file = check_text(text, StudyFile, ours, name=name)
        base_text = read_base(file.base)
        of_base = [override for override in overrides if override not in ours]
        check_text(base_text, Recipe, of_base, name=f"the base {file.base}")
        base = YAML(typ="safe", pure=True).load(base_text)
        for override in of_base:
            path, _, value = override.partition("=")
            _set(base, path, YAML(typ="safe", pure=True).load(value))
        design = cls(file, base, (text, base_text, tuple(overrides)))
        mistakes = design.mistakes() or design.unfair_pruning()
        if mistakes:
            count = count_of(len(mistakes), "mistake")
            raise RecipeError("\n  ".join([f"{name} has {count}:", *mistakes[:MOST_MISTAKES]]))
        return design

    @cached_property
    def spaces(self) -> dict[str, Space]:
        """Axis -> space, of those that have one."""
        return {axis.name: axis.space for axis in self.file.axes if axis.space}

    @property
    def is_adaptive(self) -> bool:
        """Whether later cells depend on what came of earlier ones."""
        return bool(self.spaces) and self.file.search.sampler in ADAPTIVE

    @cached_property
    def search_key(self) -> str:
        """What proposed points depend on; seeds, budget and more trials are no part of it."""
        file = self.file
        content = [
            [axis.model_dump(mode="json") for axis in file.axes],
            file.search.model_dump(mode="json", exclude={"trials", "batch"}),
            [self.metric, self.folds, self.recipe(next(self.corners())).hash()],
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def metric(self) -> str:
        """The objective, as in `val/top1`."""
        return f"{'out_of_fold' if self.folds else 'val'}/{self.file.objective.metric}"

    @cached_property
    def folds(self) -> int | None:
        """How many folds every cell is judged by; None: by `val`."""
        asked = self.file.objective.folds
        if asked == "auto":
            frozen = not any(self.recipe(point).trains_backbone for point in self.corners())
            return FOLDS if frozen else None
        return None if asked == "none" else asked

    def grid(self) -> list[dict[str, Any]]:
        """Every combination of values and arms, the last axis fastest."""
        axes = [axis for axis in self.file.axes if not axis.space]
        names = [axis.name for axis in axes]
        return [
            dict(zip(names, labels, strict=True))
            for labels in itertools.product(*(axis.labels() for axis in axes))
        ]

    def points(self) -> list[dict[str, Any]]:
        """All points known beforehand: the grid, at each of it every one drawn from the spaces."""
        if self.is_adaptive:
            return []
        inner = drawn(self.file.search, self.spaces) if self.spaces else [{}]
        return [{**outer, **point} for outer in self.grid() for point in inner]

    def corners(self) -> Iterator[dict[str, Any]]:
        """The grid, at each of it the ends of each space while the others stay at their first."""
        first = {name: space.ends()[0] for name, space in self.spaces.items()}
        inner = [first]
        for name, space in self.spaces.items():
            inner += [{**first, name: end} for end in space.ends()[1:]]
        return ({**outer, **point} for outer in self.grid() for point in inner)

    def recipe(self, point: Point) -> Recipe:
        """The recipe at a point.

        Raises:
            RecipeError: it can't be used.
        """
        axes = self.file.axes
        return self._build([c for axis in axes for c in axis.change(point[axis.name]).items()])

    def _build(self, changes: Sequence[tuple[str, Any]]) -> Recipe:
        content = copy.deepcopy(dict(self.base))
        content.pop("expected", None)  # it was measured of the base
        try:
            for path, value in changes:
                _set(content, path, value)
            return Recipe.model_validate(content)
        except (ValidationError, RecipeError):
            _, base_text, overrides = self.texts
            told = [o for o in overrides if re.split(r"[.=]", o)[0] not in StudyFile.model_fields]
            told += [f"{path}={json.dumps(value)}" for path, value in changes]
            return check_text(base_text, Recipe, told, name="the recipe")  # to say what is wrong

    def cells(self, points: Sequence[Point]) -> list[Cell]:
        """The different recipes at some points, in the order of the first point of each."""
        recipes: dict[str, tuple[Recipe, list[Point]]] = {}
        for point in points:
            recipe = self.recipe(point)
            recipes.setdefault(recipe.hash(), (recipe, []))[1].append(point)
        return [
            Cell(_short_hash(key, self.folds), recipe, self.folds, tuple(of_cell))
            for key, (recipe, of_cell) in recipes.items()
        ]

    def mistakes(self) -> list[str]:
        """What is wrong with the recipes, with lines: by single settings, else by combinations."""
        refused = [(p, m) for p in self.corners() if (m := self._refusal(p))]
        if not refused:  # neither are points between the corners, as a rule
            inside = self.points() if self.spaces else []
            refused = [(p, m) for p in inside if (m := self._refusal(p))]
        found = list(self._wrong_settings([point for point, _ in refused])) if refused else []
        if not found:
            examples = {text: point for point, texts in reversed(refused) for text in texts}
            found = [(self._line(0, None), f"{_words(p)}: {text}") for text, p in examples.items()]
        return [f"line {line}: {text}" for line, text in sorted(found)]

    def unfair_pruning(self) -> list[str]:
        """Why the study's pruner would not be fair, with its line, if so."""
        found = self.file.pruner and unfair(map(self.recipe, self.corners()), self.folds)
        if not found:
            return []
        place: Any = YAML(typ="rt").load(self.texts[0])
        where = f"line {1 + place.lc.key('pruner')[0]}" if "pruner" in place else "command line"
        return [f"{where}: `pruner`: {found}"]

    def _refusal(self, point: Point) -> list[str]:
        """What is wrong with the recipe at a point."""
        try:
            self.recipe(point)
        except RecipeError as error:
            return _messages(error)
        return []

    def _wrong_settings(self, refused: list[dict[str, Any]]) -> Iterator[tuple[int, str]]:
        """Line and mistake of each setting that is wrong by itself, and nowhere right."""
        for number, axis in enumerate(self.file.axes):
            settings = axis.space.ends() if axis.space else axis.labels()
            for position, setting in enumerate(settings):
                if all(p in refused for p in self.corners() if p[axis.name] == setting):
                    try:
                        self._build(list(axis.change(setting).items()))
                    except RecipeError as error:
                        line = self._line(number, None if axis.space else position)
                        for message in _messages(error):
                            yield line, f"axis {axis.name}, {setting!r}: {message}"

    def _line(self, axis: int, position: int | None) -> int:
        """The line, from 1, of an axis in the study file, or of one of its values or arms."""
        place: Any = YAML(typ="rt").load(self.texts[0])
        line = 1
        try:
            line = 1 + place["axes"].lc.item(axis)[0]
            place = place["axes"][axis]
            if position is not None and "values" in place:
                line = 1 + place["values"].lc.item(position)[0]
            elif position is not None:
                line = 1 + place["arms"].lc.key(list(place["arms"])[position])[0]
        except (AttributeError, KeyError, IndexError, TypeError):
            pass  # given on the command line
        return int(line)


def _short_hash(recipe_hash: str, folds: int | None) -> str:
    return hashlib.sha256(f"{recipe_hash} {folds}".encode()).hexdigest()[:12]


def _set(content: Any, path: str, value: Any) -> None:
    """Set `path.to.key` in a file's content, which then shares nothing with the value."""
    place, location = locate(content, path, path)
    place[location[-1]] = copy.deepcopy(value)


def _messages(error: RecipeError) -> list[str]:
    """The mistakes an error lists, without the places they were in a text nobody wrote."""
    first, *rest = str(error).splitlines()
    return [re.sub(r"^\s*(command line|line \d+): ", "", line) for line in rest or [first]]


def _words(point: Point) -> str:
    return ", ".join(f"{name} {setting}" for name, setting in point.items())

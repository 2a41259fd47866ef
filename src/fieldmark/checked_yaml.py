"""A YAML file held against a pydantic model: every mistake at once, each with its line.

YAML 1.2 by ruamel.yaml, so `1e-5` is a number. Any key can be overridden by `path.to.key=value`.
"""

import difflib
import io
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from fieldmark.errors import RecipeError, count_of


class Section(BaseModel):
    """A part of a file: unknown keys are mistakes, and nothing changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Model = TypeVar("Model", bound=BaseModel)
Location = tuple[int | str, ...]


def load_checked(path: Path, model: type[Model], overrides: Sequence[str] = ()) -> Model:
    """Read `path`, apply `overrides` (`stages.1.lr=0.001`) and check the whole against `model`.

    Raises:
        RecipeError: the file is missing or no YAML, or lists each wrong key or value with its
            line, what is allowed and, for a misspelt key, the nearest right one.
    """
    return check_text(read_text(path), model, overrides, name=str(path))


def read_text(path: Path) -> str:
    """The text of a recipe or study file.

    Raises:
        RecipeError: it is missing, not for us to read, or no UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(
            f"There is no file {path}. `fieldmark recipes` lists those shipped."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} can't be read: {error}.") from error


def check_text(
    text: str, model: type[Model], overrides: Sequence[str] = (), *, name: str = "<text>"
) -> Model:
    """As `load_checked`, from a text already read; `name` stands for it in messages."""
    content = parsed(text, name)
    overridden: set[Location] = set()
    for override in overrides:
        overridden.add(_apply(content, override))
    try:
        return model.model_validate(content)
    except ValidationError as error:
        details = error.errors(include_url=False)
        details.sort(key=lambda detail: _line(content, detail["loc"]))
        lines = [_explain(detail, model, content, overridden) for detail in details]
        count = count_of(len(lines), "mistake")
        raise RecipeError("\n  ".join([f"{name} has {count}:", *lines])) from None


def dump(model: BaseModel) -> str:
    """The model as YAML text that `check_text` reads back as an equal model."""
    writer = YAML()
    writer.width = 100
    stream = io.StringIO()
    writer.dump(model.model_dump(mode="json", exclude_none=True), stream)
    return stream.getvalue()


def parsed(text: str, name: str) -> dict[str, Any]:
    """What a text holds, with the places of its keys.

    Raises:
        RecipeError: it is no YAML, or not of keys and values; `name` stands for it.
    """
    content = _parse(text, name)
    if not isinstance(content, dict):
        raise RecipeError(f"{name} must hold keys and values such as `seed: 0`.")
    return content


def _parse(text: str, name: str) -> Any:
    try:
        return YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = (error.problem or "not valid YAML").split("\n")[0]
        raise RecipeError(f"{name}{line} is not valid YAML: {problem}.") from None
    except YAMLError as error:
        raise RecipeError(f"{name} is not valid YAML: {error}.") from None


def _apply(content: Any, override: str) -> Location:
    """Set one `path.to.key=value` inside the parsed content; return where."""
    path, equals, value = override.partition("=")
    if not equals or not path:
        raise RecipeError(f"An override is written key=value, as in seed=1; got {override!r}.")
    place, location = locate(content, path, override)
    place[location[-1]] = _parse(value, f"The override {override!r}")
    return location


def locate(content: Any, path: str, override: str) -> tuple[Any, Location]:
    """What holds `path.to.key` in a parsed file, made where it is missing, and the way there.

    Args:
        content: mappings and lists; a list's items go by position or by their `name`.
        path: keys, with dots between.
        override: what a message calls it.

    Raises:
        RecipeError: a list has no such item, or a value holds no keys.
    """
    location: list[int | str] = []
    place = content
    *parents, last = path.split(".")
    for part in parents:
        key = _key(place, part, override)
        if isinstance(place, dict) and place.get(key) is None:
            place[key] = {}
        place = place[key]
        location.append(key)
    return place, (*location, _key(place, last, override))


def _key(place: Any, part: str, override: str) -> int | str:
    if isinstance(place, dict):
        return part
    if not isinstance(place, list):
        raise RecipeError(f"The override {override!r} goes into `{place}`, which holds no keys.")
    if part.isdigit() and int(part) < len(place):
        return int(part)
    names = [item.get("name") if isinstance(item, dict) else None for item in place]
    if names.count(part) == 1:
        return names.index(part)
    positions, known = ", ".join(map(str, range(len(place)))), [str(n) for n in names if n]
    told = f" ({', '.join(known)})" if known else ""
    close = difflib.get_close_matches(part, known, n=1)
    meant = f" Did you mean {close[0]}?" if close and close[0] != part else ""
    raise RecipeError(
        f"The override {override!r} needs a position ({positions}) or a name{told}, "
        f"got {part!r}.{meant}"
    )


def _explain(
    detail: ErrorDetails, model: type[BaseModel], content: Any, overridden: set[Location]
) -> str:
    location = detail["loc"]
    key = ".".join(str(part) for part in location)
    given = location in overridden
    place = "command line" if given else f"line {_line(content, location)}"
    kind, message = detail["type"], detail["msg"]
    if kind == "extra_forbidden":
        return f"{place}: `{key}` is no key here.{_nearest(model, location)}"
    if kind == "missing":
        return f"{place}: `{key}` is missing."
    if kind == "value_error":
        text = str(detail.get("ctx", {}).get("error", message))
        return f"{place}: `{key}`: {text}" if key else f"{place}: {text}"
    wish = message.removeprefix("Input ").rstrip(".")
    return f"{place}: `{key}` {wish}, got {detail['input']!r}."


def _line(content: Any, location: Location) -> int:
    """The line, from 1, of the deepest part of `location` that stands in the file."""
    line, place = 1, content
    for part in location:
        try:
            marks = place.lc
            line = 1 + (marks.key(part) if isinstance(place, dict) else marks.item(part))[0]
            place = place[part]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return line


def _nearest(model: type[BaseModel], location: Location) -> str:
    parent = _model_at(model, location[:-1])
    if parent is None:
        return ""
    names = list(parent.model_fields)
    close = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.6)
    if close:
        return f" Did you mean `{close[0]}`?"
    return f" Allowed: {', '.join(names)}."


def _model_at(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The model that checks what stands at `location`, or None where no model does."""
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        field = current.model_fields.get(part)
        current = _inner_model(field.annotation) if field else None
        if current is None:
            return None
    return typing.cast("type[BaseModel]", current)


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(_inner_model, typing.get_args(annotation))), None)

"""Every key of a recipe and of a study file, as the models that check them know it."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fieldmark.checked_yaml import Section
from fieldmark.network import POOLING_OPTIONS
from fieldmark.recipe import Recipe
from fieldmark.studies.space import StudyFile

What = Literal["recipe", "study"]
FILES: Mapping[What, type[Section]] = {"recipe": Recipe, "study": StudyFile}
LENGTHS = {"length", "eval_every", "snapshot_every", "warmup", "every", "milestones"}
LENGTH = "length, as `60 epochs`, `500 steps` or `20 %`"
ABOUT = {
    "recipe": "Set one in the file, or on the command line: `fieldmark train my-photos seed=1 "
    "stages.all.lr=0.01`, where a stage goes by its name.",
    "study": "`fieldmark study list NAME --copy my-study.yaml` writes a shipped one to begin with. "
    "Any other key on the command line is one of the recipe it is based on.",
}
_OPTIONS = {  # their defaults hang on the pooling's name
    f"pooling.{key}": value for each in POOLING_OPTIONS.values() for key, value in each.items()
}


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        key: Its path; `NAME` stands for a stage's name, `[]` for each of a list.
        takes: What it may be.
        default: What it is unless given, as YAML has it; empty where it must be given.
        meaning: What it is for.
    """

    key: str
    takes: str
    default: str
    meaning: str


def keys(what: What) -> list[Key]:
    """All keys of a file, in the order of its sections."""
    schema = FILES[what].model_json_schema()
    return list(_keys(schema, schema["$defs"], ""))


def page() -> str:
    """All keys as the page `docs/keys.md`."""
    lines = ["# Keys", "", "What may stand in a [recipe](#recipe) and in a [study](#study). "]
    lines[-1] += "`fieldmark keys` prints the same; words are those of the [vocabulary]"
    lines[-1] += "(vocabulary.md). A key without a default must be given; `none` is left out."
    for what in FILES:
        lines += ["", f"## {what.capitalize()}", "", ABOUT[what], ""]
        lines += ["| key | takes | default | what it is |", "|---|---|---|---|"]
        for row in keys(what):
            shown = [text.replace("|", "\\|").replace("\n", " ") for text in asdict(row).values()]
            default = f"`{shown[2]}`" if shown[2] else ""
            lines.append(f"| `{shown[0]}` | {shown[1]} | {default} | {shown[3]} |")
    return "\n".join([*lines, ""])


def _keys(section: Mapping[str, Any], known: Mapping[str, Any], prefix: str) -> Iterator[Key]:
    needed = section.get("required", [])
    for name, found in section["properties"].items():
        inner, place = _inner(found, known), f"{prefix}{name}"
        if inner and found.get("type") == "array":
            yield from _keys(inner, known, f"{place}.{'NAME' if name == 'stages' else '[]'}.")
        elif inner:
            yield from _keys(inner, known, f"{place}.")
        else:
            default = "" if name in needed else _yaml(_OPTIONS.get(place, found.get("default")))
            takes = LENGTH if name in LENGTHS else _takes(found, known)
            yield Key(place, takes, default, str(found.get("description", "")))


def _inner(found: Mapping[str, Any], known: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The section that a key holds, alone, as an option or as each item of a list."""
    for each in (found, found.get("items", {}), *found.get("anyOf", ())):
        if "$ref" in each:
            section: Mapping[str, Any] = known[each["$ref"].rpartition("/")[2]]
            return section
    return None


def _takes(found: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """What a key may be, in words."""
    if "anyOf" in found:
        options = [_takes(each, known) for each in found["anyOf"] if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(options))
    if "enum" in found or "const" in found:
        return ", ".join(f"`{value}`" for value in found.get("enum", [found.get("const")]))
    kind = found.get("type")
    if kind in {"integer", "number"}:
        return ("whole number" if kind == "integer" else "number") + _range(found)
    if kind == "array":
        items = found.get("items") or found.get("prefixItems", [{}])[0]
        count = f"{found['maxItems']} of: " if "maxItems" in found else "list of: "
        return count + _takes(items, known)
    words = {"boolean": "true or false", "string": "text", "object": "keys and values"}
    return words.get(str(kind), "value")


def _range(found: Mapping[str, Any]) -> str:
    """The bounds of a number, those that lie far outside of any use left out."""
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    told = [f"{word} {found[k]:g}" for k, word in words.items() if abs(found.get(k, 1e18)) < 1e9]
    return f", {', '.join(told)}" if told else ""


def _yaml(value: Any) -> str:
    """A default as one would type it."""
    if value is None:
        return "none"
    if isinstance(value, dict):  # a length
        return " ".join(f"{part:g}" if part != str(part) else part for part in value.values())
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(f'{each:.4g}' for each in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'

"""Sentences in the reader's language, from catalogues of templates with one set of keys.

What is to be said is a `Said`: a key and the values it is filled with, so that whoever finds
something out need not know who will read it. Values may be sentences themselves.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from string import Formatter
from typing import Any, Literal, get_args

from ruamel.yaml import YAML

from fieldmark.errors import SettingError

Lang = Literal["en", "zh"]
LANGUAGES: tuple[Lang, ...] = get_args(Lang)

_RIGHT_TO_LEFT = {"R", "AL", "RLE", "RLO", "RLI", "LRO"}
_ISOLATE, _END = "\u2068", "\u2069"


@dataclass(frozen=True)
class Said:
    """A sentence yet to be put into words.

    Attributes:
        key: Its place in the catalogues, as `verdict.real`.
        values: What its template is filled with, by placeholder.
    """

    key: str
    values: Mapping[str, Any] = field(default_factory=dict)


def said(key: str, /, **values: Any) -> Said:
    """A sentence and its values."""
    return Said(key, values)


def duration(seconds: float) -> Said:
    """A time in the unit a person would use."""
    if seconds < 1:
        return said("value.moment", seconds=seconds)
    if seconds < 120:
        return said("value.seconds", seconds=seconds)
    if seconds < 7200:
        return said("value.minutes", minutes=seconds / 60)
    return said("value.hours", hours=seconds / 3600)


def counted(key: str, count: float) -> Said:
    """So many of something; one of it has a sentence of its own."""
    return said(f"{key}.one" if count == 1 else f"{key}.many", count=count)


def axis_words(name: str) -> Said | str:
    """A study's axis as a reader calls it, `image size`; its own name where there is no word."""
    key = f"axes.{name}"
    return said(key) if key in catalogue("en") else name


def settings_words(settings: Mapping[str, object]) -> tuple[Said, ...]:
    """Axes and their settings, one after the other."""
    return tuple(setting_words(name, value) for name, value in settings.items())


def setting_words(axis: str, value: object) -> Said:
    """An axis and its setting."""
    return said("list.setting", axis=axis_words(axis), value=setting_text(value))


def setting_text(value: object) -> str:
    """A setting as a recipe has it; a whole number as one, whatever its type."""
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def metric_words(key: str) -> Said | str:
    """A metric as a reader calls it, `top-1 on val`; its own key where there is no word."""
    split, _, name = key.partition("/")
    if f"metrics.{name}" not in catalogue("en"):
        return key
    word = said(f"metrics.{name}")
    if split == "out_of_fold":
        return said("metrics.out_of_fold", name=word)
    return said("metrics.on", name=word, split=split)


def metric_text(key: str, value: float | None) -> str:
    """A metric's value as it is written: shares as per cent, losses in nats."""
    if value is None:
        return "–"
    return f"{value:.4f}" if key.endswith("loss") else f"{value:.1%}"


def points_words(share: float) -> Said:
    """A share of the photos in points."""
    points = 100 * share
    return said("value.point" if f"{points:g}" == "1" else "value.points", points=points)


class Words:
    """One language's catalogue.

    Args:
        lang: `en` or `zh`.

    Raises:
        SettingError: there is no such language.
    """

    def __init__(self, lang: Lang) -> None:
        if lang not in LANGUAGES:
            raise SettingError(f"`lang` must be one of {', '.join(LANGUAGES)}, got {lang!r}.")
        self.lang = lang
        self.templates = catalogue(lang)

    def __call__(self, what: Said | str, /, **values: Any) -> str:
        """The sentence, its names kept from turning the rest around; not escaped for HTML.

        Raises:
            SettingError: the catalogue lacks the key, or the values a placeholder.
        """
        key, given = (what, values) if isinstance(what, str) else (what.key, what.values)
        try:
            return self.templates[key].format(**{k: self._plain(v) for k, v in given.items()})
        except KeyError as missing:
            raise SettingError(f"`{key}` in `{self.lang}` has no {missing}.") from None

    def word(self, value: Said | str | tuple[Said | str, ...]) -> str:
        """A sentence in words, a name as it is, several one after the other."""
        return str(self._plain(value))

    def axis(self, name: str) -> str:
        """A study's axis in words, see `axis_words`."""
        return self.word(axis_words(name))

    def metric(self, key: str) -> str:
        """A metric in words, see `metric_words`."""
        return self.word(metric_words(key))

    def term(self, value: Any) -> Any:
        """A word that stands for a number, such as `low`, in this language; all else as it is."""
        return self.templates.get(f"terms.{value}", value) if isinstance(value, str) else value

    def has(self, key: str) -> bool:
        """Whether there is a sentence of that key."""
        return key in self.templates

    def _plain(self, value: Any) -> Any:
        if isinstance(value, Said):
            return self(value)
        if isinstance(value, tuple):
            return self.join(value)
        return isolated(value) if isinstance(value, str) else value

    def join(self, values: tuple[Any, ...]) -> str:
        """Values one after the other, with the language's comma."""
        return self.templates["list.comma"].join(str(self._plain(value)) for value in values)


def recognised(text: str, kind: str) -> Said | str:
    """A sentence that was written down in English, to be said in any language.

    Args:
        text: As written down.
        kind: Of the catalogue's sentences, as `notes`.

    Returns:
        the text itself where it is none of these, as what an older Fieldmark wrote.
    """
    for key, pattern in _patterns(kind).items():
        if found := pattern.fullmatch(text):
            return Said(key, {name: _listed(value) for name, value in found.groupdict().items()})
    return text


def _listed(names: str) -> Said | str:
    """Names, of which only the first may be told."""
    if found := re.fullmatch(r"(?s)(.*)[,;] and (\d+) more", names):
        return said("list.more", names=found[1], count=int(found[2]))
    return names


@cache
def _patterns(kind: str) -> Mapping[str, re.Pattern[str]]:
    """From key to what its English sentence looks like, filled with anything."""
    return {
        key: re.compile(
            "".join(
                re.escape(plain) + (f"(?P<{name}>.*)" if name else "")
                for plain, name, _, _ in Formatter().parse(template)
            ),
            re.DOTALL,
        )
        for key, template in catalogue("en").items()
        if key.startswith(f"{kind}.")
    }


def english(*told: Said | str) -> str:
    """Sentences or names in English, one after the other."""
    return Words("en").join(told)


def isolated(text: str) -> str:
    """The text; where it runs from right to left, inside marks that keep this to itself."""
    turns = any(unicodedata.bidirectional(letter) in _RIGHT_TO_LEFT for letter in text)
    return f"{_ISOLATE}{text}{_END}" if turns else text


@cache
def catalogue(lang: Lang) -> Mapping[str, str]:
    """A language's templates for `str.format`, by dotted key."""
    file = resources.files("fieldmark") / "report" / "words" / f"{lang}.yaml"
    content = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    return dict(_flat(content))


def _flat(content: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in content.items():
        path = f"{before}{key}"
        found += _flat(value, f"{path}.") if isinstance(value, Mapping) else [(path, str(value))]
    return found

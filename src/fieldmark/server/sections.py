"""What the live page shows besides the report: what is under way, a comparison of two."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fieldmark.language import Said
from fieldmark.report.page import Figure
from fieldmark.studies.catalog import RunSummary, StudySummary
from fieldmark.studies.compare import ClassChange


@dataclass(frozen=True)
class FailedSlot:
    """A run of a study that failed, and may be run again."""

    cell: str
    seed: int
    settings: tuple[Said, ...]
    reason: str


@dataclass(frozen=True)
class Now:
    """What is under way in a place, and how far it is."""

    id: ClassVar[str] = "now"
    study: StudySummary | None
    runs: Sequence[RunSummary]
    failed: Sequence[FailedSlot] = ()


@dataclass(frozen=True)
class Choice:
    """Something that can be compared.

    Attributes:
        place: As the address of the comparison has it.
        name: As shown: settings, one after the other.
    """

    place: str
    name: tuple[Said, ...]


@dataclass(frozen=True)
class Choices:
    """Two of these can be compared."""

    id: ClassVar[str] = "choices"
    all: Sequence[Choice]


@dataclass(frozen=True)
class Comparison:
    """What is different between two, and whether that is real.

    Attributes:
        split: Whose photos they were judged by.
        names: Of both.
        top1: Of both.
        verdict: In a sentence.
        figures: The difference.
        curves: Of a run of each; its trainings' first where it has several.
        classes: Those that changed most.
    """

    id: ClassVar[str] = "comparison"
    split: str
    names: tuple[str, str]
    top1: tuple[float, float]
    verdict: Said
    figures: Sequence[Figure]
    curves: Sequence[Sequence[Figure]]
    classes: Sequence[ClassChange]


@dataclass(frozen=True)
class Naming:
    """A photo can be given, and is named."""

    id: ClassVar[str] = "naming"
    most_megabytes: int


LiveSection = Now | Choices | Comparison | Naming

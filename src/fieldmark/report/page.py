"""What a page holds: plain data, no language and no HTML.

A page is a head and sections in the order they are read. Each section is a dataclass with a
template of its own, `templates/sections/<id>.html`; one that has nothing to show is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from fieldmark.diagnosis.finding import Finding
from fieldmark.language import Said
from fieldmark.studies.catalog import RunSummary, StudySummary

Kind = Literal["study", "run", "folder", "rehearsal", "comparison", "photo"]
State = Literal["waiting", "running", "finished", "failed", "pruned"]


@dataclass(frozen=True)
class Figure:
    """A chart before it is drawn.

    Attributes:
        id: Unique in the page.
        data: One of the data classes of `fieldmark.charts`, which `charts.draw` can draw.
        told: What is to be seen in it, in a sentence: its caption, also for who can't see it.
    """

    id: str
    data: Any
    told: Said


@dataclass(frozen=True)
class Fact:
    """A label and its value."""

    label: Said
    value: Said | str


@dataclass(frozen=True)
class Advice:
    """What to do next, and which check says so.

    Attributes:
        finding: Whose advice it is.
        command: To be copied into a terminal; None: it is no matter of a setting.
        seconds: What that will take; None: not known.
    """

    finding: Finding
    command: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Next:
    """The advice, most worth first."""

    id: ClassVar[str] = "next"
    advice: Sequence[Advice]


@dataclass(frozen=True)
class CellRow:
    """One cell of a study.

    Attributes:
        name: The cell's hash.
        settings: As shown, in the order of the table's axes.
        value: The objective's mean; None before the first result.
        low, high: Its 95 % interval over photos.
        spread: Standard deviation over seeds.
        seeds: How many finished.
        state: Of the one furthest from its end.
        seconds: Of all seeds.
        reason: Why some failed.
        curve: A few values of the objective on the way, for a sparkline.
        run: Folder of a run to look at, below the page's own.
        best: Whether no other is better.
    """

    name: str
    settings: Sequence[str]
    value: float | None
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    seeds: int = 0
    state: State = "waiting"
    seconds: float = 0.0
    reason: str | None = None
    curve: Sequence[float] = ()
    run: str | None = None
    best: bool = False


@dataclass(frozen=True)
class Grid:
    """A study's cells as a table, and what a picture of them shows."""

    id: ClassVar[str] = "grid"
    axes: Sequence[str]
    metric: str
    rows: Sequence[CellRow]
    figures: Sequence[Figure] = ()


@dataclass(frozen=True)
class Effects:
    """What each axis does, with verdicts."""

    id: ClassVar[str] = "effects"
    sentences: Sequence[tuple[str, Said]]
    """Each with the answer it gives: `real`, `noise`, `cannot tell`."""
    figures: Sequence[Figure] = ()


@dataclass(frozen=True)
class Studies:
    """The studies of a folder."""

    id: ClassVar[str] = "studies"
    rows: Sequence[StudySummary]


@dataclass(frozen=True)
class Runs:
    """The runs of a folder that belong to no study, newest first, and the place of the best."""

    id: ClassVar[str] = "runs"
    rows: Sequence[RunSummary]
    best: str | None = None


@dataclass(frozen=True)
class Curves:
    """How the training went."""

    id: ClassVar[str] = "curves"
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Findings:
    """What the checks say: those that fire, with evidence; the others, with why not."""

    id: ClassVar[str] = "findings"
    fired: Sequence[Finding]
    quiet: Sequence[Finding] = ()
    unknown: Sequence[Finding] = ()


@dataclass(frozen=True)
class Thumbnail:
    """A photo as the model sees it, small.

    Attributes:
        name: Its path below the data's folder.
        truth: Its class.
        guess: The class it was named.
        confidence: Probability of the guess.
        jpeg: None where the photo is not where it was.
        looked: Transparent PNG to be laid over it: where the model looked; None: not recorded.
    """

    name: str
    truth: str
    guess: str
    confidence: float
    jpeg: bytes | None = None
    looked: bytes | None = None

    @property
    def file(self) -> str:
        """Its name without the folders, which mostly say the class again."""
        return self.name.rpartition("/")[2] or self.name


@dataclass(frozen=True)
class LookAlike:
    """Two classes that are taken for each other, and photos of both.

    Attributes:
        a, b: The classes.
        a_as_b, b_as_a: How many photos of one were named the other.
        count_a, count_b: How many photos there are.
        mistaken: Some of those photos.
        right: Photos of a, and of b, that were named rightly.
    """

    a: str
    b: str
    a_as_b: int
    b_as_a: int
    count_a: int
    count_b: int
    mistaken: Sequence[Thumbnail]
    right: tuple[Thumbnail | None, Thumbnail | None]


@dataclass(frozen=True)
class LookAlikes:
    """Which classes are confused."""

    id: ClassVar[str] = "lookalikes"
    pairs: Sequence[LookAlike]
    figures: Sequence[Figure] = ()


@dataclass(frozen=True)
class Mistakes:
    """The worst mistakes: wrong, and sure of it."""

    id: ClassVar[str] = "mistakes"
    photos: Sequence[Thumbnail]


@dataclass(frozen=True)
class Labels:
    """The photos whose labels are likely wrong, most sure first, and how many there are in all."""

    id: ClassVar[str] = "labels"
    photos: Sequence[Thumbnail]
    count: int


@dataclass(frozen=True)
class Uncertain:
    """The photos whose likeliest two classes lie closest together."""

    id: ClassVar[str] = "uncertain"
    photos: Sequence[Thumbnail]


@dataclass(frozen=True)
class Tried:
    """What came of an experiment before training.

    Attributes:
        told: In a sentence.
        is_well: Whether it is as it should be.
        check: Name of the finding that says more.
    """

    told: Said
    is_well: bool
    check: str | None = None


@dataclass(frozen=True)
class Rehearsed:
    """What was tried on a model that nothing kept, before training."""

    id: ClassVar[str] = "rehearsed"
    tried: Sequence[Tried]
    facts: Sequence[Fact]
    figures: Sequence[Figure]


@dataclass(frozen=True)
class PhotoCheck:
    """What was found when the photos were checked, before training."""

    id: ClassVar[str] = "photos"
    facts: Sequence[Fact]
    notes: Sequence[Said | str]
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class Cost:
    """What it took."""

    id: ClassVar[str] = "cost"
    facts: Sequence[Fact]
    figures: Sequence[Figure] = ()


@dataclass(frozen=True)
class Origin:
    """All that is needed to make it again."""

    id: ClassVar[str] = "origin"
    command: str
    facts: Sequence[Fact]
    files: Mapping[str, str]
    """Name of a file to its text: recipes, the study."""


@dataclass(frozen=True)
class Expected:
    """What the user expected, against what came."""

    id: ClassVar[str] = "expected"
    sentences: Sequence[Said]


Section = (
    Next
    | Grid
    | Effects
    | Studies
    | Runs
    | Curves
    | Findings
    | LookAlikes
    | Mistakes
    | Labels
    | Uncertain
    | Rehearsed
    | PhotoCheck
    | Cost
    | Origin
    | Expected
)


class Part(Protocol):
    """A section of any page, the live ones among them."""

    id: ClassVar[str]


@dataclass(frozen=True)
class Page:
    """A study, a run or a folder, ready to be rendered.

    Attributes:
        kind: What it is of.
        name: Of the study, run or folder.
        title: The question a study asks, else the name.
        answer: The answer in one sentence, and what may be added to it.
        state: How far it is.
        progress: Runs that came to an end, and all; (1, 1) of a finished run.
        facts: A few, for the head of the page.
        sections: In the order they are read.
        made: When, in seconds since the epoch.
    """

    kind: Kind
    name: str
    title: str
    answer: Sequence[Said]
    state: State
    progress: tuple[int, int]
    facts: Sequence[Fact]
    sections: Sequence[Part]
    made: float = field(default=0.0)

"""What a check is, and what it finds: fires, does not, or cannot tell; never a guess.

A check's texts are templates over the numbers it used, so that a page can say the same finding in
another language from templates with the same placeholders, and nothing is said that was not seen.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Generic, Literal, TypeVar

from fieldmark.language import Said, Words, metric_words, said, setting_words, settings_words
from fieldmark.studies.mislabelled import Suspect
from fieldmark.studies.trial import OUT_OF_FOLD

Outcome = Literal["fires", "does not", "cannot tell"]
Severity = Literal["problem", "warning", "note"]
Number = float | int | str
Worded = Said | str | tuple[Said | str, ...]
Evidence = TypeVar("Evidence")

SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "not_recorded": "the record has no `{key}`",
        "too_few": "it takes {needed} records of `{key}`, there are {found}",
        "too_few_photos": "it takes {needed} photos in {split}, there are {found}",
        "one_stage": "it takes two stages, there is {found}",
        "no_backbone_trained": "no stage trains the backbone",
        "not_rehearsed": "it was not tried beforehand: `fieldmark rehearse {recipe}` does",
        "rehearsal_broke": "its training broke off when it was rehearsed: {why}",
        "no_such_axis": "no axis of the study varies {what}",
        "too_few_cells": "it takes {needed} finished cells, there are {found}",
        "ended_early": "the run was ended early: {why}",
        "takes_no_steps": "stage {stage} finds its minimum and takes no steps",
        "one_step": "nothing was trained for long enough; steps: {found}",
        "not_finite": "`{key}` is not finite at step {step}, which is told elsewhere",
    }
)
"""Why a check cannot tell; templates too, over the finding's numbers."""


@dataclass(frozen=True)
class Place:
    """Where in a run's curves something is seen.

    Attributes:
        stage: Name of the training stage; None: in more than one.
        first_step: Where it begins, in steps of the whole training.
        last_step: Where it ends, included.
        key: The metric it is seen in, as `val/top1`.
    """

    stage: str | None
    first_step: int
    last_step: int
    key: str


AMONG: Mapping[str, str] = MappingProxyType(
    {
        "title": "{label} in {runs} of {of_runs} runs: {where}. One of them, {example}, "
        "seed {seed}: {title}",
        "all": "all {of_cells} cells",
        "best": "{cells} of {of_cells} cells{settings}, the best among them",
        "others": "{cells} of {of_cells} cells{settings}, the best not among them",
        "settings": " ({settings})",
        "advice": "Nothing to mend: these settings were not chosen. The next study can do without.",
    }
)
"""What is put before a run's finding where a study's runs share it; over `Among.numbers`."""


@dataclass(frozen=True)
class Among:
    """In which runs of a study a finding is.

    Attributes:
        cells: In how many cells most runs have it.
        of_cells: Of so many cells that have a run to look at.
        runs: How many runs of those cells have it.
        of_runs: Of so many runs of the study.
        common: What these cells have in common: axes, and their settings as `10, 30`.
        in_best: Whether the best cell is one of them.
        cell: Hash of the cell whose run's finding is told.
        example: The settings of that run.
        seed: Its seed.
    """

    cells: int
    of_cells: int
    runs: int
    of_runs: int
    common: Mapping[str, str]
    in_best: bool
    cell: str
    example: Mapping[str, object]
    seed: int

    @property
    def settings(self) -> str:
        """What these cells have in common in one line, for programs; empty where nothing."""
        return "; ".join(f"{axis} {values}" for axis, values in self.common.items())

    @property
    def is_elsewhere(self) -> bool:
        """Whether it leaves the answer alone: not in the best cell, nor in most of them."""
        return not self.in_best and 2 * self.cells <= self.of_cells

    @property
    def where(self) -> str:
        """Which of the templates says where."""
        return "all" if self.cells == self.of_cells else "best" if self.in_best else "others"

    def says(self, title: str, label: str, say: Words, templates: Mapping[str, str]) -> str:
        """A run's title, and where in the study that is.

        Args:
            title: The run's.
            label: What the check looks for.
            say: The reader's language.
            templates: Those of `AMONG` in it.
        """
        parts = [say(setting_words(axis, values)) for axis, values in self.common.items()]
        common = templates["settings"].format(settings=say("list.semicolon").join(parts))
        counts = {"cells": self.cells, "of_cells": self.of_cells}
        where = templates[self.where].format(**counts, settings=common if parts else "")
        return templates["title"].format(
            runs=self.runs,
            of_runs=self.of_runs,
            example=say.join(settings_words(self.example)),
            seed=self.seed,
            label=label,
            where=where,
            title=title,
        )


@dataclass(frozen=True)
class Finding:
    """What came of one check, ready to print in English.

    Attributes:
        check: The check's stable name, as `overfitting`.
        rule: Its number in docs/diagnosis.md, as `R9`.
        outcome: Whether it fires.
        severity: How bad it is where it fires: a `problem` makes the run's numbers worse or
            wrong, a `warning` may, a `note` is good to know.
        numbers: What the outcome rests on; all placeholders of its texts are among them or `words`.
        words: Of those numbers that are names or sentences, what the texts say in their place; and
            what is said only at times.
        place: Where it is seen, in a curve.
        title: One sentence with the numbers where it fires, else the check's label.
        cause: What is likely behind it; empty unless it fires, as are the two that follow.
        advice: What to do next.
        refuted_by: Which result would show that the finding is wrong.
        why_not: Why it does not fire, or cannot tell.
        reason: Key in `REASONS` where it cannot tell.
        terms: Words of docs/vocabulary.md that its texts use.
        among: In which of a study's runs it is; None of a run's own, or of a study as a whole.
        suspects: The photos it is about, most sure first, where it is about labels.
    """

    check: str
    rule: str
    outcome: Outcome
    severity: Severity
    numbers: Mapping[str, Number]
    place: Place | None
    title: str
    cause: str
    advice: str
    refuted_by: str
    why_not: str = ""
    reason: str = ""
    terms: tuple[str, ...] = ()
    among: Among | None = None
    words: Mapping[str, Worded] = field(default_factory=dict)
    suspects: tuple[Suspect, ...] = ()

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is about settings of a study that were not chosen."""
        return self.among is not None and self.among.is_elsewhere


@dataclass(frozen=True)
class Seen:
    """What a check saw; make it with `fires`, `clear` or `unknown`."""

    outcome: Outcome
    numbers: Mapping[str, Number] = field(default_factory=dict)
    place: Place | None = None
    reason: str = ""
    words: Mapping[str, Worded] = field(default_factory=dict)
    suspects: tuple[Suspect, ...] = ()

    def in_words(self, **words: Worded) -> "Seen":
        """With what the texts say in place of some numbers, in the reader's language."""
        return replace(self, words=words)


def fires(place: Place | None = None, /, **numbers: Number) -> Seen:
    """The trouble is there."""
    return Seen("fires", numbers, place)


def clear(**numbers: Number) -> Seen:
    """The trouble is not there, as far as these numbers can tell."""
    return Seen("does not", numbers)


def unknown(reason: str, **numbers: Number) -> Seen:
    """The record does not suffice; `reason` is a key of `REASONS`."""
    return Seen("cannot tell", numbers, reason=reason)


@dataclass(frozen=True)
class Texts:
    """What a check says: `str.format` templates over its numbers.

    Attributes:
        label: What it looks for, in a few words; no placeholders.
        title, cause, advice, refuted_by: As of `Finding`, where it fires.
        otherwise: What was seen instead, where it does not.
    """

    label: str
    title: str
    cause: str
    advice: str
    refuted_by: str
    otherwise: str


@dataclass(frozen=True)
class Check(Generic[Evidence]):
    """Something that can be wrong, how it is seen, and what is said then.

    Attributes:
        name: Stable, in snake case.
        rule: Number in docs/diagnosis.md.
        severity: How bad it is where it fires.
        texts: What it says.
        look: From the evidence to what is seen.
        terms: Words of docs/vocabulary.md.
    """

    name: str
    rule: str
    severity: Severity
    texts: Texts
    look: Callable[[Evidence], Seen]
    terms: tuple[str, ...] = ()

    def __call__(self, evidence: Evidence) -> Finding:
        """Look, and say what was seen."""
        seen = self.look(evidence)
        there, texts = seen.outcome == "fires", self.texts

        words = {**_words_of(seen.numbers), **seen.words}
        english = {name: Words("en").word(each) for name, each in words.items()}

        def say(template: str) -> str:
            return template.format(**{**seen.numbers, **english})

        why_not = {"fires": "", "does not": texts.otherwise}.get(seen.outcome)
        return Finding(
            check=self.name,
            rule=self.rule,
            outcome=seen.outcome,
            severity=self.severity,
            numbers=dict(seen.numbers),
            place=seen.place,
            title=say(texts.title) if there else texts.label,
            cause=say(texts.cause) if there else "",
            advice=say(texts.advice) if there else "",
            refuted_by=say(texts.refuted_by) if there else "",
            why_not=say(REASONS[seen.reason] if why_not is None else why_not),
            reason=seen.reason,
            terms=self.terms,
            words=words,
            suspects=seen.suspects,
        )


def _words_of(numbers: Mapping[str, Number]) -> dict[str, Worded]:
    """What a reader calls the photos and the metric of a run that was judged by folds."""
    words: dict[str, Worded] = {}
    if numbers.get("split") == OUT_OF_FOLD:
        words["split"] = said(f"split.{OUT_OF_FOLD}")
    if str(numbers.get("key")).startswith(f"{OUT_OF_FOLD}/"):
        words["key"] = metric_words(str(numbers["key"]))
    return words


def check(
    name: str, rule: str, severity: Severity, *terms: str, **texts: str
) -> Callable[[Callable[[Evidence], Seen]], Check[Evidence]]:
    """Make a check of the function below; `texts` are those of `Texts`."""

    def made(look: Callable[[Evidence], Seen]) -> Check[Evidence]:
        return Check(name, rule, severity, Texts(**texts), look, terms)

    return made

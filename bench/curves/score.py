"""How often planted faults are named, and how often healthy runs are called ill."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from curves.bank import Labelled
from curves.faults import BATCH_ALONE, BATCH_CHECKS, FAULTS
from curves.published import NAMES, SETS, firing
from fieldmark.diagnosis.diagnose import RUN_CHECKS, STUDY_CHECKS, diagnose_run, diagnose_study
from fieldmark.diagnosis.finding import Check
from fieldmark.metrics import wilson_interval
from fieldmark.studies.run import Run
from fieldmark.studies.study import Study

LEAST_NAMED, MOST_FALSE = 0.90, 0.05
NAMED_BY = {fault.name: fault.checks for fault in FAULTS} | {BATCH_ALONE: BATCH_CHECKS}
COUNTS = ("problem", "warning")  # severities at which a fault is named


@dataclass(frozen=True)
class Judged:
    """A run or study of the bank, and what was said of it.

    Attributes:
        known: what it is.
        found: check -> severity, of those that fire.
        others: name of a published set -> names of its rules that fire.
    """

    known: Labelled
    found: dict[str, str]
    others: dict[str, set[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, known: Labelled, bank: Path) -> Self:
        """Look at it."""
        folder = bank / known.folder
        if known.is_study:
            findings, others = diagnose_study(Study(folder)), {name: set() for name in SETS}
        else:
            run = Run(folder)
            findings = diagnose_run(run)
            others = {name: firing(rules, run) for name, rules in SETS.items()}
        found = {one.check: one.severity for one in findings if one.outcome == "fires"}
        return cls(known, dict(found), others)

    @property
    def is_named(self) -> bool:
        """Whether a check that names its fault fires, as a warning at least."""
        return any(self.found.get(check) in COUNTS for check in NAMED_BY[self.known.fault or ""])

    def is_named_by(self, published: str) -> bool:
        return bool(self.others[published] & set(NAMES.get(self.known.fault or "", ())))

    @property
    def problems(self) -> list[str]:
        return [check for check, severity in self.found.items() if severity == "problem"]


@dataclass(frozen=True)
class Rate:
    """So many of so many, with Wilson's 95 % interval."""

    hits: int
    count: int

    @classmethod
    def of(cls, hits: Sequence[bool]) -> Self:
        return cls(sum(hits), len(hits))

    @property
    def share(self) -> float:
        return self.hits / max(1, self.count)

    def __str__(self) -> str:
        if not self.count:
            return "-"
        low, high = wilson_interval(self.share, self.count)
        return f"{self.hits}/{self.count} {self.share:4.0%} ({low:.0%}-{high:.0%})"


def missed(named: Rate, false: Rate, healthy: str) -> list[str]:
    """Targets that are missed; `healthy` says what was to raise no alarm."""
    found = []
    if named.share < LEAST_NAMED:
        found.append(f"{named.share:.1%} of faults named, not {LEAST_NAMED:.0%}")
    if false.share > MOST_FALSE:
        found.append(f"{false.share:.1%} of healthy {healthy} alarmed, not {MOST_FALSE:.0%}")
    return found


def counts(
    check: str, own: Sequence[Mapping[str, str]], calm: Sequence[Mapping[str, str]]
) -> dict[str, int]:
    """How often a check fired on faults that it names, and on the healthy; each what was found."""
    return {
        "faults": len(own),
        "named": sum(check in found for found in own),
        "healthy": len(calm),
        "alarms": sum(check in found for found in calm),
    }


@dataclass(frozen=True)
class Score:
    """What the checks are worth on a part of the bank."""

    judged: Sequence[Judged]

    def faulty(self, fault: str | None = None) -> list[Judged]:
        found = [one for one in self.judged if one.known.fault]
        return [one for one in found if fault in (None, one.known.fault)]

    @property
    def healthy(self) -> list[Judged]:
        """Runs; studies are told of apart."""
        return [o for o in self.judged if o.known.kind == "healthy" and not o.known.is_study]

    @property
    def named(self) -> Rate:
        return Rate.of([one.is_named for one in self.faulty()])

    @property
    def false(self) -> Rate:
        return Rate.of([bool(one.problems) for one in self.healthy])

    @property
    def missed(self) -> list[str]:
        """Targets that are missed."""
        return missed(self.named, self.false, "runs")

    def by_fault(self) -> list[str]:
        """A line each: how often it is named by Fieldmark, UMLAUT and AutoTrainer."""
        lines = [f"{'fault':24} {'took':>7} {'named':>22} {'UMLAUT':>22} {'AutoTrainer':>22}"]
        for fault in (*NAMED_BY, None):
            ones = self.faulty(fault)
            took = [one.known.took for one in ones if one.known.took is not None]
            rates = [Rate.of([one.is_named for one in ones])]
            rates += [Rate.of([one.is_named_by(name) for one in ones]) for name in SETS]
            told = f"{sum(took)}/{len(took)}" if took else "-"
            lines.append(f"{fault or 'all':24} {told:>7} " + " ".join(f"{r!s:>22}" for r in rates))
        return lines

    def of_healthy(self) -> list[str]:
        """How many healthy runs and studies are called ill."""
        runs = self.healthy
        studies = [o for o in self.judged if o.known.kind == "healthy" and o.known.is_study]
        warned = Rate.of([any(s in COUNTS for s in one.found.values()) for one in runs])
        rates = {
            "healthy runs with a problem": self.false,
            "healthy runs with a warning or a problem": warned,
            **{f"healthy runs, {n}": Rate.of([bool(o.others[n]) for o in runs]) for n in SETS},
            "healthy studies with a problem": Rate.of([bool(one.problems) for one in studies]),
        }
        return [f"{name:42} {rate!s:>22}" for name, rate in rates.items()]

    def by_check(self) -> dict[str, dict[str, int | str]]:
        """Of each check: fired on so many of the faults that it names, and of the healthy."""
        found: dict[str, dict[str, int | str]] = {}
        checks: list[Check[Any]] = [*RUN_CHECKS, *STUDY_CHECKS]
        for check in checks:
            own = [o.found for o in self.faulty() if check.name in NAMED_BY[o.known.fault or ""]]
            is_study = check in STUDY_CHECKS
            calm = [o for o in self.judged if o.known.kind == "healthy"]
            found[check.name] = {
                "rule": check.rule,
                "severity": check.severity,
                **counts(check.name, own, [o.found for o in calm if o.known.is_study == is_study]),
            }
        return found

"""What `fieldmark rehearse` is worth: on healthy recipes, and on ones with planted faults.

The recipes are like those of `bench/diagnosis.py`'s bank, with `train: head` as in the recipes that
ship. Each setting is trained on a grid of rates and decays first, which says what is healthy; then
each recipe is rehearsed as a user would, in seconds. Checks are tuned on one half; the other is
opened once, at the end: each opening is to be logged in docs/LOG.md.

    python bench/rehearsal.py
    python bench/rehearsal.py --settings 4 --show
    python bench/rehearsal.py --split held-back --first 10 --settings 10 --json
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from curves.bank import SETTINGS
from curves.page import fill
from curves.rehearsals import FAULTS, Rehearsed, record_of, rehearsals
from curves.score import COUNTS, LEAST_NAMED, MOST_FALSE, Rate, counts, missed
from curves.settings import SPLITS, Setting, Split
from diagnosis import bank_folder
from fieldmark.diagnosis.before_training import CHECKS
from fieldmark.diagnosis.evidence import gather
from fieldmark.diagnosis.schedule import no_band_of_rates
from fieldmark.recipe import load_recipe
from fieldmark.studies.run import RECIPE, Run

REHEARSED = (*(check for check in CHECKS if check.name != "loss_at_start"), no_band_of_rates)
NAMED_BY = {fault.name: fault.checks for fault in FAULTS}
BEYOND = {fault.name for fault in FAULTS if fault.beyond}


@dataclass(frozen=True)
class Judged:
    """A rehearsal, and what fires: check -> severity."""

    known: Rehearsed
    found: dict[str, str]

    @classmethod
    def of(cls, known: Rehearsed, bank: Path) -> Self:
        recipe = load_recipe(bank / known.folder / RECIPE)  # a rehearsal has no run; any will do
        evidence = gather(Run(bank / known.run), bank / known.folder, recipe)
        findings = [check(evidence) for check in REHEARSED]
        return cls(known, {f.check: f.severity for f in findings if f.outcome == "fires"})

    @property
    def is_named(self) -> bool:
        """Whether a check that names its fault fires, as a warning at least."""
        return any(self.found.get(check) in COUNTS for check in NAMED_BY[self.known.fault or ""])


@dataclass(frozen=True)
class Score:
    """What rehearsals are worth on a part of the bank."""

    judged: Sequence[Judged]

    @property
    def healthy(self) -> list[Judged]:
        return [one for one in self.judged if one.known.fault is None]

    def faulty(self, *names: str) -> list[Judged]:
        """Those with such a fault; with any that rehearsals are made for, where none is named."""
        wanted = set(names) or NAMED_BY.keys() - BEYOND
        return [one for one in self.judged if one.known.fault in wanted]

    @property
    def named(self) -> Rate:
        return Rate.of([one.is_named for one in self.faulty()])

    @property
    def false(self) -> Rate:
        return Rate.of(["problem" in one.found.values() for one in self.healthy])

    @property
    def missed(self) -> list[str]:
        return missed(self.named, self.false, "recipes")

    def by_check(self) -> dict[str, dict[str, int]]:
        """Of each check: fired on so many of the faults that it names, and of the healthy."""
        found = {}
        for name in (check.name for check in REHEARSED):
            own = [one.found for one in self.faulty() if name in NAMED_BY[one.known.fault or ""]]
            found[name] = counts(name, own, [one.found for one in self.healthy])
        return found

    def lines(self) -> list[str]:
        """A row for each fault, by check, and one of the healthy."""
        names = [check.name for check in REHEARSED]
        lines = [f"{'fault':24} {'named':>22} " + " ".join(f"{name:>23}" for name in names)]
        rows = {fault: self.faulty(fault) for fault in NAMED_BY}
        rows |= {"those it is made for": self.faulty(), "healthy": self.healthy}
        for fault, ones in rows.items():
            told = self.false if fault == "healthy" else Rate.of([one.is_named for one in ones])
            by = [Rate.of([name in one.found for one in ones]) for name in names]
            lines.append(f"{fault:24} {told!s:>22} " + " ".join(f"{rate!s:>23}" for rate in by))
        return lines


def judge(bank: Path, split: Split, numbers: range) -> Score:
    started, judged = time.perf_counter(), []
    for number in numbers:
        setting = Setting(split, number, bank, as_shipped=True)
        judged += [Judged.of(one, bank) for one in rehearsals(setting)]
        seconds = time.perf_counter() - started
        print(f"{setting.name}: {len(judged)} so far, {seconds:.0f} s", file=sys.stderr)
    return Score(judged)


def show(score: Score, bank: Path) -> None:
    """What was found of each miss and each false alarm."""
    for one in score.judged:
        if one.known.fault and one.is_named:
            continue
        if one.known.fault or one.found:
            record = record_of(one.known, bank)
            told = {name: record[name] for name in ("overfit", "blank")}
            bands = {stage: test["reason"] for stage, test in record["range"].items()}
            print(f"{one.known.folder}: {one.found} {told} {bands}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=Path, default=bank_folder(), help="where runs are kept")
    parser.add_argument("--split", choices=SPLITS, default="tune")
    parser.add_argument("--first", type=int, default=0, help="number of the first setting")
    parser.add_argument("--settings", type=int, help=f"how many; else all to number {SETTINGS - 1}")
    parser.add_argument("--show", action="store_true", help="name each miss and each false alarm")
    parser.add_argument("--page", type=Path, help="put the rates into docs/diagnosis.md")
    parser.add_argument("--json", action="store_true", help="print one JSON object as well")
    options = parser.parse_args()
    last = options.first + (options.settings or SETTINGS - options.first)
    score = judge(options.bank, options.split, range(options.first, last))
    print("\n".join([f"{options.split}: {len(score.judged)} rehearsals\n", *score.lines()]))
    if options.show:
        show(score, options.bank)
    print("\ntargets:", "missed: " + " · ".join(score.missed) if score.missed else "met")
    if options.page:
        fill(options.page, score.by_check())
    if options.json:
        targets = {"named, at least": LEAST_NAMED, "false, at most": MOST_FALSE}
        found = {"named": score.named.share, "false": score.false.share, "targets": targets}
        of = [score.named.count, score.false.count]
        print(json.dumps(found | {"missed": score.missed, "of": of}))
    return 1 if score.missed else 0


if __name__ == "__main__":
    sys.exit(main())

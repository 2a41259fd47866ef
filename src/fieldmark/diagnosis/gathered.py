"""What is wrong in the runs of a study: each kind of finding once, with the cells it is in.

Thirty-six runs are thirty-six chances for a check to err, and a study is there to try settings that
do not suit. So a finding keeps its weight only where it touches the answer: in the best cell, which
is what will be used, or in more than half of all cells. Elsewhere it is a note, which says what is
bad about those settings. A cell has it where most of its seeds do. So the chance of a false alarm
does not grow with the number of runs: where a check errs on a share p of healthy runs, however they
hang together, at most 2p of the cells have it, and more than half of the cells in at most 4p of the
studies (Markov's inequality, twice).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fieldmark.diagnosis.evidence import RunEvidence
from fieldmark.diagnosis.finding import AMONG, Among, Check, Finding, Severity
from fieldmark.language import Words, setting_text
from fieldmark.studies.answered import settings_of
from fieldmark.studies.design import Cell
from fieldmark.studies.run import Run

MOST = 0.5  # of a cell's runs: more than that is most of them
TOGETHER = 2  # runs, before settings that were not chosen are called bad for a reason
FEW = 4  # settings that are listed one by one


@dataclass(frozen=True)
class Examined:
    """A run of a study, and what fires in it.

    Attributes:
        cell: Whose.
        seed: With which.
        run: Finished or failed.
        found: What fires.
    """

    cell: Cell
    seed: int
    run: Run
    found: Sequence[Finding]

    def of(self, check: str) -> Finding | None:
        """What one check found."""
        return next((finding for finding in self.found if finding.check == check), None)


def gather_findings(
    examined: Sequence[Examined], best: Cell | None, checks: Sequence[Check[RunEvidence]]
) -> list[Finding]:
    """Problems and warnings that most runs of a cell share, each check once.

    Args:
        examined: Every run that came to an end, the cells in the study's order.
        best: The best cell; None before there is one.
        checks: Those that were made, in their order; notes are of no weight here.
    """
    cells: dict[str, list[Examined]] = {}
    for each in examined:
        cells.setdefault(each.cell.hash, []).append(each)
    grave = [check for check in checks if check.severity != "note"]
    found = [_shared(check, cells, best.hash if best else "") for check in grave]
    return [finding for finding in found if finding]


def _shared(
    check: Check[RunEvidence], cells: Mapping[str, Sequence[Examined]], best: str
) -> Finding | None:
    """What a check says of the study; None where no cell's runs agree."""
    hits = {name: [run for run in runs if run.of(check.name)] for name, runs in cells.items()}
    agree = [name for name, found in hits.items() if len(found) > MOST * len(cells[name])]
    runs = sum(len(hits[name]) for name in agree)
    if not agree or (best not in agree and runs < TOGETHER):
        return None
    example = hits[best if best in agree else agree[0]][0]
    finding = example.of(check.name)
    if finding is None:
        return None
    among = Among(
        cells=len(agree),
        of_cells=len(cells),
        runs=runs,
        of_runs=sum(map(len, cells.values())),
        common=_in_common(agree, cells),
        in_best=best in agree,
        cell=example.cell.hash,
        example=settings_of(example.cell),
        seed=example.seed,
    )
    severity: Severity = "note" if among.is_elsewhere else finding.severity
    shown = among.in_best and example is cells[best][0]  # whose curves are looked at
    return replace(
        finding,
        severity=severity,
        title=among.says(finding.title, check.texts.label, Words("en"), AMONG),
        advice=AMONG["advice"] if among.is_elsewhere else finding.advice,
        place=finding.place if shown else None,
        among=among,
    )


def _in_common(agree: Sequence[str], cells: Mapping[str, Sequence[Examined]]) -> Mapping[str, str]:
    """The axes along which some cells have only a part of the settings there are."""
    of = {name: settings_of(runs[0].cell) for name, runs in cells.items()}
    axes = next(iter(of.values()))
    found = {}
    for axis in axes:
        there = dict.fromkeys(settings[axis] for settings in of.values())
        mine = [value for value in there if value in {of[name][axis] for name in agree}]
        if len(mine) < len(there):
            found[axis] = _listed(mine)
    return found


def _listed(values: Sequence[Any]) -> str:
    """Settings one by one; of many numbers, from where to where."""
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(values) > FEW and len(numbers) == len(values):
        return f"{min(numbers):g} to {max(numbers):g}"
    return ", ".join(setting_text(value) for value in values)

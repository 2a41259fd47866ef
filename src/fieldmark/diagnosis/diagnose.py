"""Every check on a run or a study, and what they find, most worth first."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fieldmark.diagnosis import (
    before_training,
    budget,
    comparisons,
    confidence,
    data,
    divergence,
    fit,
    labels,
    schedule,
    search,
    stability,
    stages,
)
from fieldmark.diagnosis.evidence import RunEvidence, gather
from fieldmark.diagnosis.finding import SEVERITIES, Check, Finding
from fieldmark.diagnosis.gathered import Examined, gather_findings
from fieldmark.diagnosis.study_evidence import StudyEvidence
from fieldmark.errors import FieldmarkError
from fieldmark.studies.results import Slot
from fieldmark.studies.run import MANIFEST, Run
from fieldmark.studies.study import Study

# In the order of what it is worth to know: what makes the numbers wrong, then what makes them bad.
RUN_CHECKS: tuple[Check[RunEvidence], ...] = (
    *stages.CHECKS[:2],
    *data.CHECKS,
    *before_training.CHECKS,
    *divergence.CHECKS[:2],
    *stability.CHECKS,
    *stages.CHECKS[2:],
    *schedule.CHECKS,
    divergence.loss_spikes,
    *fit.CHECKS[:3],
    *confidence.CHECKS,
    *fit.CHECKS[3:],
    *budget.CHECKS,
)
STUDY_CHECKS: tuple[Check[StudyEvidence], ...] = (
    search.many_infeasible,
    *labels.CHECKS,
    *comparisons.CHECKS,
    *search.CHECKS[1:],
)


def diagnose_run(run: Run, rehearsal: Path | None = None) -> list[Finding]:
    """What every check says of a run, whatever its outcome; what fires first, the worst first.

    Args:
        run: Finished, failed or still running.
        rehearsal: Where `fieldmark rehearse` wrote what it found; the run's folder unless given.
    """
    evidence = gather(run, rehearsal)
    return ordered(check(evidence) for check in RUN_CHECKS)


def diagnose_study(study: Study) -> list[Finding]:
    """What every check of a study says, whatever its outcome, and what its runs share.

    What fires comes first, the worst first.
    """
    evidence = StudyEvidence(study)
    best = evidence.finished[0][0] if evidence.finished else None
    examined = [
        Examined(slot.cell, slot.seed, run, _grave(run, slot)) for slot, run in _ended(study)
    ]
    shared = gather_findings(examined, best, RUN_CHECKS)
    return ordered([*(check(evidence) for check in STUDY_CHECKS), *shared])


def best_run(study: Study) -> Run | None:
    """The best cell's first run, by which a study is read in full; None before there is one."""
    finished = StudyEvidence(study).finished
    best = finished[0][0].hash if finished else None
    runs = (run for slot, run in _ended(study) if slot.cell.hash == best)
    return next((run for run in runs if run.status == "finished"), None)


def rest_of(run: Run, told: Iterable[Finding]) -> list[Finding]:
    """What every check says of a study's run, without what was told of the whole study."""
    known = {finding.check for finding in told}
    return [finding for finding in diagnose_run(run) if finding.check not in known]


def _ended(study: Study) -> Iterator[tuple[Slot, Run]]:
    """The study's runs that finished or failed and are still there, in its order."""
    for slot in study.slots():
        result = study.records.of(slot)
        if result is None or result.status == "pruned":
            continue
        try:
            run = Run(result.folder)
        except FieldmarkError:
            continue  # it was moved or removed, or failed before it began
        yield slot, run


def _grave(run: Run, slot: Slot) -> tuple[Finding, ...]:
    """Problems and warnings of a run that has ended, for which it is looked at once a process."""
    key = run.folder, (run.folder / MANIFEST).stat().st_mtime_ns
    if key not in _known:
        evidence = gather(run, recipe=slot.recipe)
        checks = (check for check in RUN_CHECKS if check.severity != "note")
        _known[key] = tuple(firing([check(evidence) for check in checks]))
    return _known[key]


_known: dict[tuple[Path, int], tuple[Finding, ...]] = {}


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """What fires first, problems before warnings before notes; else as they came."""
    outcomes = ("fires", "does not", "cannot tell")

    def worth(finding: Finding) -> tuple[int, int]:
        fires = finding.outcome == "fires"
        return outcomes.index(finding.outcome), SEVERITIES.index(finding.severity) if fires else 0

    return sorted(findings, key=worth)


def firing(findings: Sequence[Finding]) -> list[Finding]:
    """Those that fire."""
    return [finding for finding in findings if finding.outcome == "fires"]

"""Every check on a run or a study, and what they find, most worth first."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from fieldmark.diagnosis import (
    before_training,
    budget,
    comparisons,
    confidence,
    data,
    divergence,
    fit,
    schedule,
    search,
    stability,
    stages,
)
from fieldmark.diagnosis.evidence import RunEvidence, gather
from fieldmark.diagnosis.finding import SEVERITIES, Check, Finding
from fieldmark.diagnosis.study_evidence import StudyEvidence
from fieldmark.studies.run import Run
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
    """What every check of a study says, whatever its outcome; what fires first."""
    evidence = StudyEvidence(study)
    return ordered(check(evidence) for check in STUDY_CHECKS)


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

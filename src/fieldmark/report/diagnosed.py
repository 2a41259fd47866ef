"""What the checks say of a run or study, in the order a reader should care."""

from collections.abc import Sequence

from fieldmark.charts.curves import Mark
from fieldmark.diagnosis.finding import SEVERITIES, Finding
from fieldmark.report.page import Advice, Findings
from fieldmark.studies.run import Run
from fieldmark.studies.study import Study


def run_findings(run: Run) -> list[Finding]:
    """Every check's finding on a run."""
    del run
    return []


def study_findings(study: Study) -> list[Finding]:
    """Every check's finding on a study."""
    del study
    return []


def sorted_findings(found: Sequence[Finding]) -> Findings:
    """Those that fire, the gravest first; the others apart."""
    fired = [finding for finding in found if finding.outcome == "fires"]
    return Findings(
        sorted(fired, key=lambda finding: SEVERITIES.index(finding.severity)),
        [finding for finding in found if finding.outcome == "does not"],
        [finding for finding in found if finding.outcome == "cannot tell"],
    )


def marks(findings: Findings) -> list[Mark]:
    """Where in the curves the findings are seen, numbered as they are listed."""
    return [
        Mark(number, finding.place.key, finding.place.last_step, finding.title)
        for number, finding in enumerate(findings.fired, start=1)
        if finding.place
    ]


def advice_of(findings: Findings) -> list[Advice]:
    """What the findings advise, each thing once, most worth first."""
    told = {finding.advice: finding for finding in reversed(findings.fired) if finding.advice}
    return [
        Advice(finding.check, text, finding.numbers, finding.severity)
        for text, finding in reversed(told.items())
    ]

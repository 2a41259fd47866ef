"""What the checks say of a run or study, in the order a reader should care."""

from collections.abc import Sequence

from fieldmark.charts.curves import Mark
from fieldmark.diagnosis.advice import Experiment
from fieldmark.diagnosis.diagnose import ordered
from fieldmark.diagnosis.finding import Finding
from fieldmark.report.page import Advice, Findings


def sorted_findings(found: Sequence[Finding]) -> Findings:
    """Those that fire, the gravest first; the others apart."""
    found = ordered(found)
    return Findings(
        [finding for finding in found if finding.outcome == "fires"],
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


def advice_of(findings: Findings, experiments: Sequence[Experiment]) -> list[Advice]:
    """What the findings advise, each thing once, most worth first, with a command that does it."""
    commands = {experiment.check: experiment for experiment in reversed(experiments)}
    mine = [one for one in findings.fired if one.advice and not one.is_elsewhere]
    told = {finding.advice: finding for finding in reversed(mine)}
    advice = []
    for finding in reversed(told.values()):
        found = commands.get(finding.check)
        command, seconds = (found.command, found.seconds) if found else (None, None)
        advice.append(Advice(finding, command, seconds))
    return advice

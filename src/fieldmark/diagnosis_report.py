"""What was diagnosed, as short sentences for the terminal, and as rows for programs."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from fieldmark.data.corrections import write_relabelled
from fieldmark.diagnosis.advice import Experiment, next_experiments
from fieldmark.diagnosis.diagnose import (
    best_run,
    diagnose_run,
    diagnose_study,
    firing,
    rest_of,
)
from fieldmark.diagnosis.finding import Finding, Severity
from fieldmark.diagnosis.labels import suspects_of
from fieldmark.diagnosis.study_advice import next_experiments_of_study
from fieldmark.errors import SettingError
from fieldmark.studies.compare import compare_stages
from fieldmark.studies.run import MANIFEST, Run
from fieldmark.studies.study import Study
from fieldmark.terminal import Format, listing

COLOURS: dict[Severity, str] = {"problem": "bold red", "warning": "yellow", "note": "cyan"}
MOST_EXPERIMENTS = 3
MOST_PHOTOS = 10  # that are listed; all of them go into the file of corrections
ALL_LISTED = "--corrections FILE, --format json"


def diagnose(
    console: Console,
    folder: Path,
    rehearsal: Path | None,
    how: Format,
    *,
    everything: bool,
    corrections: Path | None = None,
) -> None:
    """Print what is wrong with the run or the study in a folder.

    Args:
        console: Where to.
        folder: Of the run or study.
        rehearsal: Of a run's rehearsal, where it is elsewhere.
        how: For people or for programs.
        everything: Whether to say why the other checks do not fire.
        corrections: A file to be written with the labels that are likely wrong, of a study.

    Raises:
        SettingError: `corrections` is asked for of a run.
    """
    study, best, of_best = None, None, list[Finding]()
    if (folder / MANIFEST).is_file() or not (folder / "journal.jsonl").is_file():
        run = Run(folder)
        if corrections:
            raise SettingError(
                f"--corrections is for a study: `{folder}` is a run, which has no answers on the "
                "photos it was trained on. Name a study, judged by folds."
            )
        findings = diagnose_run(run, rehearsal)
        experiments = next_experiments(run, findings)
    else:
        study = Study.open(folder)
        findings = diagnose_study(study)
        experiments = next_experiments_of_study(study, findings, corrections)
        best = best_run(study)
        of_best = rest_of(best, findings) if best else []
    written, listed = "", ALL_LISTED
    if study and corrections:
        written = write_corrections(study, findings, corrections)
        findings, listed = [_put_down(each) for each in findings], "in the file named below"
    if how != "table":
        findings += of_best
        chosen = findings if everything else firing(findings)
        listing(console, [row_of(finding) for finding in chosen], title="", how=how)
        return
    show(console, findings, experiments, everything=everything, listed=listed)
    if best:
        name = best.folder.relative_to(folder)
        console.print(f"\n[bold]The best cell's first run[/bold], {name}", highlight=False)
        show(console, of_best, [], everything=everything)
    if written:  # last, as what was asked for
        console.print(f"\n{written}", highlight=False, markup=False, soft_wrap=True)


def write_corrections(study: Study, findings: Sequence[Finding], path: Path) -> str:
    """Write a file that puts right the labels found to be likely wrong; says what was done.

    What the study's photos were corrected by so far is in it too, so that it takes its place.

    Raises:
        DataError: the file is there already, or is no `.csv`.
    """
    found = suspects_of(findings)
    if not found:
        return f"No label is shown to be wrong, so `{path}` was not written."
    before = study.cells[0].recipe.data.corrections
    labels = {one.path: one.suggested for one in found}
    write_relabelled(path, labels, Path(before) if before else None)
    kept = f" It keeps what `{before}` corrected." if before else ""
    return (
        f"{path}: {len(found)} labels, most sure first.{kept} Look at the photos and delete the "
        f"rows of labels that are right; then `data.corrections={path}` puts the others right."
    )


def _put_down(finding: Finding) -> Finding:
    """A finding on labels that have been written down: what is left to do."""
    if not finding.suspects:
        return finding
    advice = "Look at the photos that are listed, most sure first; how to go on stands at the end."
    return replace(finding, advice=advice)


def show(
    console: Console,
    findings: Sequence[Finding],
    experiments: Sequence[Experiment],
    *,
    everything: bool,
    listed: str = ALL_LISTED,
) -> None:
    """Print what fires, what to try next, and how much was looked at besides.

    `listed` says where the photos are that find no room.
    """
    found = firing(findings)
    for finding in found:
        _print_finding(console, finding, listed)
    if experiments:
        console.print("[bold]What to try next[/bold]", highlight=False)
    for number, one in enumerate(experiments[:MOST_EXPERIMENTS], start=1):
        cost = "" if one.seconds is None else f"   about {duration(one.seconds)}"
        line = Text.assemble(f"  {number}. ", (one.command, "green"), cost)
        console.print(line, highlight=False, soft_wrap=True)
    _print_rest(console, findings, everything=everything)


def _print_finding(console: Console, finding: Finding, listed: str) -> None:
    head = Text.assemble(
        (finding.severity.capitalize(), COLOURS[finding.severity]), f"  {finding.title}"
    )
    console.print(head, highlight=False)
    parts = (("Cause", finding.cause), ("Try", finding.advice), ("Wrong if", finding.refuted_by))
    for name, text in parts:
        line = Text.assemble((f"{name}: ", "dim"), text)
        console.print(Padding(line, (0, 0, 0, 4)), highlight=False)
    _print_suspects(console, finding, listed)
    words = ", ".join(finding.terms)
    place = finding.place
    if place:
        stage = f"stage {place.stage}, " if place.stage else ""
        words += f". Seen in {stage}{place.key}, steps {place.first_step:,} to {place.last_step:,}"
    tail = f"{finding.check} ({finding.rule}). Words: {words}"
    console.print(Padding(Text(tail, "dim"), (0, 0, 1, 4)), highlight=False)


def _print_suspects(console: Console, finding: Finding, listed: str) -> None:
    for one in finding.suspects[:MOST_PHOTOS]:
        line = Text.assemble(
            f"{one.path}: given ",
            (one.given, "yellow"),
            ", likelier ",
            (one.suggested, "green"),
            f" (label wrong with {one.probability:.1%})",
        )
        console.print(Padding(line, (0, 0, 0, 6)), highlight=False)
    if (more := len(finding.suspects) - MOST_PHOTOS) > 0:
        line = Text(f"and {more} more: {listed}", "dim")
        console.print(Padding(line, (0, 0, 0, 6)), highlight=False)


def _print_rest(console: Console, findings: Sequence[Finding], *, everything: bool) -> None:
    silent = [finding for finding in findings if finding.outcome == "does not"]
    open_ = [finding for finding in findings if finding.outcome == "cannot tell"]
    count = len(findings) - len(silent) - len(open_)
    more = "" if everything else "; --all says why"
    told = f"{count} of {len(findings)} checks fire, {len(silent)} do not, {len(open_)} cannot tell"
    console.print(f"{told}{more}.", highlight=False, soft_wrap=True)
    if not everything:
        return
    for title, part in (("Do not fire", silent), ("Cannot tell", open_)):
        console.print(f"\n[bold]{title}[/bold]", highlight=False)
        for finding in part:
            line = Text.assemble(f"  {finding.title}: ", (f"{finding.why_not}", "dim"))
            console.print(line, highlight=False)


def most_worth(findings: Sequence[Finding], folder: Path) -> str:
    """One sentence or two for the end of a run or a study: the finding most worth knowing."""
    found = firing(findings)
    if not found:
        count = sum(finding.outcome == "does not" for finding in findings)
        return f"Diagnosis: none of the {count} checks that can tell fires."
    first = found[0]
    others = f"{len(found) - 1} more: " if len(found) > 1 else "More: "
    return (
        f"Diagnosis, {first.severity}: {first.title} {first.advice}\n"
        f"{others}fieldmark diagnose {folder}"
    )


def run_diagnosis(run: Run) -> str:
    """What each stage did beyond chance, and the finding most worth knowing about a run."""
    verdicts = [
        verdict.describe(f"stage {before}", f"stage {after}")
        for before, after, verdict in compare_stages(run)
    ]
    return "\n".join([*verdicts, most_worth(diagnose_run(run), run.folder)])


def study_diagnosis(study: Study) -> str:
    """The finding most worth knowing about a study; empty before any of its runs has ended."""
    if not study.results():
        return ""
    return most_worth(diagnose_study(study), study.folder)


def row_of(finding: Finding) -> dict[str, object]:
    """A finding as one flat row."""
    place, among = finding.place, finding.among
    return {
        "check": finding.check,
        "rule": finding.rule,
        "outcome": finding.outcome,
        "severity": finding.severity,
        "title": finding.title,
        "cause": finding.cause,
        "advice": finding.advice,
        "refuted_by": finding.refuted_by,
        "why_not": finding.why_not,
        "cells": among.cells if among else None,
        "runs": among.runs if among else None,
        "settings": among.settings if among else None,
        "stage": place.stage if place else None,
        "first_step": place.first_step if place else None,
        "last_step": place.last_step if place else None,
        "key": place.key if place else None,
        "numbers": json.dumps(dict(finding.numbers), ensure_ascii=False),
        "photos": json.dumps([one._asdict() for one in finding.suspects], ensure_ascii=False),
    }


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

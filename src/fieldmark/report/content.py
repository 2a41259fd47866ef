"""What stands on the page of a study, of a run, of a folder: pure data, no HTML, no language."""

import shlex
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

from fieldmark import durable
from fieldmark.diagnosis.advice import next_experiments
from fieldmark.diagnosis.diagnose import best_run, diagnose_run, diagnose_study, rest_of
from fieldmark.diagnosis.evidence import REHEARSAL, read_rehearsal
from fieldmark.diagnosis.labels import suspects_of
from fieldmark.diagnosis.study_advice import next_experiments_of_study
from fieldmark.errors import RecordError
from fieldmark.language import Said, counted, duration, metric_words, said
from fieldmark.report.cells import (
    CellsOf,
    effects_section,
    expected_section,
    grid_section,
    study_answer,
    study_cost,
)
from fieldmark.report.diagnosed import advice_of, marks, sorted_findings
from fieldmark.report.page import (
    Advice,
    Fact,
    Findings,
    Next,
    Origin,
    Page,
    Rehearsed,
    Runs,
    Section,
    State,
    Studies,
)
from fieldmark.report.rehearsed import rehearsal_page, rehearsed_section
from fieldmark.report.runs import (
    curves_section,
    machine_facts,
    photo_check,
    recipe_of,
    run_answer,
    run_cost,
    run_origin,
    run_photos,
    seconds_of,
)
from fieldmark.report.thumbnails import MayShow
from fieldmark.studies.catalog import Catalog, RunSummary, Seen, StudySummary
from fieldmark.studies.run import MANIFEST, Run
from fieldmark.studies.study import JOURNAL, Study


def page_of(folder: Path) -> Page:
    """The page of whatever is in a folder: a study, a run, a rehearsal, or several of them.

    Raises:
        RecordError: it is none of these, or its records can't be read.
    """
    if (folder / JOURNAL).is_file():
        return study_page(Study.open(folder))
    if (folder / MANIFEST).is_file():
        return run_page(Run(folder))
    if (folder / REHEARSAL).is_file():
        return rehearsal_page(folder)
    return folder_page(folder)


def study_page(study: Study, *, may_show: MayShow | None = None) -> Page:
    """The page of a study, as far as it is; photos are shown where `may_show` allows it."""
    cells = CellsOf(study)
    run = shown_run(study)
    told = diagnose_study(study)
    findings = sorted_findings([*told, *(rest_of(run, told) if run else [])])
    to_try = next_experiments_of_study(study, findings.fired)
    sections: list[Section | None] = [
        _next(advice_of(findings, to_try)),
        grid_section(cells),
        effects_section(cells),
    ]
    if run:
        sections += [
            curves_section(run, marks(findings)),
            *_some(findings),
            *run_photos(run, may_show, suspects_of(findings.fired)),
        ]
        sections.append(photo_check(run))
    sections += [study_cost(cells), _study_origin(study, run), expected_section(cells)]
    plan = study.plan()
    states = [found.status for _, found in cells.summaries]
    facts = [
        Fact(said("fact.cells"), str(plan.cells)),
        Fact(said("fact.runs"), said("value.of", done=plan.done, all=plan.runs)),
        Fact(said("fact.judged_by"), metric_words(study.design.metric)),
    ]
    if failed := sum(found.failed for _, found in cells.summaries):
        facts.insert(2, Fact(said("fact.failed"), f"{failed:,}"))
    if cells.photos:
        facts.append(Fact(said("fact.photos"), f"{cells.photos:,}"))
    seconds = sum(found.seconds for _, found in cells.summaries)
    facts.append(Fact(said("fact.seconds"), duration(seconds)))
    return Page(
        kind="study",
        name=study.design.file.name,
        title=study.design.file.question,
        answer=study_answer(cells),
        state=state_of_all(states, done=plan.is_done),
        progress=(plan.done, plan.runs + plan.later),
        facts=facts,
        sections=_there(sections),
        made=durable.now(),
    )


def run_page(run: Run, *, may_show: MayShow | None = None) -> Page:
    """The page of one run, as far as it is; photos are shown where `may_show` allows it."""
    findings = sorted_findings(diagnose_run(run))
    sections: list[Section | None] = [
        _next(advice_of(findings, next_experiments(run, findings.fired))),
        curves_section(run, marks(findings)),
        *_some(findings),
        *run_photos(run, may_show),
        _rehearsed(run, findings),
        photo_check(run),
        run_cost(run),
        run_origin(run),
    ]
    counts = run.manifest.get("counts", {})
    facts = [Fact(said("fact.classes"), str(len(run.class_names)))]
    facts += [
        Fact(said(f"fact.{split}"), said("counts.photos", count=int(counts[split])))
        for split in ("train", "val")
        if split in counts
    ]
    if seconds := seconds_of(run):
        facts.append(Fact(said("fact.seconds"), duration(seconds)))
    state: State = "running"
    if run.status in {"finished", "failed", "pruned"}:
        state = cast("State", run.status)
    return Page(
        kind="run",
        name=run.folder.name,
        title=run.folder.name,
        answer=run_answer(run),
        state=state,
        progress=(int(state != "running"), 1),
        facts=facts,
        sections=_there(sections),
        made=durable.now(),
    )


def folder_page(folder: Path) -> Page:
    """The page of a folder: its studies and runs, a line each, newest first.

    Raises:
        RecordError: there is neither a run nor a study in it.
    """
    catalog = Catalog(folder)
    if not catalog.look():
        raise RecordError(
            f"`{folder}` holds no run and no study. Name a folder that `fieldmark train`, "
            "`fieldmark study run` or `fieldmark rehearse` wrote to."
        )
    return overview(catalog.seen())


def overview(seen: Seen) -> Page:
    """The page of a folder as it was seen."""
    runs = seen.own_runs()
    studies = sorted(seen.studies.values(), key=lambda study: study.place)
    finished = [run for run in runs if run.status == "finished" and run.top1 is not None]
    best = max(finished, key=lambda run: run.top1 or 0.0, default=None)
    ended = [run.status != "running" for run in runs]
    ended += [study.is_done for study in studies]
    running = seen.under_way() or any(study.count("running") for study in studies)
    state: State = "running" if running else "finished" if ended and all(ended) else "waiting"
    name = seen.folder.name or str(seen.folder)
    return Page(
        kind="folder",
        name=name,
        title=name,
        answer=[_counted(runs, studies, best), *_damaged(seen)],
        state=state,
        progress=(sum(ended), len(ended)),
        facts=[
            Fact(said("fact.studies"), str(len(studies))),
            Fact(said("fact.runs"), str(len(runs))),
        ],
        sections=_there(
            [
                Studies(studies) if studies else None,
                Runs(runs, best.place if best else None) if runs else None,
            ]
        ),
        made=durable.now(),
    )


def _counted(
    runs: Sequence[RunSummary], studies: Sequence[StudySummary], best: RunSummary | None
) -> Said:
    counts = [
        counted(f"count.{what}", len(found))
        for what, found in (("runs", runs), ("studies", studies))
        if found
    ]
    if not counts:
        return said("answer.empty")
    both = said("list.and", before=counts[0], last=counts[-1]) if len(counts) > 1 else counts[0]
    if best is None:
        return said("answer.folder_plain", counts=both)
    return said("answer.folder", counts=both, name=best.place, value=best.top1)


def _damaged(seen: Seen) -> list[Said]:
    return [
        said("answer.damaged", place=place, why=why) for place, why in sorted(seen.damaged.items())
    ]


def state_of_all(states: Collection[State], *, done: bool) -> State:
    """Finished where all are done and one came to its end, else the state furthest from that."""
    order: tuple[State, ...] = ("running", "waiting", "failed", "pruned", "finished")
    if done and "finished" in states:
        return "finished"
    return next((state for state in order if state in states), "waiting")


def shown_run(study: Study) -> Run | None:
    """The run that stands for a study on its page: of the best cell, or one that was begun."""
    if best := best_run(study):
        return best
    for slot in study.slots():
        cell = study.folder / "cells" / slot.cell.hash
        for found in sorted(cell.glob(f"seed-{slot.seed}.*/{MANIFEST}")):
            return Run(found.parent)
    return None


def _study_origin(study: Study, run: Run | None) -> Origin:
    text, base, overrides = study.design.texts
    file = str(study.folder / "study.yaml")
    told = [f"base={study.folder / 'base.yaml'}", *overrides, "--out", f"{study.folder}-again"]
    asked = ["fieldmark", "study", "run", file, *told]
    return Origin(
        shlex.join(asked),
        machine_facts(run.manifest) if run else [],
        {"study.yaml": text, "base.yaml": base},
    )


def _rehearsed(run: Run, findings: Findings) -> Rehearsed | None:
    """What holds of earlier rehearsals; nothing where another Fieldmark wrote it."""
    recipe = recipe_of(run)
    rates = {stage.name: stage.lr for stage in recipe.stages} if recipe else {}
    fired = {finding.check for finding in findings.fired}
    with suppress(KeyError, TypeError, ValueError):
        return rehearsed_section(read_rehearsal(run.folder), rates, fired)
    return None


def _some(findings: Findings) -> list[Section]:
    return [findings] if findings.fired or findings.quiet or findings.unknown else []


def _next(advice: Sequence[Advice]) -> Next | None:
    return Next(advice) if advice else None


def _there(sections: Sequence[Section | None]) -> list[Section]:
    return [section for section in sections if section is not None]

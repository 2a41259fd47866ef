"""What stands on the page of a study, of a run, of a folder: pure data, no HTML, no language."""

import shlex
from collections.abc import Sequence

from fieldmark import durable
from fieldmark.errors import FieldmarkError
from fieldmark.language import said
from fieldmark.report.cells import (
    CellsOf,
    effects_section,
    expected_section,
    grid_section,
    study_answer,
    study_cost,
)
from fieldmark.report.diagnosed import (
    advice_of,
    marks,
    run_findings,
    sorted_findings,
    study_findings,
)
from fieldmark.report.page import Advice, Fact, Next, Origin, Page, Section, State
from fieldmark.report.runs import (
    curves_section,
    machine_facts,
    photo_check,
    run_answer,
    run_cost,
    run_origin,
    run_photos,
    seconds_of,
)
from fieldmark.report.thumbnails import MayShow
from fieldmark.studies.run import MANIFEST, Run
from fieldmark.studies.study import Study


def study_page(study: Study, *, may_show: MayShow | None = None) -> Page:
    """The page of a study, as far as it is; photos are shown where `may_show` allows it."""
    cells = CellsOf(study)
    run = _shown_run(cells)
    findings = sorted_findings([*study_findings(study), *(run_findings(run) if run else [])])
    sections: list[Section | None] = [
        _next(advice_of(findings)),
        grid_section(cells),
        effects_section(cells),
    ]
    if run:
        sections += [curves_section(run, marks(findings)), findings, *run_photos(run, may_show)]
        sections.append(photo_check(run))
    sections += [study_cost(cells), _study_origin(study, run), expected_section(cells)]
    plan = study.plan()
    states = [found.status for _, found in cells.summaries]
    facts = [
        Fact(said("fact.cells"), str(plan.cells)),
        Fact(said("fact.runs"), said("value.of", done=plan.done, all=plan.runs)),
        Fact(said("fact.judged_by"), study.design.metric),
    ]
    if cells.photos:
        facts.append(Fact(said("fact.photos"), f"{cells.photos:,}"))
    seconds = sum(found.seconds for _, found in cells.summaries)
    facts.append(Fact(said("fact.seconds"), said("value.seconds", seconds=seconds)))
    return Page(
        kind="study",
        name=study.design.file.name,
        title=study.design.file.question,
        answer=study_answer(cells),
        state=_furthest_from_done(states, done=plan.is_done),
        progress=(plan.done, plan.runs + plan.later),
        facts=facts,
        sections=_there(sections),
        made=durable.now(),
    )


def run_page(run: Run, *, may_show: MayShow | None = None) -> Page:
    """The page of one run, as far as it is; photos are shown where `may_show` allows it."""
    findings = sorted_findings(run_findings(run))
    sections: list[Section | None] = [
        _next(advice_of(findings)),
        curves_section(run, marks(findings)),
        findings,
        *run_photos(run, may_show),
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
        facts.append(Fact(said("fact.seconds"), said("value.seconds", seconds=seconds)))
    state: State = "running"
    if run.status in {"finished", "failed"}:
        state = "finished" if run.status == "finished" else "failed"
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


def _shown_run(cells: CellsOf) -> Run | None:
    """The best cell's first run; before any is finished, one that was begun."""
    if cells.best_pair:
        for result in cells.finished(cells.best_pair[0]):
            try:
                return Run(result.folder)
            except FieldmarkError:
                continue  # it was moved or removed
    for found in sorted((cells.study.folder / "cells").glob(f"*/*/{MANIFEST}")):
        return Run(found.parent)
    return None


def _study_origin(study: Study, run: Run | None) -> Origin:
    text, base, overrides = study.design.texts
    file = str(study.folder / "study.yaml")
    asked = ["fieldmark", "study", "run", file, *overrides, "--out", f"{study.folder}-again"]
    return Origin(
        shlex.join(asked),
        machine_facts(run) if run else [],
        {"study.yaml": text, "base.yaml": base},
    )


def _next(advice: Sequence[Advice]) -> Next | None:
    return Next(advice) if advice else None


def _furthest_from_done(states: Sequence[State], *, done: bool) -> State:
    order: tuple[State, ...] = ("running", "waiting", "failed", "finished")
    if done and "finished" in states:
        return "finished"
    return next((state for state in order if state in states), "waiting")


def _there(sections: Sequence[Section | None]) -> list[Section]:
    return [section for section in sections if section is not None]

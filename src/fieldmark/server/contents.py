"""What stands on a live page: that of the report, and what is under way."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fieldmark import durable
from fieldmark.language import Said, Words, said
from fieldmark.report.content import run_page, study_page
from fieldmark.report.page import Fact, Kind, Page, State
from fieldmark.server.comparison import choices, comparison, settings
from fieldmark.server.sections import (
    FailedSlot,
    LiveSection,
    Naming,
    Now,
    RunList,
    StudyList,
)
from fieldmark.studies.catalog import Catalog, RunSummary
from fieldmark.studies.run import Run
from fieldmark.studies.study import Study

MayShow = Callable[[Path], bool]


class Contents:
    """What is on the page of each place.

    Args:
        catalog: Of the folder, kept up to date by others.
        may_show: Whether a photo may be shown, by its path, links followed.
    """

    def __init__(self, catalog: Catalog, may_show: MayShow) -> None:
        self.catalog = catalog
        self.may_show = may_show

    def of(self, place: str, say: Words) -> Page:
        """A run, a study, or the folder."""
        folder = self.catalog.folder / place
        if place in self.catalog.runs:
            return self._run(place, folder)
        if place in self.catalog.studies:
            return self._study(place, folder)
        return self._folder(say)

    def comparison(self, a: str, b: str, say: Words) -> Page:
        """Two places side by side."""
        found = comparison(self.catalog, a, b)
        return _page("comparison", say("live.compared"), [found], answer=[found.verdict])

    def naming(self, most_megabytes: int, say: Words) -> Page:
        """Where a photo is given and named."""
        return _page("photo", say("live.name_photo"), [Naming(most_megabytes)])

    def _run(self, place: str, folder: Path) -> Page:
        page = run_page(Run(folder), may_show=self.may_show)
        summary = self.catalog.runs[place]
        return _with(page, [Now(None, [summary])]) if summary.progress else page

    def _study(self, place: str, folder: Path) -> Page:
        study, summary = Study.open(folder), self.catalog.studies[place]
        under_way = [run for run in self._under_way() if run.study == place]
        sections: list[LiveSection] = []
        failed = _failed(study)
        if summary.seconds_left != 0 or under_way or failed:
            sections.append(Now(summary, under_way, failed))
        page = _with(study_page(study, may_show=self.may_show), sections)
        offered = choices(study, place)
        more = [offered] if len(offered.all) > 1 else []
        return replace(page, sections=[*page.sections, *more])

    def _folder(self, say: Words) -> Page:
        runs, under_way = self.catalog.own_runs(), self._under_way()
        studies = sorted(self.catalog.studies.values(), key=lambda study: study.place)
        sections: list[LiveSection] = []
        if under_way:
            sections.append(Now(None, under_way))
        if studies:
            sections.append(StudyList(studies))
        if runs:
            sections.append(RunList(runs))
        facts = [
            Fact(said("fact.studies"), str(len(studies))),
            Fact(said("fact.runs"), str(len(runs))),
        ]
        name = self.catalog.folder.name or str(self.catalog.folder)
        best = max(runs, key=_top1, default=None)
        if best and _top1(best) >= 0:
            answer = said(
                "answer.folder",
                runs=len(runs),
                studies=len(studies),
                name=best.place,
                value=_top1(best),
            )
        else:
            answer = said("answer.folder_plain", runs=len(runs), studies=len(studies))
        damaged = [
            said("live.damaged", place=place, why=why)
            for place, why in sorted(self.catalog.damaged.items())
        ]
        state: State = "running" if under_way else "finished" if runs or studies else "waiting"
        return _page("folder", name, sections, answer=[answer, *damaged], facts=facts, state=state)

    def _under_way(self) -> list[RunSummary]:
        running = [run for run in self.catalog.runs.values() if run.progress]
        return sorted(running, key=lambda run: run.place)


def _failed(study: Study) -> list[FailedSlot]:
    """The runs of a study that failed."""
    found = []
    for slot in study.slots():
        result = study.records.of(slot)
        if result and result.status == "failed":
            told = settings(slot.cell.points[0])
            found.append(FailedSlot(slot.cell.hash, slot.seed, told, result.reason or ""))
    return found


def _top1(run: RunSummary) -> float:
    return run.latest.get("val/top1", -1.0) if run.status == "finished" else -1.0


def _with(page: Page, sections: Sequence[LiveSection]) -> Page:
    """The report's page with what is under way on top."""
    return replace(page, sections=[*sections, *page.sections])


def _page(
    kind: Kind,
    title: str,
    sections: Sequence[LiveSection],
    *,
    answer: Sequence[Said] = (),
    facts: Sequence[Fact] = (),
    state: State = "finished",
) -> Page:
    return Page(
        kind=kind,
        name=title,
        title=title,
        answer=answer,
        state=state,
        progress=(1, 1),
        facts=facts,
        sections=sections,
        made=durable.now(),
    )

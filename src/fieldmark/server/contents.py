"""What stands on a live page: that of the report, and what is under way."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fieldmark import durable
from fieldmark.language import Said, Words, said
from fieldmark.report.content import run_page, study_page
from fieldmark.report.page import Fact, Kind, Page, State
from fieldmark.server.comparison import choices, comparison, settings
from fieldmark.server.feed import Feed
from fieldmark.server.sections import (
    FailedSlot,
    LiveSection,
    Naming,
    Now,
    RunList,
    StudyList,
)
from fieldmark.studies.catalog import RunSummary, Seen, StudySummary
from fieldmark.studies.run import Run
from fieldmark.studies.study import Study

MayShow = Callable[[Path], bool]


class Contents:
    """What is on the page of each place.

    Args:
        feed: Of the folder.
        may_show: Whether a photo may be shown, by its path, links followed.
    """

    def __init__(self, feed: Feed, may_show: MayShow) -> None:
        self.feed = feed
        self.may_show = may_show

    def of(self, place: str) -> Page:
        """A run, a study, or the folder."""
        seen = self.feed.seen()
        if place in seen.runs:
            return self._run(seen, seen.runs[place])
        if place in seen.studies:
            return self._study(seen, seen.studies[place])
        return _folder(seen)

    def comparison(self, a: str, b: str, say: Words) -> Page:
        """Two places side by side."""
        found = comparison(self.feed.seen(), a, b)
        return _page("comparison", say("live.compared"), [found], answer=[found.verdict])

    def naming(self, most_megabytes: int, say: Words) -> Page:
        """Where a photo is given and named."""
        return _page("photo", say("live.name_photo"), [Naming(most_megabytes)])

    def _run(self, seen: Seen, summary: RunSummary) -> Page:
        page = run_page(Run(seen.folder / summary.place), may_show=self.may_show)
        return _with(page, [Now(None, [summary])]) if summary.progress else page

    def _study(self, seen: Seen, summary: StudySummary) -> Page:
        study = Study.open(seen.folder / summary.place)
        under_way = [run for run in seen.under_way() if run.study == summary.place]
        sections: list[LiveSection] = []
        failed = _failed(study)
        if summary.seconds_left != 0 or under_way or failed:
            sections.append(Now(summary, under_way, failed))
        page = _with(study_page(study, may_show=self.may_show), sections)
        offered = choices(study, summary.place)
        more = [offered] if len(offered.all) > 1 else []
        return replace(page, sections=[*page.sections, *more])


def _folder(seen: Seen) -> Page:
    runs, under_way = seen.own_runs(), seen.under_way()
    studies = sorted(seen.studies.values(), key=lambda study: study.place)
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
    name = seen.folder.name or str(seen.folder)
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
        said("live.damaged", place=place, why=why) for place, why in sorted(seen.damaged.items())
    ]
    state: State = "running" if under_way else "finished" if runs or studies else "waiting"
    return _page("folder", name, sections, answer=[answer, *damaged], facts=facts, state=state)


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

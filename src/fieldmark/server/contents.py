"""What stands on a live page: that of the report, and what is under way."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fieldmark import durable
from fieldmark.language import Said, Words, settings_words
from fieldmark.report.content import overview, run_page, study_page
from fieldmark.report.page import Kind, Page
from fieldmark.server.comparison import choices, comparison
from fieldmark.server.feed import Feed
from fieldmark.server.sections import (
    FailedSlot,
    LiveSection,
    Naming,
    Now,
)
from fieldmark.studies.catalog import RunSummary, Seen, StudySummary
from fieldmark.studies.folders import from_here
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
        found = comparison(self.feed.seen(), a, b, say)
        return _page("comparison", say("live.compared"), [found], answer=[found.verdict])

    def naming(self, most_megabytes: int, say: Words) -> Page:
        """Where a photo is given and named."""
        return _page("photo", say("live.name_photo"), [Naming(most_megabytes)])

    def _run(self, seen: Seen, summary: RunSummary) -> Page:
        page = run_page(Run(from_here(seen.folder / summary.place)), may_show=self.may_show)
        return _with(page, [Now(None, [summary])]) if summary.progress else page

    def _study(self, seen: Seen, summary: StudySummary) -> Page:
        study = Study.open(from_here(seen.folder / summary.place))
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
    under_way = seen.under_way()
    return _with(overview(seen), [Now(None, under_way)] if under_way else [])


def _failed(study: Study) -> list[FailedSlot]:
    """The runs of a study that failed."""
    found = []
    for slot in study.slots():
        result = study.records.of(slot)
        if result and result.status == "failed":
            told = settings_words(slot.cell.points[0])
            found.append(FailedSlot(slot.cell.hash, slot.seed, told, result.reason or ""))
    return found


def _with(page: Page, sections: Sequence[LiveSection]) -> Page:
    """The report's page with what is under way on top."""
    return replace(page, sections=[*sections, *page.sections])


def _page(
    kind: Kind,
    title: str,
    sections: Sequence[LiveSection],
    *,
    answer: Sequence[Said] = (),
) -> Page:
    return Page(
        kind=kind,
        name=title,
        title=title,
        answer=answer,
        state="finished",
        progress=(1, 1),
        facts=(),
        sections=sections,
        made=durable.now(),
    )

"""The sections on a study's cells: table and pictures, effects, cost, what was expected."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from fieldmark.charts.cost import cost_data
from fieldmark.charts.forest import forest_data
from fieldmark.charts.grid import Point, axis_data, heat_data
from fieldmark.charts.rates import amount_data
from fieldmark.errors import FieldmarkError
from fieldmark.language import (
    Said,
    axis_words,
    duration,
    metric_text,
    metric_words,
    said,
    setting_text,
    settings_words,
)
from fieldmark.metrics import wilson_interval
from fieldmark.report.page import CellRow, Cost, Effects, Expected, Fact, Figure, Grid
from fieldmark.report.sentences import (
    axis_answer,
    best_sentence,
    cheapest_sentence,
    effect_sentence,
    guess_sentences,
    interaction_sentence,
    outdated_sentence,
)
from fieldmark.studies.answered import answered_cells, at_their_best, by_amount, plain, settings_of
from fieldmark.studies.design import Cell
from fieldmark.studies.effects import (
    AnsweredCell,
    Effect,
    Interaction,
    interactions,
    main_effects,
    strongest,
    study_spread,
)
from fieldmark.studies.learning_curve import fit_curve
from fieldmark.studies.results import Result
from fieldmark.studies.run import Run
from fieldmark.studies.selection import Best, Cheapest, best_cell, cheapest_cell
from fieldmark.studies.spread import SeedSpread
from fieldmark.studies.study import Study
from fieldmark.studies.table import Summary, score_guess, summarize

MOST_EFFECTS = 40  # that are drawn
CURVE = 24  # points of a sparkline


@dataclass
class CellsOf:
    """What came of a study's cells, each thing worked out once."""

    study: Study

    @cached_property
    def metric(self) -> str:
        """The objective, as `val/top1`."""
        return self.study.design.metric

    @cached_property
    def lower_is_better(self) -> bool:
        """Whether less of it is better."""
        return self.study.design.file.objective.lower_is_better

    @cached_property
    def axes(self) -> list[str]:
        """Names, in the file's order."""
        return [axis.name for axis in self.study.design.file.axes]

    @cached_property
    def summaries(self) -> list[tuple[Cell, Summary]]:
        """Each cell and what came of it."""
        states = self.study.states()
        return [(cell, summarize(self.study, cell, states)) for cell in self.study.cells]

    @cached_property
    def answered(self) -> list[AnsweredCell]:
        """The cells all of whose seeds are finished, with their answers photo by photo."""
        return answered_cells(self.study)

    @cached_property
    def asked(self) -> list[AnsweredCell]:
        """Of these what is asked about, each with the nuisances that suit it best."""
        return at_their_best(self.study, self.answered)

    @cached_property
    def spread(self) -> SeedSpread | None:
        """Between seeds, pooled over the cells; None where a cell has a single seed."""
        return study_spread(self.answered)

    @cached_property
    def effects(self) -> list[Effect]:
        """What each axis does, where all is known that it takes to say so."""
        try:
            return main_effects(self.asked, spread=self.spread) if len(self.asked) > 1 else []
        except FieldmarkError:
            return []  # photos or folds of the cells differ; the table still stands

    @cached_property
    def interactions(self) -> list[Interaction]:
        """Where effects do not add up, of every two axes the most."""
        return strongest(interactions(self.asked, spread=self.spread)) if self.effects else []

    @cached_property
    def best(self) -> Best | None:
        """The best cell of two or more, and how much of it is luck."""
        try:
            return best_cell(self.answered, spread=self.spread) if len(self.answered) > 1 else None
        except FieldmarkError:
            return None

    @cached_property
    def cheapest(self) -> Cheapest | None:
        """The cheapest cell that is not shown to be worse than the best."""
        return cheapest_cell(self.answered, spread=self.spread) if self.best else None

    @cached_property
    def photos(self) -> int | None:
        """How many each cell was judged by."""
        return self.answered[0].answers.right.shape[1] if self.answered else None

    @cached_property
    def best_pair(self) -> tuple[Cell, Summary] | None:
        """The cell with the best mean."""
        known = [(cell, found) for cell, found in self.summaries if found.mean is not None]
        sign = -1 if self.lower_is_better else 1
        return max(known, key=lambda each: sign * (each[1].mean or 0.0), default=None)

    def finished(self, cell: Cell) -> list[Result]:
        """Its results that have a run to look at."""
        found = [self.study.records.of(slot) for slot in self.study.slots_of(cell)]
        return [result for result in found if result and result.status == "finished"]

    def interval(self, mean: float | None) -> tuple[float | None, float | None]:
        """The 95 % interval of a share of the photos; none of another metric."""
        if mean is None or self.photos is None or not self.metric.endswith("top1"):
            return None, None
        return wilson_interval(mean, self.photos)

    @cached_property
    def points(self) -> list[Point]:
        """The cells with a result, as pictures take them."""
        return [
            Point(
                dict(point),
                found.mean,
                *self.interval(found.mean),
                found.spread,
                found.seeds,
            )
            for cell, found in self.summaries
            if found.mean is not None
            for point in cell.points
        ]


def study_answer(cells: CellsOf) -> list[Said]:
    """The answer in one sentence, and what the best cell is worth."""
    told: list[Said] = []
    by_axis = {
        axis: [effect for effect in cells.effects if effect.axis == axis] for axis in cells.axes
    }
    parts = tuple(axis_answer(axis, found) for axis, found in by_axis.items() if found)
    if parts:
        told.append(said("answer.axes", parts=_joined(parts)))
    if cells.best:
        told.append(best_sentence(cells.best, cells.answered[cells.best.cell].settings))
        if cells.cheapest:
            told += cheapest_sentence(cells.cheapest, cells.answered)
    elif cells.best_pair:
        cell, found = cells.best_pair
        shown = metric_text(cells.metric, found.mean)
        words = settings_words(settings_of(cell))
        told.append(
            said("answer.best_so_far", name=words, metric=metric_words(cells.metric), value=shown)
        )
    return [*(told or [said("answer.nothing_yet")]), *outdated_sentence(cells.study)]


def _joined(parts: Sequence[Said]) -> Said:
    joined, *rest = parts
    for part in rest:
        joined = said("answer.and_then", before=joined, after=part)
    return joined


def grid_section(cells: CellsOf) -> Grid:
    """The cells, and their pictures."""
    best = cells.best_pair[0].hash if cells.best_pair else None
    rows = [_row(cells, cell, found, best) for cell, found in cells.summaries]
    varied = [axis for axis in cells.axes if len({str(p.settings[axis]) for p in cells.points}) > 1]
    figures: list[Figure] = []
    lower = cells.lower_is_better
    if len(varied) >= 2 and not cells.study.design.spaces:
        data = heat_data(cells.points, (varied[0], varied[1]), cells.metric, lower_is_better=lower)
        rows_of, columns_of = (axis_words(axis) for axis in varied[:2])
        metric = metric_words(cells.metric)
        told = said("told.heat", rows=rows_of, columns=columns_of, metric=metric)
        figures.append(Figure("heat", data, told))
    for axis in varied:
        data_of = axis_data(
            cells.points, axis, cells.metric, kind=_kind(cells, axis), lower_is_better=lower
        )
        figures.append(Figure(f"axis-{axis}", data_of, said("told.axis", axis=axis_words(axis))))
    return Grid(cells.axes, cells.metric, rows, figures)


def _row(cells: CellsOf, cell: Cell, found: Summary, best: str | None) -> CellRow:
    finished = cells.finished(cell)
    low, high = cells.interval(found.mean)
    folder = finished[0].folder if finished else None
    return CellRow(
        name=cell.hash,
        settings=[setting_text(plain(cell.points[0][axis])) for axis in cells.axes],
        value=found.mean,
        low=low,
        high=high,
        spread=found.spread,
        seeds=found.seeds,
        state=found.status,
        seconds=found.seconds,
        reason=found.reason,
        curve=sparkline(folder, cells.metric) if folder else (),
        run=str(folder.relative_to(cells.study.folder)) if folder else None,
        best=cell.hash == best,
    )


def sparkline(folder: Any, metric: str) -> list[float]:
    """A few values of a metric on the way, the last among them."""
    try:
        _, values = Run(folder).series(metric)
    except FieldmarkError:
        return []
    step = max(1, -(-len(values) // CURVE))
    return [float(value) for value in values[::-1][::step][::-1]]


def _kind(cells: CellsOf, axis: str) -> Literal["words", "numbers", "ratios"]:
    space = cells.study.design.spaces.get(axis)
    if space is None or space.choices is not None:
        return "words"
    return "ratios" if space.log else "numbers"


def effects_section(cells: CellsOf) -> Effects | None:
    """What is real of the differences."""
    if not cells.effects:
        return None
    labelled = [
        (
            said(
                "effect.step",
                axis=axis_words(effect.axis),
                a=setting_text(effect.a),
                b=setting_text(effect.b),
            ),
            effect.verdict,
        )
        for effect in cells.effects
    ]
    figure = Figure("forest", forest_data(labelled[:MOST_EFFECTS]), said("told.forest"))
    sentences = [(str(effect.verdict.answer), effect_sentence(effect)) for effect in cells.effects]
    sentences += [("real", interaction_sentence(each)) for each in cells.interactions]
    return Effects(sentences, [figure])


def study_cost(cells: CellsOf) -> Cost:
    """What the cells took."""
    seconds = sum(found.seconds for _, found in cells.summaries)
    runs = sum(found.seeds + found.failed for _, found in cells.summaries)
    facts = [
        Fact(said("fact.seconds"), duration(seconds)),
        Fact(said("fact.runs"), str(runs)),
    ]
    if runs:
        facts.append(Fact(said("fact.per_run"), duration(seconds / runs)))
    priced = [
        (
            settings_words(settings_of(cell)),
            found.seconds / found.seeds,
            found.mean,
        )
        for cell, found in cells.summaries
        if found.mean is not None
    ]
    if len(priced) < 2:
        return Cost(facts)
    data = cost_data(cells.metric, priced, lower_is_better=cells.lower_is_better)
    return Cost(facts, [Figure("cost", data, said("told.cost")), *_amount(cells)])


def _amount(cells: CellsOf) -> list[Figure]:
    """What more photos would do, where fractions of them were tried."""
    figures = []
    for number, (others, found) in enumerate(by_amount(cells.study, cells.answered)):
        curve = fit_curve(*zip(*found, strict=True))
        rows = [
            (amount, of.top1, *wilson_interval(of.top1, of.right.shape[1])) for amount, of in found
        ]
        (now, _, _), (then, low, high) = curve.error(1), curve.error(2)
        told = said(
            "told.amount",
            others=settings_words(others),
            now=1 - now,
            then=1 - then,
            low=1 - high,
            high=1 - low,
        )
        foreseen = [(2.0, 1 - then, 1 - high, 1 - low)]
        data = amount_data(cells.metric, rows, foreseen)
        figures.append(Figure(f"amount-{number}", data, told))
    return figures


def expected_section(cells: CellsOf) -> Expected | None:
    """The user's guess against what came."""
    guess = score_guess(cells.study)
    return Expected(guess_sentences(guess, cells.metric)) if guess else None

"""What a study found, as tables and sentences for the terminal."""

from collections.abc import Sequence
from typing import cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fieldmark.diagnosis_report import study_diagnosis
from fieldmark.errors import count_of
from fieldmark.language import (
    axis_words,
    english,
    metric_text,
    metric_words,
    setting_text,
    settings_words,
)
from fieldmark.report.cells import CellsOf
from fieldmark.report.sentences import (
    best_sentence,
    cheapest_sentence,
    effect_sentence,
    interaction_sentence,
    outdated_sentence,
)
from fieldmark.studies.answered import by_amount, settings_of
from fieldmark.studies.effects import AnsweredCell, Effect, Setting
from fieldmark.studies.learning_curve import fit_curve
from fieldmark.studies.study import Study
from fieldmark.study_axes import axes_table, guess_sentence, importance_sentence
from fieldmark.terminal import Format, listing, tell

SHADES = ("grey93", "light_sky_blue1", "sky_blue1", "deep_sky_blue1", "dodger_blue1")


def rows_of(study: Study, cells: CellsOf | None = None) -> list[dict[str, object]]:
    """A row a cell: its settings, the mean of its seeds, what it takes to cite that, its state.

    `low` and `high` are the mean's 95 % interval over photos, `spread` the standard deviation over
    seeds; `cells` are the study's, where they are at hand.
    """
    states, cells = study.states(), cells or CellsOf(study)
    rows: list[dict[str, object]] = []
    for cell, found in cells.summaries:
        low, high = cells.interval(found.mean)
        each = sorted({states[slot.key] for slot in study.slots_of(cell)})
        rows.append(
            {
                **settings_of(cell),
                "cell": cell.hash,
                "metric": study.design.metric,
                "mean": found.mean,
                "low": low,
                "high": high,
                "spread": found.spread,
                "photos": cells.photos,
                "seeds": found.seeds,
                "status": ", ".join(each),
                "seconds": round(found.seconds, 2),
                "reason": found.reason or "",
            }
        )
    return rows


def show(console: Console, study: Study, how: Format) -> None:
    """Print a study's cells; for people also a heat map and what is real of the differences."""
    cells = CellsOf(study)  # answers are read once, for the table and for the sentences
    rows = rows_of(study, cells)
    if how != "table":
        listing(console, rows, title="", how=how)
        return
    file = study.design.file
    judged_by = english(metric_words(study.design.metric))
    console.print(Text(file.question, "bold"), Text(f"Judged by {judged_by}"), sep="\n")
    for sentence in outdated_sentence(study, mark=""):  # as one types it
        tell(console, english(sentence))
    listing(console, _shown(study, rows), title="", how=how)
    names = [axis.name for axis in file.axes]
    if len(names) == 2 and len(rows) > 3 and any(row["seeds"] for row in rows):
        console.print(_heat_map(study, names, rows))
    if table := axes_table(study, bars=console.width >= 64):
        console.print(table)
    for told in (*importance_sentence(study), *guess_sentence(study), *sentences(study, cells)):
        tell(console, told)
    for line in study_diagnosis(study).splitlines():
        tell(console, line)


def sentences(study: Study, cells: CellsOf | None = None) -> list[str]:
    """Which effects are real and where axes interact; the best cell, its luck, a cheaper one."""
    cells = cells or CellsOf(study)
    if not cells.best or not cells.cheapest:
        return []
    shown = beside_the_best(cells.effects)
    found = [english(effect_sentence(effect)) for effect in shown]
    if more := len(cells.effects) - len(shown):
        compared = count_of(more, "more comparison stands", "more comparisons stand")
        found.append(f"{compared} on the page: fieldmark report {study.folder}")
    found += [english(interaction_sentence(each)) for each in cells.interactions]
    found.append(english(best_sentence(cells.best, cells.answered[cells.best.cell].settings)))
    found += [english(one) for one in cheapest_sentence(cells.cheapest, cells.answered)]
    return [*found, *_curves(study, cells.answered)]


def beside_the_best(effects: Sequence[Effect]) -> list[Effect]:
    """Of an axis with four settings or more, those of its best setting: six are read, 21 not."""
    lead: dict[str, dict[Setting, float]] = {}
    for each in effects:
        of_axis = lead.setdefault(each.axis, {})
        for setting, sign in ((each.a, -1), (each.b, 1)):
            of_axis[setting] = of_axis.get(setting, 0.0) + sign * each.verdict.difference
    best = {axis: max(of_axis, key=of_axis.__getitem__) for axis, of_axis in lead.items()}
    return [e for e in effects if len(lead[e.axis]) < 4 or best[e.axis] in (e.a, e.b)]


def _curves(study: Study, cells: Sequence[AnsweredCell]) -> list[str]:
    """Where fractions of train were tried, what more photos would give, for each of the others."""
    return [
        ": ".join(
            [
                *([english(*settings_words(others)).capitalize()] if others else []),
                fit_curve(*zip(*found, strict=True)).describe(),
            ]
        )
        for others, found in by_amount(study, cells)
    ]


def _shown(study: Study, rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """The rows as people read them."""
    axes = {axis.name: english(axis_words(axis.name)) for axis in study.design.file.axes}
    reasons = any(row["reason"] for row in rows)
    spreads = any(row["spread"] is not None for row in rows)
    return [
        {
            **{word: setting_text(row[axis]) for axis, word in axes.items()},
            "mean": metric_text(study.design.metric, cast("float | None", row["mean"])),
            **({"between seeds": _spread_text(study, row["spread"])} if spreads else {}),
            "seeds": row["seeds"],
            "state": row["status"],
            "seconds": f"{row['seconds']:,.1f}",
            **({"reason": row["reason"]} if reasons else {}),
        }
        for row in rows
    ]


def _spread_text(study: Study, spread: object) -> str:
    """The standard deviation over seeds as pages write it, in points or in nats."""
    if not isinstance(spread, float):
        return "–"
    return f"±{spread:.4f}" if study.design.metric.endswith("loss") else f"±{100 * spread:.1f}"


def _heat_map(study: Study, names: Sequence[str], rows: Sequence[dict[str, object]]) -> Table:
    """The means of a grid of two axes, the darker the better."""
    down, across = (list(dict.fromkeys(row[name] for row in rows)) for name in names)
    values = {(row[names[0]], row[names[1]]): row["mean"] for row in rows}
    known = [value for value in values.values() if isinstance(value, float)]
    best, worst = max(known, default=1.0), min(known, default=0.0)
    if study.design.file.objective.lower_is_better:
        best, worst = worst, best
    told = [english(axis_words(name)) for name in names]
    table = Table(title=f"{told[0].capitalize()} by {told[1]}", title_justify="left")
    table.add_column(told[0])
    for setting in across:
        table.add_column(setting_text(setting), justify="right")
    for first in down:
        found = [values.get((first, second)) for second in across]
        cells = [_shaded(value, study.design.metric, best, worst) for value in found]
        table.add_row(setting_text(first), *cells)
    return table


def _shaded(value: object, metric: str, best: float, worst: float) -> str:
    if not isinstance(value, float):
        return "–"
    share = (value - worst) / (best - worst) if best != worst else 1.0
    shade = SHADES[min(int(share * len(SHADES)), len(SHADES) - 1)]
    return f"[#000000 on {shade}] {metric_text(metric, value)} [/]"

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
from fieldmark.studies.answered import answered_cells, at_their_best, by_amount, settings_of
from fieldmark.studies.effects import (
    AnsweredCell,
    Effect,
    Setting,
    interactions,
    main_effects,
    strongest,
    study_spread,
)
from fieldmark.studies.learning_curve import fit_curve
from fieldmark.studies.selection import best_cell, cheapest_cell
from fieldmark.studies.study import Study
from fieldmark.study_axes import axes_table, guess_sentence, importance_sentence
from fieldmark.terminal import Format, listing, tell

SHADES = ("grey93", "light_sky_blue1", "sky_blue1", "deep_sky_blue1", "dodger_blue1")


def rows_of(study: Study) -> list[dict[str, object]]:
    """A row a cell: its settings, the mean of its seeds, what it takes to cite that, its state.

    `low` and `high` are the mean's 95 % interval over photos, `spread` the standard deviation over
    seeds.
    """
    states, cells = study.states(), CellsOf(study)
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
    rows = rows_of(study)
    if how != "table":
        listing(console, rows, title="", how=how)
        return
    file = study.design.file
    judged_by = english(metric_words(study.design.metric))
    console.print(Text(file.question, "bold"), Text(f"Judged by {judged_by}"), sep="\n")
    for sentence in outdated_sentence(study):
        # A command is told as one types it: in a shell what stands between backticks is run.
        tell(console, english(sentence).replace(": `", ": ").removesuffix("`"))
    listing(console, _shown(study, rows), title="", how=how)
    names = [axis.name for axis in file.axes]
    if len(names) == 2 and len(rows) > 3 and any(row["seeds"] for row in rows):
        console.print(_heat_map(study, names, rows))
    if table := axes_table(study):
        console.print(table)
    for told in (*importance_sentence(study), *guess_sentence(study), *sentences(study)):
        tell(console, told)
    for line in study_diagnosis(study).splitlines():
        tell(console, line)


def sentences(study: Study) -> list[str]:
    """Which effects are real and where axes interact; the best cell, its luck, a cheaper one."""
    cells = answered_cells(study)
    if len(cells) < 2:
        return []
    spread = study_spread(cells)
    asked = at_their_best(study, cells)
    effects = main_effects(asked, spread=spread) if len(asked) > 1 else []
    shown = beside_the_best(effects)
    found = [english(effect_sentence(effect)) for effect in shown]
    if more := len(effects) - len(shown):
        compared = count_of(more, "more comparison stands", "more comparisons stand")
        found.append(f"{compared} on the page: fieldmark report {study.folder}")
    together = strongest(interactions(asked, spread=spread))
    found += [english(interaction_sentence(each)) for each in together]
    best = best_cell(cells, spread=spread)
    found.append(english(best_sentence(best, cells[best.cell].settings)))
    found += [english(one) for one in cheapest_sentence(cheapest_cell(cells, spread=spread), cells)]
    return [*found, *_curves(study, cells)]


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

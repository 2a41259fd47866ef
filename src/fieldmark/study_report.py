"""What a study found, as tables and sentences for the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from fieldmark.diagnosis_report import study_diagnosis
from fieldmark.language import Words
from fieldmark.report.sentences import outdated_sentence
from fieldmark.studies.answered import answered_cells, at_their_best, by_amount, settings_of, words
from fieldmark.studies.effects import AnsweredCell, Effect, Setting, main_effects, study_spread
from fieldmark.studies.learning_curve import fit_curve
from fieldmark.studies.selection import best_cell
from fieldmark.studies.study import Study
from fieldmark.studies.table import summarize
from fieldmark.study_axes import axes_table, guess_sentence, importance_sentence
from fieldmark.terminal import Format, listing, tell

SHADES = ("grey93", "light_sky_blue1", "sky_blue1", "deep_sky_blue1", "dodger_blue1")


def rows_of(study: Study) -> list[dict[str, object]]:
    """A row a cell: its settings, the mean of its seeds, how many there are, its state."""
    states = study.states()
    rows: list[dict[str, object]] = []
    for cell in study.cells:
        found = summarize(study, cell, states)
        each = sorted({states[slot.key] for slot in study.slots_of(cell)})
        rows.append(
            {
                **settings_of(cell),
                "mean": found.mean,
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
    console.print(f"[bold]{file.question}[/bold]\n{study.design.metric}", highlight=False)
    for sentence in outdated_sentence(study):
        tell(console, Words("en")(sentence))
    percent = [row | {"mean": _percent(row["mean"])} for row in rows]
    if not any(row["reason"] for row in rows):
        percent = [{k: v for k, v in row.items() if k != "reason"} for row in percent]
    listing(console, percent, title=file.name, how=how)
    names = [axis.name for axis in file.axes]
    if len(names) == 2 and len(rows) > 3:
        console.print(_heat_map(names, rows))
    if table := axes_table(study):
        console.print(table)
    for told in (importance_sentence(study), guess_sentence(study), *sentences(study)):
        if told:
            tell(console, told)
    for line in study_diagnosis(study).splitlines():
        tell(console, line)


def sentences(study: Study) -> list[str]:
    """Whether the axes' effects are real, and what the best cell owes to luck."""
    cells = answered_cells(study)
    if len(cells) < 2:
        return []
    spread = study_spread(cells)
    asked = at_their_best(study, cells)
    effects = main_effects(asked, spread=spread) if len(asked) > 1 else []
    shown = beside_the_best(effects)
    found = [effect.describe() for effect in shown]
    if more := len(effects) - len(shown):
        found.append(f"{more} more comparisons stand on the page: fieldmark report {study.folder}")
    best = best_cell(cells, spread=spread)
    settings = words(cells[best.cell].settings)
    return [*found, best.describe(f"The best cell ({settings})"), *_curves(study, cells)]


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
        f"{f'{others}: ' if others else ''}{fit_curve(*zip(*found, strict=True)).describe()}"
        for others, found in by_amount(study, cells).items()
    ]


def _heat_map(names: Sequence[str], rows: Sequence[dict[str, object]]) -> Table:
    """The means of a grid of two axes, the darker the better."""
    down, across = (list(dict.fromkeys(row[name] for row in rows)) for name in names)
    values = {(row[names[0]], row[names[1]]): row["mean"] for row in rows}
    known = [value for value in values.values() if isinstance(value, float)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    table = Table(title=f"{names[0]} by {names[1]}", title_justify="left")
    table.add_column(names[0])
    for setting in across:
        table.add_column(str(setting), justify="right")
    for first in down:
        shown = [values.get((first, second)) for second in across]
        table.add_row(str(first), *(_shaded(value, low, high) for value in shown))
    return table


def _shaded(value: object, low: float, high: float) -> str:
    if not isinstance(value, float):
        return "-"
    share = (value - low) / (high - low) if high > low else 1.0
    shade = SHADES[min(int(share * len(SHADES)), len(SHADES) - 1)]
    return f"[#000000 on {shade}] {value:.1%} [/]"


def _percent(value: object) -> str:
    return f"{value:.1%}" if isinstance(value, float) else "-"

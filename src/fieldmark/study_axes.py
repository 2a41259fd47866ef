"""What each axis of a study did, for the terminal: marginal means, importance, the guess."""

from collections.abc import Mapping

import polars as pl
from rich.table import Table

from fieldmark.language import axis_words, english, metric_text, setting_text
from fieldmark.report.sentences import guess_sentences
from fieldmark.studies.study import Study
from fieldmark.studies.table import cell_table, importance, marginals, score_guess

BAR = 16  # characters, from the worst setting's mean to the best one's


def axes_table(study: Study, *, bars: bool = True) -> Table | None:
    """Each setting's mean over the other axes, and its best cell; None below two finished cells.

    Where the screen is too narrow for words and bars, `bars` leaves these out.
    """
    table = cell_table(study)
    if len(table.filter(pl.col("mean").is_not_null())) < 2:
        return None
    shares = importance(study, table)
    means = {
        axis.name: marginals(study, table, axis.name)
        for axis in study.design.file.axes
        if axis.role != "fixed"
    }
    known = [value for rows in means.values() for value in rows["mean"] if value is not None]
    shown = Table(title="Each setting, averaged over the other axes", title_justify="left")
    for name in ("axis", "setting"):
        shown.add_column(name)
    for name in ("mean", "best cell"):
        shown.add_column(name, justify="right")
    if bars:
        shown.add_column("", no_wrap=True)
    for axis in sorted(means, key=lambda name: -shares.get(name, 0.0)):
        for number, row in enumerate(means[axis].iter_rows(named=True)):
            told = _told(axis, shares) if number == 0 else ""
            bar = _bar(row["mean"], min(known), max(known))
            numbers = (metric_text(study.design.metric, row[name]) for name in ("mean", "best"))
            shown.add_row(told, setting_text(row[axis]), *numbers, *([bar] if bars else []))
        shown.add_section()
    return shown


def importance_sentence(study: Study) -> list[str]:
    """How much of the differences between cells each axis makes, and by which measure."""
    shares = importance(study, cell_table(study))
    if not shares:
        return []
    if len(study.design.spaces) >= 2:
        parts = ", ".join(f"{english(axis_words(a))} {share:.0%}" for a, share in shares.items())
        return [f"What sets the best tenth of the cells apart (PED-ANOVA): {parts}."]
    parts = ", ".join(
        f"{english(axis_words(axis))} alone makes {share:.0%}" for axis, share in shares.items()
    )
    rest = f"{max(0.0, 1 - sum(shares.values())):.0%} comes of axes together and of chance"
    return [f"Of the differences between cells {parts}; {rest}."]


def guess_sentence(study: Study) -> list[str]:
    """What was expected, held against what came, in one line."""
    guess = score_guess(study)
    if guess is None:
        return []
    return [" ".join(english(each) for each in guess_sentences(guess, study.design.metric))]


def _told(axis: str, shares: Mapping[str, float]) -> str:
    name = english(axis_words(axis))
    return f"{name} ({shares[axis]:.0%})" if axis in shares else name


def _bar(value: float | None, low: float, high: float) -> str:
    if value is None:
        return ""
    share = (value - low) / (high - low) if high > low else 1.0
    eighths = round(share * 8 * BAR)
    return "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8] or "▏"

"""What each axis of a study did, for the terminal: marginal means, importance, the guess."""

from collections.abc import Mapping

import polars as pl
from rich.table import Table

from fieldmark.studies.study import Study
from fieldmark.studies.table import Guess, cell_table, importance, marginals, score_guess

BAR = 16  # characters, from the worst setting's mean to the best one's


def axes_table(study: Study) -> Table | None:
    """Each setting's mean over the other axes, and its best cell; None below two finished cells."""
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
    shown.add_column("", no_wrap=True)
    for axis in sorted(means, key=lambda name: -shares.get(name, 0.0)):
        for number, row in enumerate(means[axis].iter_rows(named=True)):
            told = _told(axis, shares) if number == 0 else ""
            bar = _bar(row["mean"], min(known), max(known))
            metric = study.design.file.objective.metric
            numbers = (_number(row["mean"], metric), _number(row["best"], metric))
            shown.add_row(told, str(row[axis]), *numbers, bar)
        shown.add_section()
    return shown


def importance_sentence(study: Study) -> str | None:
    """How much of the differences between cells each axis makes, and by which measure."""
    shares = importance(study, cell_table(study))
    if not shares:
        return None
    if len(study.design.spaces) >= 2:
        parts = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        return f"What sets the best tenth of the cells apart (PED-ANOVA): {parts}."
    parts = ", ".join(f"{name} alone makes {share:.0%}" for name, share in shares.items())
    rest = f"{max(0.0, 1 - sum(shares.values())):.0%} comes of axes together and of chance"
    return f"Of the differences between cells {parts}; {rest}."


def guess_sentence(study: Study) -> str | None:
    """What was expected, held against what came."""
    guess = score_guess(study)
    if guess is None:
        return None
    metric = study.design.file.objective.metric
    size = "" if guess.size is None else f" by {_difference(guess.size, metric)}"
    if guess.direction == "none":
        size = "" if guess.size is None else f" beyond {_difference(guess.size, metric)}"
    expected = {"up": f"up{size}", "down": f"down{size}", "none": f"no change{size}"}
    told = f"Expected from {guess.axis} {guess.against} to {guess.to}: {expected[guess.direction]}"
    return f"{told}. {_seen(guess, metric)}{_late(guess)}"


def _seen(guess: Guess, metric: str) -> str:
    if guess.seen is None:
        return "Nothing to compare yet."
    seen = f"Seen: {_signed(guess.seen, metric)}"
    if guess.low is None or guess.high is None:
        return f"{seen}, from a single pair of runs, which says nothing of chance."
    interval = f"{_signed(guess.low, metric)} to {_signed(guess.high, metric)}"
    answer = {True: "The guess was right", False: "The guess was wrong", None: "It can't be told"}
    return (
        f"{seen} (95 % interval {interval} over {guess.pairs} pairs of runs). "
        f"{answer[guess.right]}."
    )


def _late(guess: Guess) -> str:
    if not guess.results_before:
        return ""
    return f" It was written down when {guess.results_before} results were there."


def _told(axis: str, shares: Mapping[str, float]) -> str:
    return f"{axis} ({shares[axis]:.0%})" if axis in shares else axis


def _bar(value: float | None, low: float, high: float) -> str:
    if value is None:
        return ""
    share = (value - low) / (high - low) if high > low else 1.0
    eighths = round(share * 8 * BAR)
    return "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8] or "▏"


def _is_share(metric: str) -> bool:
    return metric != "loss"


def _number(value: float | None, metric: str) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if _is_share(metric) else f"{value:.3f}"


def _difference(value: float, metric: str) -> str:
    return f"{100 * value:.1f} points" if _is_share(metric) else f"{value:.3f}"


def _signed(value: float, metric: str) -> str:
    return f"{100 * value:+.1f} points" if _is_share(metric) else f"{value:+.3f}"

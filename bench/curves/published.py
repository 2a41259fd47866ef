"""Two published rule sets on the same runs, written anew from their description.

UMLAUT (Schoop, Huang and Hartmann, CHI 2021) and AutoTrainer (Zhang et al., ICSE 2021), at their
own thresholds. AutoTrainer's ratio of gradients between the first and the last layer and its share
of dead activations are left out, as runs record neither. Neither has levels: what fires counts.
Where they look at accuracy on training photos, they are given the clean one, on minitrain.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fieldmark.checked_yaml import check_text
from fieldmark.recipe import Recipe
from fieldmark.studies.run import Run

Rule = Callable[[Run], bool]

LEAST_RATE, MOST_RATE = 1e-7, 1e-2
MOST_INPUT = 1.0
TOO_GOOD, LEAD = 0.95, 0.05
SWING, SWINGS = 0.03, 0.2
LEAST_GAIN, NEVER_ABOVE = 0.01, 0.6
GAP, GAP_FITTED, FITTED = 0.10, 0.07, 0.9


def _values(run: Run, key: str) -> NDArray[np.float64]:
    return run.series(key)[1]


def _last(run: Run, key: str) -> float:
    values = _values(run, key)
    return float(values[-1]) if len(values) else np.nan


def not_finite(run: Run) -> bool:
    """The loss is NaN or infinite; both sets look for it."""
    seen = np.concatenate([_values(run, f"{split}/loss") for split in ("train", "minitrain")])
    return not np.isfinite(seen).all() or "became" in (run.reason or "")


def learning_rate(run: Run) -> bool:
    """Of any stage, outside of the range that was tried with Adam."""
    recipe = check_text(run.recipe_text, Recipe, name="recipe.yaml")
    return any(not LEAST_RATE <= stage.lr <= MOST_RATE for stage in recipe.stages)


def input_range(run: Run) -> bool:
    """Black or white, normalised, lies outside of -1 to 1."""
    view = run.manifest["view"]
    ends = [(end - m) / s for end in (0, 1) for m, s in zip(view["mean"], view["std"], strict=True)]
    return max(map(abs, ends)) > MOST_INPUT + 1e-6


def too_good(run: Run) -> bool:
    """Val accuracy that is too good to be true."""
    return _last(run, "val/top1") > TOO_GOOD


def val_leads(run: Run) -> bool:
    """Val accuracy above that of training."""
    return _last(run, "val/top1") > _last(run, "minitrain/top1") + LEAD


def one_step_overfitting(run: Run) -> bool:
    """From one look to the next the loss rises on val and falls on training photos."""
    val, train = _values(run, "val/loss"), _values(run, "minitrain/loss")
    looks = min(len(val), len(train))
    return bool(((np.diff(val[:looks]) > 0) & (np.diff(train[:looks]) < 0)).any())


def oscillates(run: Run) -> bool:
    """Training accuracy falls by the amplitude in many of the looks."""
    steps = np.diff(_values(run, "minitrain/top1"))
    return len(steps) > 0 and float((steps <= -SWING).mean()) >= SWINGS


def converges_slowly(run: Run) -> bool:
    """Training accuracy gains next to nothing."""
    values = _values(run, "minitrain/top1")
    return len(values) > 1 and float(values.max() - values[0]) < LEAST_GAIN


def never_good(run: Run) -> bool:
    """Training accuracy stays low."""
    values = _values(run, "minitrain/top1")
    return len(values) > 0 and float(values.max()) <= NEVER_ABOVE


def gap(run: Run) -> bool:
    """Training accuracy far above that of val."""
    train, val = _last(run, "minitrain/top1"), _last(run, "val/top1")
    return train - val >= (GAP_FITTED if train > FITTED else GAP)


UMLAUT: dict[str, Rule] = {
    "not finite": not_finite,
    "learning rate": learning_rate,
    "input range": input_range,
    "too good": too_good,
    "val leads": val_leads,
    "overfitting": one_step_overfitting,
}
AUTOTRAINER: dict[str, Rule] = {
    "not finite": not_finite,
    "oscillates": oscillates,
    "slow": converges_slowly,
    "never good": never_good,
    "gap": gap,
}
SETS = {"UMLAUT": UMLAUT, "AutoTrainer": AUTOTRAINER}

# Which of their rules name which fault; none of the others can be named by either.
NAMES: dict[str, tuple[str, ...]] = {
    "lr x 100": ("not finite", "learning rate", "oscillates", "slow", "never good"),
    "lr / 100": ("learning rate", "slow", "never good"),
    "far too long": ("overfitting", "gap"),
    "decay too large": ("slow", "never good"),
    "labels shuffled": ("val leads",),
    "copies across splits": ("too good", "val leads"),
    "wrong normalisation": ("input range",),
    "second stage collapses": ("not finite", "learning rate", "oscillates", "never good"),
    "too short": ("slow", "never good"),
    "decayed too early": ("slow", "never good"),
}


def firing(rules: dict[str, Rule], run: Run) -> set[str]:
    """Names of the rules of a set that fire."""
    return {name for name, rule in rules.items() if rule(run)}

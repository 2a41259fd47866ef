"""What a study asks of whoever trains: trials in, outcomes out. Loads no torch.

A study is handed, by import path, a function that runs trials. Trials whose recipes have the same
`Recipe.group_key` may share one pass over the photos, so they arrive together; each yields an
outcome of its own, in whatever order they finish, and leaves a run of its own in its folder.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fieldmark.recipe import Recipe

OUT_OF_FOLD = (
    "out_of_fold"  # the split whose predictions come from the fold a photo was left out of
)


def after_stage(name: str) -> str:
    """What the predictions of `val` at the end of a stage but the last are called."""
    return f"val_after_{name}"


Watch = Callable[[int, Mapping[str, float]], str | None]
"""From how many evaluations the last stage has, and what one found, to why the run is to end."""


class PrunedError(Exception):
    """A training was ended early by choice; `metrics` are those it ended with."""

    def __init__(self, reason: str, metrics: Mapping[str, float]) -> None:
        super().__init__(reason)
        self.metrics = dict(metrics)


@dataclass(frozen=True)
class Trial:
    """One recipe to train into one folder.

    Attributes:
        recipe: What to do.
        folder: New; becomes the run, whose predictions are of `val`, or of `out_of_fold`.
        folds: Judge by this many stratified folds of train + val, each predicted by a model that
            was trained on the others; None: judge by `val`.
        watch: Asked at each evaluation of the last stage whether to end there.
    """

    recipe: Recipe
    folder: Path
    folds: int | None = None
    watch: Watch | None = None


@dataclass(frozen=True)
class Outcome:
    """How one trial went.

    Attributes:
        folder: The trial's, which says which one it was.
        status: `finished`, or `failed` or `pruned` (ended early by choice) with the reason.
        metrics: As `val/top1` or `out_of_fold/top1`: fractions, losses in nats.
        seconds: Its share of the time its group took.
    """

    folder: Path
    status: Literal["finished", "failed", "pruned"]
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str | None = None


RunTrials = Callable[[Sequence[Trial]], Iterator[Outcome]]
"""It may take a `Tell` as `tell`, and is given one where somebody looks on."""

Tell = Callable[[str, int, int], None]
"""Is told of a part of the work, as `features`: how much is done, and of how much."""

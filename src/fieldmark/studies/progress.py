"""How far a run or a study is, and how long it may still take; read from records alone."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from fieldmark.checked_yaml import check_text
from fieldmark.errors import FieldmarkError
from fieldmark.recipe import Recipe
from fieldmark.studies.lease import holder_of
from fieldmark.studies.run import Run
from fieldmark.studies.study import LEASES, Study

RECENT = 20  # gaps between records that the pace is taken from
PAUSE = 10  # times the usual gap: no step takes so long, so it was a pause
SILENT = 120.0  # seconds without a word, and so many times the usual gap: it may have been killed


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes:
        stage: The stage under way; None before the first record.
        step: Optimiser steps done, all stages counted.
        total: Steps in all, at most: a stage may stop early. None: the recipe can't be read.
        seconds_in_stage: What the stage under way will still take after its last word; None: not
            known yet.
        stages_left: Stages after it, whose pace is not known.
        last_word: When it last wrote something, in seconds since the epoch.
        usual_gap: Seconds between two records of late; None: fewer than two.
    """

    stage: str | None
    step: int
    total: int | None
    seconds_in_stage: float | None
    stages_left: int
    last_word: float
    usual_gap: float | None

    def seconds_left(self, now: float) -> float | None:
        """What the stage under way will still take."""
        if self.seconds_in_stage is None:
            return None
        return max(0.0, self.seconds_in_stage - max(0.0, now - self.last_word))

    def is_silent(self, now: float) -> bool:
        """Whether it has said nothing for so long that it may have been killed."""
        return now - self.last_word > max(SILENT, SILENT * (self.usual_gap or 0))


def run_progress(run: Run) -> Progress:
    """How far a run is."""
    records = run.measured
    last = records[-1] if records else {"step": 0, "time": run.manifest["started"]}
    stage, step = last.get("stage"), int(last["step"])
    ends = _stage_ends(run)
    gaps = _gaps([(r["step"], r["time"]) for r in records[-RECENT - 1 :] if r["stage"] == stage])
    pace = _pace(gaps)
    here = next((n for n, (name, _) in enumerate(ends) if name == stage), None)
    left = None
    if here is not None and pace is not None:
        left = max(0.0, (ends[here][1] - step) * pace)
    return Progress(
        stage=stage,
        step=step,
        total=ends[-1][1] if ends else None,
        seconds_in_stage=left,
        stages_left=0 if here is None else len(ends) - here - 1,
        last_word=float(last["time"]),
        usual_gap=statistics.median(seconds for seconds, _ in gaps) if gaps else None,
    )


def study_seconds_left(study: Study) -> float | None:
    """How long a study may still take with the workers it has; None before the first result.

    What is left is taken to last as long as what is done, on average.
    """
    done = list(study.results().values())
    plan = study.plan()
    missing = sum(len(group.slots) for group in plan.groups) + plan.later * study.design.file.seeds
    if not missing:
        return 0.0
    if not done:
        return None
    mean = math.fsum(result.seconds for result in done) / len(done)
    held = [group for group in plan.groups if holder_of(study.folder / LEASES, group.key)]
    return missing * mean / max(1, len(held))


def _stage_ends(run: Run) -> list[tuple[str, int]]:
    """Each stage's name and its last step, as it was or as the recipe has it; empty: unknown."""
    try:
        recipe = check_text(run.recipe_text, Recipe, name=str(run.folder))
        photos = int(run.manifest["counts"]["train"])
    except (FieldmarkError, KeyError, OSError):
        return []
    ended = run.manifest.get("stages", [])
    ends: list[tuple[str, int]] = [(stage["name"], stage["last_step"]) for stage in ended]
    for stage in recipe.stages[len(ended) :]:
        before = ends[-1][1] if ends else 0
        length = stage.length.steps(steps_per_epoch=stage.steps_per_epoch(photos))
        ends.append((stage.name, before + length))
    return ends


def _gaps(records: Sequence[tuple[int, float]]) -> list[tuple[float, int]]:
    """Seconds and steps between (step, time) and the next, pauses left out."""
    gaps = [(after[1] - before[1], after[0] - before[0]) for before, after in pairwise(records)]
    usual = statistics.median(seconds for seconds, _ in gaps) if gaps else 0.0
    return [gap for gap in gaps if gap[0] <= max(PAUSE * usual, 1.0)]


def _pace(gaps: Sequence[tuple[float, int]]) -> float | None:
    """Seconds a step, evaluations included."""
    steps = sum(steps for _, steps in gaps)
    return math.fsum(seconds for seconds, _ in gaps) / steps if steps > 0 else None

"""Checks of losses that blow up, R5: a problem where they stay so, a note where they recover."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import log

import numpy as np

from fieldmark.diagnosis.evidence import RunEvidence, StageEvidence, nothing_trained
from fieldmark.diagnosis.finding import Check, Place, Seen, check, clear, fires

EXPLODED = 3.0  # times the loss of guessing; later, of what the stage began with if more; ours
EARLY = 0.05  # of the stage's steps, or in warm-up; ours


@dataclass(frozen=True)
class _Blowup:
    """Where a loss blew up first.

    Attributes:
        stage: In which stage.
        key: Which loss.
        step: Of the whole training.
        start: What the loss began with.
        worst: The most it came to, or `nan`.
        healed: Whether it ended no worse than it began.
    """

    stage: StageEvidence
    key: str
    step: int
    start: float
    worst: str
    healed: bool

    @property
    def is_early(self) -> bool:
        """Within warm-up or the first twentieth, or the first step of all."""
        done = self.step - self.stage.first_step
        return done <= max(1.0, EARLY * self.stage.planned_steps, self.stage.warmup_steps)

    def seen(self) -> Seen:
        """It fires, with what may help."""
        rates, gradients = self.stage.curve("train/lr"), self.stage.curve("train/grad_norm")
        before = rates.values[rates.steps <= self.step]
        usual = gradients.values
        settings = self.stage.settings
        return fires(
            Place(self.stage.name, self.step, self.step, self.key),
            stage=self.stage.name,
            key=self.key,
            step=self.step,
            start=self.start,
            worst=self.worst,
            lr=float(before[-1]) if len(before) else (settings.lr if settings else 0.0),
            clip=float(np.percentile(usual, 90)) if len(usual) > 4 else 1.0,
        )


def _blowup(run: RunEvidence, stage: StageEvidence) -> _Blowup | None:
    """The first in a stage; where none is for good, the first that healed."""
    guessing, found = log(max(2, stage.classes)), []
    for key in ("train/loss", "minitrain/loss"):
        curve = stage.curve(key)
        start = curve.first if len(curve) else guessing
        level = max(start, guessing) if stage.number else guessing  # a fresh head guesses
        beyond = np.flatnonzero(curve.values > EXPLODED * level)
        if len(beyond):
            worst, healed = f"{curve.values[beyond].max():.3g}", curve.last <= level
            found.append(_Blowup(stage, key, int(curve.steps[beyond[0]]), start, worst, healed))
    for key in ("train/loss", "minitrain/loss", f"{stage.split}/loss"):
        if key in stage.bad:
            curve = stage.curve(key)
            start = curve.first if len(curve) else guessing
            found.append(_Blowup(stage, key, stage.bad[key], start, "nan", healed=False))
    told = re.search(r"became.*? at step (\d+) of the stage", run.run.reason or "")
    if told and stage is run.stages[-1]:
        curve = stage.curve("train/loss")
        start, step = curve.first if len(curve) else guessing, stage.first_step + int(told[1])
        found.append(_Blowup(stage, "train/loss", step, start, "nan", healed=False))
    return min(found, key=lambda one: (one.healed, one.step)) if found else None


def _where(accepts: Callable[[_Blowup], bool]) -> Callable[[RunEvidence], Seen]:
    """Looks for a blow-up of some kind in any stage, the last first."""

    def look(run: RunEvidence) -> Seen:
        keys = {key for stage in run.stages for key in (*stage.curves, *stage.bad)}
        if not any(key.endswith("/loss") for key in keys):
            return nothing_trained()
        found = [each for stage in run.stages if (each := _blowup(run, stage)) and accepts(each)]
        return found[-1].seen() if found else clear()

    return look


diverged_early = check(
    "diverged_early",
    "R5",
    "problem",
    "lr",
    "warm-up",
    label="Loss that blows up at the start",
    title="In stage {stage} `{key}` goes from {start:.3g} to {worst} nats at step {step}, "
    "at lr {lr:.3g}, and does not recover.",
    cause="The first steps are too long for weights that have not settled.",
    advice="Give the stage a warm-up of 10 % or a lower lr, a third to a tenth of {lr:.3g}.",
    refuted_by="It blows up at a tenth of the rate too: then look at the photos and the head.",
    otherwise="no loss blew up for good in the first steps of a stage",
)(_where(lambda found: found.is_early and not found.healed))

diverged_midway = check(
    "diverged_midway",
    "R5",
    "problem",
    "lr",
    "step",
    label="Loss that blows up midway",
    title="In stage {stage} `{key}` goes from {start:.3g} to {worst} nats at step {step}, "
    "at lr {lr:.3g}, and does not recover.",
    cause="Single batches make gradients far longer than usual.",
    advice="Clip gradients: `clip_norm: {clip:.2g}`, about the length nine in ten stay below. If "
    "more than half of the steps are clipped then, lower lr instead.",
    refuted_by="It blows up with clipped gradients too: then the rate is too high as it is.",
    otherwise="no loss blew up for good after the first steps of a stage",
)(_where(lambda found: not found.is_early and not found.healed))

loss_spikes = check(
    "loss_spikes",
    "R5",
    "note",
    "lr",
    "step",
    label="Loss that spikes and recovers",
    title="In stage {stage} `{key}`, {start:.3g} nats at first, jumps to {worst} at step {step} "
    "at lr {lr:.3g}, and recovers.",
    cause="Steps are too long for a while; what was learned before is lost each time.",
    advice="Lower lr to a third, give it a warm-up, or clip gradients: `clip_norm: {clip:.2g}`.",
    refuted_by="Without the spikes val ends no better.",
    otherwise="no loss spiked",
)(_where(lambda found: found.healed))


CHECKS: tuple[Check[RunEvidence], ...] = (diverged_early, diverged_midway, loss_spikes)

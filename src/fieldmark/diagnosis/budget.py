"""Checks of how long a training is, and what its time goes into: R16, R17 and R32."""

import numpy as np

from fieldmark.diagnosis.curve import Curve, fall_left, middle
from fieldmark.diagnosis.evidence import RunEvidence, StageEvidence, any_stage, lacks, last_stage
from fieldmark.diagnosis.finding import Check, Number, Seen, check, clear, fires, unknown
from fieldmark.duration import Duration

SETTLED = 0.15  # of val loss's fall in the second half of progress: less is none; ours
STILL_GAINING = 0.3  # of it, with top-1 up by a standard error: there twice the length gained; ours
WORTH_IT = 0.02  # of the val loss it began with; ours
FEW_EPOCHS, UNMOVED = 8, 0.5  # as `lr_too_low` has them: short before slow
LAST_QUARTER, FIRST_TENTH, FLAT = 0.75, 0.10, 0.5  # the playbook's 25 and 10 %; 50 % ours
WAITING = 0.3  # of the time; ours
FEWEST_SECONDS = 5.0


@check(
    "too_short",
    "R16",
    "warning",
    "epoch",
    "split",
    "schedule",
    label="Stopped too early",
    title="Stage {stage} ended while `{key}` was still falling: {share:.0%} of its fall came in "
    "the second half ({middle:.2f} to {end:.2f} nats), its lowest is at step {best_step:,} of "
    "{last_step:,}.",
    cause="The stage is too short for its learning rate.",
    advice="Double the length to {longer} and let the schedule stretch with it; do not just go on "
    "at a tiny lr.",
    refuted_by="With twice the length val is better by less than chance.",
    otherwise="{share:.0%} of what `{key}` fell came in the second half of the stage",
)
def too_short(run: RunEvidence) -> Seen:
    """How the last stage ended, unless a study ended it early by choice."""
    if run.run.status == "pruned":
        return unknown("ended_early", why=str(run.run.reason).rstrip("."))
    return _still_gaining(run)


@last_stage
def _still_gaining(stage: StageEvidence) -> Seen:
    """Val best in the last quarter and still gaining, in progress by lr: no schedule hides it.

    A loss that falls beside the same decisions is no gain, so top-1 has to rise as well. In a
    stage of few epochs val may not have begun to gain: then a loss on minitrain that has hardly
    moved from a straight line tells it.
    """
    val, clean = stage.val("loss"), stage.clean("loss")
    if short := lacks(val, 3):
        return short
    numbers, left = _gains(stage, val)
    late = int(numbers["best_step"]) >= val.steps[0] + LAST_QUARTER * (val.steps[-1] - val.steps[0])
    gained = float(numbers["middle"]) - val.last
    worth_it = gained > WORTH_IT * val.first and _decides_better(stage)
    if late and left > STILL_GAINING and worth_it:
        return fires(val.place(), **numbers)
    few = stage.number == 0 and stage.epochs is not None and stage.epochs < FEW_EPOCHS
    if few and len(clean) >= 3:
        of_clean, left = _gains(stage, clean)
        if left > STILL_GAINING and clean.last > UNMOVED * clean.first:
            return fires(clean.place(), **of_clean)
    return clear(**numbers)


def _decides_better(stage: StageEvidence) -> bool:
    """Whether late top-1 is over that of the middle by a standard error; true of none."""
    top1 = stage.val("top1")
    if not len(top1):
        return True
    halfway = middle(top1.smooth, stage.progress(top1.steps))
    return top1.late_mean - halfway > stage.error(stage.split, top1.late_mean)


def _gains(stage: StageEvidence, loss: Curve) -> tuple[dict[str, Number], float]:
    """A loss in numbers, and what share of its fall came in the second half of progress."""
    progress, length = stage.progress(loss.steps), stage.settings and stage.settings.length
    left = fall_left(loss, progress) or 0.0
    numbers: dict[str, Number] = {
        "stage": stage.name,
        "key": loss.key,
        "share": left,
        "middle": middle(loss, progress),
        "end": loss.last,
        "best_step": int(loss.steps[int(loss.values.argmin())]),
        "last_step": int(loss.steps[-1]),
        "longer": Duration(2 * length.amount, length.unit).words
        if length
        else f"{2 * stage.steps} steps",
    }
    return numbers, left


@check(
    "too_long",
    "R17",
    "warning",
    "epoch",
    "split",
    label="Far more epochs than needed",
    title="Stage {stage} took {epochs:.0f} epochs; top-1 on {split} was within chance of its end "
    "after {needed:.0f} ({reached:.1%}, then {end:.1%}, means of several looks).",
    cause="The stage is longer than val can make use of.",
    advice="Cut the length to some {cut:.0f} of its {epochs:.0f} epochs, the schedule with it, and "
    "spend the time on other settings. Do not tune the length in a study.",
    refuted_by="Cut to {cut:.0f} of {epochs:.0f} epochs val is worse by more than chance.",
    otherwise="top-1 on {split} comes within chance of its end after {needed:.0f} of "
    "{epochs:.0f} epochs",
)
@any_stage
def too_long(stage: StageEvidence) -> Seen:
    """As good as at its end within the first tenth of the stage (playbook)."""
    return _settled(stage, FIRST_TENTH)


@check(
    "second_half_idle",
    "R17",
    "note",
    "epoch",
    "split",
    label="A second half that changes nothing",
    title="In stage {stage} top-1 on {split} was within chance of its end after {needed:.0f} of "
    "{epochs:.0f} epochs ({reached:.1%}, then {end:.1%}, means of several looks).",
    cause="The stage is longer than val can make use of.",
    advice="Some {cut:.0f} of its {epochs:.0f} epochs, the schedule with them, should do.",
    refuted_by="Cut to {cut:.0f} of {epochs:.0f} epochs val is worse by more than chance.",
    otherwise="top-1 on {split} comes within chance of its end after {needed:.0f} of "
    "{epochs:.0f} epochs",
)
@any_stage
def second_half_idle(stage: StageEvidence) -> Seen:
    """Flat for more than half of the stage; a shorter one is `too_long`'s to tell."""
    if (found := _settled(stage, FIRST_TENTH)).outcome == "fires":
        return clear(**found.numbers)
    return _settled(stage, 1 - FLAT)


def _settled(stage: StageEvidence, within: float) -> Seen:
    """Whether val is as good as at its end within a first share of the stage, and stays so."""
    curve = stage.val("top1")
    after = curve[curve.steps > stage.first_step]
    if short := lacks(after, 10):
        return short
    if stage.epochs is None or stage.steps_per_epoch is None:
        return unknown("not_recorded", key="recipe")
    smooth, end, loss = after.smooth.values, after.late_mean, stage.val("loss")
    below = np.flatnonzero(smooth < end - stage.error(stage.split, end))
    first = min(int(below[-1]) + 1, len(after) - 1) if len(below) else 0  # the last may be below
    needed = float(after.steps[first] - stage.first_step) / stage.steps_per_epoch
    cut = max(1.0, 1.5 * needed)
    numbers: dict[str, Number] = {
        "stage": stage.name,
        "split": stage.split,
        "epochs": stage.epochs,
        "needed": needed,
        "cut": cut,
        "reached": float(smooth[first]),
        "end": end,
    }
    left = (fall_left(loss, stage.progress(loss.steps)) if len(loss) else None) or 0.0
    if needed <= within * stage.epochs and left < SETTLED and cut < stage.epochs:
        return fires(after.place(first), **numbers)
    return clear(**numbers)


@check(
    "input_bound",
    "R32",
    "note",
    "step",
    "feature store",
    label="Steps that wait for photos",
    title="In stage {stage} the steps waited for photos {share:.0%} of the time, {waited:.0f} of "
    "{total:.0f} s.",
    cause="Reading and decoding photos takes longer than training on them.",
    advice="Keep resized photos (`data.cache: 2`, gigabytes), store photos smaller, or use more "
    "cores. Do not compare the speed of settings yet.",
    refuted_by="With `data.cache` the steps take as long as now.",
    otherwise="the steps waited for photos {share:.0%} of the time",
)
@any_stage
def input_bound(stage: StageEvidence) -> Seen:
    """The playbook's throughput test, from the run's own stopwatch."""
    data, compute = stage.curve("train/data_seconds"), stage.curve("train/compute_seconds")
    if short := lacks(data, 1):
        return short
    waited, total = float(data.values.sum()), float(data.values.sum() + compute.values.sum())
    numbers: dict[str, Number] = {
        "stage": stage.name,
        "share": waited / max(total, 1e-9),
        "waited": waited,
        "total": total,
    }
    if stage.trains_backbone and total > FEWEST_SECONDS and waited > WAITING * total:
        return fires(data.place(), **numbers)
    return clear(**numbers)


CHECKS: tuple[Check[RunEvidence], ...] = (too_short, too_long, second_half_idle, input_bound)

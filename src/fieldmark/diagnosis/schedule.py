"""Checks of the learning rate, its schedule and the decay: R7, R8, R18, R28, R29."""

from math import log

import numpy as np

from fieldmark.diagnosis.curve import Curve, fall_left, running_mean
from fieldmark.diagnosis.evidence import RunEvidence, StageEvidence, any_stage, lacks
from fieldmark.diagnosis.finding import Check, Number, Seen, check, clear, fires, unknown
from fieldmark.language import said
from fieldmark.recipe import Stage

STRAIGHT = 0.3, 0.6  # of its fall in the second half: 0.5 is a straight line; ours
UNMOVED = 0.5  # of the loss it began with is still there; ours
HIGH_LEVEL = 0.5  # of the loss it began with, held while lr is high; ours
LEAST_EPOCHS = 8  # a shorter stage is short before it is slow; ours
SMALL_MOVE, LARGE_MOVE = 1e-4, 1e-2  # of the weights' length a step; cs231n wants some 1e-3
OVERSHOOT = 1.3  # times the loss of guessing; ours
JITTER = 0.02  # of the level it moves around; ours
TINY, LOW = 0.01, 0.1  # of the peak rate
TINY_LASTS, LOW_LASTS = 0.2, 0.6  # of the stage's steps; a cosine is below 1 % for 6 % of them
FITTED = 0.98  # of the training photos: nothing is left to learn by lr
WAS_FALLING = 0.1  # of a fall in the second half of its way; ours
WORTH_IT = 0.02  # of the loss it began with; ours
HELD = 0.4  # of the loss it began with; ours
SHORT_MEMORY = 0.25  # of the stage's steps; ours


def _at_full_rate(stage: StageEvidence, curve: Curve) -> Curve:
    """The records made while lr was at half of its peak or more, the first tenth left out."""
    rates = stage.lr
    if len(rates) < 2:
        return curve
    beside = np.interp(curve.steps, rates.steps, rates.values)
    settled = curve.steps >= stage.first_step + 0.1 * stage.steps
    return curve[(beside >= 0.5 * rates.values.max()) & settled]


def _move(stage: StageEvidence) -> float:
    """By how much of their length a step moves the weights at full rate; 0 where not recorded."""
    moves = _at_full_rate(stage, stage.curve("train/update_ratio"))
    return float(np.median(moves.values)) if len(moves) else 0.0


@check(
    "lr_too_low",
    "R7",
    "warning",
    "lr",
    "minitrain",
    label="Learning rate too low",
    title="In stage {stage} the loss on minitrain falls from {start:.2f} to only {end:.2f} nats in "
    "{epochs:.0f} epochs, nearly in a straight line, and was still falling at its end (lr {lr:g}).",
    cause="The learning rate is too low: steps are too small to get there in time.",
    advice="Raise lr to {higher:.3g}, {why}. Longer training does the same at a higher price.",
    refuted_by="At lr {higher:.3g} the loss falls no faster.",
    otherwise="the loss on minitrain falls from {start:.2f} to {end:.2f} nats, {left:.0%} of it "
    "in the second half of the stage",
)
@any_stage
def lr_too_low(stage: StageEvidence) -> Seen:
    """cs231n's near-linear fall, measured in progress by lr; ratio near 1e-3 is usual there."""
    loss = stage.clean("loss")
    if short := lacks(loss, 4):
        return short
    if stage.epochs is None or stage.settings is None:
        return unknown("not_recorded", key="recipe")
    left = fall_left(loss, stage.progress(loss.steps))
    move, lr = _move(stage), stage.settings.lr
    low, high = stage.band or (0.0, 10 * lr)
    why = said("rates.of_band", low=low, high=high) if stage.band else said("rates.step_by_step")
    numbers: dict[str, Number] = {
        "stage": stage.name,
        "start": loss.first,
        "end": loss.last,
        "epochs": stage.epochs,
        "lr": lr,
        "higher": high,
        "why": "band" if stage.band else "ten times",
        "left": left or 0.0,
    }
    if move:
        numbers["move"] = move
    barely = loss.last > UNMOVED * loss.first and stage.epochs >= LEAST_EPOCHS
    if stage.number:  # a head that is there already leaves little to fall
        barely = barely and 0 < move < SMALL_MOVE
    straight = left is not None and STRAIGHT[0] < left < STRAIGHT[1]
    if straight and barely and lr < high and not _lowered(stage):
        return fires(loss.place(), **numbers).in_words(why=why)
    return clear(**numbers)


@check(
    "lr_too_high",
    "R8",
    "warning",
    "lr",
    "running loss",
    label="Learning rate too high",
    title="In stage {stage} the running loss begins at {start:.3g} nats, goes up to {peak:.3g} and "
    "moves around {level:.3g}, by {jitter:.3g}, while lr is high (lr {lr:g}).",
    cause="The learning rate is too high: steps jump over what they should reach.",
    advice="Lower lr to {lower:g}, then again, or let it rise by a warm-up and fall earlier.",
    refuted_by="At a third of the rate loss and val are no better.",
    otherwise="the running loss goes from {start:.3g} to {end:.3g} nats, at most {peak:.3g} on "
    "its way",
)
@any_stage
def lr_too_high(stage: StageEvidence) -> Seen:
    """Over the top and not made good, or a jittery level held at a high lr (cs231n, playbook)."""
    loss = stage.curve("train/loss")
    if short := lacks(loss, 10):
        return short
    if stage.settings is None:
        return unknown("not_recorded", key="recipe")
    smooth = running_mean(loss.values, 3)
    high = _at_full_rate(stage, loss)
    move = _move(stage)
    half = high[len(high) // 2 :]
    level, jitter = float(half.values.mean()) if len(half) else loss.last, high.jitter
    numbers: dict[str, Number] = {
        "stage": stage.name,
        "start": loss.first,
        "end": float(smooth[-1]),
        "peak": float(smooth.max()),
        "level": level,
        "jitter": jitter,
        "lr": stage.settings.lr,
        "lower": stage.settings.lr / 10,
    }
    if move:
        numbers["move"] = move
    guessing = log(max(2, stage.classes))
    if smooth.max() > OVERSHOOT * guessing and loss.late_mean > HIGH_LEVEL * guessing:
        return fires(loss.place(0, int(smooth.argmax())), **numbers)
    if len(high) >= 10 and move > LARGE_MOVE and not _decay_rules(stage):
        fell = float(high.values[: len(high) // 2].mean()) - level
        if fell < jitter and level > HIGH_LEVEL * loss.first and jitter > JITTER * level:
            return fires(half.place(), **numbers)
    return clear(**numbers)


@check(
    "decayed_too_early",
    "R18",
    "warning",
    "schedule",
    "lr",
    label="Learning rate lowered too early",
    title="In stage {stage} lr is at {level:.0%} of its peak or less for the last {share:.0%} of "
    "the steps, and the loss on minitrain, {loss:.2f} nats, was far from done when it was lowered.",
    cause="The schedule's numbers were made for another length.",
    advice="Stretch the schedule to the stage: milestones in per cent, or `schedule: cosine`. Or "
    "try a constant lr first.",
    refuted_by="With a constant lr minitrain ends no better.",
    otherwise="lr is at a tenth of its peak or less for the last {share:.0%} of the steps",
)
@any_stage
def decayed_too_early(stage: StageEvidence) -> Seen:
    """Karpathy, "do not trust learning rate decay defaults"."""
    rates, loss, train = stage.lr, stage.clean("loss"), stage.clean("top1")
    for curve, needed in ((rates, 8), (loss, 4)):
        if short := lacks(curve, needed):
            return short
    tiny, low = _low_for(stage, TINY), _low_for(stage, LOW)
    level, share = (TINY, tiny) if tiny >= TINY_LASTS else (LOW, low)
    numbers: dict[str, Number] = {
        "stage": stage.name,
        "level": level,
        "share": share,
        "loss": loss.last,
    }
    lowered = rates.steps[-1] - share * stage.steps
    far_from_done = _was_falling(loss, lowered) or loss.last > UNMOVED * loss.first
    if _lowered(stage) and far_from_done and (not len(train) or train.last < FITTED):
        return fires(rates.place(int((rates.steps <= lowered).sum()) - 1), **numbers)
    return clear(**numbers)


def _low_for(stage: StageEvidence, level: float) -> float:
    """For what last share of a stage lr is at a share of its peak or less."""
    rates = stage.lr
    if not len(rates):
        return 0.0
    above = rates.steps[rates.values > 1.001 * level * rates.values.max()]
    last = above[-1] if len(above) else rates.steps[0]
    return float((rates.steps[-1] - last) / max(1, stage.steps))


def _lowered(stage: StageEvidence) -> bool:
    """Whether lr is low for so long that little can be learned any more."""
    return _low_for(stage, TINY) >= TINY_LASTS or _low_for(stage, LOW) >= LOW_LASTS


def _was_falling(loss: Curve, step: float) -> bool:
    """Whether a good part of a fall came late, before a step or from there to the end."""
    first, last = float(loss.steps[0]), float(loss.steps[-1])
    for begin, end in ((first, step), (step, last)):
        whole = loss.at(begin) - loss.at(end)
        late = loss.at((begin + end) / 2) - loss.at(end)
        if whole > WORTH_IT * loss.first and late > WAS_FALLING * whole:
            return True
    return False


@check(
    "milestone_beyond_the_end",
    "R18",
    "warning",
    "schedule",
    "stage",
    label="Milestones that are never reached",
    title="Stage {stage} has {steps:,} steps, and its schedule lowers lr at step {late:,} first: "
    "never.",
    cause="The schedule's numbers were made for another length.",
    advice="Write milestones in per cent of the stage: `milestones: [50 %, 75 %]`.",
    refuted_by="It was meant: a constant lr ends no worse.",
    otherwise="every milestone lies within its stage",
)
@any_stage
def milestone_beyond_the_end(stage: StageEvidence) -> Seen:
    """ImageNet's epochs 30, 60 and 90 on a training of 25."""
    if stage.settings is None or stage.steps_per_epoch is None:
        return unknown("not_recorded", key="recipe")
    total, schedule = stage.planned_steps, stage.settings.schedule
    places = [
        place.steps(steps_per_epoch=stage.steps_per_epoch, stage_steps=total)
        for place in (*(schedule.milestones or ()), *((schedule.every,) if schedule.every else ()))
    ]
    numbers: dict[str, Number] = {"stage": stage.name, "steps": total}
    never = [place for place in places if place >= total]
    if never and schedule.name != "exponential":
        return fires(late=min(never), **numbers)
    return clear(**numbers)


def _memory(settings: Stage | None) -> float | None:
    """Steps after which decay has shrunk to 37 % what a step added, at the full rate.

    (1 - momentum) / (lr weight_decay) of SGD; 1 / (lr weight_decay) where decay is decoupled.
    """
    if settings is None or not settings.weight_decay:
        return None
    kept = {"sgd": settings.momentum, "nesterov": settings.momentum, "adamw": 0.0, "lion": 0.0}
    if settings.optimizer not in kept:
        return None
    return (1 - kept[settings.optimizer]) / (settings.lr * settings.weight_decay)


def _decay_rules(stage: StageEvidence) -> bool:
    memory = _memory(stage.settings)
    return memory is not None and memory < SHORT_MEMORY * stage.planned_steps


@check(
    "decay_too_strong",
    "R28",
    "problem",
    "weight decay",
    "minitrain",
    label="Weight decay too strong",
    title="In stage {stage} the loss on minitrain stops early, at {end:.2f} nats of the "
    "{start:.2f} it began with; weight decay {decay:g} at lr {lr:g} undoes a step within "
    "{memory:,.0f} of {steps:,}.",
    cause="Decay pulls the weights back as fast as the steps move them. More steps change nothing.",
    advice="Lower `weight_decay` to {lower:g}, then 0. A higher lr wants less decay.",
    refuted_by="With a tenth of the decay minitrain and val end no better.",
    otherwise="the loss on minitrain goes from {start:.2f} to {end:.2f} nats at weight decay "
    "{decay:g}",
)
@any_stage
def decay_too_strong(stage: StageEvidence) -> Seen:
    """Converged early and high, with a decay that forgets; our own, after Smith's balance."""
    loss, memory = stage.clean("loss"), _memory(stage.settings)
    if stage.settings is None:
        return unknown("not_recorded", key="recipe")
    if short := lacks(loss, 6):
        return short
    left = fall_left(loss, stage.progress(loss.steps))
    numbers: dict[str, Number] = {
        "stage": stage.name,
        "start": loss.first,
        "end": loss.last,
        "decay": stage.settings.weight_decay,
        "lr": stage.settings.lr,
        "lower": stage.settings.weight_decay / 10,
        "memory": memory or 0.0,
        "steps": stage.planned_steps,
    }
    arrived = left is None or left < STRAIGHT[0]
    if _decay_rules(stage) and arrived and loss.late_mean > HELD * loss.first:
        return fires(loss.place(len(loss) // 2), **numbers)
    return clear(**numbers)


@check(
    "no_band_of_rates",
    "R29",
    "note",
    "lr",
    "stage",
    label="Range test without an answer",
    title="The range test of stage {stage} gives no band of learning rates: {reason}.",
    cause="The range, the batch or the stage is wrong for it, or a few steps tell nothing here.",
    advice="Widen the range or lengthen it, or take larger batches; until then sweep lr.",
    refuted_by="Another seed's test has a clear fall and a clear rise.",
    otherwise="the range test of {tested} gives a band for every stage: {bands}",
)
def no_band_of_rates(run: RunEvidence) -> Seen:
    """Smith, arXiv 1506.01186; a band over several seeds, since single curves are too noisy."""
    tests = run.rehearsal.get("range")
    if not tests:
        return unknown("not_rehearsed", recipe=run.recipe_name)
    for stage, test in tests.items():
        if not test.get("band"):
            reason = str(test.get("reason") or "no clear fall").rstrip(".")
            known = {name: test[name] for name in ("why", "rises") if test.get(name)}
            if rates := test.get("lr"):
                known |= {"low": rates[0], "high": rates[-1]}
            seen = fires(stage=stage, reason=reason, **known)
            if "why" not in known:  # an older rehearsal, whose reason is in English alone
                return seen
            return seen.in_words(reason=said(f"rehearsed.why.{known['why']}", **known))
    bands = ", ".join(f"{low:g} to {high:g}" for low, high in (t["band"] for t in tests.values()))
    return clear(tested=", ".join(tests), bands=bands)


CHECKS: tuple[Check[RunEvidence], ...] = (
    lr_too_high,
    lr_too_low,
    decay_too_strong,
    decayed_too_early,
    milestone_beyond_the_end,
    no_band_of_rates,
)

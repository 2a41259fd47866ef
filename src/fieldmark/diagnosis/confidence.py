"""Checks of probabilities beside decisions that hold: R10."""

from math import log

from fieldmark.diagnosis.evidence import RunEvidence, StageEvidence, lacks, last_stage
from fieldmark.diagnosis.finding import Check, Number, Seen, check, clear, fires

FEWEST = 6  # looks, for a shape
LOSS_RISE = 0.05  # of its lowest; ours
FAR_WORSE = 2.5  # times the loss of guessing: from there a lower rate gained, in the bank; ours
SURE = 2.0  # standard errors


@check(
    "overconfident",
    "R10",
    "note",
    "calibration error",
    "top-1",
    label="Over-confidence without worse decisions",
    title="The loss on {split} rises from {lowest:.2f} to {end:.2f} nats, but top-1 holds at "
    "{top1:.1%} (best {best:.1%}): over-confidence, no worse decisions.",
    cause="Probabilities go to 0 and 1 while the same photos are named rightly.",
    advice="Do not call it overfitting and do not stop for it. If probabilities matter, use label "
    "smoothing or mixup, and read the calibration error; choose the weights by what you need, "
    "top-1 or loss.",
    refuted_by="Top-1 on photos never used for a choice is better at step {step:,} than at the "
    "end.",
    otherwise="the loss on {split} ends at {end:.2f} nats, its lowest was {lowest:.2f}",
)
@last_stage
def overconfident(stage: StageEvidence) -> Seen:
    """Val loss rises, val accuracy does not fall; Guo et al., arXiv 1706.04599."""
    loss, wrong = stage.val("loss"), stage.wrong
    for curve in (loss, wrong):
        if short := lacks(curve, FEWEST):
            return short
    low, lowest = loss.lowest, float(loss.smooth.values.min())
    best = 1 - float(wrong.smooth.values.min())
    numbers: dict[str, Number] = {
        "split": stage.split,
        "lowest": lowest,
        "end": loss.late_mean,
        "top1": 1 - wrong.last,  # as tables have it; what fires is judged by means
        "best": 1 - float(wrong.values.min()),
        "step": int(loss.steps[low]),
    }
    holds = not wrong.has_risen(SURE * stage.error(stage.split, best))
    if loss.has_risen(max(LOSS_RISE * lowest, SURE * loss.late.jitter)) and holds:
        return fires(loss.place(low), **numbers)
    return clear(**numbers)


@check(
    "worse_than_guessing",
    "R10",
    "warning",
    "calibration error",
    "nat",
    label="Probabilities worse than a guess",
    title="Top-1 on {split} is {top1:.1%}, but its loss is {loss:.3g} nats, and guessing at "
    "random costs {guessing:.3g}: where the model is wrong, it is certain.",
    cause="Logits have grown far too large: lr too high, or trained on for too long without decay.",
    advice="Lower lr or train for less if probabilities matter; label smoothing and some weight "
    "decay keep logits small. The order of the classes may be fine as it is.",
    refuted_by="At a tenth of the rate the loss on {split} stays above {guessing:.2f} nats.",
    otherwise="the loss on {split} is {loss:.2f} nats, guessing at random costs {guessing:.2f}",
)
@last_stage
def worse_than_guessing(stage: StageEvidence) -> Seen:
    """A val loss far above ln K beside a top-1 beyond chance: R10 at its worst."""
    loss, top1 = stage.val("loss"), stage.val("top1")
    for curve in (loss, top1):
        if short := lacks(curve, 2):
            return short
    share, chance = top1.late_mean, 1 / max(2, stage.classes)
    numbers: dict[str, Number] = {
        "split": stage.split,
        "top1": top1.last,
        "loss": loss.late_mean,
        "guessing": -log(chance),
    }
    knows = share - chance > SURE * stage.error(stage.split, share)
    if knows and loss.late_mean > FAR_WORSE * -log(chance):
        return fires(loss.late.place(), **numbers)
    return clear(**numbers)


CHECKS: tuple[Check[RunEvidence], ...] = (worse_than_guessing, overconfident)

"""Checks of fit, on photos seen as val is seen: R9 and R11 to R14.

Overfitting is what costs val *accuracy*. A gap alone costs nothing, and a loss on val that rises
beside a steady accuracy is over-confidence (`confidence`).
"""

from fieldmark.diagnosis.curve import Curve, errors_together
from fieldmark.diagnosis.evidence import RunEvidence, StageEvidence, any_stage, lacks, last_stage
from fieldmark.diagnosis.finding import Check, Number, Seen, check, clear, fires, unknown

FEWEST = 6  # looks, for a shape
MEMORISED = 0.99  # of the training photos; ours
GAP = 0.10  # AutoTrainer's
FITTED = 0.90  # of the training photos at least, before a model can be said to fit; ours
ALL_RUN_LONG = 0.9  # of the looks
SURE = 2.0  # standard errors
THIRDS_SURE, LOOKS_SURE = 2.5, 3.5  # where three thirds, or all looks, are tried; ours


@check(
    "overfitting",
    "R9",
    "problem",
    "split",
    "minitrain",
    "weight decay",
    label="Overfitting that costs accuracy",
    title="Top-1 on {split}, a mean of several looks, falls from {best:.1%} at step {best_step:,} "
    "to {end:.1%}, while that on minitrain goes on to {train:.1%}: {lost_points:.1f} points, of "
    "which {chance_points:.1f} could be chance.",
    cause="Too little holds the model back for so long a training.",
    advice="Take the weights of step {best_step:,} (`best.safetensors`) for now. Then try in this "
    "order: more photos, augmentation, label smoothing, dropout, weight decay, a shorter vector, "
    "a shorter stage. Train anew before settings are compared.",
    refuted_by="With a stage that ends at step {best_step:,} val is no better than now.",
    otherwise="top-1 on {split} ends {lost_points:.1f} points below its best, and up to "
    "{chance_points:.1f} could be chance",
)
@last_stage
def overfitting(stage: StageEvidence) -> Seen:
    """Val *error* rises from its lowest by over two standard errors, and stays (playbook)."""
    wrong, train = stage.wrong, stage.clean("top1")
    for curve in (wrong, train):
        if short := lacks(curve, FEWEST):
            return short
    low = wrong.lowest
    best = 1 - float(wrong.smooth.values[low])
    chance = SURE * stage.error(stage.split, best)
    numbers: dict[str, Number] = {
        "split": stage.split,
        "best": best,
        "best_step": int(wrong.steps[low]),
        "end": 1 - wrong.late_mean,
        "train": train.late_mean,
        "lost_points": 100 * (wrong.late_mean - (1 - best)),
        "chance_points": 100 * chance,
    }
    learns_on = train.late_mean >= train.at(float(wrong.steps[low]))
    if wrong.has_risen(chance) and learns_on:
        return fires(wrong.place(low), **numbers)
    return clear(**numbers)


@check(
    "memorised",
    "R11",
    "note",
    "minitrain",
    "epoch",
    label="Training photos known by heart, at no cost",
    title="Top-1 is {train:.1%} on minitrain and {val:.1%} on {split}, and val does not fall: "
    "the photos are known by heart, and that costs nothing by itself.",
    cause="A model with more numbers than photos learns all of them.",
    advice="Judge by val, not by the gap. It was as good by step {step:,} as at the end: a "
    "shorter stage saves time. More photos or augmentation may raise val.",
    refuted_by="Stronger regularisation closes the gap and val rises by more than chance.",
    otherwise="top-1 is {train:.1%} on minitrain and {val:.1%} on {split}",
)
@last_stage
def memorised(stage: StageEvidence) -> Seen:
    """Clean train at 99 %, a gap over 10 points (AutoTrainer), val flat (cs231n)."""
    wrong, train = stage.wrong, stage.clean("top1")
    for curve in (wrong, train):
        if short := lacks(curve, FEWEST):
            return short
    val, best = 1 - wrong.late_mean, 1 - float(wrong.smooth.values.min())
    error = stage.error(stage.split, best)
    reached = wrong.smooth.values <= wrong.late_mean + error
    numbers: dict[str, Number] = {
        "train": train.last,  # as tables have it; what fires is judged by means
        "val": 1 - wrong.last,
        "split": stage.split,
        "step": int(wrong.steps[reached.argmax()]),
    }
    known = train.late_mean >= MEMORISED and train.late_mean - val > GAP
    if known and not wrong.has_risen(SURE * error):
        return fires(train.place(int((train.values >= MEMORISED).argmax())), **numbers)
    return clear(**numbers)


def _ends(stage: StageEvidence) -> Seen | tuple[float, float, float]:
    """Late top-1 on minitrain and val, and the standard error of their difference."""
    train, val = stage.clean("top1"), stage.val("top1")
    for curve in (train, val):
        if short := lacks(curve, 2):
            return short
    for split in ("minitrain", stage.split):
        if not stage.counts.get(split):
            return unknown("not_recorded", key=f"number of photos in {split}")
    ends = train.late_mean, val.late_mean
    errors = stage.error("minitrain", ends[0]), stage.error(stage.split, ends[1])
    return (*ends, errors_together(*errors))


@check(
    "underfitting",
    "R12",
    "warning",
    "minitrain",
    "frozen",
    label="Underfitting",
    title="Top-1 on minitrain is only {train:.1%}, and {split} with {val:.1%} is no more than "
    "chance apart: the model does not even fit what it was shown.",
    cause="Too much is frozen, too much holds it back (augmentation, decay), the stage is too "
    "short, or lr too low; or many labels are wrong.",
    advice="First make it fit: raise lr or the length, cut decay and augmentation, let the "
    "next stage train all layers, take larger photos. Regularise afterwards.",
    refuted_by="With ten times the steps and no regularisation minitrain stays at {train:.0%}.",
    otherwise="top-1 is {train:.1%} on minitrain and {val:.1%} on {split}; at "
    "least {chance_points:.1f} points apart would be more than chance",
)
@last_stage
def underfitting(stage: StageEvidence) -> Seen:
    """Clean train low and no gap: cs231n; Karpathy, "overfit, then regularise"."""
    ends = _ends(stage)
    if isinstance(ends, Seen):
        return ends
    train, val, error = ends
    numbers: dict[str, Number] = {
        "train": stage.clean("top1").last,
        "val": stage.val("top1").last,
        "split": stage.split,
        "chance_points": 100 * SURE * error,
    }
    if train < FITTED and train - val < SURE * error:
        return fires(stage.clean("top1").late.place(), **numbers)
    return clear(**numbers)


@check(
    "val_above_running_train",
    "R13",
    "note",
    "running loss",
    "minitrain",
    label="Val better than the running training loss",
    title="The loss on {split}, {val:.2f} nats, is below the running training loss, "
    "{running:.2f}, all along: harmless.",
    cause="Augmentation, mixing, dropout and label smoothing make training photos harder, and the "
    "running loss is averaged over weights that were still worse.",
    advice="Nothing to do. Compare with minitrain ({clean:.2f} nats), which is seen as val is.",
    refuted_by="The loss on minitrain is above that on {split} too: then see `val_above_train`.",
    otherwise="the running loss ends at {running:.2f} nats, that on {split} at {val:.2f}",
)
@last_stage
def val_above_running_train(stage: StageEvidence) -> Seen:
    """Timm's issue 1118, and every newcomer's question."""
    val, clean, running = stage.val("loss"), stage.clean("loss"), stage.curve("train/loss")
    for curve in (val, clean, running):
        if short := lacks(curve, 3):
            return short
    after = val[val.steps > stage.first_step]
    beside = [running.at(float(step)) for step in after.steps]
    below = float((after.values < beside).mean()) if len(after) else 0.0
    numbers: dict[str, Number] = {
        "split": stage.split,
        "val": val.late_mean,
        "running": running.late_mean,
        "clean": clean.late_mean,
    }
    apart = running.late_mean - val.late_mean > 0.02 * running.late_mean
    if apart and below >= ALL_RUN_LONG and clean.late_mean <= val.late_mean:
        return fires(after.place(), **numbers)
    return clear(**numbers)


@check(
    "val_above_train",
    "R14",
    "problem",
    "minitrain",
    "split",
    label="Val better than training photos seen alike",
    title="From step {first:,} to {last:,} top-1 on {split} is {val:.1%}, on minitrain only "
    "{train:.1%}: {lead_points:.1f} points more, of which {chance_points:.1f} could be chance.",
    cause="Wrong labels in train, photos of val in train, or a val that is easier.",
    advice="Look at the photos of minitrain it calls something else with confidence: are their "
    "labels right? Then look for copies across the splits (the run's notes name them), and at "
    "the classes' counts.",
    refuted_by="Another `split_seed` and the lead is gone: then this val is just easier.",
    otherwise="top-1 on {split} is {lead_points:+.1f} points from that on minitrain at most, "
    "and {chance_points:.1f} could be chance",
)
@any_stage
def val_above_train(stage: StageEvidence) -> Seen:
    """UMLAUT's rule on clean train, against chance; early looks too, as memory hides it late."""
    train, val = stage.clean("top1"), stage.val("top1")
    ends = _ends(stage)
    if isinstance(ends, Seen):
        return ends
    after = val[val.steps > stage.first_step]
    if short := lacks(after, 3):
        return short
    third = -(-len(after) // 3)
    parts = [(after[:third], THIRDS_SURE), (after[third : 2 * third], THIRDS_SURE)]
    parts += [(after[-third:], THIRDS_SURE)]
    parts += [(after[n : n + 1], LOOKS_SURE) for n in range(len(after))]
    found = [_lead(stage, train, part, sure) for part, sure in parts if len(part)]
    lead, numbers, part = max(found, key=lambda one: one[0])
    return fires(part.place(), **numbers) if lead > 0 else clear(**numbers)


def _lead(
    stage: StageEvidence, train: Curve, part: Curve, sure: float
) -> tuple[float, dict[str, Number], Curve]:
    """By how many standard errors more than `sure` val leads minitrain in a part of a curve."""
    share = float(part.values.mean())
    clean = sum(train.at(float(step)) for step in part.steps) / len(part)
    error = errors_together(stage.error("minitrain", clean), stage.error(stage.split, share))
    numbers: dict[str, Number] = {
        "split": stage.split,
        "val": share,
        "train": clean,
        "first": int(part.steps[0]),
        "last": int(part.steps[-1]),
        "lead_points": 100 * (share - clean),
        "chance_points": 100 * sure * error,
    }
    return (share - clean) / error - sure, numbers, part


CHECKS: tuple[Check[RunEvidence], ...] = (
    val_above_train,
    overfitting,
    underfitting,
    memorised,
    val_above_running_train,
)

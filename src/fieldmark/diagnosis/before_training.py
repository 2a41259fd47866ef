"""Checks of what is known before, or as, the first real step is taken: R1 to R3, and R29."""

from collections.abc import Mapping
from math import log
from typing import Any

from fieldmark.diagnosis.curve import errors_together, share_error
from fieldmark.diagnosis.evidence import RunEvidence
from fieldmark.diagnosis.finding import Check, Seen, check, clear, fires, unknown

APART = 0.1  # of ln K; ours
LEAST_LEAD = 0.01  # of the loss of a guess: what is less is no learning, if no chance; ours
LEAST_SPREAD, FAR_OFF = 0.03, 10.0  # of numbers that pretrained weights know about 0 and 1; ours
FAR_ABOVE = 50.0  # times the rate at which a range test's loss is lowest; healthy heads: up to 16
BY_HEART = 0.8  # of the photos: what is slower than that does not learn; ours
FIRST = ("minitrain/loss", "val/loss", "out_of_fold/loss", "train/loss")


@check(
    "loss_at_start",
    "R1",
    "problem",
    "logits",
    "classifier",
    "l2 norm",
    label="Loss before the first step",
    title="The loss begins at {loss:.2f} nats, where {classes} classes guessed at random give "
    "{expected:.2f}.",
    cause="The head is not fresh, the number of classes is wrong, the logits are not scaled "
    "(bilinear vectors not brought to length 1), or labels do not fit.",
    advice="Stop before any comparison. Look at the number of classes, `head.l2_normalize` and "
    "the labels of a few photos: `fieldmark inspect RECIPE`.",
    refuted_by="A fresh head on 20 photos begins within 10 % of {expected:.2f} nats.",
    otherwise="it begins at {loss:.2f} nats, and {classes} classes guessed at random give "
    "{expected:.2f}",
)
def loss_at_start(run: RunEvidence) -> Seen:
    """Karpathy, "verify loss @ init": ln K of uniform guesses, whatever the label smoothing."""
    stage = run.stages[0] if run.stages else None
    curve = next((c for key in FIRST if stage and len(c := stage.curve(key))), None)
    if stage is None or curve is None or stage.classes < 2:
        return unknown("not_recorded", key=FIRST[0])
    if stage.settings and stage.settings.solver == "lbfgs":
        return unknown("takes_no_steps", stage=stage.name)
    untouched = 1 if curve.key == "train/loss" else stage.first_step
    if curve.steps[0] > untouched:
        return unknown("not_recorded", key=f"{curve.key} before the first step")
    expected = log(stage.classes)
    numbers = {"loss": curve.first, "expected": expected, "classes": stage.classes}
    if abs(curve.first - expected) <= APART * expected:
        return clear(**numbers)
    return fires(curve.place(0, 0), **numbers)


@check(
    "cannot_overfit_few",
    "R2",
    "problem",
    "top-1",
    "frozen",
    label="Learning a few photos by heart",
    title="{images} photos were not learned by heart in {steps} steps: top-1 {top1:.0%}, loss "
    "{loss}; {trainable:,} numbers could move.",
    cause="Everything is frozen, the learning rate is off by orders, labels are shuffled, or "
    "there is a mistake in the training.",
    advice="Mend this before the first real run: look at which parameters train and at the rate, "
    "then `fieldmark rehearse {recipe}` again.",
    refuted_by="The same photos reach 100 % within 200 steps.",
    otherwise="{images} photos reached top-1 {top1:.0%} and loss {loss} in {steps} steps",
)
def cannot_overfit_few(run: RunEvidence) -> Seen:
    """Karpathy, "overfit one batch"; cs231n, 20 examples to zero cost.

    In 200 steps at its own rate a healthy stage names nearly all, but need not come to zero cost.
    """
    found = run.rehearsal.get("overfit")
    if not found:
        return unknown("not_rehearsed", recipe=run.recipe_name)
    loss = found["loss"]  # None where it was no finite number
    numbers = {
        **{name: found[name] for name in ("images", "steps", "top1", "trainable")},
        "loss": "no finite number" if loss is None else f"{loss:.3f} nats",
        "recipe": run.recipe_name,
    }
    return clear(**numbers) if learns(found) else fires(**numbers)


def learns(found: Mapping[str, Any]) -> bool:
    """Whether a rehearsal's few photos were learned by heart, or nearly."""
    return found["top1"] >= BY_HEART and found["loss"] is not None


@check(
    "blank_photos_do_as_well",
    "R3",
    "problem",
    "top-1",
    label="Blank photos in place of real ones",
    title="Blank photos score {blank_top1:.1%} top-1, real ones {real_top1:.1%} after the same "
    "{steps} steps: no more than chance apart ({images} photos).",
    cause="Labels do not belong to their photos, the network does not see the photos (a transform "
    "or their normalisation is broken), or the rate is far too low to show it in so few steps.",
    advice="Look at what the network is fed, and as what: `fieldmark inspect RECIPE`.",
    refuted_by="Real photos lead by more than {needed_points:.1f} points after a longer training.",
    otherwise="real photos score {real_top1:.1%}, blank ones {blank_top1:.1%} after {steps} steps",
)
def blank_photos_do_as_well(run: RunEvidence) -> Seen:
    """Karpathy, "input-independent baseline"; within two standard errors, of the loss as well.

    A stage that learns slowly names no more photos by then, but its loss is lower already.
    """
    found = run.rehearsal.get("blank")
    if not found:
        return unknown("not_rehearsed", recipe=run.recipe_name)
    if found.get("reason"):
        return unknown("rehearsal_broke", why=str(found["reason"]).rstrip("."))
    names = ("images", "steps", "real_top1", "blank_top1")
    numbers = {name: found[name] for name in names} | {"needed_points": 100 * chance_of(found)}
    return clear(**numbers) if looks(found) else fires(**numbers)


@check(
    "photos_off_scale",
    "R3",
    "problem",
    "backbone",
    "view",
    label="Photos on a scale that the weights do not know",
    title="The network is fed photos as numbers of mean {mean:.3g} and spread {spread:.2g}, where "
    "its weights know a mean near 0 and a spread near 1.",
    cause="Photos are normalised otherwise than the weights were trained with, twice or not at "
    "all, or they are blank.",
    advice="Take `backbone.mean` and `backbone.std` out of the recipe, and look at what the "
    "network is fed: `fieldmark inspect RECIPE`.",
    refuted_by="The weights were trained on photos of this scale.",
    otherwise="it is fed numbers of mean {mean:.2g} and spread {spread:.2g}",
)
def photos_off_scale(run: RunEvidence) -> Seen:
    """Karpathy, "visualize just before the net": what is looked at is the batch itself."""
    found = run.rehearsal.get("fed")
    if not found:
        return unknown("not_rehearsed", recipe=run.recipe_name)
    numbers = {name: found[name] for name in ("mean", "spread")}
    return clear(**numbers) if on_scale(found) else fires(**numbers)


def on_scale(found: Mapping[str, Any]) -> bool:
    """Whether the numbers a rehearsal's network was fed are such as weights are trained on."""
    mean, spread = float(found["mean"]), float(found["spread"])
    return LEAST_SPREAD <= spread <= FAR_OFF and abs(mean) <= FAR_OFF


@check(
    "rate_far_above_range",
    "R29",
    "problem",
    "lr",
    "stage",
    "range test",
    label="Learning rate far above its range test",
    title="Stage {stage} trains at lr {lr:.3g}, {times:.0f} times or more above where the loss of "
    "its range test was lowest.",
    cause="The rate is off by orders, or was taken from another optimiser or pooling.",
    advice="Train it at lr {lower:.2g}.",
    refuted_by="A run at lr {lower:.2g} names no more val photos.",
    otherwise="no stage trains at over {limit:.0f} times the rate at which the loss of its range "
    "test is lowest",
)
def rate_far_above_range(run: RunEvidence) -> Seen:
    """Smith, arXiv 1506.01186: above the lowest loss a rate is too high to begin with."""
    tests = run.rehearsal.get("range")
    if not tests:
        return unknown("not_rehearsed", recipe=run.recipe_name)
    own = {stage.name: stage.settings.lr for stage in run.stages if stage.settings}
    for stage, test in tests.items():
        lr = own.get(stage, test.get("stage_lr"))
        place = lowest_of(test)
        if place and lr and is_far_above(test, lr):
            return fires(stage=stage, lr=lr, times=lr / place, lower=place / 3)
    return clear(limit=FAR_ABOVE)


def is_far_above(test: Mapping[str, Any], lr: float) -> bool:
    """Whether a rate is off by orders, by a stage's range test."""
    place = lowest_of(test)
    return bool(place and lr >= FAR_ABOVE * place)


def lowest_of(test: Mapping[str, Any]) -> float | None:
    """The rate at which the loss of a range test is lowest; None where it never falls.

    Where it diverges at once that is the lowest rate tried, or less.
    """
    if test.get("why") == "diverges":
        return float(test["lr"][0]) if test.get("lr") else None
    found = test.get("lowest")
    if isinstance(found, list):  # one of each repeat, in older records
        found = max((rate for rate in found if rate), default=None)
    return found


def chance_of(found: Mapping[str, Any]) -> float:
    """By how much real photos may lead blank ones by chance: two standard errors."""
    shares = found["real_top1"], found["blank_top1"]
    return 2 * errors_together(*(share_error(share, found["images"]) for share in shares))


def looks(found: Mapping[str, Any]) -> bool:
    """Whether real photos led blank ones in a rehearsal by more than chance, in top-1 or loss."""
    return leads_in_top1(found) or leads_in_loss(found)


def leads_in_top1(found: Mapping[str, Any]) -> bool:
    """Whether more real photos were named than blank ones, beyond chance."""
    return bool(found["real_top1"] - found["blank_top1"] > chance_of(found))


def leads_in_loss(found: Mapping[str, Any]) -> bool:
    """Whether the loss on real photos was lower than on blank ones, beyond chance."""
    lead = found.get("loss_lead")  # which older records lack
    if lead is None:
        return False
    return bool(lead > max(2 * found["loss_lead_error"], LEAST_LEAD * found["guess_loss"]))


CHECKS: tuple[Check[RunEvidence], ...] = (
    loss_at_start,
    cannot_overfit_few,
    blank_photos_do_as_well,
    photos_off_scale,
    rate_far_above_range,
)

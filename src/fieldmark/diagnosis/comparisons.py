"""Checks of what a study compares, and whether it follows: R21, R22, R24 and R31."""

from collections import defaultdict

from fieldmark.diagnosis.finding import Check, Number, Seen, check, clear, fires, unknown
from fieldmark.diagnosis.study_evidence import StudyEvidence, last_keys
from fieldmark.errors import FieldmarkError
from fieldmark.language import Words, axis_words, said, settings_words
from fieldmark.studies.answered import settings_of
from fieldmark.studies.compare import changed_classes
from fieldmark.studies.effects import study_spread
from fieldmark.studies.selection import best_cell

AMOUNT = ("train_fraction",)  # of photos: to train on fewer is no choice
FEW_PHOTOS, MOVED = 10, 0.05  # of a class, and how far they move


@check(
    "best_is_luck",
    "R22",
    "warning",
    "luck of the best",
    "real, noise, cannot tell",
    label="Lead of the best within chance",
    title="The best cell ({best}) leads the second ({second}) by {lead_points:.1f} points (95 % "
    "interval {low_points:+.1f} to {high_points:+.1f}){luck}.",
    cause="Of many equal cells one is always first.",
    advice="Take the simpler or cheaper of the two best cells, or run both with more seeds.",
    refuted_by="With more seeds the lead's interval leaves out 0.",
    otherwise="the best leads the second by {lead_points:.1f} points, more than chance",
)
def best_is_luck(evidence: StudyEvidence) -> Seen:
    """Paired by photo, with seeds as chance; luck of the best as `studies.selection` has it."""
    if short := evidence.lacks(2):
        return short
    best, *others = (cell for cell, _ in evidence.finished)
    # To train on fewer photos is no choice: a learning curve is no race.
    amounts = [axis.name for axis in evidence.axes_of(*AMOUNT)]
    amount = [best.points[0][name] for name in amounts]
    others = [cell for cell in others if [cell.points[0][name] for name in amounts] == amount]
    answered = [
        one for one in evidence.answered if [one.settings[name] for name in amounts] == amount
    ]
    if not others:
        return unknown("too_few_cells", needed=2, found=1)
    second = others[0]
    verdict = evidence.verdict(second, best)
    if verdict is None or len(answered) < 2:
        return unknown("not_recorded", key="answers photo by photo")
    luck = best_cell(answered, spread=study_spread(answered))
    cells = {"best": best, "second": second}
    words = {name: settings_words(settings_of(cell)) for name, cell in cells.items()}
    numbers: dict[str, Number] = {
        **{name: Words("en").word(each) for name, each in words.items()},
        "lead_points": 100 * verdict.difference,
        "low_points": 100 * verdict.low,
        "high_points": 100 * verdict.high,
        "cells": luck.of,
        "luck_points": 100 * luck.optimism,
    }
    seen = clear(**numbers) if verdict.answer == "real" else fires(**numbers)
    owed = said("best.owes", of=luck.of, luck=100 * luck.optimism)
    return seen.in_words(**words, luck=owed if luck.owes_to_luck else "")


@check(
    "nuisance_not_tuned",
    "R21",
    "warning",
    "axis",
    "lr",
    label="Settings compared at one learning rate",
    title="Settings of {axes} are compared at one learning rate for all: each may want its own.",
    cause="The best rate depends on what is varied; with one rate the setting it suits wins.",
    advice="Add a nuisance axis for lr (a third, the same, three times) at least at the corners "
    "and the best cell, and compare each setting at its best rate.",
    refuted_by="With lr tuned for each setting the order is the same.",
    otherwise="lr is varied too",
)
def nuisance_not_tuned(evidence: StudyEvidence) -> Seen:
    """Playbook: optimiser settings are nuisances and are not to be fixed."""
    varied = [axis for axis in evidence.axes if axis.role == "scientific"]
    free = {"lr", *AMOUNT}  # to train on fewer photos is no choice that a rate could favour
    varied = [a for a in varied if len(a.labels()) > 1 and not free & last_keys(a)]
    if not varied:
        return unknown("no_such_axis", what="anything but lr and the share of photos")
    if evidence.axes_of("lr"):
        return clear()
    stages = [stage for cell, _ in evidence.cells for stage in cell.recipe.stages]
    if stages and all(stage.solver == "lbfgs" for stage in stages):
        return unknown("takes_no_steps", stage=stages[0].name)
    names = [axis.name for axis in varied]
    return fires(axes=", ".join(names)).in_words(axes=tuple(map(axis_words, names)))


@check(
    "batch_changed_alone",
    "R24",
    "warning",
    "lr",
    "step",
    "epoch",
    label="Batch size changed alone",
    title="Stage {stage} is compared at {sizes} photos a step, all at lr {lr:g}.",
    cause="The best rate goes with the batch size, and larger batches take fewer steps in as "
    "many epochs.",
    advice="Scale lr with the batch size as a start ({example}), tune it, and compare at equal "
    "photos and at equal steps. Choose a batch for speed, not for val.",
    refuted_by="With lr tuned for each batch size the differences stay.",
    otherwise="lr is varied with the batch size",
)
def batch_changed_alone(evidence: StudyEvidence) -> Seen:
    """Goyal et al., arXiv 1706.02677; "Bag of tricks"; playbook."""
    rates: dict[str, dict[int, set[float]]] = defaultdict(lambda: defaultdict(set))
    for cell, _ in evidence.cells:
        for stage in cell.recipe.stages:
            rates[stage.name][stage.samples_per_step].add(stage.lr)
    varied = {stage: of for stage, of in rates.items() if len(of) > 1}
    if not varied:
        return unknown("no_such_axis", what="the batch size")
    for name, of in varied.items():
        used = set().union(*of.values())
        if len(used) == 1:
            (lr,), sizes = used, sorted(of)
            example = f"lr {lr:g} at {sizes[0]}, {lr * sizes[-1] / sizes[0]:g} at {sizes[-1]}"
            shown = ", ".join(map(str, sizes))
            return fires(stage=name, sizes=shown, lr=lr, example=example)
    return clear()


@check(
    "single_photos_decide",
    "R31",
    "note",
    "top-1",
    "cell",
    label="Classes of few photos that moved",
    title="Between the two best cells {count} classes of fewer than 10 photos move by over 5 "
    "points, {name} the most: {right_a:.0f} and {right_b:.0f} of {photos} right.",
    cause="In a class of {photos} one photo is {one_points:.0f} points.",
    advice="Read single classes as k of n photos, and conclude nothing about one of them.",
    refuted_by="With more val photos of {name} it moves as far.",
    otherwise="no class of fewer than 10 photos moves by over 5 points between the two best cells",
)
def single_photos_decide(evidence: StudyEvidence) -> Seen:
    """Playbook: "was it just one more example correct?"."""
    if len(evidence.answered) < 2:
        return unknown("too_few_cells", needed=2, found=len(evidence.answered))
    order = sorted(evidence.answered, key=lambda cell: -cell.answers.top1)
    try:
        changes = changed_classes(order[0].answers, order[1].answers)
    except FieldmarkError:
        return unknown("not_recorded", key="classes of the photos")
    small = [one for one in changes if one.photos < FEW_PHOTOS]
    moved = [one for one in small if abs(one.right_b - one.right_a) > MOVED * one.photos]
    if not moved:
        return clear()
    first = moved[0]
    return fires(
        count=len(moved),
        name=first.name,
        right_a=first.right_a,
        right_b=first.right_b,
        photos=first.photos,
        one_points=100 / first.photos,
    )


CHECKS: tuple[Check[StudyEvidence], ...] = (
    best_is_luck,
    batch_changed_alone,
    nuisance_not_tuned,
    single_photos_decide,
)

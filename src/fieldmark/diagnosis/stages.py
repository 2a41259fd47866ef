"""Checks of what goes from one training stage to the next: R25 to R27."""

import re
from itertools import pairwise

from fieldmark.diagnosis.curve import errors_together
from fieldmark.diagnosis.evidence import RunEvidence, StageEvidence, any_stage
from fieldmark.diagnosis.finding import Check, Number, Place, Seen, check, clear, fires, unknown

SAME = 0.02  # of top-1: two ways to the same numbers differ by rounding alone
COLLAPSE = 0.10  # of top-1, in a stage's first look; the page's 10 points
SURE = 2.0  # standard errors
MOVED = "moved parameters it had frozen"


@check(
    "handover_differs",
    "R25",
    "problem",
    "stage",
    "checkpoint",
    label="Hand-over between stages",
    title="Stage {before} ends at {ended:.1%} top-1 on {split}, and stage {stage} begins at "
    "{begins:.1%} before its first step.",
    cause="Other weights, other transforms or another mode of BatchNorm: nothing was trained in "
    "between.",
    advice="Check which weights the stage starts from and that both see val alike.",
    refuted_by="`fieldmark eval` of both gives the same number.",
    otherwise="stage {stage} begins at {begins:.1%} top-1 on {split}, where {before} ended at "
    "{ended:.1%}",
)
def handover_differs(run: RunEvidence) -> Seen:
    """The val accuracy before step 1 of a stage against the end of the one before."""
    if len(run.stages) < 2:
        return unknown("one_stage", found=len(run.stages))
    seen = unknown("not_recorded", key=f"{run.split}/top1 before a stage's first step")
    for before, stage in pairwise(run.stages):
        old, new = before.val("top1"), stage.val("top1")
        if not (len(old) and len(new)) or new.steps[0] > old.steps[-1]:
            continue
        numbers: dict[str, Number] = {
            "before": before.name,
            "stage": stage.name,
            "split": stage.split,
            "ended": old.last,
            "begins": new.first,
        }
        if abs(new.first - old.last) > max(SAME, 2 / max(1, stage.counts.get(stage.split, 1))):
            return fires(new.place(0, 0), **numbers)
        seen = clear(**numbers)
    return seen


@check(
    "stage_collapses",
    "R25",
    "problem",
    "stage",
    "lr",
    "warm-up",
    label="Stage that loses what the one before had learned",
    title="Stage {stage} begins at {begins:.1%} top-1 on {split}, is at {first:.1%} at its "
    "first look and ends at {end:.1%}.",
    cause="Its learning rate is too high for weights that are trained already, or the batches are "
    "too small for moving BatchNorm statistics.",
    advice="Lower the stage's lr ten- to a hundredfold (now {lr:g}), give it a warm-up of 10 to 20 "
    "%, and keep `batch_norm: frozen`.",
    refuted_by="At a tenth of the rate it falls as far.",
    otherwise="stage {stage} begins at {begins:.1%} top-1 on {split}, is at {first:.1%} at its "
    "first look and ends at {end:.1%}",
)
def stage_collapses(run: RunEvidence) -> Seen:
    """A fall by ten points in the first look, or an end below the beginning beyond chance."""
    if len(run.stages) < 2:
        return unknown("one_stage", found=len(run.stages))
    seen = unknown("too_few", key=f"{run.split}/top1", needed=2, found=0)
    for stage in run.stages[1:]:
        found = _fall(stage)
        if found.outcome == "fires":
            return found
        seen = found if found.outcome == "does not" else seen
    return seen


def _fall(stage: StageEvidence) -> Seen:
    curve = stage.val("top1")
    photos = stage.counts.get(stage.split, 0)
    if len(curve) < 2 or not photos:
        return unknown("too_few", key=curve.key, needed=2, found=len(curve))
    begins, first, end = curve.first, float(curve.values[1]), curve.last
    numbers: dict[str, Number] = {
        "stage": stage.name,
        "split": stage.split,
        "begins": begins,
        "first": first,
        "end": end,
        "lr": stage.settings.lr if stage.settings else 0.0,
    }
    error = errors_together(stage.error(stage.split, begins), stage.error(stage.split, end))
    falls = begins - first > max(COLLAPSE, SURE * error)
    if falls or begins - end > max(COLLAPSE, SURE * error):
        return fires(curve.place(0, 1 if falls else -1), **numbers)
    return clear(**numbers)


@check(
    "frozen_moved",
    "R26",
    "problem",
    "frozen",
    "stage",
    label="Frozen parts that moved",
    title="Stage {stage} changed what it had frozen: hash {before} became {after}.",
    cause="BatchNorm's running statistics move in training mode, or a resume restored half.",
    advice="Put frozen layers into eval mode and train the stage again; its numbers are those of "
    "another model than the recipe says.",
    refuted_by="The hashes are equal after a training with frozen layers in eval mode.",
    otherwise="what each stage had frozen has the same hash before and after",
)
def frozen_moved(run: RunEvidence) -> Seen:
    """The hash of parameters without gradient, and of buffers, before and after each stage."""
    if MOVED in (run.run.reason or "") and run.stages:
        last = run.stages[-1]
        place = Place(last.name, last.first_step, last.first_step + last.steps, "train/loss")
        told = re.search(r"\((\w+) became (\w+)\)", run.run.reason or "")
        before, after = told.groups() if told else ("one", "another")
        return fires(place, stage=last.name, before=before, after=after)
    known = False
    for stage in run.stages:
        before, after = stage.note.get("frozen_hash"), stage.note.get("frozen_hash_after")
        known = known or bool(before)
        if before and after and before != after:
            step = stage.first_step
            place = Place(stage.name, step, step + stage.steps, "train/loss")
            return fires(place, stage=stage.name, before=before[:12], after=after[:12])
    return clear() if known else unknown("not_recorded", key="hash of the frozen part")


@check(
    "biases_decayed",
    "R27",
    "note",
    "weight decay",
    label="Decay of biases and norms",
    title="Stage {stage} decays biases and norms too: pattern `{pattern}` says `decay: {decay:g}`.",
    cause="The pattern's `decay` holds for all it matches.",
    advice="Leave `decay` out: then only weights of two dimensions or more are decayed. The effect "
    "is usually small; measure it.",
    refuted_by="Without it val is no better.",
    otherwise="no pattern decays biases and norms",
)
@any_stage
def biases_decayed(stage: StageEvidence) -> Seen:
    """He et al., "Bag of tricks", arXiv 1812.01187: no bias decay."""
    if stage.settings is None:
        return unknown("not_recorded", key="recipe")
    for pattern, rate in stage.settings.train.items():
        decays = bool(rate.decay and rate.lr and stage.settings.weight_decay)
        if decays and pattern != "head.classifier.weight":
            return fires(stage=stage.name, pattern=pattern, decay=rate.decay or 0.0)
    return clear()


CHECKS: tuple[Check[RunEvidence], ...] = (
    frozen_moved,
    handover_differs,
    stage_collapses,
    biases_decayed,
)

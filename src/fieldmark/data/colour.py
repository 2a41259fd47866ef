"""Colour modes of photos: which there are, and whether one of them gives a class away.

Where one class alone is grey, or alone was cut out of its background, a network learns it by that.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median_low

import numpy as np
from numpy.typing import NDArray

from fieldmark.data.dataset import Photo, listed
from fieldmark.errors import count_of

MODES = ("grey", "CMYK", "palette", "alpha", "16-bit")

_MOST_TINT = 4  # grey levels between the channels of a grey photo's thumbnail
_LEAST_PHOTOS = 5
_APART = 0.5


def is_grey(small: NDArray[np.uint8]) -> bool:
    """Whether a thumbnail (H, W, 3) has no colour in it, however its file holds it."""
    return int(np.ptp(small, axis=-1).max()) <= _MOST_TINT


def count_modes(
    photos: Iterable[Photo], modes: Mapping[str, Iterable[str]]
) -> dict[str, Counter[int]]:
    """How many photos of each label have each mode; `modes` are those of a photo, by key."""
    counts: dict[str, Counter[int]] = {mode: Counter() for mode in MODES}
    for photo in photos:
        for mode in modes.get(photo.key, ()):
            counts[mode][photo.label] += 1
    return counts


def colour_notes(
    photos: Sequence[Photo], modes: Mapping[str, Iterable[str]], class_names: Sequence[str]
) -> list[str]:
    """One line where a mode goes with a class, else none.

    It does where the share of the class's photos that have the mode lies half or more away from
    that of the median class. Classes of fewer than five photos are left out.
    """
    sizes = Counter(photo.label for photo in photos if photo.key in modes)
    judged = {label: size for label, size in sorted(sizes.items()) if size >= _LEAST_PHOTOS}
    told = []
    for mode, counts in count_modes(photos, modes).items():
        shares = {label: counts[label] / size for label, size in judged.items()}
        usual = median_low(shares.values()) if shares else 0.0  # low: of two, the plain class
        told += [
            f"{class_names[label]} ({mode} in {counts[label]} of {sizes[label]} photos, in "
            f"{usual:.0%} of the median class's)"
            for label, share in shares.items()
            if abs(share - usual) >= _APART
        ]
    if not told:
        return []
    return [f"colour may give {count_of(len(told), 'class', 'classes')} away: {listed(told)}"]

"""Classes of few photos whose name is nearly that of a large one: one folder or label mistyped."""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping

from fieldmark.data.dataset import PhotoSet, listed
from fieldmark.errors import count_of

FEW, TIMES_AS_MANY = 5, 5  # photos of the one at most, and how many times as many of the other
LIKENESS = 0.85  # of two names, by difflib's ratio; one wrong letter of seven
MOST = 20  # where more classes are tiny, that is how the photos are


def misspelt(photos: PhotoSet) -> Mapping[int, int]:
    """Classes that may be others misspelt: a tiny one's label to that of the large one.

    Names are compared without case, spaces, hyphens, underscores, and the ways Unicode writes one
    letter. Names with other digits are other classes, however alike.
    """
    counts = Counter(photo.label for photo in photos.photos)
    tiny = [label for label, count in counts.items() if count <= FEW]
    if len(tiny) > MOST:
        return {}
    forms = [_form(name) for name in photos.class_names]
    found = {}
    for label in sorted(tiny):
        large = {
            forms[other]: other
            for other, count in counts.items()
            if count >= TIMES_AS_MANY * counts[label]
            and _digits(forms[other]) == _digits(forms[label])
        }
        if close := difflib.get_close_matches(forms[label], large, n=1, cutoff=LIKENESS):
            found[label] = large[close[0]]
    return found


def misspelt_notes(photos: PhotoSet) -> list[str]:
    """A note of them, with how many photos each has, and what to do; none where there is none."""
    counts = Counter(photo.label for photo in photos.photos)
    names = photos.class_names
    pairs = [
        f"{names[tiny]} ({counts[tiny]:,}) ≈ {names[large]} ({counts[large]:,})"
        for tiny, large in misspelt(photos).items()
    ]
    if not pairs:
        return []
    told = count_of(len(pairs), "class of few photos has", "classes of few photos have")
    return [
        f"{told} nearly the name of a large one; if that is a slip, `relabel` the photos by "
        f"`data.corrections`: {listed(pairs)}"
    ]


def _form(name: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


def _digits(name: str) -> str:
    return re.sub(r"\D+", "", name)

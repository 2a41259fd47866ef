"""The bank's photos: toy drawings, and lists that say which of them a run sees, and as what.

Wrong labels and missing classes are planted in the lists; copies across splits are files beside the
drawings. No drawing is changed.
"""

import csv
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fieldmark import durable
from fieldmark.data.toy import SPECIES, write_toy

PER_CLASS = 60  # drawings of a species
SIDE = 112  # px
KINDS = 12  # species


class Entry(NamedTuple):
    path: str  # below the drawings' folder
    label: str
    split: str


@cache
def drawings(bank: Path, number: int) -> Path:
    """A field guide of its own birds, drawn once; the easiest there is, as the photos are small."""
    folder = bank / "photos" / str(number)
    return write_toy(
        folder, per_class=PER_CLASS, seed=100 + number, size=SIDE, difficulty=0.0, species=KINDS
    )


def deal(classes: int, train: int, val: int, rng: np.random.Generator) -> list[Entry]:
    """So many classes, with so many photos of each in train and in val."""
    entries = []
    for kind in sorted(rng.choice(KINDS, classes, replace=False)):
        name = SPECIES[kind].folder
        for place, index in enumerate(rng.permutation(PER_CLASS)[: train + val]):
            split = "train" if place < train else "val"
            entries.append(Entry(f"{name}/{index:03d}.jpg", name, split))
    return entries


def shuffled_labels(
    entries: Sequence[Entry], share: float, rng: np.random.Generator
) -> list[Entry]:
    """A share of the training photos given a class that is not theirs."""
    names = sorted({entry.label for entry in entries})
    train = [place for place, entry in enumerate(entries) if entry.split == "train"]
    found = list(entries)
    for place in rng.permutation(train)[: round(share * len(train))]:
        others = [name for name in names if name != entries[place].label]
        found[place] = entries[place]._replace(label=str(rng.choice(others)))
    return found


def without_classes(entries: Sequence[Entry], count: int, rng: np.random.Generator) -> list[Entry]:
    """Val loses all photos of some classes; where train does, Fieldmark refuses to begin."""
    names = sorted({entry.label for entry in entries})
    gone = set(rng.choice(names, count, replace=False).tolist())
    return [entry for entry in entries if entry.split == "train" or entry.label not in gone]


def copied_across(
    folder: Path, name: str, entries: Sequence[Entry], share: float, exact: bool
) -> list[Entry]:
    """A share of val's photos stands in train too: byte for byte, or shrunk and saved anew."""
    val = [entry for entry in entries if entry.split == "val"]
    copies = []
    step = round(1 / share)
    for number, entry in enumerate(val[::step]):
        path = f"copies/{name}/{number:03d}.jpg"
        if not (folder / path).exists():
            durable.make_folder((folder / path).parent)
            durable.replace(folder / path, _copy(folder / entry.path, exact), sync=False)
        copies.append(Entry(path, entry.label, "train"))
    return [*entries, *copies]


def _copy(path: Path, exact: bool) -> bytes:
    if exact:
        return path.read_bytes()
    with Image.open(path) as image:
        smaller = image.resize((round(0.9 * image.width), round(0.9 * image.height)))
    buffer = io.BytesIO()
    smaller.save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


def write_list(path: Path, entries: Sequence[Entry]) -> Path:
    """The table that `data.lists` takes."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(Entry._fields)
    table.writerows(entries)
    durable.make_folder(path.parent)
    durable.replace(path, text.getvalue().encode())
    return path

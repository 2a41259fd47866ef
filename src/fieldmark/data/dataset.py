"""What a labelled set of photos is: one list, one class index, and the draws all chance comes from.

Classes are numbered by name, in order of Unicode code points, once for everything; so every layout
of the same photos gives the same numbers, and a split that lacks a class does not shift the others.
How photos are found stands in `sources`.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from fieldmark.errors import DataError, count_of

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".heif")
)
PARTS = ("train", "val", "test")
_SHOWN = 10


@dataclass(frozen=True)
class Photo:
    """One labelled photo.

    Attributes:
        path: Where the file is.
        label: Position of its class in `PhotoSet.class_names`.
        key: Path relative to the root with forward slashes: the photo's name on any machine.
        split: `train`, `val` or `test` where the source says so, else None.
        group: What it was taken of or by (a bird, a burst, a photographer); photos of a group are
            never torn apart by a cut. None: it is a group of its own.
        box: Left, top, width and height of what it shows, in pixels of the upright photo.
    """

    path: Path
    label: int
    key: str
    split: str | None = None
    group: str | None = None
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class PhotoSet:
    """All photos of a source, ordered by key, and the one class index.

    Attributes:
        root: The folder that keys are relative to.
        photos: Every photo.
        class_names: Names in code-point order; a label is a position in it.
        ignored: Names of files left out because they are not photos of a class; photos come first.
        notes: What a person should know of them, one line each.
    """

    root: Path
    photos: tuple[Photo, ...]
    class_names: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def without(self, keys: Container[str]) -> Self:
        """The same classes, less the photos of these keys."""
        kept = tuple(photo for photo in self.photos if photo.key not in keys)
        return replace(self, photos=kept)


def photo_set(
    root: Path, photos: Iterable[Photo], class_names: Sequence[str], ignored: Iterable[Path] = ()
) -> PhotoSet:
    """Order photos by key, and check that their names can be written down and told apart.

    Raises:
        DataError: A name is not UTF-8, or two classes look the same on a screen.
    """
    ordered = tuple(sorted(photos, key=lambda photo: photo.key))
    unwritable = [
        _writable(name)
        for name in (*class_names, *(photo.key for photo in ordered))
        if any("\ud800" <= letter <= "\udfff" for letter in name)
    ]
    if unwritable:
        raise DataError(
            f"In `{root}` {count_of(len(unwritable), 'name is', 'names are')} not UTF-8: "
            f"{listed(unwritable)}. "
            f"Rename them, so that records can say which photo they mean."
        )
    alike = _alike(class_names, lambda name: unicodedata.normalize("NFC", name))
    if alike:
        raise DataError(
            f"Classes of `{root}` look the same but are written with other Unicode characters: "
            f"{listed(alike)}. Join each to one folder or label."
        )
    close = _alike(class_names, lambda name: unicodedata.normalize("NFC", name).casefold().strip())
    notes = [f"class names that differ only in case or spaces: {listed(close)}"] if close else []
    others = sorted(ignored, key=lambda path: (not is_photo(path), path))
    left = tuple(_writable(path.relative_to(root).as_posix()) for path in others)
    return PhotoSet(root, ordered, tuple(class_names), left, tuple(notes))


def _writable(name: str) -> str:
    """A file's name, what of it is no UTF-8 as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _alike(names: Iterable[str], form: Callable[[str], str]) -> list[str]:
    """The names of which others have the same form."""
    everyone = list(names)
    counts = Counter(map(form, everyone))
    return [name for name in everyone if counts[form(name)] > 1]


def content_hash(path: Path) -> str:
    """BLAKE2b-256 of a file's bytes, in hex: the photo's part of a cache key."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()


def short_hash(content: str) -> str:
    """As much of a content hash as tells whether a file was changed, 16 hex digits."""
    return content[:16]


def draw(*key: str | int) -> int:
    """64 random bits that depend on `key` alone: not on a generator, a machine or an order.

    They are the head of BLAKE2b over the parts joined by NUL, which no path contains. All chance
    in this folder is drawn here, under keys such as (seed, epoch, photo, "mirror"), so a new draw
    never changes an older one.
    """
    text = "\0".join(map(str, key)).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def is_photo(path: Path) -> bool:
    """Whether the name has a photo's suffix, in upper or lower case."""
    return path.suffix.lower() in SUFFIXES


def listed(items: Iterable[str], between: str = ", ") -> str:
    """Items for a message: the first ten, and how many more."""
    everything = list(items)
    more = [f"and {len(everything) - _SHOWN} more"] if len(everything) > _SHOWN else []
    return between.join(everything[:_SHOWN] + more)


def suffixes() -> str:
    """The suffixes of photos, for a message."""
    return " ".join(sorted(SUFFIXES))

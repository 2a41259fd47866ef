"""Splits written down by someone else: lists of photo keys, or the split.json of a run."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fieldmark.data.dataset import PhotoSet, listed
from fieldmark.errors import DataError, count_of


def marked(photos: PhotoSet, files: Mapping[str, Path]) -> PhotoSet:
    """The photos as lists of keys say; without a list for train, all others are train.

    Raises:
        DataError: A list can't be read, names a photo that is not there, or two lists name one.
    """
    part_of: dict[str, str] = {}
    for part, path in files.items():
        for key in filter(None, map(str.strip, _read_text(path).splitlines())):
            if part_of.setdefault(key, part) != part:
                raise DataError(f"`{key}` stands in the lists for {part_of[key]} and for {part}.")
    strangers = sorted(part_of.keys() - {photo.key for photo in photos.photos})
    if strangers:
        raise DataError(
            f"{count_of(len(strangers), 'photo')} of the split's lists can't be found in "
            f"`{photos.root}`: "
            f"{listed(strangers)}. A line is a photo's path below that folder."
        )
    rest = None if "train" in files else "train"
    marked = (replace(photo, split=part_of.get(photo.key, rest)) for photo in photos.photos)
    return replace(photos, photos=tuple(marked))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(f"The split's file `{path}` can't be read: {reason}.") from error


def read_split(path: Path) -> dict[str, Any]:
    """The split.json of a run, for `Split.from_json` to check.

    Raises:
        DataError: The file can't be read or is no JSON.
    """
    try:
        written = json.loads(_read_text(path))
    except ValueError as error:
        raise DataError(f"The split's file `{path}` is no JSON: {error}.") from error
    return written if isinstance(written, dict) else {}

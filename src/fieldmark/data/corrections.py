"""A file of corrections, laid over any source; the source itself is never touched."""

import difflib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from fieldmark.data.dataset import Photo, PhotoSet, listed
from fieldmark.data.lists import read_table
from fieldmark.errors import DataError

_ACTIONS = ("relabel", "exclude", "group")


class _Correction(NamedTuple):
    path: str
    action: str
    value: str
    row: int


def corrected(photos: PhotoSet, path: Path) -> PhotoSet:
    """The photos after a table with the columns `path`, `action` and `value`.

    `relabel` gives the photo to the class `value`, which must exist; `exclude` leaves it out, and
    `value` may say why; `group` puts it into the group `value`. A class that no
    photo is left of is left out; else the class index stays as it was.

    Raises:
        DataError: The table can't be read, or any row is wrong; all mistakes at once.
    """
    table = read_table(path, ("path", "action"), ("value",))
    corrections = [
        _Correction(row["path"] or "", row["action"] or "", row.get("value") or "", number)
        for number, row in enumerate(table.iter_rows(named=True), start=1)
    ]
    problems = list(_mistakes(photos, corrections))
    if problems:
        shown = listed(problems, between="\n  ")
        raise DataError(
            f"`{path}` has {len(problems)} mistake(s):\n  {shown}\nEach row is a photo's path "
            f"below `{photos.root}`, an action ({', '.join(_ACTIONS)}) and its value."
        )
    by_key: dict[str, dict[str, str]] = {}
    for one in corrections:
        by_key.setdefault(one.path, {})[one.action] = one.value
    label_of = {name: label for label, name in enumerate(photos.class_names)}
    kept = tuple(
        _apply(photo, by_key.get(photo.key, {}), label_of)
        for photo in photos.photos
        if "exclude" not in by_key.get(photo.key, {})
    )
    done = Counter(one.action for one in corrections)
    note = "corrections: " + ", ".join(f"{done[action]} x {action}" for action in _ACTIONS)
    return _without_emptied(replace(photos, photos=kept, notes=(*photos.notes, note)))


def _without_emptied(photos: PhotoSet) -> PhotoSet:
    """The same photos, without classes that none is left of; those are told.

    Raises:
        DataError: Fewer than two classes have photos.
    """
    left = sorted({photo.label for photo in photos.photos})
    gone = [name for label, name in enumerate(photos.class_names) if label not in left]
    if not gone:
        return photos
    if len(left) < 2:
        raise DataError(
            f"Corrections leave photos of {len(left)} class(es); two at least are needed. "
            f"Exclude fewer."
        )
    number = {label: position for position, label in enumerate(left)}
    told = (
        f"corrections leave no photo of {len(gone)} class(es), which are left out: {listed(gone)}"
    )
    return replace(
        photos,
        photos=tuple(replace(photo, label=number[photo.label]) for photo in photos.photos),
        class_names=tuple(photos.class_names[label] for label in left),
        notes=(*photos.notes, told),
    )


def _apply(photo: Photo, actions: dict[str, str], label_of: dict[str, int]) -> Photo:
    label = label_of[actions["relabel"]] if "relabel" in actions else photo.label
    return replace(photo, label=label, group=actions.get("group", photo.group))


def _mistakes(photos: PhotoSet, corrections: list[_Correction]) -> Iterator[str]:
    keys = {photo.key for photo in photos.photos}
    first: dict[tuple[str, str], int] = {}
    for path, action, value, row in corrections:
        if action not in _ACTIONS:
            yield f"row {row}: not {', '.join(_ACTIONS)}: {action!r}"
        elif path not in keys:
            namesakes = (key for key in keys if key.endswith(f"/{Path(path).name}"))
            yield f"row {row}: no such photo: {path!r}{_meant(min(namesakes, default=''))}"
        elif action == "relabel" and value not in photos.class_names:
            close = difflib.get_close_matches(value, photos.class_names, n=1)
            yield f"row {row}: no such class: {value!r}{_meant(*close)}"
        elif action == "group" and not value:
            yield f"row {row}: the group's name is missing"
        elif first.setdefault((path, action), row) != row:
            yield f"row {row}: {path} has this action at row {first[path, action]} too"


def _meant(name: str = "") -> str:
    return f". Did you mean {name}?" if name else ""

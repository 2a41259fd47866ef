"""A file of corrections, laid over any source; the source itself is never touched."""

import csv
import difflib
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from fieldmark import durable
from fieldmark.data.dataset import Photo, PhotoSet, listed
from fieldmark.data.lists import read_table
from fieldmark.errors import DataError, count_of

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
    keys = {photo.key for photo in photos.photos}
    corrections = [_with_slashes(one, keys) for one in _read(path)]
    problems = list(_mistakes(photos, corrections))
    if problems:
        shown = listed(problems, between="\n  ")
        raise DataError(
            f"`{path}` has {count_of(len(problems), 'mistake')}:\n  {shown}\nEach row is a photo's "
            f"path below `{photos.root}`, an action ({', '.join(_ACTIONS)}) and its value."
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
            f"Corrections leave photos of {count_of(len(left), 'class', 'classes')}; two at least "
            f"are needed. Exclude fewer."
        )
    number = {label: position for position, label in enumerate(left)}
    told = (
        f"corrections leave no photo of {count_of(len(gone), 'class', 'classes')}, left out "
        f"therefore: {listed(gone)}"
    )
    return replace(
        photos,
        photos=tuple(replace(photo, label=number[photo.label]) for photo in photos.photos),
        class_names=tuple(photos.class_names[label] for label in left),
        notes=(*photos.notes, told),
    )


def _read(path: Path) -> list[_Correction]:
    return [
        _Correction(row["path"] or "", row["action"] or "", row.get("value") or "", number)
        for number, row in read_table(path, ("path", "action"), ("value",))
    ]


def _with_slashes(one: _Correction, keys: Set[str]) -> _Correction:
    """The same, its path as keys are written where it was written on Windows."""
    return one if one.path in keys else one._replace(path=one.path.replace("\\", "/"))


def relabelled(labels: Mapping[str, str], before: Path | None = None) -> str:
    """The text of a file of corrections that gives photos to other classes.

    Args:
        labels: A photo's path to the class it is given to.
        before: Corrections that were made already and are kept, but for the labels of these photos.

    Raises:
        DataError: `before` can't be read.
    """
    rows = [] if before is None else [(one.path, one.action, one.value) for one in _read(before)]
    rows = [row for row in rows if row[1] != "relabel" or row[0] not in labels]
    rows += [(path, "relabel", label) for path, label in labels.items()]
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([("path", "action", "value"), *rows])
    return buffer.getvalue()


def write_relabelled(path: Path, labels: Mapping[str, str], before: Path | None = None) -> None:
    """Write a new file of corrections, see `relabelled`.

    Raises:
        DataError: there is a file of that name, it is no `.csv`, or `before` can't be read.
    """
    if path.suffix.lower() != ".csv":
        raise DataError(f"Corrections are written as `.csv`, got `{path}`. Name it so.")
    if path.exists():
        raise DataError(f"`{path}` is there already. Name a new file, or remove that one first.")
    text = relabelled(labels, before)
    durable.make_folder(path.parent)
    durable.replace(path, text.encode())


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

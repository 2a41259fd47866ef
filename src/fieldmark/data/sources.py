"""Where photos come from: every source ends here, and none is ever written to.

`tree`: one folder per class. `splits`: such trees below `train`, `val` and `test`. `cub`: the files
of CUB-200-2011. Or lists: `path label` as Caffe takes them, or a table with columns. Over any of
these, groups read off the photos' names and a file of corrections can be laid.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from fieldmark.data.corrections import corrected
from fieldmark.data.cub import read_cub
from fieldmark.data.dataset import PhotoSet, listed
from fieldmark.data.lists import read_lists
from fieldmark.data.tree import is_in_parts, read_parts, read_tree
from fieldmark.errors import DataError, count_of

Layout = Literal["auto", "tree", "splits", "cub"]


def read_photos(
    folder: Path,
    layout: Layout = "auto",
    *,
    lists: Mapping[str, Path] | None = None,
    group: str | None = None,
    group_pattern: str | None = None,
    corrections: Path | None = None,
) -> PhotoSet:
    """List the photos of a source with their classes; opens no photo.

    Args:
        folder: What photo keys are relative to.
        layout: How photos are arranged in it; `auto` looks.
        lists: Files that name the photos instead, by the part they hold: `train`, `val`, `test`,
            or `all` for one that says itself or leaves it open.
        group: Column of a table that says which photos belong together; `group` unless given.
        group_pattern: Regular expression with one group, searched in each photo's key: what it
            catches is the photo's group.
        corrections: Table of `path, action, value` laid over the source, see `corrected`.

    Raises:
        DataError: The source is missing, in no known layout, has fewer than two classes or a class
            without photos, or contradicts itself (all mistakes at once).
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"`{folder}` {what}. Give a folder that holds one folder per class.")
    if group and not lists:
        raise DataError(
            f"`group` {group!r} names a column of a table, and no `lists` are given. For photos in "
            f"folders use `group_pattern`."
        )
    photos = read_lists(folder, lists, group) if lists else _read_folder(folder, layout)
    if group_pattern:
        photos = _grouped_by_name(photos, group_pattern)
    return corrected(photos, corrections) if corrections else photos


def check_class_names(known: tuple[str, ...], photos: PhotoSet) -> None:
    """Refuse photos whose classes are not those that weights were trained on, in their order.

    Raises:
        DataError: Names are missing, new or in another order.
    """
    now = photos.class_names
    if known == now:
        return
    gone, new = sorted(set(known) - set(now)), sorted(set(now) - set(known))
    what = (
        f"missing: {listed(gone) or 'none'}; new: {listed(new) or 'none'}"
        if gone or new
        else "the same names in another order"
    )
    raise DataError(
        f"The classes of `{photos.root}` are not those the weights were trained on ({what}). Put "
        f"the folders back, or train anew."
    )


def _read_folder(folder: Path, layout: Layout) -> PhotoSet:
    if layout == "auto":
        if (folder / "images.txt").is_file():
            layout = "cub"
        else:
            layout = "splits" if is_in_parts(folder) else "tree"
    return {"cub": read_cub, "splits": read_parts, "tree": read_tree}[layout](folder)


def _grouped_by_name(photos: PhotoSet, pattern: str) -> PhotoSet:
    found = [re.search(pattern, photo.key) for photo in photos.photos]
    alone = [
        photo.key
        for photo, match in zip(photos.photos, found, strict=True)
        if not (match and match[1])
    ]
    if len(alone) == len(found):
        raise DataError(
            f"`group_pattern` {pattern!r} fits no photo of `{photos.root}`, such as {alone[0]}. It "
            f"is searched in the path below the folder, and must catch a group there."
        )
    grouped = tuple(
        replace(photo, group=match[1] if match and match[1] else photo.group)
        for photo, match in zip(photos.photos, found, strict=True)
    )
    note = (
        f"`group_pattern` leaves {count_of(len(alone), 'photo')} out, each a group of its own: "
        f"{listed(alone)}"
    )
    return replace(photos, photos=grouped, notes=(*photos.notes, note) if alone else photos.notes)

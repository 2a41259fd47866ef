"""One folder per class, alone or below folders named `train`, `val` and `test`."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from fieldmark.data.dataset import PARTS, Photo, PhotoSet, is_photo, listed, photo_set, suffixes
from fieldmark.errors import DataError, count_of

PART_OF = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
}


def read_tree(folder: Path) -> PhotoSet:
    """The photos of a folder that holds one folder per class, at any depth below it.

    Raises:
        DataError: There are fewer than two classes, one without photos, or a folder that is shut.
    """
    class_folders, loose = _entries(folder)
    _check_class_folders(folder, class_folders, any(map(is_photo, loose)))
    names = [entry.name for entry in class_folders]
    photos, ignored = _photos_of(folder, class_folders, names, None)
    _check_none_is_empty(folder, photos, names)
    return photo_set(folder, photos, names, [*ignored, *loose])


def read_parts(folder: Path) -> PhotoSet:
    """The photos of `train/<class>/`, `val/<class>/` and `test/<class>/`, each marked so.

    Train alone says which classes there are: a folder that `val` lacks shifts no label.

    Raises:
        DataError: There is no `train`, or two folders for one part; a class of train has no photos,
            or val or test have a class that train lacks.
    """
    entries, loose = _entries(folder)
    parts = _parts(folder, entries)
    class_folders = {part: _entries(path)[0] for part, path in parts.items()}
    _check_class_folders(parts["train"], class_folders["train"], loose_photos=False)
    names = [entry.name for entry in class_folders["train"]]
    strangers = [
        f"{parts[part].name}/{entry.name}"
        for part in parts
        for entry in class_folders[part]
        if entry.name not in names
    ]
    if strangers:
        raise DataError(
            f"`{folder}` has classes without training photos: {listed(strangers)}. Classes are "
            f"those of `{parts['train'].name}`; add photos there, or correct the names."
        )
    photos: list[Photo] = []
    ignored = [*loose]
    for part in parts:
        found, others = _photos_of(folder, class_folders[part], names, part)
        if part == "train":
            _check_none_is_empty(parts[part], found, names)
        photos += found
        ignored += [*others, *_entries(parts[part])[1]]
    return photo_set(folder, photos, names, ignored)


def is_in_parts(folder: Path) -> bool:
    """Whether all folders are named like splits, one of them like train."""
    names = [PART_OF.get(entry.name.lower()) for entry in _entries(folder)[0]]
    return "train" in names and None not in names


def _parts(folder: Path, entries: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for entry in entries:
        part = PART_OF.get(entry.name.lower())
        if part is None:
            raise DataError(
                f"`{folder}` holds `{entry.name}` beside its parts. In the layout `splits` every "
                f"folder is one of {', '.join(PART_OF)}."
            )
        if part in found:
            raise DataError(
                f"`{folder}` has two folders for {part}: `{found[part].name}` and `{entry.name}`. "
                f"Keep one of them."
            )
        found[part] = entry
    if "train" not in found:
        raise DataError(f"`{folder}` has no folder `train`, so nothing says what the classes are.")
    return {part: found[part] for part in PARTS if part in found}


def _photos_of(
    root: Path, class_folders: list[Path], names: list[str], split: str | None
) -> tuple[list[Photo], list[Path]]:
    """The photos below class folders, and the other files there."""
    photos: list[Photo] = []
    ignored: list[Path] = []
    shut: list[OSError] = []
    for class_folder in class_folders:
        label = names.index(class_folder.name)
        for file in files_below(class_folder, shut.append):
            if is_photo(file):
                photos.append(Photo(file, label, file.relative_to(root).as_posix(), split))
            else:
                ignored.append(file)
    if shut:
        raise are_shut(shut)
    return photos, ignored


def _check_none_is_empty(folder: Path, photos: list[Photo], names: list[str]) -> None:
    filled = {photo.label for photo in photos}
    empty = [name for label, name in enumerate(names) if label not in filled]
    if empty:
        raise DataError(
            f"Of `{folder}` {count_of(len(empty), 'class folder holds', 'class folders hold')} no "
            f"photos: {listed(empty)}. "
            f"Put photos in ({suffixes()}) or remove the folder."
        )


def _check_class_folders(folder: Path, class_folders: list[Path], loose_photos: bool) -> None:
    names = [entry.name for entry in class_folders]
    arrange = "Arrange the photos as `<folder>/<class name>/<photo>.jpg`."
    if not names and loose_photos:
        raise DataError(f"`{folder}` holds photos but no class folders. {arrange}")
    if len(names) < 2:
        nested = [name for name in names if (folder / name / "images.txt").is_file()]
        hint = f"Did you mean `{folder / nested[0]}`?" if nested else arrange
        found = f"only one class folder (`{names[0]}`)" if names else "no class folders"
        raise DataError(f"`{folder}` holds {found}; at least two classes are needed. {hint}")
    if {name.lower() for name in names} <= PART_OF.keys():
        raise DataError(
            f"The folders of `{folder}` ({listed(names)}) are named like splits, not classes. Use "
            f"`layout: splits` if that is what they are, or rename them."
        )


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and files directly inside, by name.

    A folder of photos that is hidden, or leads back to where it stands, is left among the files.
    """
    try:
        entries = sorted(entry for entry in folder.iterdir() if _may_matter(entry))
        folders = [entry for entry in entries if entry.is_dir() and not _is_passed_over(entry)]
    except OSError as error:
        raise are_shut([error]) from error
    return folders, sorted(set(entries) - set(folders))


def _may_matter(entry: Path) -> bool:
    """Whether it is in plain sight, or a hidden folder that holds photos."""
    if not _is_hidden(entry.name):
        return True
    _, _, files = next(os.walk(entry), ("", [], []))
    return any(is_photo(Path(name)) for name in files)


def _is_passed_over(folder: Path) -> bool:
    """Whether it is hidden, or a link to a folder that it stands in itself."""
    return _is_hidden(folder.name) or (
        folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())
    )


def are_shut(errors: list[OSError]) -> DataError:
    """Says which folders nobody may look into: what lies in them must not be left out unseen."""
    told = listed(sorted(f"{error.filename} ({error.strerror})" for error in errors))
    return DataError(
        f"{count_of(len(errors), 'folder')} can't be looked into: {told}. Allow it, or "
        "move them elsewhere."
    )


def files_below(folder: Path, shut: Callable[[OSError], None]) -> Iterator[Path]:
    """Files at any depth; hidden ones and hidden folders are passed over, links not followed.

    `shut` is told of each folder that can't be looked into.
    """
    for parent, folders, files in os.walk(folder, onerror=shut):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        links = [name for name in folders if Path(parent, name).is_symlink()]  # never entered
        yield from (Path(parent, name) for name in (*files, *links) if not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"  # the latter is left by macOS's zip

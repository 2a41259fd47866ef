"""Photos and their labels, read from a folder that is never written to.

Two layouts are read. `tree`: one folder per class, photos at any depth below it. `cub`: the files
of CUB-200-2011 (`images.txt`, `classes.txt`, `image_class_labels.txt`, `train_test_split.txt` and
`images/`), with its official train/test split.

Classes are numbered by name, in order of Unicode code points, once for everything; so both layouts
of the same photos give the same numbers, and a split that lacks a class does not shift the others.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from fieldmark.errors import DataError

Layout = Literal["auto", "tree", "cub"]

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"),
)
_SPLIT_NAMES = frozenset(("train", "training", "val", "valid", "validation", "test"))
_SHOWN = 10


@dataclass(frozen=True)
class Photo:
    """One labelled photo.

    Attributes:
        path: Where the file is.
        label: Position of its class in `PhotoSet.class_names`.
        key: Path relative to the root with forward slashes: the photo's name on any machine.
        split: `train` or `test` where the source says so, else None.
    """

    path: Path
    label: int
    key: str
    split: str | None = None


@dataclass(frozen=True)
class PhotoSet:
    """All photos of a folder, ordered by key, and the one class index.

    Attributes:
        root: The folder that keys are relative to.
        photos: Every photo.
        class_names: Names in code-point order; a label is a position in it.
        ignored: How many files were left out because they are not photos of a class.
    """

    root: Path
    photos: tuple[Photo, ...]
    class_names: tuple[str, ...]
    ignored: int = 0


def read_photos(folder: Path, layout: Layout = "auto") -> PhotoSet:
    """List the photos of a folder with their classes.

    Args:
        folder: A class-per-folder tree or a folder in the layout of CUB-200-2011.
        layout: `auto` takes `cub` when the folder holds an `images.txt`, else `tree`.

    Raises:
        DataError: The folder is missing, is in neither layout, has fewer than two classes or a
            class without photos, or its lists contradict each other (all mistakes at once).
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"`{folder}` {what}. Give a folder that holds one folder per class.")
    if layout == "auto":
        layout = "cub" if (folder / "images.txt").is_file() else "tree"
    return _read_cub(folder) if layout == "cub" else _read_tree(folder)


def content_hash(path: Path) -> str:
    """BLAKE2b-256 of a file's bytes, in hex: the photo's part of a cache key."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).hexdigest()


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


# --- one folder per class ---------------------------------------------------------------------


def _read_tree(folder: Path) -> PhotoSet:
    entries = sorted(entry for entry in folder.iterdir() if not _is_hidden(entry.name))
    class_folders = [entry for entry in entries if entry.is_dir()]
    loose = [entry for entry in entries if not entry.is_dir()]
    _check_class_folders(folder, class_folders, any(map(is_photo, loose)))

    photos: list[Photo] = []
    empty: list[str] = []
    ignored = len(loose)
    for label, class_folder in enumerate(class_folders):
        files = list(_files_below(class_folder))
        found = [file for file in files if is_photo(file)]
        ignored += len(files) - len(found)
        photos += [Photo(file, label, file.relative_to(folder).as_posix()) for file in found]
        if not found:
            empty.append(class_folder.name)
    if empty:
        raise DataError(
            f"{len(empty)} class folder(s) of `{folder}` hold no photos: {listed(empty)}. "
            f"Put photos in ({_suffixes()}) or remove the folder."
        )
    return _photo_set(folder, photos, [entry.name for entry in class_folders], ignored)


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
    if {name.lower() for name in names} <= _SPLIT_NAMES:
        raise DataError(
            f"The folders of `{folder}` ({listed(names)}) are named like splits, not classes. Give "
            f"one folder of class folders, such as `{folder / names[0]}`: val and test are cut "
            f"from it."
        )


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        yield from (Path(parent, name) for name in files if not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"  # the latter is left by macOS's zip


# --- the layout of CUB-200-2011 -----------------------------------------------------------------


_CUB_FILES = {  # file -> what stands behind the id on each of its lines
    "images.txt": "path",
    "classes.txt": "class name",
    "image_class_labels.txt": "class id",
    "train_test_split.txt": "0 or 1",
}


class _Cell(NamedTuple):
    value: str
    line: int


_Table = dict[str, _Cell]  # by id


def _read_cub(folder: Path) -> PhotoSet:
    problems: list[str] = []
    tables = {
        file: _read_table(folder / file, meaning, problems) for file, meaning in _CUB_FILES.items()
    }
    # Cross checks would only repeat what a damaged list has already shown.
    problems = problems or list(_contradictions(folder, tables))
    if problems:
        shown = listed(problems, between="\n  ")
        raise DataError(
            f"`{folder}` is not a whole set in the layout of CUB-200-2011; {len(problems)} "
            f"mistake(s):\n  {shown}\nMend the lists, or give a folder that holds one folder per "
            f"class."
        )
    images, classes, labels, splits = tables.values()
    names = sorted(cell.value for cell in classes.values())
    label_of = {identity: names.index(cell.value) for identity, cell in classes.items()}
    photos = [
        Photo(
            path=folder / "images" / cell.value,
            label=label_of[labels[identity].value],
            key=f"images/{cell.value}",
            split="train" if splits[identity].value == "1" else "test",
        )
        for identity, cell in images.items()
    ]
    return _photo_set(folder, photos, names)


def _read_table(path: Path, meaning: str, problems: list[str]) -> _Table:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        problems.append(f"{path.name}: can't be read ({reason})")
        return {}
    table: _Table = {}
    for number, line in enumerate(lines, start=1):
        words = line.split(maxsplit=1)
        if len(words) == 1:
            problems.append(f"{path.name} line {number}: not `<id> <{meaning}>`: {line!r}")
        elif words and words[0] in table:
            first = table[words[0]].line
            problems.append(f"{path.name} line {number}: id {words[0]} stands on line {first} too")
        elif words:
            table[words[0]] = _Cell(words[1].rstrip(), number)
    return table


def _contradictions(folder: Path, tables: dict[str, _Table]) -> Iterator[str]:
    images, classes, labels, splits = tables.values()
    for file in ("images.txt", "classes.txt"):
        yield from _repeated(file, tables[file])
    for file in ("image_class_labels.txt", "train_test_split.txt"):
        yield from _unmatched("images.txt", images, file, tables[file])
        yield from _unmatched(file, tables[file], "images.txt", images)
    for name, line in images.values():
        if ".." in Path(name).parts or Path(name).is_absolute() or not is_photo(Path(name)):
            yield f"images.txt line {line}: not a photo below images/: {name}"
        elif not (folder / "images" / name).is_file():
            yield f"images.txt line {line}: no such file: images/{name}"
    for flag, line in splits.values():
        if flag not in ("0", "1"):
            yield f"train_test_split.txt line {line}: not 0 (test) or 1 (train): {flag}"
    for class_id, line in labels.values():
        if class_id not in classes:
            yield f"image_class_labels.txt line {line}: class {class_id} is not in classes.txt"
    used = {cell.value for cell in labels.values()}
    for class_id, (name, line) in classes.items():
        if class_id not in used:
            yield f"classes.txt line {line}: class {name} has no photos"
    if len(classes) < 2:
        yield f"classes.txt: at least two classes are needed, got {len(classes)}"


def _unmatched(file: str, table: _Table, other_file: str, other: _Table) -> Iterator[str]:
    for identity, cell in table.items():
        if identity not in other:
            yield f"{file} line {cell.line}: id {identity} is not in {other_file}"


def _repeated(file: str, table: _Table) -> Iterator[str]:
    first: dict[str, int] = {}
    for value, line in table.values():
        if first.setdefault(value, line) != line:
            yield f"{file} line {line}: {value} stands on line {first[value]} too"


# --- both -----------------------------------------------------------------------------------------


def _photo_set(root: Path, photos: list[Photo], names: list[str], ignored: int = 0) -> PhotoSet:
    ordered = sorted(photos, key=lambda photo: photo.key)
    return PhotoSet(root, tuple(ordered), tuple(names), ignored)


def _suffixes() -> str:
    return " ".join(sorted(SUFFIXES))

"""The layout of CUB-200-2011: four lists and a folder of photos, with an official split.

`images.txt`, `classes.txt`, `image_class_labels.txt`, `train_test_split.txt` and `images/`. Where
there is a `bounding_boxes.txt`, photos have boxes.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fieldmark.data.dataset import Photo, PhotoSet, is_photo, listed, photo_set
from fieldmark.errors import DataError, count_of

_CUB_FILES = {  # file -> what stands behind the id on each of its lines
    "images.txt": "path",
    "classes.txt": "class name",
    "image_class_labels.txt": "class id",
    "train_test_split.txt": "0 or 1",
}

_BOXES, _BOX = "bounding_boxes.txt", "left top width height"  # may be missing


class _Cell(NamedTuple):
    value: str
    line: int


_Table = dict[str, _Cell]  # by id


def read_cub(folder: Path) -> PhotoSet:
    """The photos of a folder in this layout, marked `train` or `test`.

    Raises:
        DataError: The lists contradict each other or the files; all mistakes at once.
    """
    problems: list[str] = []
    tables = {
        file: _read_table(folder / file, meaning, problems) for file, meaning in _CUB_FILES.items()
    }
    boxes = _read_table(folder / _BOXES, _BOX, problems) if (folder / _BOXES).is_file() else {}
    # Cross checks would only repeat what a damaged list has already shown.
    problems = problems or [*_contradictions(folder, tables), *_bad_boxes(boxes, tables)]
    if problems:
        shown = listed(problems, between="\n  ")
        raise DataError(
            f"`{folder}` is not a whole set in the layout of CUB-200-2011; "
            f"{count_of(len(problems), 'mistake')}:\n  {shown}\nMend the lists, or give a folder "
            f"that holds one folder per class."
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
            box=_box(boxes[identity].value) if identity in boxes else None,
        )
        for identity, cell in images.items()
    ]
    return photo_set(folder, photos, names)


def _box(text: str) -> tuple[float, float, float, float] | None:
    """Left, top, width and height; None where that is not what the text says."""
    try:
        left, top, width, height = map(float, text.split())
    except ValueError:
        return None
    whole = all(map(math.isfinite, (left, top, width, height))) and width > 0 and height > 0
    return (left, top, width, height) if whole else None


def _bad_boxes(boxes: _Table, tables: dict[str, _Table]) -> Iterator[str]:
    yield from _unmatched(_BOXES, boxes, "images.txt", tables["images.txt"])
    for text, line in boxes.values():
        if _box(text) is None:
            yield f"{_BOXES} line {line}: not `{_BOX}`, width and height above 0: {text}"


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

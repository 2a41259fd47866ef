"""Photos named by lists: `path label` a line, as Caffe takes them, or a CSV or Parquet table."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl

from fieldmark.data.dataset import PARTS, Photo, PhotoSet, is_photo, listed, photo_set
from fieldmark.data.tree import PART_OF
from fieldmark.errors import DataError, count_of

_TABLES = (".csv", ".tsv", ".parquet")
_SHOWN = 5  # mistakes of one kind in a message, so that those of another are seen too


class _Entry(NamedTuple):
    path: str
    label: str
    split: str | None
    group: str | None
    where: str  # file and line, for messages


def read_lists(folder: Path, lists: Mapping[str, Path], group: str | None = None) -> PhotoSet:
    """The photos that lists name, with paths relative to `folder` or absolute but inside it.

    A `.csv`, `.tsv` or `.parquet` file has the columns `path` and `label`, and may have `split` and
    `group`; commas, semicolons or tabs part them, as its first line shows, and a path may have
    backslashes. Any other file has a path, a blank and a label on each line; labels are names, and
    the numbers Caffe wants are names too.

    Args:
        folder: What keys are relative to.
        lists: By the part each holds, `all` where the list says itself or leaves it open.
        group: Name of the column of groups.

    Raises:
        DataError: A list can't be read, or any entry is wrong; all mistakes at once.
    """
    entries: list[_Entry] = []
    for part, path in lists.items():
        split = None if part == "all" else part
        is_table = path.suffix.lower() in _TABLES
        found = _table_entries(path, split, group) if is_table else _list_entries(path, split)
        # Lists of two parts may have one name, so a place in them begins with the part.
        entries += [one._replace(where=f"{part}: {one.where}") if split else one for one in found]
    names = sorted({entry.label for entry in entries if entry.label})
    problems = [*_mistakes(folder, entries)]
    if len(names) < 2:
        problems.append(("", f"at least two classes are needed, got {len(names)}"))
    if problems:
        shown = "\n  ".join(_some_of_each_kind(problems))
        raise DataError(
            f"The lists of photos have {count_of(len(problems), 'mistake')}:\n  {shown}\nPaths are "
            f"relative to `{folder}`. Correct the lists, or give another `folder`."
        )
    label_of = {name: label for label, name in enumerate(names)}
    photos = [
        Photo(folder / key, label_of[entry.label], key, entry.split, entry.group)
        for entry in entries
        if (key := _key(folder, entry.path))
    ]
    return photo_set(folder, photos, names)


Row = dict[str, str | None]


def read_table(
    path: Path, required: tuple[str, ...], optional: tuple[str, ...]
) -> list[tuple[int, Row]]:
    """The named columns of each row that is not blank, and its number; an empty cell is None.

    Rows are numbered as a spreadsheet shows them: the line of names is row 1, where there is one.

    Raises:
        DataError: The table can't be read or lacks a required column.
    """
    try:
        if path.suffix.lower() == ".parquet":
            table = pl.read_parquet(path)
        else:
            text = path.read_bytes().decode("utf-8-sig")
            header = text.partition("\n")[0]
            separator = max(",;\t", key=header.count)  # a spreadsheet's depends on its language
            table = pl.read_csv(text.encode(), infer_schema=False, separator=separator)
    except UnicodeDecodeError as error:
        line = 1 + error.object.count(b"\n", 0, error.start)
        raise DataError(
            f"`{path}` can't be read: line {line} is not UTF-8. Save it from the spreadsheet as "
            "`CSV UTF-8`."
        ) from error
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(f"`{path}` can't be read: {reason.splitlines()[0]}.") from error
    absent = [name for name in required if name not in table.columns]
    if absent:
        raise DataError(
            f"`{path}` has no column {', '.join(absent)}; it has: {listed(table.columns)}. Its "
            f"first line must name the columns {', '.join(required)}."
        )
    kept = [name for name in dict.fromkeys((*required, *optional)) if name in table.columns]
    odd = [name for name in kept if table[name].dtype.is_nested()]
    odd += [name for name in kept if f"{name}_duplicated_0" in table.columns]  # so polars says it
    if odd:
        raise DataError(
            f"`{path}` must have one column each of plain values, and has not: {listed(odd)}. "
            f"Rename or rewrite those that are not meant."
        )
    blank = table.select(pl.all_horizontal(pl.all().is_null())).to_series()
    cells = table.select(
        pl.col(name).cast(pl.String).str.strip_chars().replace("", None) for name in kept
    )
    first = 1 if path.suffix.lower() == ".parquet" else 2
    rows = enumerate(zip(cells.iter_rows(named=True), blank, strict=True), start=first)
    return [(number, row) for number, (row, is_blank) in rows if not is_blank]


def _table_entries(path: Path, split: str | None, group: str | None) -> Iterator[_Entry]:
    wanted = (group,) if group else ()
    for number, row in read_table(path, ("path", "label", *wanted), ("split", "group")):
        yield _Entry(
            path=row["path"] or "",
            label=row["label"] or "",
            split=split or _part(row.get("split")),
            group=row.get(group or "group"),
            where=f"{path.name} row {number}",
        )


def _part(written: str | None) -> str | None:
    """The split a cell means, as `Training` means train; what means none stays as it is."""
    return PART_OF.get(written.lower(), written) if written else None


def _list_entries(path: Path, split: str | None) -> Iterator[_Entry]:
    return (one._replace(split=split) for _, one in _lines(path))


def _lines(path: Path) -> Iterator[tuple[str, _Entry]]:
    """Each line of a list that is not blank, and what stands in it."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(f"`{path}` can't be read: {reason}.") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            name, label = ["", *line.rsplit(maxsplit=1)][-2:]  # at the last blank: paths have some
            yield line, _Entry(name.strip(), label, None, None, f"{path.name} line {number}")


def is_list(path: Path) -> bool:
    """Whether a file's name is that of a list of photos, not of one."""
    return path.suffix.lower() in (*_TABLES, ".txt")


def listed_paths(path: Path) -> list[Path]:
    """The photos of a list, whether it has labels or not: absolute, or relative to its folder.

    A table has a column `path`. Of a `.txt` each line is a path, or a path, a blank and a label.

    Raises:
        DataError: The list can't be read, or names a file that is not there; all at once.
    """
    if path.suffix.lower() in _TABLES:
        given: list[tuple[str, ...]] = [
            (row["path"] or "",) for _, row in read_table(path, ("path",), ())
        ]
    else:  # it is the whole line, or what stands before its last blank
        given = [(line.strip(), one.path) for line, one in _lines(path)]
    found = []
    for names in given:
        may_be = [path.parent / name for name in names]
        found.append(next((one for one in may_be if one.is_file()), may_be[0]))
    if absent := [str(one) for one in found if not one.is_file()]:
        raise DataError(
            f"`{path}` names {count_of(len(absent), 'file')} that are not there: "
            f"{listed(absent)}. Paths are relative to the list's own folder, or absolute."
        )
    return found


def _mistakes(folder: Path, entries: list[_Entry]) -> Iterator[tuple[str, str]]:
    """The kind of each mistake, and where it is."""
    first: dict[str, str] = {}
    for entry in entries:
        key = _key(folder, entry.path)
        kind, what = "", entry.path
        if not entry.path or not entry.label:
            kind, what = "not a path and a label", repr(entry.path or entry.label)
        elif key is None:
            kind = "not a photo below the folder"
        elif not (folder / key).is_file():
            kind = "no such file"
        elif key in first:
            yield "twice", f"{entry.where}: {key} stands at {first[key]} too"
        else:
            first[key] = entry.where
        if kind:
            yield kind, f"{entry.where}: {kind}: {what}"
        if entry.split not in (None, *PARTS):
            yield "split", f"{entry.where}: not train, val or test: {entry.split}"


def _some_of_each_kind(problems: list[tuple[str, str]]) -> Iterator[str]:
    for kind in dict.fromkeys(kind for kind, _ in problems):
        told = [problem for one, problem in problems if one == kind]
        yield from told[:_SHOWN]
        if len(told) > _SHOWN:
            yield f"and {len(told) - _SHOWN} more of this kind"


def _key(folder: Path, path: str) -> str | None:
    """The photo's key, or None where the path leads out of the folder or to no photo."""
    given = Path(path)
    if "\\" in path and not (folder / given).is_file():
        given = Path(path.replace("\\", "/"))  # written on Windows
    if given.is_absolute():
        if not given.is_relative_to(folder.absolute()):
            return None
        given = given.relative_to(folder.absolute())
    return given.as_posix() if ".." not in given.parts and is_photo(given) else None

"""The command `fieldmark cache`; part of `cli`."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fieldmark.errors import SettingError
from fieldmark.terminal import Format, console, listing

if TYPE_CHECKING:
    from fieldmark.cache_room import Entry


def cache(
    key: Annotated[
        str | None, typer.Argument(help="Only what the key begins with or contains.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove it, or all of it.")] = False,
    how: Annotated[Format, typer.Option("--format", help="How to print.")] = "table",
) -> None:
    """List the features and photos kept for the next run, or clear them.

    They lie in $FIELDMARK_CACHE, or the user's cache folder, and can be made again. The cache holds
    at most $FIELDMARK_CACHE_GB, 20 unless set: what was unused for longest goes first.
    """
    from fieldmark.cache_room import entries, most_bytes
    from fieldmark.training.features import cache_folder

    root = cache_folder()
    found = [entry for entry in entries(root) if key is None or key in entry.folder.name]
    if key is not None and not found:
        names = ", ".join(entry.folder.name for entry in entries(root)) or "nothing"
        raise SettingError(f"The cache holds nothing of the key {key!r}. It holds: {names}.")
    if clear:
        _clear(found)
        return
    rows = [_row(entry, how) for entry in reversed(found)]
    if how == "table":
        total, most = sum(entry.size for entry in found), most_bytes()
        title = f"{root}: {total / 1e9:.2f} of {most / 1e9:g} GB"
        rows += _checked(root)
    else:
        title = ""
    listing(console, rows, title=title, how=how)


def _clear(found: "list[Entry]") -> None:
    from fieldmark.cache_room import clear

    freed = 0
    for entry in found:
        gone = clear(entry)
        freed += entry.size if gone else 0
        told = f"{entry.size / 1e6:,.1f} MB" if gone else "stays: a process uses it"
        console.print(f"{entry.folder.name}: {told}", highlight=False, soft_wrap=True)
    console.print(f"Freed {freed / 1e6:,.1f} MB", highlight=False)


def _row(entry: "Entry", how: Format) -> dict[str, object]:
    from fieldmark.cache_room import RESIZED
    from fieldmark.shards import read_shard

    photos = sum(len(read_shard(path)[0]) for path in entry.files)
    name, _, code = entry.folder.name.rpartition("@")
    of = "resized photos" if entry.folder.parent.name == RESIZED else "features"
    used = datetime.fromtimestamp(entry.used, UTC)
    if how != "table":
        row = {"of": of, "key": entry.folder.name, "photos": photos, "bytes": entry.size}
        return row | {"used": used.isoformat(timespec="seconds")}
    return {
        "of": of,
        "way": name.replace("@", " ") or "an earlier version's",
        "key": code[:8],
        "photos": f"{photos:,}",
        "MB": f"{entry.size / 1e6:,.1f}",
        "last used": f"{used.astimezone():%Y-%m-%d %H:%M}",
    }


def _checked(root: Path) -> list[dict[str, object]]:
    """What is remembered of files that were decoded; it is no part of the bound."""
    files = list((root / "checked").glob("*.json"))
    if not files:
        return []
    photos = sum(len(json.loads(path.read_bytes())["files"]) for path in files)
    size = sum(path.stat().st_size for path in files)
    used = datetime.fromtimestamp(max(path.stat().st_mtime for path in files), UTC)
    return [
        {
            "of": "files checked",
            "way": "",
            "key": "",
            "photos": f"{photos:,}",
            "MB": f"{size / 1e6:,.1f}",
            "last used": f"{used.astimezone():%Y-%m-%d %H:%M}",
        }
    ]

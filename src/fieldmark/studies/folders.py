"""What is said of a folder that is no run or study: which are near it, what to do."""

from collections.abc import Sequence
from pathlib import Path

MOST_NAMED = 5


def from_here(folder: Path) -> Path:
    """A folder as one would type it here: without the way to the working folder it lies below."""
    here = Path.cwd()
    return folder.relative_to(here) if here in folder.parents else folder


def no_such(folder: Path, kind: str, missing: Sequence[str], mark: str, command: str) -> str:
    """Why a folder is no run or study, and which of those inside it may be meant.

    Args:
        folder: What was given.
        kind: What it should be.
        missing: What it lacks, as shown.
        mark: The file that such a folder has.
        command: The one that makes them.
    """
    if not folder.exists():
        why = "there is no such folder"
    elif not folder.is_dir():
        why = "it is a file"
    else:
        why = f"it lacks {', '.join(missing)}"
    inside = sorted(str(path.parent) for path in folder.glob(f"*/{mark}"))
    if inside:
        more = f" and {len(inside) - MOST_NAMED} more" if len(inside) > MOST_NAMED else ""
        advice = f"Name one of those in it: {', '.join(inside[:MOST_NAMED])}{more}."
    else:
        advice = f"Name a folder that `fieldmark {command}` made."
    return f"`{folder}` is no {kind}: {why}. {advice}"

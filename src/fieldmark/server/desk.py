"""Where a reader's wishes are taken: to pause, to go on, to stop, to run a failure again."""

from collections.abc import Mapping
from typing import cast, get_args

from fieldmark.errors import SettingError
from fieldmark.server.feed import Feed
from fieldmark.studies.control import Wish, ask
from fieldmark.studies.study import Study

AGAIN = "again"
WISHES = (*get_args(Wish), AGAIN)


def heed(feed: Feed, fields: Mapping[str, str], by: str) -> str:
    """Write down what a reader wishes; returns the place of the page to look at next.

    Args:
        feed: Of the folder.
        fields: `place` and `wish`; to run again also `cell` and `seed`.
        by: Who wishes it.

    Raises:
        SettingError: there is no such place, run or wish, or it is over already.
    """
    place, wish = fields.get("place", ""), fields.get("wish", "")
    if wish not in WISHES:
        raise SettingError(f"`wish` must be one of {', '.join(WISHES)}, got {wish!r}.")
    feed.look()
    seen = feed.seen()
    run, study = seen.runs.get(place), seen.studies.get(place)
    if run is None and study is None:
        raise SettingError(f"There is no run and no study `{place}` here.")
    folder = seen.folder / place
    if wish == AGAIN:
        _run_again(Study.open(folder), fields, by)
    elif run and run.status != "running":
        raise SettingError(f"`{place}` is {run.status}; nothing is under way there.")
    else:
        ask(folder, cast("Wish", wish), by)
    feed.look_again()
    return place


def _run_again(study: Study, fields: Mapping[str, str], by: str) -> None:
    wanted = (fields.get("cell"), fields.get("seed"))
    for slot in study.slots():
        if (slot.cell.hash, str(slot.seed)) == wanted:
            study.records.take_back(slot, by)
            return
    raise SettingError(f"This study has no cell {wanted[0]!r} with seed {wanted[1]!r}.")

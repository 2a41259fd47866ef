"""Stops the world before every disk operation, in every state the disk may then be in.

Each life that follows is crashed in every way again. The checker parses the bytes itself and knows
only what was acknowledged; planted bugs prove that it can see. The disk is in `conftest.py`.
"""

import binascii
import contextlib
import errno
import itertools
import re
from pathlib import Path

import pytest

from fieldmark import durable
from fieldmark.errors import RecordError

JOURNAL = Path("/run/metrics.jsonl")
MANIFEST = Path("/run/manifest.json")


# A journal: the checker's own parser, and a life.


def parsed(content: bytes) -> tuple[list[int], bytes]:
    """The numbers in whole lines, and whatever comes after the last of them."""
    numbers, rest = [], content
    while match := re.match(rb'(\{"n":(\d+)\})\t([0-9a-f]{8})\n', rest):
        if int(match[3], 16) != binascii.crc32(match[1]):
            break
        numbers.append(int(match[2]))
        rest = rest[match.end() :]
    return numbers, rest


def judge_journal(disk, told) -> str | None:
    if JOURNAL not in disk.entries:
        return f"file lost with {told.safe}" if told.safe else None
    raw, _ = parsed(disk.read(JOURNAL))
    try:
        seen = [record["n"] for record in durable.read(JOURNAL)]
        durable.Journal(JOURNAL).close()
    except (RecordError, ValueError, KeyError) as error:
        return f"can't be opened: {error}"
    mended, rest = parsed(disk.read(JOURNAL))
    if rest:
        return f"half a record left in place: {rest!r}"
    if not raw == seen == mended:
        return f"{seen} read, {raw} there, {mended} after opening"
    if sorted(set(seen)) != seen or not set(told.safe) <= set(seen) <= set(told.tried):
        return f"{seen} found, {told.safe} promised, {told.tried} tried"
    return None


def append_two(told) -> None:
    with durable.Journal(JOURNAL) as journal:
        told.promise(*(record["n"] for record in durable.read(JOURNAL)))  # acted upon from here
        for _ in range(2):
            number = told.attempt()
            journal.append({"n": number})
            told.promise(number)


def test_a_journal_survives_every_double_crash(world):
    complaints = list(world.explore(append_two, judge_journal))
    assert not any(complaints)
    assert len(complaints) > 1000


def test_one_shot_appends_survive_every_triple_crash(world):
    def life(told) -> None:
        number = told.attempt()
        durable.append(JOURNAL, {"n": number})
        told.promise(number)

    assert not any(world.explore(life, judge_journal, lives=3))


# A replaced file in a new folder.

VERSIONS = [b"%d" % n * 6 for n in range(10)]


def replace_twice(told) -> None:
    durable.make_folder(MANIFEST.parent)
    for _ in range(2):
        number = told.attempt()
        durable.replace(MANIFEST, VERSIONS[number])
        told.promise(number)


def judge_replaced(disk, told) -> str | None:
    newest = max(told.safe, default=0)
    if MANIFEST not in disk.entries:
        return f"version {newest} lost" if newest else None
    content = disk.read(MANIFEST)
    if content not in [VERSIONS[number] for number in (0, *told.tried) if number >= newest]:
        return f"{content!r} found, version {newest} promised"
    durable.replace(MANIFEST, b"after")
    leftovers = [name for name in disk.names(MANIFEST.parent) if name != MANIFEST.name]
    return f"left lying about: {leftovers}" if leftovers else None


def test_a_replaced_file_is_old_or_new_after_every_double_crash(world):
    complaints = list(world.explore(replace_twice, judge_replaced))
    assert not any(complaints)
    assert len(complaints) > 300


# A file that only the first may make.


def claim(told) -> None:
    durable.make_folder(MANIFEST.parent)
    number = told.attempt()
    try:
        durable.replace(MANIFEST, VERSIONS[number], new=True)
        told.promise(number)
    except FileExistsError:
        told.tried = told.tried[:-1]


def judge_claimed(disk, told) -> str | None:
    if MANIFEST not in disk.entries:
        return f"claim {told.safe} lost" if told.safe else None
    content = disk.read(MANIFEST)
    if content not in [VERSIONS[number] for number in told.safe or told.tried]:
        return f"{content!r} found, {told.safe} promised"
    return None


def test_a_claimed_file_is_whole_and_stays_the_first_ones(world):
    complaints = list(world.explore(claim, judge_claimed))
    assert not any(complaints)
    assert len(complaints) > 30


# Planted bugs: each must be found, or the checker is broken.


def bug_no_fsync(patch, disk):
    patch.setattr(disk, "fsync", lambda self, file: None)


def bug_folder_not_synced(patch, disk):
    patch.setattr(disk, "fsync_path", lambda self, path: None)


def bug_nothing_synced_at_opening(patch, disk):
    def init(journal, path):
        disk.fsync = lambda self, file: None
        try:
            opening(journal, path)
        finally:
            disk.fsync = fsync

    opening, fsync = durable.Journal.__init__, disk.fsync
    patch.setattr(durable.Journal, "__init__", init)


def bug_no_tail_repair(patch, disk):
    patch.setattr(durable.Journal, "_cut_torn_tail", lambda self, file: None)


def bug_newline_appended_as_repair(patch, disk):
    def append_newline(journal, file):
        if journal._torn:
            durable._disk.write(file, b"\n")
            durable._disk.fsync(file)
            journal._torn = False

    patch.setattr(durable.Journal, "_cut_torn_tail", append_newline)


def bug_newline_taken_for_whole(patch, disk):
    patch.setattr(durable, "_whole_lines", lambda path, content: content.split(b"\n")[:-1])


def bug_cut_not_synced(patch, disk):
    """The length is put right in memory only, and the next record goes after the old tail."""
    patch.setattr(disk, "truncate", lambda self, file, size: self.step("truncate"))


def bug_written_in_place(patch, disk):
    def replace(path, content):
        file = durable._disk.open(path, new=False)
        durable._disk.truncate(file, 0)
        durable._disk.write(file, content)
        durable._disk.fsync(file)
        durable._disk.fsync_path(path.parent)

    patch.setattr(durable, "replace", replace)


def bug_renamed_before_sync(patch, disk):
    def fsync_path(self, path):
        if self.is_folder(path):
            whole(self, path)

    whole = disk.fsync_path
    patch.setattr(disk, "fsync_path", fsync_path)


def bug_leftovers_stay(patch, disk):
    patch.setattr(durable, "_sweep", lambda path: None)


def acknowledge_before_fsync(told) -> None:
    with durable.Journal(JOURNAL) as journal:
        for _ in range(2):
            number = told.attempt()
            told.promise(number)
            journal.append({"n": number})


@pytest.mark.parametrize(
    ("bug", "life", "judge"),
    [
        (bug_no_fsync, append_two, judge_journal),
        (bug_folder_not_synced, append_two, judge_journal),
        (bug_nothing_synced_at_opening, append_two, judge_journal),
        (bug_no_tail_repair, append_two, judge_journal),
        (bug_newline_appended_as_repair, append_two, judge_journal),
        (bug_newline_taken_for_whole, append_two, judge_journal),
        (bug_cut_not_synced, append_two, judge_journal),
        (None, acknowledge_before_fsync, judge_journal),
        (bug_no_fsync, replace_twice, judge_replaced),
        (bug_folder_not_synced, replace_twice, judge_replaced),
        (bug_written_in_place, replace_twice, judge_replaced),
        (bug_renamed_before_sync, replace_twice, judge_replaced),
        (bug_leftovers_stay, replace_twice, judge_replaced),
    ],
)
def test_planted_bugs_are_found(world, monkeypatch, bug, life, judge):
    if bug is not None:
        bug(monkeypatch, world.MemoryDisk)
    assert any(world.explore(life, judge)), "the checker is broken"


# Faults a process lives through: disk full, failing device.


def after_faults(world, errors, forever):
    """Append five records, going on after each fault; yield a judgement of every aftermath."""
    disk, told, calls = world.MemoryDisk(), world.Told(), itertools.count()

    def fault(operation):
        number = next(calls)
        found = [code for at, code in errors.items() if number == at or (forever and number > at)]
        return OSError(found[0], "injected") if found else None

    durable._disk = disk
    journal = durable.Journal(JOURNAL)
    disk.fault = fault
    for _ in range(5):
        number = told.attempt()
        with contextlib.suppress(OSError):
            journal.append({"n": number})
            told.promise(number)
    disk.fault = lambda operation: None
    for after in world.aftermaths(disk):
        durable._disk = after
        yield judge_journal(after, told)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("forever", [False, True])
def test_a_failing_disk_loses_nothing_promised(world, code, forever):
    for pair in itertools.combinations(range(14), 2):
        assert not any(after_faults(world, dict.fromkeys(pair, code), forever)), pair


def test_the_checker_sees_a_missing_repair_after_a_fault(world, monkeypatch):
    bug_no_tail_repair(monkeypatch, world.MemoryDisk)
    assert any(
        any(after_faults(world, {first: errno.ENOSPC}, forever=False)) for first in range(10)
    ), "the checker is broken"

"""The disk's door on a real disk; `tests/durable` holds it to every crash on a model of one."""

import contextlib
import errno
import json
import math
import os
import signal
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from fieldmark import disk_room, durable
from fieldmark.errors import DiskError, RecordError, SettingError


def test_a_line_is_json_a_tab_the_crc_and_a_newline(tmp_path):
    durable.append(tmp_path / "j", {"bird": "Große Raubmöwe 鳥", "n": [1, 2.5, None, True]})
    body = '{"bird":"Große Raubmöwe 鳥","n":[1,2.5,null,true]}'.encode()
    assert (tmp_path / "j").read_bytes() == body + b"\t%08x\n" % zlib.crc32(body)


keys = st.text().filter(lambda key: key != "$float")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(keys, json_values, max_size=4))
def test_what_goes_in_comes_out(record):
    line = durable._encode(record)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    json.loads(line[:-10], parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    back = json.loads(line[:-10], object_hook=durable._revive)
    assert repr(back) == repr(record)  # repr: NaN is not equal to itself


def test_the_system_is_told_to_bring_file_and_folder_to_the_disk(tmp_path, monkeypatch):
    synced: list[tuple[int, int]] = []  # which, and how large it was by then

    def note(file: int) -> None:
        synced.append((os.fstat(file).st_ino, os.fstat(file).st_size))

    monkeypatch.setattr(os, "fsync", note)
    folder = tmp_path.stat().st_ino
    durable.replace(tmp_path / "a", b"four")
    whole = ((tmp_path / "a").stat().st_ino, 4)
    assert whole in synced
    assert folder in [inode for inode, _ in synced[synced.index(whole) :]]

    with durable.Journal(tmp_path / "j") as journal:
        assert folder in [inode for inode, _ in synced[synced.index(whole) + 2 :]]
        for number in range(2):
            journal.append({"n": number})
            written = (tmp_path / "j").stat()
            assert synced[-1] == (written.st_ino, written.st_size)


def test_nan_and_infinities_are_kept(tmp_path):
    durable.append(tmp_path / "j", {"loss": math.nan, "bounds": (-math.inf, math.inf)})
    (record,) = durable.read(tmp_path / "j")
    assert math.isnan(record["loss"])
    assert record["bounds"] == [-math.inf, math.inf]


def test_a_file_name_that_is_no_unicode_is_kept(tmp_path):
    name = os.fsdecode(b"gr\xfcn.jpg")
    durable.append(tmp_path / "j", {"path": name})
    assert durable.read(tmp_path / "j") == [{"path": name}]


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", Path("x"), {"$float": "nan"}])
def test_what_json_cannot_say_is_refused_before_anything_is_written(tmp_path, value):
    with durable.Journal(tmp_path / "j") as journal:
        journal.append({"n": 1})
        with pytest.raises(SettingError, match=r"made of None, bool, .*Convert it first"):
            journal.append({"value": value})
        journal.append({"n": 2})
    assert durable.read(tmp_path / "j") == [{"n": 1}, {"n": 2}]


def test_a_torn_tail_is_skipped_by_a_reader_and_cut_by_a_writer(tmp_path):
    path = tmp_path / "j"
    durable.append(path, {"n": 1})
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-3])
    assert durable.read(path) == [{"n": 1}]
    assert path.read_bytes() == whole + whole[:-3]  # a reader changes nothing
    durable.append(path, {"n": 2})
    assert durable.read(path) == [{"n": 1}, {"n": 2}]


def test_damage_before_the_last_line_is_named_not_repaired(tmp_path):
    path = tmp_path / "j"
    for n in range(3):
        durable.append(path, {"n": n})
    damaged = path.read_bytes().replace(b'{"n":1}', b'{"n":7}')
    path.write_bytes(damaged)
    for use in (durable.read, durable.Journal):
        with pytest.raises(RecordError, match=r"Line 2 of `.*j` is damaged.*its first 1 lines"):
            use(path)
    assert path.read_bytes() == damaged


def test_a_missing_journal_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"There is no journal `.*nothing`"):
        durable.read(tmp_path / "nothing")


@pytest.mark.skipif(sys.platform == "win32", reason="no flock")
def test_a_second_writer_is_turned_away_and_a_reader_is_not(tmp_path):
    with durable.Journal(tmp_path / "j") as journal:
        journal.append({"n": 1})
        with pytest.raises(RecordError, match=r"`.*j` is being written by another process"):
            durable.append(tmp_path / "j", {"n": 2})
        assert durable.read(tmp_path / "j") == [{"n": 1}]
    durable.append(tmp_path / "j", {"n": 2})
    assert durable.read(tmp_path / "j") == [{"n": 1}, {"n": 2}]


def test_a_closed_journal_says_so(tmp_path):
    journal = durable.Journal(tmp_path / "j")
    journal.close()
    journal.close()
    with pytest.raises(RecordError, match=r"`.*j` is closed. Open it again"):
        journal.append({})


@pytest.mark.parametrize("sync", [True, False])
def test_replace_leaves_one_file(tmp_path, sync):
    for content in (b"one", b"two" * 10_000, b""):
        durable.replace(tmp_path / "x", content, sync=sync)
        assert (tmp_path / "x").read_bytes() == content
        assert os.listdir(tmp_path) == ["x"]  # noqa: PTH208 - dot files included


def test_of_many_that_make_a_new_file_one_wins(tmp_path):
    durable.replace(tmp_path / "x", b"first", new=True)
    with pytest.raises(FileExistsError, match="x"):
        durable.replace(tmp_path / "x", b"second", new=True)
    assert (tmp_path / "x").read_bytes() == b"first"
    won = []

    def claim(n: int) -> None:
        with contextlib.suppress(FileExistsError):
            durable.replace(tmp_path / "y", b"%d" % n, new=True)
            won.append(n)

    threads = [threading.Thread(target=claim, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [b"%d" % n for n in won] == [(tmp_path / "y").read_bytes()]
    assert {path.name for path in tmp_path.iterdir()} == {"x", "y"}


def test_a_library_that_fails_half_way_leaves_the_old_file(tmp_path):
    durable.replace(tmp_path / "x", b"old")

    def fail() -> None:
        with durable.replacing(tmp_path / "x") as path:
            path.write_bytes(b"ne")
            raise KeyError("the library")

    with pytest.raises(KeyError, match="the library"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_only_the_leftovers_of_the_dead_are_swept(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    ours, stays = (
        [f".x.{dead.pid}-0.tmp", f".x.{os.getpid()}-0.tmp"],
        [
            f".x.{os.getppid()}-0.tmp",  # its process is alive
            f".y.{dead.pid}-0.tmp",  # another file's
            ".x.tmp",
        ],
    )
    for name in (*ours, *stays):
        (tmp_path / name).touch()
    durable.replace(tmp_path / "x", b"new")
    assert {path.name for path in tmp_path.iterdir()} == {"x", *stays}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_in_plain_words(tmp_path, monkeypatch, code):
    def full(file, content):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(durable._disk, "write", full)
    said = (
        r"disk of `.*` is full: `big` did not fit, [\d.,]+ MB are free\. Make room there and go on"
    )
    for use in (durable.replace, durable.append_text):
        with pytest.raises(DiskError, match=said):
            use(tmp_path / "big", b"x" if use is durable.replace else "x")
    with pytest.raises(DiskError, match=said):
        durable.append(tmp_path / "big", {})


def test_any_other_disk_error_names_the_file(tmp_path, monkeypatch):
    def broken(file, content):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(durable._disk, "write", broken)
    for use in (durable.replace, durable.append_text):
        with pytest.raises(OSError, match=r"Input/output error: '.*big'"):
            use(tmp_path / "big", b"x" if use is durable.replace else "x")


def test_a_folder_there_is_no_room_for_is_named(tmp_path, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable._disk, "mkdir", full)
    with pytest.raises(DiskError, match=r"is full: `new` did not fit"):
        durable.make_folder(tmp_path / "new")


def test_a_library_that_says_so_itself_is_understood(tmp_path):
    def write() -> None:
        with durable.replacing(tmp_path / "x"):
            raise SafetensorError("I/O error: No space left on device (os error 28)")

    with pytest.raises(DiskError, match=r"is full: `x` did not fit"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_large_file_is_not_begun_where_it_has_no_room(tmp_path, monkeypatch):
    durable.replace(tmp_path / "x", b"old")
    size = 3_000_000
    monkeypatch.setattr(disk_room, "free_bytes", lambda folder: size + disk_room.RESERVE - 1)
    said = r"`x` needs 3 MB and 16 MB in reserve, 19\.0 MB are free\. Make room there"
    with pytest.raises(DiskError, match=said):
        durable.replace(tmp_path / "x", bytes(size))
    durable.replace(tmp_path / "y", bytes(size - 1))
    durable.replace(tmp_path / "z", b"a record")
    assert sorted(os.listdir(tmp_path)) == ["x", "y", "z"]  # noqa: PTH208 - dot files included
    assert (tmp_path / "x").read_bytes() == b"old"


def test_make_folder_makes_parents_and_may_be_repeated(tmp_path):
    for _ in range(2):
        durable.make_folder(tmp_path / "a" / "b" / "c")
        assert (tmp_path / "a" / "b" / "c").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="file"):
        durable.make_folder(tmp_path / "file")


def test_text_is_appended_as_it_is(tmp_path):
    durable.append_text(tmp_path / "log.txt", "one\n")
    durable.append_text(tmp_path / "log.txt", "Ö\n")
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "one\nÖ\n"


def test_the_clock_is_the_seams(monkeypatch):
    monkeypatch.setattr(durable._disk, "now", lambda: 12.5)
    assert durable.now() == 12.5


WRITER = """
import sys
from pathlib import Path
from fieldmark import durable
with durable.Journal(Path(sys.argv[1])) as journal:
    for n in range(int(sys.argv[2]), 10**9):
        journal.append({"n": n, "padding": "x" * (n % 50)})
        durable.replace(Path(sys.argv[1] + ".last"), b"%d" % n)
        sys.stdout.write(f"{n}\\n")
        sys.stdout.flush()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_writer_loses_nothing_it_promised(tmp_path):
    path, start = tmp_path / "j", 0
    for rounds in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(start)], stdout=subprocess.PIPE
        )
        for _ in range(3 + 17 * rounds):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        promised = [int(line) for line in child.stdout.read().split()]
        child.stdout.close()
        child.wait()
        numbers = [record["n"] for record in durable.read(path)]
        assert numbers == list(range(len(numbers)))  # each once, in order
        assert not promised or numbers[-1] >= promised[-1]
        last = int(Path(f"{path}.last").read_bytes())
        assert last in {numbers[-1], numbers[-1] - 1}
        start = len(numbers)

"""Caches that keep to a bound: the oldest goes, what is in use stays, in other processes too."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fieldmark import cache_room, durable
from fieldmark.cache_room import clear, entries, make_room, use
from fieldmark.errors import SettingError
from fieldmark.shards import shards_in, write_shard
from fieldmark.training.features import FeatureStore

ROWS = torch.zeros(10, 25_000)  # 1 MB


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch):
    """Locks that this process took in another test are let go."""
    held: dict = {}
    monkeypatch.setattr(cache_room, "_held", held)
    yield
    for file in held.values():
        os.close(file)


def kept(root: Path, name: str, used: float, *, count: int = 1) -> Path:
    """An entry of so many MB that nobody uses."""
    for number in range(count):
        write_shard(root / name, [f"{number}-{n}" for n in range(10)], ROWS)
    (root / name / "used").touch()
    os.utime(root / name / "used", (used, used))
    return root / name


def names(root: Path) -> list[str]:
    return [entry.folder.name for entry in entries(root)]


def test_entries_are_listed_from_the_oldest(tmp_path: Path):
    kept(tmp_path, "new", 3e9, count=2)
    kept(tmp_path / "resized", "old", 1e9)
    (tmp_path / "checked").mkdir()
    (tmp_path / "checked" / "a.json").write_text("{}")
    old, new = entries(tmp_path)
    assert (old.folder.name, old.used, len(old.files)) == ("old", 1e9, 1)
    assert (new.folder.name, len(new.files)) == ("new", 2)
    assert new.size == sum(path.stat().st_size for path in new.files) > 2e6


def test_room_is_made_by_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, used in (("b", 2e9), ("a", 1e9), ("c", 3e9)):
        kept(tmp_path, name, used)
    monkeypatch.setenv("FIELDMARK_CACHE_GB", "0.0035")
    assert make_room(tmp_path, 400_000)
    assert names(tmp_path) == ["a", "b", "c"]  # it fits
    assert make_room(tmp_path, 1_000_000)
    assert names(tmp_path) == ["b", "c"]
    assert not (tmp_path / "a").exists()
    assert not make_room(tmp_path, 4_000_000)
    assert names(tmp_path) == []


def test_what_this_process_uses_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept(tmp_path, "mine", 1e9)
    kept(tmp_path, "other", 2e9)
    use(tmp_path / "mine")
    os.utime(tmp_path / "mine" / "used", (1e9, 1e9))
    monkeypatch.setenv("FIELDMARK_CACHE_GB", "0.0015")
    assert make_room(tmp_path, 0)
    assert names(tmp_path) == ["mine"]
    assert not clear(entries(tmp_path)[0])


def test_to_use_it_makes_it_the_newest(tmp_path: Path):
    kept(tmp_path, "a", 1e9)
    kept(tmp_path, "b", 1.1e9)
    use(tmp_path / "a")
    assert names(tmp_path) == ["b", "a"]


USE = """
import sys
from pathlib import Path
from fieldmark.cache_room import use
use(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_what_another_process_uses_stays_until_it_ends(tmp_path: Path):
    folder = kept(tmp_path, "theirs", 1e9)
    arguments = [sys.executable, "-c", USE, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, **pipes) as other:
        assert other.stdout.readline() == "held\n"
        (entry,) = entries(tmp_path)
        assert not clear(entry)
        assert entry.files[0].exists()
        other.kill()
    assert clear(entry)
    assert not folder.exists()


def test_an_entry_removed_while_it_is_taken_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = kept(tmp_path, "a", 1e9)
    same, removed = cache_room._is_same, []

    def first_removed(file, path):
        if not removed:  # another process cleared it between opening and locking
            removed.append(path)
            for each in folder.iterdir():
                each.unlink()
            folder.rmdir()
        return same(file, path)

    monkeypatch.setattr(cache_room, "_is_same", first_removed)
    use(folder)
    assert removed
    assert (folder / "lock").exists()
    (entry,) = entries(tmp_path)
    assert not clear(entry)


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_entry_removed_around_the_making_of_its_lock_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
):
    folder = kept(tmp_path, "a", 1e9)
    replace, removed = durable.replace, []

    def beside_a_removal(path, *args, **keys):
        if removed:
            return replace(path, *args, **keys)
        removed.append(path)
        if when == "after":
            replace(path, *args, **keys)
        durable.remove(folder)  # as another process does
        return None if when == "after" else replace(path, *args, **keys)

    monkeypatch.setattr(durable, "replace", beside_a_removal)
    use(folder)
    assert removed == [folder / "lock"]
    assert (folder / "lock").exists()
    assert not clear(entries(tmp_path)[0])


def test_a_size_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FIELDMARK_CACHE_GB", "much")
    with pytest.raises(SettingError, match="how many GB the cache may hold, such as 20, got 'muc"):
        cache_room.most_bytes()
    monkeypatch.delenv("FIELDMARK_CACHE_GB")
    assert cache_room.most_bytes() == 20e9


def test_a_store_that_is_full_still_gives_every_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FIELDMARK_CACHE_GB", "0")
    store, ids = FeatureStore(tmp_path), list("abc")

    def compute(positions):
        yield positions, torch.tensor([float(p) for p in positions])[:, None]

    for _ in range(2):
        found = [(p, maps) for p, maps in store.features("k", ids, compute)]
        assert found[0][0] == [0, 1, 2]
        assert torch.equal(found[0][1], torch.tensor([[0.0], [1.0], [2.0]]))
    assert shards_in(tmp_path / "k") == []

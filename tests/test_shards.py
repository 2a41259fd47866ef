"""Rows come back by their ids, and what can't be read is as if it were not there."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fieldmark import disk_room
from fieldmark.errors import DiskError
from fieldmark.shards import read_shard, shards_in, write_shard

ROWS = torch.arange(24, dtype=torch.bfloat16).reshape(3, 2, 4)


def test_rows_come_back_with_their_ids(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "key", ["a", "鳥", "c"], ROWS.mT)  # not contiguous
    ids, rows = read_shard(path)
    assert ids == ["a", "鳥", "c"]
    assert rows is not None
    assert torch.equal(rows, ROWS.mT)
    assert shards_in(tmp_path / "key") == [path]
    assert shards_in(tmp_path / "nowhere") == []


def test_the_same_ids_are_the_same_file(tmp_path: Path) -> None:
    one, other = (write_shard(tmp_path, ["a", "b", "c"], rows) for rows in (ROWS, ROWS + 1))
    assert one == other
    assert write_shard(tmp_path, ["a", "b", "d"], ROWS) != one


def test_there_must_be_room_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.zeros(4, 1 << 18)
    monkeypatch.setattr(disk_room, "free_bytes", lambda _: disk_room.RESERVE + rows.nbytes - 1)
    with pytest.raises(DiskError, match=r"needs 4 MB and 16 MB in reserve"):
        write_shard(tmp_path, list("abcd"), rows)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_damaged_file_holds_nothing(tmp_path: Path, length: int) -> None:
    path = write_shard(tmp_path, ["a", "b", "c"], ROWS)
    path.write_bytes(path.read_bytes()[:length])
    assert read_shard(path) == ([], None)


def test_nor_does_a_file_of_another_kind(tmp_path: Path) -> None:
    save_file({"rows": ROWS}, tmp_path / "no-ids.safetensors")
    save_file({"one": ROWS, "two": ROWS + 1}, tmp_path / "two.safetensors", {"ids": '["a"]'})
    assert [read_shard(path) for path in shards_in(tmp_path)] == [([], None)] * 2

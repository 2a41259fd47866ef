"""Tensors that the disk lends the room for."""

from pathlib import Path

import pytest
import torch

from fieldmark import disk_room, scratch
from fieldmark.errors import DiskError, SettingError
from fieldmark.scratch import empty_rows


def mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def test_small_ones_are_in_memory(tmp_path: Path):
    rows = empty_rows((10, 3), tmp_path / "none")
    assert rows.shape == (10, 3)
    assert rows.dtype == torch.float32
    assert not (tmp_path / "none").exists()


def test_large_ones_are_mapped_and_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FIELDMARK_MEMORY_GB", "0.001")
    assert not mapped(tmp_path)
    held = empty_rows((1000, 100), tmp_path)
    rows = empty_rows((1000, 200), tmp_path, held=held.nbytes)
    rows[:] = torch.arange(200.0)
    assert mapped(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(rows.sum(0), 1000 * torch.arange(200.0))
    del rows
    assert not mapped(tmp_path)


def test_a_disk_without_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FIELDMARK_MEMORY_GB", "0")
    monkeypatch.setattr(disk_room, "free_bytes", lambda folder: 10_000_000)
    with pytest.raises(
        DiskError, match=r"`rows` needs 4 MB and 16 MB in reserve, 10\.0 MB are free"
    ):
        empty_rows((1000, 1000), tmp_path)


def test_a_size_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FIELDMARK_MEMORY_GB", "-1")
    with pytest.raises(SettingError, match="GB of features are held in memory, such as 4, got '-1"):
        scratch.most_bytes()

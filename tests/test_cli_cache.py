"""`fieldmark cache`: what is kept, and clearing it."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from fieldmark.cli import app
from fieldmark.errors import SettingError
from fieldmark.shards import write_shard

KEY = "tf_efficientnet_lite0@blocks.6@224px@" + "ab" * 16


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    root = tmp_path / "features"
    write_shard(root / KEY, ["a", "b"], torch.zeros(2, 1000))
    write_shard(root / "resized" / "squash@256px@cdef", ["a"], torch.zeros(1, 10, 10, 3))
    (root / "checked").mkdir()
    (root / "checked" / "f.json").write_text('{"version": 1, "files": {"x": [], "y": []}}')
    return root


def told(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["cache", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_it_lists_what_is_kept(root: Path):
    lines = told().splitlines()
    assert any("features" in x and "blocks.6 224px" in x and "abababab" in x for x in lines)
    assert any("resized photos" in x and "squash 256px" in x for x in lines)
    assert any("files checked" in x and " 2 " in x for x in lines)
    rows = json.loads(told("--format", "json"))
    assert {(row["of"], row["photos"]) for row in rows} == {("features", 2), ("resized photos", 1)}


def test_one_or_all_is_cleared_and_told(root: Path):
    assert "Freed 0.0 MB" in told("squash", "--clear")
    assert not (root / "resized" / "squash@256px@cdef").exists()
    assert (root / KEY).exists()
    assert f"{KEY}: 0.0 MB" in told("--clear")
    assert not (root / KEY).exists()
    assert (root / "checked" / "f.json").exists()


def test_a_key_that_is_not_there_is_told(root: Path):
    done = CliRunner().invoke(app, ["cache", "vgg"])
    assert isinstance(done.exception, SettingError)
    assert "holds nothing of the key 'vgg'. It holds: " in str(done.exception)
    assert KEY in str(done.exception)

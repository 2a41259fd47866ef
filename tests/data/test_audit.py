"""The check of files: what it finds, what it remembers, and what it leaves alone."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark.data import audit
from fieldmark.data.audit import check_photos
from fieldmark.data.dataset import Photo, content_hash


def photo(path: Path, label: int = 0) -> Photo:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return Photo(path, label, path.name)


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    return [photo(tmp_path / f"{'x' * i}.jpg") for i in range(1, 6)]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded."""
    names: list[str] = []
    original = audit.decode_whole
    monkeypatch.setattr(
        audit, "decode_whole", lambda path: names.append(path.name) or original(path)
    )
    return names


def test_every_photo_is_decoded_once_and_never_again(
    photos: list[Photo], tmp_path: Path, decoded: list[str]
) -> None:
    memory = tmp_path / "memory" / "checked.json"
    first = check_photos(photos, memory, workers=3)
    assert sorted(decoded) == sorted(one.path.name for one in photos)
    assert first.findings == ()
    assert first.hashes == {one.key: content_hash(one.path) for one in photos}
    assert (first.seen, first.new) == (False, frozenset(one.key for one in photos))
    decoded.clear()
    second = check_photos(photos, memory)
    assert decoded == []
    assert (second.findings, second.hashes) == (first.findings, first.hashes)
    assert (second.seen, second.new) == (True, frozenset())


def test_only_new_and_changed_files_are_decoded(
    photos: list[Photo], tmp_path: Path, decoded: list[str]
) -> None:
    memory = tmp_path / "checked.json"
    check_photos(photos, memory)
    decoded.clear()
    os.utime(photos[0].path, ns=(1, 1))
    photos[1].path.write_bytes(b"other")
    grown = [*photos, photo(tmp_path / "new.png")]
    found = check_photos(grown, memory)
    assert sorted(decoded) == ["new.png", photos[0].key, photos[1].key]
    assert [finding.key for finding in found.findings] == [photos[1].key]
    assert found.new == {"new.png"}


def test_a_bad_file_stays_bad_until_it_is_mended(photos: list[Photo], tmp_path: Path) -> None:
    memory = tmp_path / "checked.json"
    good = photos[2].path.read_bytes()
    photos[2].path.write_bytes(good[:200])
    reasons = [check_photos(photos, memory).findings[0].reason for _ in range(2)]
    assert reasons[0] == reasons[1] != ""
    photos[2].path.write_bytes(good)
    assert check_photos(photos, memory).findings == ()


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": "0", "files": {}}', b"[]", b"\xff"])
def test_a_damaged_memory_is_no_memory(
    photos: list[Photo], tmp_path: Path, decoded: list[str], content: bytes
) -> None:
    (tmp_path / "checked.json").write_bytes(content)
    assert check_photos(photos, tmp_path / "checked.json").findings == ()
    assert len(decoded) == 5


def test_a_lack_of_memory_is_not_held_against_the_file(
    photos: list[Photo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise audit.DataError(f"`{path}` can't be read as a photo: no room.") from MemoryError()

    with monkeypatch.context() as patched:
        patched.setattr(audit, "decode_whole", fail)
        assert len(check_photos(photos, tmp_path / "checked.json").findings) == 5
    assert check_photos(photos, tmp_path / "checked.json").findings == ()


def test_an_interrupted_check_keeps_what_it_knows_and_ends_its_threads(
    photos: list[Photo], tmp_path: Path, decoded: list[str]
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_photos(photos, tmp_path / "checked.json", progress=stop)
    assert not [one for one in threading.enumerate() if "fieldmark-audit" in one.name]
    before = len(decoded)
    check_photos(photos, tmp_path / "checked.json")
    assert len(decoded) - before <= 2


def test_progress_counts_to_the_end(photos: list[Photo], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    check_photos(photos, tmp_path / "c", workers=2, progress=lambda *pair: told.append(pair))
    assert told == [(i, 5) for i in range(1, 6)]


def test_a_pipe_is_not_waited_for(photos: list[Photo], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    pipe = Photo(tmp_path / "pipe.jpg", 0, "pipe.jpg")
    (finding,) = check_photos([*photos, pipe], tmp_path / "checked.json").findings
    assert (finding.key, finding.reason) == ("pipe.jpg", "it is no regular file")

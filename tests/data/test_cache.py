"""The cache of resized photos: the same pixels, fewer decodings, never more bytes than asked."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark import durable
from fieldmark.data import cache, transform
from fieldmark.data.augment import Augment
from fieldmark.data.cache import resized_photos
from fieldmark.data.dataset import Photo, content_hash
from fieldmark.data.loader import load_batches
from fieldmark.data.transform import View
from fieldmark.errors import DataError, SettingError

VIEW = View(24, 32, mirror=True)
PLENTY = 1 << 30
ROW = 3 * 32 * 32 + cache._NAME_BYTES

Fill = Callable[..., dict[str, np.ndarray]]


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(11):
        key = f"{i:02}.{'jpg' if i % 2 else 'png'}"
        pixels = rng.integers(0, 256, (200 if i == 1 else 40, 150 + i, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / key)
        made.append(Photo(tmp_path / key, i % 3, key, box=(3.0, 5.0, 60.0, 25.0)))
    return made


@pytest.fixture
def fill(tmp_path: Path, photos: list[Photo]) -> Fill:
    def call(view: View = VIEW, chosen: list[Photo] | None = None, most_bytes: int = PLENTY):
        taken = photos if chosen is None else chosen
        ids = [content_hash(photo.path) for photo in taken]
        return resized_photos(tmp_path / "cache", view, taken, ids, most_bytes=most_bytes)

    return call


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded."""
    names: list[str] = []
    original = transform.decode_reduced
    monkeypatch.setattr(
        transform,
        "decode_reduced",
        lambda path, most: names.append(path.name) or original(path, most),
    )
    return names


def epoch(photos: list[Photo], view: View, number: int = 0, **options) -> list[torch.Tensor]:
    cut = [[3, 0, 3], [1, 2], list(range(4, 11))]  # one photo twice, so drawn for anew
    loaded = load_batches(photos, view, cut, seed=5, epoch=number, workers=2, **options)
    return [batch.images for batch in loaded]


def equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


VIEWS = {
    "crop and mirror": VIEW,
    "evaluation": VIEW.eval(),
    "bicubic": replace(VIEW, interpolation="bicubic"),
    "boxes": replace(VIEW, box_margin=0.1),
    "changed": replace(VIEW, augment=Augment(brightness=0.4, policy="randaugment", erase=0.5)),
    "no crop": View(32, 32),
}


@pytest.mark.parametrize("name", list(VIEWS))
def test_every_pixel_is_the_one_that_decoding_gives(
    photos: list[Photo], fill: Fill, read: list[str], name: str
) -> None:
    view = VIEWS[name]
    resized = fill(view)
    assert {pixels.shape for pixels in resized.values()} == {(32, 32, 3)}
    for number in (0, 1):
        read.clear()
        cached = epoch(photos, view, number, resized=resized)
        assert read == []
        assert equal(cached, epoch(photos, view, number))
    assert all(image.is_contiguous(memory_format=torch.channels_last) for image in cached)


def test_training_and_evaluation_share_it(fill: Fill, read: list[str]) -> None:
    fill(VIEW)
    read.clear()
    assert len(fill(VIEW.eval())) == 11
    assert len(fill(replace(VIEW, mean=(0.5, 0.5, 0.5), image_size=20))) == 11
    assert read == []


def test_only_new_photos_are_decoded(photos: list[Photo], fill: Fill, read: list[str]) -> None:
    fill(chosen=photos[:7])
    read.clear()
    assert len(fill()) == 11
    assert sorted(read) == [photo.key for photo in photos[7:]]


def test_a_changed_photo_is_another(photos: list[Photo], fill: Fill) -> None:
    before = fill()[photos[2].key].copy()
    Image.new("RGB", (50, 50), (1, 2, 3)).save(photos[2].path)
    assert (fill()[photos[2].key] == (1, 2, 3)).all()
    assert not np.array_equal(before, fill()[photos[2].key])


def test_equal_photos_are_kept_once(photos: list[Photo], fill: Fill, tmp_path: Path) -> None:
    twin = replace(photos[0], key="twin")
    resized = fill(chosen=[photos[0], twin])
    assert np.array_equal(resized["twin"], resized[photos[0].key])
    assert cache._bytes_in(tmp_path / "cache") < 2 * ROW


@pytest.mark.parametrize(
    "other",
    [
        replace(VIEW, resize_size=33),
        replace(VIEW, interpolation="bicubic"),
        replace(VIEW, box_margin=0.2),
    ],
)
def test_another_way_of_resizing_is_another_entry(fill: Fill, read: list[str], other: View) -> None:
    fill(VIEW)
    read.clear()
    fill(other)
    assert len(read) == 11


@pytest.mark.parametrize(
    ("what", "value"),
    [("decoders", dict), ("PIXELS_VERSION", {"squash": -1})],
    ids=["decoders", "pixels"],
)
def test_other_decoders_are_another_entry(
    fill: Fill, read: list[str], monkeypatch: pytest.MonkeyPatch, what: str, value: object
) -> None:
    fill(VIEW)
    read.clear()
    monkeypatch.setattr(cache, what, value)
    fill(VIEW)
    assert len(read) == 11


def test_it_never_grows_beyond_its_bound(
    photos: list[Photo], fill: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_SHARD_BYTES", 2 * ROW)
    bound = 5 * ROW + 10
    resized = fill(most_bytes=bound)
    assert set(resized) == {photo.key for photo in photos[:5]}
    assert cache._bytes_in(tmp_path / "cache") <= bound
    assert equal(epoch(photos, VIEW, resized=resized), epoch(photos, VIEW))
    assert len(fill(replace(VIEW, resize_size=40), most_bytes=bound)) == 0  # others' bytes count
    assert len(fill(most_bytes=0)) == 5  # what is there is used
    assert len(fill(most_bytes=20 * ROW)) == 11


def test_a_damaged_file_is_made_again(photos: list[Photo], fill: Fill, tmp_path: Path) -> None:
    whole = {key: pixels.copy() for key, pixels in fill().items()}
    (path,) = (tmp_path / "cache").rglob("*.safetensors")
    data = path.read_bytes()
    for content in (b"", data[:-1], data[:100], b"x" * 1000):
        path.write_bytes(content)
        again = fill()
        assert again.keys() == whole.keys()
        assert all(np.array_equal(again[key], whole[key]) for key in whole)


def test_an_interrupted_filling_keeps_whole_files(
    fill: Fill, read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_SHARD_BYTES", 4 * ROW)
    written: list[Path] = []
    original = durable.replacing

    def stop_at_third(path: Path, **options):
        written.extend([path] if path.suffix == ".safetensors" else [])
        if len(written) == 3:
            raise KeyboardInterrupt
        return original(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "replacing", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            fill()
    read.clear()
    assert len(fill()) == 11
    assert len(read) == 3


def test_it_is_read_only_and_mapped(fill: Fill) -> None:
    pixels = fill()["00.png"]
    with pytest.raises(ValueError, match="read-only"):
        pixels[0, 0, 0] = 1
    assert "cache" in Path("/proc/self/maps").read_text() or not Path("/proc").exists()


def test_progress_counts_what_is_there(photos: list[Photo], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    ids = [content_hash(photo.path) for photo in photos]
    for count in (4, 11):
        resized_photos(
            tmp_path / "cache",
            VIEW,
            photos[:count],
            ids[:count],
            most_bytes=PLENTY,
            workers=2,
            progress=lambda *pair: told.append(pair),
        )
    assert told == [(4, 4), (11, 11)]


@pytest.mark.parametrize(
    "view",
    [replace(VIEW, resize="keep_aspect"), replace(VIEW, augment=Augment(crop_area=(0.3, 1.0)))],
)
def test_what_chance_or_shape_resizes_is_not_kept(
    photos: list[Photo], fill: Fill, view: View
) -> None:
    with pytest.raises(SettingError, match=r"all are squashed to one size.*or no cache\."):
        fill(view)
    with pytest.raises(SettingError, match="all are squashed to one size"):
        epoch(photos, view, resized=fill())
    assert not view.resizes_alike
    assert view.eval().resizes_alike == (view.resize == "squash")


def test_photos_of_another_size_are_refused(photos: list[Photo], fill: Fill) -> None:
    resized = fill(replace(VIEW, resize_size=40))
    with pytest.raises(SettingError, match=r"resized to 32 x 32, got \(40, 40, 3\)"):
        epoch(photos, VIEW, resized=resized)


def test_a_bad_photo_is_named(photos: list[Photo], fill: Fill) -> None:
    photos[4].path.write_bytes(b"no photo")
    with pytest.raises(DataError, match=r"04\.png` can't be read as a photo"):
        fill()

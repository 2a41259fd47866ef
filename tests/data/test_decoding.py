import math
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fieldmark.data import decoding
from fieldmark.data.decoding import (
    ALPHA_BACKGROUND,
    MAX_PIXELS,
    decode,
)
from fieldmark.errors import DataError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(side: int = 16) -> Image.Image:
    """Red and green above blue and white, `side` pixels each, plus a column to tell H from W."""
    pixels = np.zeros((2 * side, 3 * side, 3), np.uint8)
    pixels[:side, : 2 * side] = RED
    pixels[:side, 2 * side :] = GREEN
    pixels[side:, : 2 * side] = BLUE
    pixels[side:, 2 * side :] = WHITE
    return Image.fromarray(pixels)


def corners(image: Tensor) -> list[tuple[int, ...]]:
    """Colours at top left, top right, bottom left, bottom right, to the nearest of 0 and 255."""
    at = image[:, [1, 1, -2, -2], [1, -2, 1, -2]]
    return [tuple(colour) for colour in ((at > 127) * 255).T.tolist()]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif", "webp"])
def test_lossless_formats_come_back_exactly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    quarters().save(path, lossless=True)
    image = decode(path)
    assert image.dtype == torch.uint8
    assert torch.equal(image, torch.from_numpy(np.array(quarters())).permute(2, 0, 1))


@pytest.mark.parametrize("suffix", ["jpg", "avif"])
def test_lossy_formats_come_back_nearly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    quarters().save(path, quality=95)
    assert decode(path).shape == (3, 32, 48)
    assert corners(decode(path)) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}, {"comment": b"x"}]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpegs_decode_as_pillow_would(tmp_path: Path, mode: str, options: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (45, 61, 3), np.uint8)
    path = tmp_path / "x.jpg"
    Image.fromarray(noise).convert(mode).save(path, **options)
    with Image.open(path) as image:
        expected = np.array(image.convert("RGB"))
    assert decoding._decode_jpeg(path.read_bytes()) is not None  # it is the fast way that is tested
    assert np.array_equal(decode(path).permute(1, 2, 0), expected)


def test_pillow_takes_over_where_the_operator_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.jpg"
    quarters().save(path)
    fast = decode(path)
    monkeypatch.setattr(decoding, "_DECODE_JPEG", None)
    assert torch.equal(decode(path), fast)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    # How a camera stores an upright scene so that the tag undoes it (EXIF 2.3, tag 0x112).
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = quarters().transpose(turn[orientation]) if orientation > 1 else quarters()
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / f"x.{suffix}"
    stored.save(path, exif=exif)
    image = decode(path)
    assert image.shape == (3, 32, 48)
    assert corners(image) == [RED, GREEN, BLUE, WHITE]


def test_cmyk_jpeg(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    quarters().convert("CMYK").save(path, quality=95)
    assert corners(decode(path)) == [RED, GREEN, BLUE, WHITE]


def test_grey_fills_three_channels(tmp_path: Path) -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for mode in ("L", "LA"):
        Image.fromarray(ramp).convert(mode).save(tmp_path / "x.png")
        assert np.array_equal(decode(tmp_path / "x.png"), np.stack([ramp] * 3))


def test_black_and_white(tmp_path: Path) -> None:
    bits = np.eye(8, dtype=bool)
    Image.fromarray(bits).save(tmp_path / "x.png")
    assert np.array_equal(decode(tmp_path / "x.png")[0], bits * 255)


def test_palette(tmp_path: Path) -> None:
    quarters().quantize(4).save(tmp_path / "x.png")
    assert corners(decode(tmp_path / "x.png")) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(values).save(path)
    expected = [0, 1, 128, 255]  # 32768 / 257 = 127.502
    assert decode(path)[:, 0].tolist() == [expected] * 3


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_range_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "x.tiff")
    with pytest.raises(DataError, match=r"x\.tiff` can't be read .* save it as 8 bit\."):
        decode(tmp_path / "x.tiff")


def test_alpha_is_laid_on_the_stated_colour(tmp_path: Path) -> None:
    pixels = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [200, 0, 0, 51]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    opaque, clear, faint = decode(tmp_path / "x.png")[:, 0].T.tolist()
    assert opaque == [200, 0, 0]
    assert tuple(clear) == ALPHA_BACKGROUND == WHITE
    assert faint == [244, 204, 204]  # 0.2 * 200 + 0.8 * 255, 0.8 * 255


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_a_transparent_palette_entry_is_alpha(tmp_path: Path, suffix: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / f"x.{suffix}", transparency=1)
    assert decode(tmp_path / f"x.{suffix}")[:, 0].T.tolist() == [[200, 0, 0], [255, 255, 255]]


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert corners(decode(tmp_path / "x.gif")) == [RED] * 4


@pytest.mark.parametrize("name", ["Öl.jpg", "鳥 1.png", f"{'long' * 50}.jpg", "quote'%s.jpg"])
def test_any_path(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "Vögel 鳥"
    folder.mkdir()
    quarters().save(folder / name)
    assert decode(folder / name).shape == (3, 32, 48)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif"])
def test_truncated_photos_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bird.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"bird\.{suffix}` can't be read as a photo: \w.*\.$"):
        decode(path)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\xff\xd8\xff\xe0", b"\xff"])
def test_what_is_no_photo_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bird.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"bird\.jpg` can't be read as a photo: it is in no known"):
        decode(tmp_path / "bird.jpg")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg` can't be read as a photo: No such file"):
        decode(tmp_path / "gone.jpg")


def test_decompression_bombs_are_refused_before_they_unfold(tmp_path: Path) -> None:
    quarters().save(tmp_path / "x.jpg")
    data = bytearray((tmp_path / "x.jpg").read_bytes())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    (tmp_path / "x.jpg").write_bytes(data)
    Image.new("1", (60_000, 3_000)).save(tmp_path / "x.png")
    for name in ("x.jpg", "x.png"):
        with pytest.raises(DataError, match=rf"more than {MAX_PIXELS:,} pixels; make it smaller"):
            decode(tmp_path / name)


def bounded(opened: Any) -> Any:
    """An opened file whose pixels may be read."""
    assert math.prod(opened.size) <= decoding.MAX_PIXELS
    return opened


@pytest.mark.parametrize("name", ["x.jpg", "cmyk.jpg", "x.png", "x.webp", "x.avif", "x.heic"])
@pytest.mark.parametrize("divided", [1, 2])
def test_each_decoder_keeps_to_the_bound_before_any_pixel_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, divided: float
) -> None:
    """To ours: Pillow's own is as high, and would hide that one of these ways has none."""
    path = tmp_path / name
    if name == "x.heic":
        heif = pytest.importorskip("pillow_heif")
        heif.from_pillow(quarters()).save(path)
        unfold = heif.HeifFile.to_pillow
        monkeypatch.setattr(heif.HeifFile, "to_pillow", lambda self: unfold(bounded(self)))
    else:
        (quarters().convert("CMYK") if "cmyk" in name else quarters()).save(path)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 32 * 48)
    assert decoding.decode_reduced(path, by(divided)).image.shape[0] == 3  # as many are read
    monkeypatch.setattr(decoding, "MAX_PIXELS", 32 * 48 - 1)
    for reads in ("_decode_jpeg", "_decode_coarse", "_upright"):
        monkeypatch.setattr(decoding, reads, lambda *_: pytest.fail("pixels were read"))
    with pytest.raises(DataError, match=r"it has more than 1,535 pixels; make it smaller\.$"):
        decoding.decode_reduced(path, by(divided))


def test_decoding_warns_of_nothing(tmp_path: Path) -> None:
    quarters().save(tmp_path / "x.jpg")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(tmp_path / "x.jpg")


def by(divisor: float) -> decoding.Divisor:
    return lambda _height, _width: divisor


@pytest.mark.parametrize(
    ("asked", "divisor"), [(1.9, 1), (2, 2), (3.9, 2), (4, 4), (7.9, 4), (8, 8), (50, 8)]
)
def test_a_jpeg_is_divided_as_far_as_allowed(tmp_path: Path, asked: float, divisor: int) -> None:
    path = tmp_path / "x.jpg"
    quarters(side=61).save(path, quality=95)  # 183 x 122
    image, by_how_much, _ = decoding.decode_reduced(path, by(asked))
    assert by_how_much == divisor
    assert image.shape == (3, -(-122 // divisor), -(-183 // divisor))
    assert corners(image) == [RED, GREEN, BLUE, WHITE]


def test_what_is_divided_is_told_its_upright_size(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    path = tmp_path / "x.jpg"
    quarters(64).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    told: list[tuple[int, int]] = []

    def most(height: int, width: int) -> float:
        told.append((height, width))
        return 4 if height < width else 1

    image, divisor, _ = decoding.decode_reduced(path, most)
    assert told[-1] == (128, 192)
    assert divisor == 4
    assert image.shape == (3, 32, 48)
    assert corners(image) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_only_plain_jpegs_are_divided(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    quarters(64).save(path)
    image, divisor, _ = decoding.decode_reduced(path, by(8))
    assert divisor == 1
    assert image.shape == (3, 128, 192)


def test_grey_jpegs_are_divided_too(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.new("L", (64, 64), 200).save(path)
    image, divisor, _ = decoding.decode_reduced(path, by(8))
    assert divisor == 8
    assert image.unique().tolist() == [200]


def test_a_truncated_jpeg_is_named_where_it_is_divided(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"x\.jpg` can't be read as a photo: \w.*\.$"):
        decoding.decode_reduced(path, by(4))


def test_decoders_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    named = decoding.decoders()
    assert named["jpeg"].startswith("torchvision ")
    assert "Pillow" in named["jpeg to be halved or less"]
    monkeypatch.setattr(decoding, "_DECODE_JPEG", None)
    assert decoding.decoders() != named

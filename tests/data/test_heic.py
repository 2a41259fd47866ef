"""HEIC, as phones write it: read by an extra, and without it named with what to install."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark.data import decoding
from fieldmark.data.audit import check_photos
from fieldmark.data.dataset import Photo, is_photo
from fieldmark.data.decoding import decode, decoders
from fieldmark.errors import DataError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
needs_heic = pytest.mark.skipif(decoding._HEIC is None, reason="fieldmark[heic] is not installed")


def quarters() -> Image.Image:
    """Red and green above blue and white, wider than high."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32, :64], pixels[:32, 64:], pixels[32:, :64], pixels[32:, 64:] = RED, GREEN, BLUE, WHITE
    return Image.fromarray(pixels)


def corners(image: torch.Tensor) -> list[tuple[int, ...]]:
    at = image[:, [4, 4, -5, -5], [4, -5, 4, -5]]
    return [tuple(colour) for colour in ((at > 127) * 255).T.tolist()]


def saved(path: Path, image: Image.Image | None = None, **options: object) -> Path:
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(image or quarters()).save(path, **options)
    return path


def header(*brands: bytes) -> bytes:
    """The first bytes of an ISO media file of these brands, with nothing behind them."""
    listed = brands[0] + bytes(4) + b"".join(brands)
    return (8 + len(listed)).to_bytes(4) + b"ftyp" + listed + bytes(100)


@pytest.mark.parametrize("name", ["x.heic", "x.HEIC", "x.heif"])
def test_its_suffixes_are_photos(name: str) -> None:
    assert is_photo(Path(name))


@pytest.mark.parametrize(
    "content", [header(b"heic", b"mif1"), header(b"mif1", b"heic"), header(b"msf1", b"hevc")]
)
@pytest.mark.parametrize("name", ["x.heic", "a-phone-renamed-it.jpg"])
def test_without_the_extra_it_is_a_bad_file_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    monkeypatch.setattr(decoding, "_HEIC", None)
    (tmp_path / name).write_bytes(content)
    (finding,) = check_photos([Photo(tmp_path / name, 0, "x")], tmp_path / "m").findings
    assert finding.reason == "it is HEIC, which takes an extra: pip install 'fieldmark[heic]'"
    assert "heic" not in decoders()


@pytest.mark.parametrize("content", [header(b"avif", b"mif1"), b"\xff\xff\xff\xffftyp", b"ftyp"])
def test_other_media_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(decoding, "_HEIC", None)
    (tmp_path / "x.heic").write_bytes(content)
    with pytest.raises(DataError, match=r"can't be read as a photo: (?!.*extra)"):
        decode(tmp_path / "x.heic")


@needs_heic
def test_it_comes_back_nearly(tmp_path: Path) -> None:
    image = decode(saved(tmp_path / "x.heic", quality=90))
    assert image.dtype == torch.uint8
    assert image.shape == (3, 64, 96)
    assert corners(image) == [RED, GREEN, BLUE, WHITE]


@needs_heic
def test_without_loss_it_comes_back_exactly(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    path = saved(
        tmp_path / "x.heif",
        Image.fromarray(noise),
        quality=-1,
        chroma=444,
        matrix_coefficients=0,
    )
    assert np.array_equal(decode(path).permute(1, 2, 0), noise)


@needs_heic
@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_upright_once(tmp_path: Path, orientation: int) -> None:
    """Its own transformations and the EXIF tag say the same; both together would turn it twice."""
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
    image = decode(saved(tmp_path / "x.heic", stored, exif=exif.tobytes(), quality=90))
    assert image.shape == (3, 64, 96)
    assert corners(image) == [RED, GREEN, BLUE, WHITE]


@needs_heic
def test_its_alpha_is_laid_on_white_and_told(tmp_path: Path) -> None:
    pixels = np.full((64, 64, 4), (200, 0, 0, 255), np.uint8)
    pixels[:, 32:, 3] = 0
    path = saved(tmp_path / "x.heic", Image.fromarray(pixels), quality=95)
    image = decode(path)
    assert abs(image[0, 8, 8].item() - 200) < 8
    assert (image[:, 8, 56] > 247).all()
    assert list(check_photos([Photo(path, 0, "x")], tmp_path / "m").modes["x"]) == ["alpha"]


@needs_heic
def test_a_heic_by_another_name_and_a_general_brand_is_read(tmp_path: Path) -> None:
    data = saved(tmp_path / "x.heic").read_bytes()
    (tmp_path / "x.jpg").write_bytes(data[:8] + b"mif1" + data[12:])
    assert corners(decode(tmp_path / "x.jpg")) == [RED, GREEN, BLUE, WHITE]


@needs_heic
def test_avif_goes_on_being_read(tmp_path: Path) -> None:
    quarters().save(tmp_path / "x.avif", quality=95)
    data = (tmp_path / "x.avif").read_bytes()
    (tmp_path / "y.avif").write_bytes(data[:8] + b"mif1" + data[12:])
    for name in ("x.avif", "y.avif"):
        assert corners(decode(tmp_path / name)) == [RED, GREEN, BLUE, WHITE]


@needs_heic
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_truncated_one_is_named(tmp_path: Path, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = saved(tmp_path / "x.heic", Image.fromarray(noise)).read_bytes()
    (tmp_path / "x.heic").write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(DataError, match=r"x\.heic` can't be read as a photo: \w.*\.$"):
        decode(tmp_path / "x.heic")


@needs_heic
def test_its_decoder_is_part_of_every_key() -> None:
    assert decoders()["heic"].startswith("pillow-heif ")

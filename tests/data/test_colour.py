"""Colour modes: how each is known, counted by class, and told where it goes with one."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark.data.audit import check_photos
from fieldmark.data.colour import colour_notes, count_modes, is_grey
from fieldmark.data.dataset import Photo

NAMES = ("ani", "gull", "wren")


def photos(*counts: int) -> list[Photo]:
    """This many photos of each class, the key being class and number."""
    return [
        Photo(Path("x"), label, f"{NAMES[label]}{number}")
        for label, count in enumerate(counts)
        for number in range(count)
    ]


def grey(*names: str) -> dict[str, tuple[str, ...]]:
    """All photos of these names are grey, all others plain."""
    return {one.key: ("grey",) if one.key.startswith(names) else () for one in photos(9, 9, 9)}


def picture(mode: str) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    if mode == "RGBA":  # WebP drops an alpha that hides nothing
        pixels = np.concatenate([pixels, pixels[..., :1]], axis=-1)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize(
    ("name", "mode", "modes"),
    [
        ("x.jpg", "RGB", []),
        ("x.jpg", "L", ["grey"]),
        ("x.jpg", "CMYK", ["CMYK"]),
        ("x.png", "RGB", []),
        ("x.png", "L", ["grey"]),
        ("x.png", "1", ["grey"]),
        ("x.png", "LA", ["grey", "alpha"]),
        ("x.png", "RGBA", ["alpha"]),
        ("x.png", "P", ["palette"]),
        ("x.gif", "P", ["palette"]),
        ("x.png", "I;16", ["grey", "16-bit"]),
        ("x.webp", "RGB", []),
        ("x.webp", "RGBA", ["alpha"]),
    ],
)
def test_modes_of_a_file(tmp_path: Path, name: str, mode: str, modes: list[str]) -> None:
    picture(mode).save(tmp_path / name)
    assert list(check_photos([Photo(tmp_path / name, 0, "x")], tmp_path / "m").modes["x"]) == modes


def test_sixteen_bit_colour_is_known(tmp_path: Path) -> None:
    """Pillow reads it and can't write it, so the PNG is put together here (PNG 1.2, 11.2)."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    row = b"\0" + struct.pack(">6H", 65535, 0, 0, 0, 65535, 0)  # red, green
    head = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    found = check_photos([Photo(tmp_path / "x.png", 0, "x")], tmp_path / "m")
    assert list(found.modes["x"]) == ["16-bit"]


def test_a_grey_palette_is_grey_too(tmp_path: Path) -> None:
    picture("L").convert("RGB").quantize(8).save(tmp_path / "x.png")
    found = check_photos([Photo(tmp_path / "x.png", 0, "x")], tmp_path / "m")
    assert list(found.modes["x"]) == ["grey", "palette"]


def test_grey_stored_as_colour_is_grey_and_a_tint_is_not() -> None:
    plain = np.full((64, 64, 3), 100, np.uint8)
    assert is_grey(plain)
    for tint, expected in ((4, True), (5, False)):
        tinted = plain.copy()
        tinted[3, 5, 0] += tint
        assert is_grey(tinted) == expected


def test_modes_are_counted_by_class() -> None:
    counts = count_modes(photos(9, 9, 9), grey("ani", "wren1"))
    assert dict(counts["grey"]) == {0: 9, 2: 1}
    assert counts["alpha"].total() == 0


def test_a_class_that_alone_is_grey_is_told() -> None:
    assert colour_notes(photos(9, 9, 9), grey("ani", "wren1"), NAMES) == [
        "colour may give 1 class away: ani (grey in 9 of 9 photos, in 11% of the median class's)"
    ]


def test_a_class_that_alone_is_not_grey_is_told() -> None:
    assert colour_notes(photos(9, 9, 9), grey("ani", "gull"), NAMES) == [
        "colour may give 1 class away: wren (grey in 0 of 9 photos, in 100% of the median class's)"
    ]


def test_where_a_mode_tells_nothing_nothing_is_told() -> None:
    for modes in (grey(), grey("ani", "gull", "wren"), grey("ani0", "ani1", "gull2", "wren3")):
        assert colour_notes(photos(9, 9, 9), modes, NAMES) == []


def test_of_two_classes_the_odd_one_is_told() -> None:
    (note,) = colour_notes(photos(9, 9, 0), grey("ani"), NAMES)
    assert note.startswith("colour may give 1 class away: ani (grey")


def test_half_apart_is_the_rule() -> None:
    for count, told in ((4, 0), (5, 1)):  # of 8, beside none of 16: 0.5 and more
        names = tuple(f"ani{number}" for number in range(count - 1))
        assert len(colour_notes(photos(8, 8, 8), grey(*names), NAMES)) == told


def test_few_photos_are_not_judged() -> None:
    assert colour_notes(photos(4, 9, 9), grey("ani"), NAMES) == []
    assert colour_notes(photos(1, 1, 1), grey("ani"), NAMES) == []
    assert colour_notes([], {}, NAMES) == []

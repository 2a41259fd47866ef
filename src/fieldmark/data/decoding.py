"""From a file to pixels, by three ways: torchvision, Pillow at a fraction of the size, Pillow.

Plain JPEGs go through libjpeg-turbo by torchvision. Of one so large that it will be shrunk to half
or less anyway, Pillow has libjpeg decode only the coarse half, quarter or eighth. Everything that
is no plain JPEG goes through Pillow whole, HEIC too where the extra `fieldmark[heic]` is installed.
"""

import importlib
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base
from torch import Tensor

from fieldmark.errors import DataError

# What transparent pixels are shown on: a cut-out is mostly made for a white page.
ALPHA_BACKGROUND = (255, 255, 255)
# Pillow's own limit; an image of more pixels is taken for a decompression bomb.
MAX_PIXELS = 178_956_970

# torchvision's operator, not its function `decode_jpeg`: since 0.29 that one warns on each call
# that decoding will move to TorchCodec. Should the operator be gone, Pillow takes over: the same
# pixels, more slowly.
_DECODE_JPEG = getattr(torch.ops.image, "decode_jpeg", None)
_RGB = 3  # torchvision.io.ImageReadMode.RGB
_DIVISORS = (8, 4, 2)  # libjpeg's coarse decodings
_ON_ITS_SIDE = range(5, 9)  # EXIF orientations that swap height and width

Divisor = Callable[[int, int], float]


def _heic_decoder() -> Any:
    """The extra's module, or None where it is not installed."""
    try:
        heif = importlib.import_module("pillow_heif")
    except ImportError:
        return None
    heif.options.DECODE_THREADS = 1  # whoever decodes many photos has threads of their own
    return heif


_HEIC = _heic_decoder()


class Decoded(NamedTuple):
    """A photo's pixels, how much smaller than the photo they are, and what its file is like."""

    image: Tensor  # uint8 (3, H / divisor, W / divisor), rounded up
    divisor: int = 1
    modes: tuple[str, ...] = ()  # of CMYK, palette, alpha, 16-bit


def decode(path: Path) -> Tensor:
    """Read a photo upright as RGB, uint8 (3, H, W) with the channels of a pixel side by side.

    CMYK, palettes and animations (first frame) are read too. Transparency is laid on
    `ALPHA_BACKGROUND`, 16-bit grey is divided by 257, and EXIF orientation is applied.

    Raises:
        DataError: The file is missing, damaged, no photo, or larger than `MAX_PIXELS`.
    """
    return decode_whole(path).image


def decode_whole(path: Path) -> Decoded:
    """Like `decode`, with the colour modes of the file; raises as it does."""
    return decode_reduced(path, lambda _height, _width: 1)


def decode_reduced(source: Path | bytes, most: Divisor) -> Decoded:
    """Like `decode`, but of a plain JPEG no more pixels than are of use.

    Args:
        source: The file's path, or what is in it.
        most: By how much a photo of (height, width) may be divided; below 2, not at all.

    Raises:
        DataError: As `decode` does, or `most`.
    """
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        size = _jpeg_size(data)
        if size is not None and math.prod(size) <= MAX_PIXELS:
            # Whether the photo lies on its side is read only where that may matter.
            if max(most(*size), most(*size[::-1])) >= 2 and (coarse := _decode_coarse(data, most)):
                return coarse
            if (pixels := _decode_jpeg(data)) is not None:
                return Decoded(pixels)
        return _decode_any(data)
    except DataError:  # of `most`
        raise
    except Exception as error:  # for damaged files Pillow's plugins raise nearly anything
        name = "What was given" if isinstance(source, bytes) else f"`{source}`"
        raise DataError(f"{name} can't be read as a photo: {_reason(error)}.") from error


def decoders() -> dict[str, str]:
    """Which program decodes what; part of every key of computed features."""
    pillow = f"Pillow {PIL.__version__}"
    fast = f"torchvision {torchvision.__version__}" if _DECODE_JPEG is not None else pillow
    named = {"jpeg": fast, "jpeg to be halved or less": f"{pillow} draft", "other": pillow}
    return named if _HEIC is None else named | {"heic": f"pillow-heif {_HEIC.__version__}"}


def _decode_jpeg(data: bytes) -> Tensor | None:
    """Every pixel of a plain JPEG; None for what libjpeg refuses."""
    if _DECODE_JPEG is None:
        return None
    try:
        pixels: Tensor = _DECODE_JPEG(
            torch.frombuffer(bytearray(data), dtype=torch.uint8), _RGB, True
        )
    except RuntimeError:
        return None  # Pillow decides, and says what is wrong
    return pixels


def _decode_coarse(data: bytes, most: Divisor) -> Decoded | None:
    """A plain JPEG at 1/2, 1/4 or 1/8 of its size; None where `most` allows none of them."""
    with Image.open(io.BytesIO(data)) as opened:
        height, width = opened.height, opened.width
        if opened.getexif().get(Base.Orientation) in _ON_ITS_SIDE:
            height, width = width, height
        allowed = most(height, width)
        divisor = next((divisor for divisor in _DIVISORS if divisor <= allowed), 1)
        if divisor == 1:
            return None
        opened.draft(None, (opened.width // divisor, opened.height // divisor))
        return Decoded(_upright(opened), divisor)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a baseline or progressive JPEG of 1 or 3 components, else None."""
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (0xC0, 0xC1, 0xC2):  # start of frame: length, precision, height, width
            height, width = (int.from_bytes(data[i : i + 2]) for i in (at + 5, at + 7))
            return (height, width) if data[at + 9] in (1, 3) else None
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def _decode_any(data: bytes) -> Decoded:
    if _is_heic(data):
        return _decode_heic(data)
    with Image.open(io.BytesIO(data)) as opened:
        _check_pixels(opened.size)
        modes = _modes(opened)  # what follows changes them
        return Decoded(_upright(opened), modes=modes)


def _decode_heic(data: bytes) -> Decoded:
    if _HEIC is None:
        raise ValueError("it is HEIC, which takes an extra: pip install 'fieldmark[heic]'")
    opened = _HEIC.open_heif(data)  # reads no pixel yet
    _check_pixels(opened.size)
    image: Image.Image = opened.to_pillow()  # of the primary one; turned as the file says
    return Decoded(_upright(image), modes=_modes(image))


def _check_pixels(size: tuple[int, int]) -> None:
    if math.prod(size) > MAX_PIXELS:
        raise Image.DecompressionBombError


def _is_heic(data: bytes) -> bool:
    """Whether a brand of its file type box is one of HEVC's (ISO/IEC 23008-12, annex B.4)."""
    brands = data[8 : int.from_bytes(data[:4])] if data[4:8] == b"ftyp" else b""
    return any(brands[at : at + 3] in (b"hei", b"hev") for at in range(0, len(brands), 4))


def _modes(image: Image.Image) -> tuple[str, ...]:
    """What about a file's colours is unlike a plain photo's, grey aside."""
    held = {
        "CMYK": image.mode == "CMYK",
        "palette": image.mode in ("P", "PA"),
        "alpha": image.has_transparency_data,
        "16-bit": ";16" in f"{image.mode} {getattr(image, 'tile', '')}",  # 16-bit colour is in tile
    }
    return tuple(mode for mode, holds in held.items() if holds)


def _upright(image: Image.Image) -> Tensor:
    ImageOps.exif_transpose(image, in_place=True)  # which spares a copy, as `_to_rgb` does
    return torch.from_numpy(np.array(_to_rgb(image))).permute(2, 0, 1)  # HWC -> CHW, no copy


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        grey = np.rint(np.asarray(image) / 257)  # 65535 -> 255
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers without a stated range; save it as 8 bit")
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, (*ALPHA_BACKGROUND, 255))
        image = Image.alpha_composite(page, image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _reason(error: Exception) -> str:
    match error:
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return f"it has more than {MAX_PIXELS:,} pixels; make it smaller"
        case UnidentifiedImageError():
            return "it is in no known image format, or empty"
        case OSError(strerror=str(text)):
            return text
        case _:
            return " ".join(str(error).split()).rstrip(".") or type(error).__name__

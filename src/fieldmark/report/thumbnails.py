"""Photos made small, cut as the model sees them, and what is laid over them."""

import io
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

SIDE = 160  # pixels of a thumbnail
QUALITY = 72
_BELOW = (
    "",
    "images",
    "CUB_200_2011/images",
)  # where a data folder may keep the photos of its keys
_STRONGEST = 190  # opacity, of 255, of where the model looked most
_GLOW = (255, 90, 30)


MayShow = Callable[[Path], bool]


def find_photo(folder: Path, key: str, may_show: MayShow | None = None) -> Path | None:
    """The photo's file; None where it is gone, or where its key leads out of the folder.

    A photo is found only where `may_show` says so of its path, links followed; None: all are.
    """
    parts = PurePosixPath(key)
    if parts.is_absolute() or ".." in parts.parts or "\0" in key:
        return None
    with suppress(OSError):  # a name too long for this disk
        found = next((path for below in _BELOW if (path := folder / below / key).is_file()), None)
        return found if found and (may_show is None or may_show(found.resolve())) else None
    return None


def thumbnail(path: Path | None, view: dict[str, Any]) -> bytes | None:
    """A photo as JPEG, `SIDE` pixels square, through the run's eval view; None where unreadable.

    Args:
        path: The photo's file.
        view: As the run's manifest has it.
    """
    if path is None:
        return None
    wider = int(view.get("resize_size", 1)) / max(1, int(view.get("image_size", 1)))
    return _drawn(path, max(1.0, wider), view.get("resize", "squash") == "squash")


@lru_cache(maxsize=512)
def _drawn(path: Path, wider: float, squash: bool) -> bytes | None:
    try:
        with Image.open(path) as photo:
            photo.draft("RGB", (2 * SIDE, 2 * SIDE))
            upright = ImageOps.exif_transpose(photo).convert("RGB")
            return _jpeg(_cut(upright, wider, squash))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _cut(photo: Image.Image, wider: float, squash: bool) -> Image.Image:
    """Resized as the view says, then the middle of it."""
    side = round(SIDE * wider)
    if squash:
        photo = photo.resize((side, side), Image.Resampling.BICUBIC)
    else:
        scale = side / min(photo.size)
        sides = (max(SIDE, round(photo.width * scale)), max(SIDE, round(photo.height * scale)))
        photo = photo.resize(sides, Image.Resampling.BICUBIC)
    left, top = (photo.width - SIDE) // 2, (photo.height - SIDE) // 2
    return photo.crop((left, top, left + SIDE, top + SIDE))


def _jpeg(photo: Image.Image) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def glow(shares: NDArray[Any]) -> bytes:
    """Where the model looked, as a small transparent PNG to be stretched over a photo.

    Args:
        shares: (H, W), each position's share in the score; what speaks against it is not shown.
    """
    strength = np.clip(np.nan_to_num(shares.astype(np.float64)), 0, None)
    most = strength.max(initial=0.0)
    pixels = np.zeros((*shares.shape, 4), np.uint8)
    pixels[..., :3] = _GLOW
    if most > 0:
        pixels[..., 3] = np.rint(_STRONGEST * (strength / most))  # most may be the largest there is
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()

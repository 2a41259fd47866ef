"""From a file to the pixels a model sees: decode, squash, crop, mirror, normalise.

A `View` is the one description of that way. Training, evaluation and prediction share it, so they
can't come to disagree about a photo, and each is fed by it: `view` for training, `view.eval()` for
everything else. Pixels stay uint8 until a batch is on its device.
"""

import io
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from fieldmark.data.dataset import draw
from fieldmark.errors import DataError, SettingError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# What transparent pixels are shown on: a cut-out is mostly made for a white page.
ALPHA_BACKGROUND = (255, 255, 255)
# Pillow's own limit; an image of more pixels is taken for a decompression bomb.
MAX_PIXELS = 178_956_970
# Part of a cache key, beside a view's fields: raise it whenever `decode` or `apply` changes pixels.
PIXELS_VERSION = 1

# torchvision's operator, not its function `decode_jpeg`: since 0.29 that one warns on each call
# that decoding will move to TorchCodec. Should the operator be gone, Pillow takes over: the same
# pixels, more slowly.
_DECODE_JPEG = getattr(torch.ops.image, "decode_jpeg", None)
_PIXEL = np.dtype((np.void, 3))  # R, G and B moved as one
_RGB = 3  # torchvision.io.ImageReadMode.RGB


def decode(path: Path) -> Tensor:
    """Read a photo upright as RGB, uint8 (3, H, W) with the channels of a pixel side by side.

    JPEGs in grey or three colours go through libjpeg-turbo by torchvision, everything else through
    Pillow: CMYK, palettes, animations (first frame). Transparency is laid on `ALPHA_BACKGROUND`,
    16-bit grey is divided by 257, and EXIF orientation is applied.

    Raises:
        DataError: The file is missing, damaged, no photo, or larger than `MAX_PIXELS`.
    """
    try:
        data = path.read_bytes()
        pixels = _decode_jpeg(data)
        return _decode_any(data) if pixels is None else pixels
    except Exception as error:  # for damaged files Pillow's plugins raise nearly anything
        raise DataError(f"`{path}` can't be read as a photo: {_reason(error)}.") from error


def _decode_jpeg(data: bytes) -> Tensor | None:
    """Pixels of a plain JPEG; None for anything else, and for what libjpeg refuses."""
    size = _jpeg_size(data)
    if size is None or _DECODE_JPEG is None or math.prod(size) > MAX_PIXELS:
        return None
    try:
        pixels: Tensor = _DECODE_JPEG(
            torch.frombuffer(bytearray(data), dtype=torch.uint8), _RGB, True
        )
    except RuntimeError:
        return None  # Pillow decides, and says what is wrong
    return pixels


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a baseline or progressive JPEG of 1 or 3 components, else None."""
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (0xC0, 0xC1, 0xC2):  # start of frame: length, precision, height, width
            height, width = (int.from_bytes(data[i : i + 2]) for i in (at + 5, at + 7))
            return (width, height) if data[at + 9] in (1, 3) else None
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


def _decode_any(data: bytes) -> Tensor:
    with Image.open(io.BytesIO(data)) as opened:
        if math.prod(opened.size) > MAX_PIXELS:
            raise Image.DecompressionBombError
        upright = ImageOps.exif_transpose(opened)
    return torch.from_numpy(np.array(_to_rgb(upright))).permute(2, 0, 1)  # HWC -> CHW, no copy


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        grey = np.rint(np.asarray(image) / 257)  # 65535 -> 255
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers without a stated range; save it as 8 bit")
    if image.has_transparency_data:
        page = Image.new("RGBA", image.size, (*ALPHA_BACKGROUND, 255))
        image = Image.alpha_composite(page, image.convert("RGBA"))
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    match error:
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return f"it has more than {MAX_PIXELS:,} pixels; make it smaller"
        case UnidentifiedImageError():
            return "it is in no known image format, or empty"
        case OSError(strerror=str(text)):
            return text
        case _:
            return str(error).rstrip(".") or type(error).__name__


def default_resize_size(image_size: int) -> int:
    """Side a photo is squashed to before an `image_size` crop: 8/7 of it, as 256 is of 224."""
    return round(image_size * 8 / 7)


@dataclass(frozen=True)
class View:
    """How a photo becomes what a model sees.

    Attributes:
        image_size: Side of the square the model gets, in pixels.
        resize_size: Side of the square the whole photo is squashed to before the crop.
        interpolation: Filter of the squash, always antialiased.
        mean: Per channel, on a scale of 0 to 1.
        std: Per channel, on a scale of 0 to 1.
        crop: `random` window, or the `centre` one.
        mirror: Whether half of the photos, by chance, are flipped left to right.

    Raises:
        SettingError: A value is out of range or does not fit the others.
    """

    image_size: int
    resize_size: int
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    crop: Literal["random", "centre"] = "random"
    mirror: bool = False

    def __post_init__(self) -> None:
        """Refuse what can't work, now rather than at the first photo."""
        if self.image_size < 1:
            raise SettingError(f"`image_size` must be at least 1, got {self.image_size}. Use 224.")
        if self.resize_size < self.image_size:
            raise SettingError(
                f"`resize_size` must be at least `image_size` ({self.image_size}), got "
                f"{self.resize_size}. Use {default_resize_size(self.image_size)}."
            )
        for name, allowed in (
            ("interpolation", ("bilinear", "bicubic")),
            ("crop", ("random", "centre")),
        ):
            if getattr(self, name) not in allowed:
                raise SettingError(
                    f"`{name}` must be {' or '.join(allowed)}, got {getattr(self, name)!r}."
                )
        if len(self.mean) != 3 or len(self.std) != 3 or not all(0 < s < math.inf for s in self.std):
            raise SettingError(
                f"`mean` and `std` must be three numbers each, with `std` above 0, got {self.mean} "
                f"and {self.std}. Use {IMAGENET_MEAN} and {IMAGENET_STD}."
            )

    def eval(self) -> Self:
        """The same view without chance: centre crop, no mirror."""
        return replace(self, crop="centre", mirror=False)

    def load(self, path: Path, *, seed: int = 0, epoch: int = 0, sample: str = "") -> Tensor:
        """Decode a photo and apply the view: uint8 (3, image_size, image_size)."""
        return self.apply(decode(path), seed=seed, epoch=epoch, sample=sample)

    def apply(self, image: Tensor, *, seed: int = 0, epoch: int = 0, sample: str = "") -> Tensor:
        """Squash, crop and mirror one photo.

        Args:
            image: uint8 (3, H, W).
            seed: The run's.
            epoch: Each epoch draws anew.
            sample: The photo's key. Chance depends on these three alone.

        Returns:
            uint8 (3, image_size, image_size), channels last in memory.
        """
        side = [self.resize_size, self.resize_size]
        filter_ = InterpolationMode(self.interpolation)
        squashed = F.resize(image, side, interpolation=filter_, antialias=True)  # (3, R, R)
        top, left = self._corner(seed, epoch, sample)
        # NumPy copies in this thread; torch would wake its pool for it, and fight other workers'.
        pixels = squashed.permute(1, 2, 0).numpy()  # (R, R, 3)
        window = pixels[top : top + self.image_size, left : left + self.image_size].copy()
        if self.mirror and draw(seed, epoch, sample, "mirror") % 2:
            window = np.ascontiguousarray(window.view(_PIXEL)[:, ::-1]).view(np.uint8)
        return torch.from_numpy(window).permute(2, 0, 1)  # (3, S, S)

    def _corner(self, seed: int, epoch: int, sample: str) -> tuple[int, int]:
        room = self.resize_size - self.image_size
        if self.crop == "centre":
            return room // 2, room // 2
        # A remainder of 64 bits favours small offsets by less than 1 in 10^15.
        top, left = (draw(seed, epoch, sample, axis) % (room + 1) for axis in ("top", "left"))
        return top, left

    def normalize(
        self, images: Tensor, dtype: torch.dtype = torch.float32, *, channels_last: bool = True
    ) -> Tensor:
        """Scale a batch to what the weights were trained on: (x / 255 - mean) / std.

        Args:
            images: uint8 (B, 3, S, S), on any device.
            dtype: Of the result; computed in float32.
            channels_last: Memory format of the result, the faster one for convolutions.

        Returns:
            (B, 3, S, S) on the same device.
        """
        mean, std = (
            torch.tensor(values, device=images.device).view(1, 3, 1, 1)
            for values in (self.mean, self.std)
        )
        scaled: Tensor = torch.addcmul(-mean / std, images, 1 / (255 * std))
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return scaled.to(dtype, memory_format=layout)

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON values; `from_dict` reads them back."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The view that `to_dict` wrote.

        Raises:
            SettingError: A field is missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if names != values.keys():
            raise SettingError(
                f"A view has the fields {', '.join(sorted(names))}; missing: "
                f"{sorted(names - values.keys())}, unknown: {sorted(values.keys() - names)}."
            )
        return cls(**values | {"mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def describe(self) -> str:
        """One line for plans."""
        mirrored = "mirrored at random" if self.mirror else "not mirrored"
        return (
            f"squash to {self.resize_size} x {self.resize_size} ({self.interpolation}, "
            f"antialiased), {self.crop} crop {self.image_size}, {mirrored}, mean {self.mean}, "
            f"std {self.std}"
        )

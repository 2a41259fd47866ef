"""From a file to the pixels a model sees: decode, cut, resize, crop, mirror, change, normalise.

A `View` is the one description of that way. Training, evaluation and prediction share it, so they
can't come to disagree about a photo, and each is fed by it: `view` for training, `view.eval()` for
everything else. Pixels stay uint8 until a batch is on its device.
"""

import json
import math
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from fieldmark.data.augment import NOTHING, Augment
from fieldmark.data.chance import Chance
from fieldmark.data.decoding import decode_reduced
from fieldmark.data.strip import around_window
from fieldmark.errors import DataError, SettingError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Part of a cache key, beside a view's fields, by its `resize`: raise it whenever `load` or `apply`
# changes pixels.
PIXELS_VERSION = {"squash": 2, "keep_aspect": 3}

Box = tuple[float, float, float, float]
_PIXEL = np.dtype((np.void, 3))  # R, G and B moved as one


class _Part(NamedTuple):
    """A rectangle of a photo, in pixels and fractions of them."""

    top: float
    left: float
    height: float
    width: float


def default_resize_size(image_size: int) -> int:
    """Side a photo is squashed to before an `image_size` crop: 8/7 of it, as 256 is of 224."""
    return round(image_size * 8 / 7)


@dataclass(frozen=True)
class View:
    """How a photo becomes what a model sees.

    Attributes:
        image_size: Side of the square the model gets, in pixels.
        resize_size: Side of the square the photo is squashed to before the crop; where its aspect
            is kept, its shorter side.
        interpolation: Filter of the resizing, always antialiased.
        mean: Per channel, on a scale of 0 to 1.
        std: Per channel, on a scale of 0 to 1.
        crop: `random` window, or the `centre` one.
        mirror: Whether half of the photos, by chance, are flipped left to right.
        resize: `squash` the whole photo to a square, or `keep_aspect`.
        box_margin: Cut photos that have a box to it before all else, with this share of its width
            and height more on each side. None: boxes are not looked at.
        augment: What else chance changes.

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
    resize: Literal["squash", "keep_aspect"] = "squash"
    box_margin: float | None = None
    augment: Augment = NOTHING

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
            ("resize", ("squash", "keep_aspect")),
        ):
            if getattr(self, name) not in allowed:
                raise SettingError(
                    f"`{name}` must be {' or '.join(allowed)}, got {getattr(self, name)!r}."
                )
        if self.box_margin is not None and not 0 <= self.box_margin < math.inf:
            raise SettingError(f"`box_margin` must be at least 0, got {self.box_margin}. Use 0.1.")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(0 < s < math.inf for s in self.std):
            raise SettingError(
                f"`mean` and `std` must be three numbers each, with `std` above 0, got {self.mean} "
                f"and {self.std}. Use {IMAGENET_MEAN} and {IMAGENET_STD}."
            )

    def eval(self) -> Self:
        """The same view without chance: centre crop, no mirror, nothing changed."""
        return replace(self, crop="centre", mirror=False, augment=NOTHING)

    def uncropped(self) -> Self:
        """The view of all that this one crops from: the resized photo, unchanged.

        Raises:
            SettingError: What is resized, or to which size, depends on chance or on the photo.
        """
        if not self.resizes_alike:
            raise SettingError(
                "Resized photos can be kept only where all are squashed to one size, and crops "
                "by area and `resize: keep_aspect` are not. Use `resize: squash` without "
                "`crop_area`, or no cache."
            )
        return replace(self.eval(), image_size=self.resize_size)

    @property
    def resizes_alike(self) -> bool:
        """Whether chance and a photo's shape have no say in what is resized and how far."""
        return self.resize == "squash" and not self._crops_by_area

    def load(
        self,
        source: Path | bytes,
        *,
        box: Box | None = None,
        seed: int = 0,
        epoch: int = 0,
        sample: str = "",
    ) -> Tensor:
        """Decode a photo, by its path or given as bytes: uint8 (3, image_size, image_size).

        No more is decoded than twice the size the photo is resized to (see `decoding`).
        """

        def divisor(height: int, width: int) -> float:
            part = self._part(height, width, box, chance)
            sides = self._resized(part.height, part.width)
            return min(part.height / sides[0], part.width / sides[1]) / 2

        chance = Chance((seed, epoch, sample))
        decoded = decode_reduced(source, divisor)
        return self._show(decoded.image, _divided(box, decoded.divisor), chance)

    def apply(
        self,
        image: Tensor,
        *,
        box: Box | None = None,
        seed: int = 0,
        epoch: int = 0,
        sample: str = "",
    ) -> Tensor:
        """Cut, resize, crop, mirror and change one photo.

        Args:
            image: uint8 (3, H, W).
            box: Left, top, width and height of what it shows, in pixels.
            seed: The run's.
            epoch: Each epoch draws anew.
            sample: The photo's key. Chance depends on these three alone.

        Returns:
            uint8 (3, image_size, image_size), channels last in memory.

        Raises:
            DataError: The box lies outside the photo.
        """
        return self._show(image, box, Chance((seed, epoch, sample)))

    def crop_resized(
        self, pixels: NDArray[np.uint8], *, seed: int = 0, epoch: int = 0, sample: str = ""
    ) -> Tensor:
        """What `load` gives, of a photo (R, R, 3) that `uncropped` showed before."""
        chance = Chance((seed, epoch, sample))
        return self._frame(pixels, self._corner(pixels.shape[0], pixels.shape[1], chance), chance)

    def _show(self, image: Tensor, box: Box | None, chance: Chance) -> Tensor:
        part = self._part(image.shape[-2], image.shape[-1], box, chance)
        height, width = map(int, self._resized(part.height, part.width))
        corner = self._corner(height, width, chance)
        image, size, corner = around_window(
            _cut(image, part), (height, width), corner, self.image_size
        )
        filter_ = InterpolationMode(self.interpolation)
        resized = F.resize(image, list(size), interpolation=filter_, antialias=True)
        return self._frame(resized.permute(1, 2, 0).numpy(), corner, chance)

    def _frame(self, pixels: NDArray[np.uint8], corner: tuple[int, int], chance: Chance) -> Tensor:
        """Crop at its upper left corner, mirror and change what was resized, (H, W, 3)."""
        top, left = corner
        # NumPy copies in this thread; torch would wake its pool for it, and fight other workers'.
        window = pixels[top : top + self.image_size, left : left + self.image_size].copy()
        if self.mirror and chance.below(2, "mirror"):
            window = np.ascontiguousarray(window.view(_PIXEL)[:, ::-1]).view(np.uint8)
        red, green, blue = (round(255 * mean) for mean in self.mean)
        shown = torch.from_numpy(window).permute(2, 0, 1)  # (3, S, S)
        changed = self.augment.apply(shown, chance, (red, green, blue))
        return torch.from_numpy(np.ascontiguousarray(changed.permute(1, 2, 0))).permute(2, 0, 1)

    def _part(self, height: int, width: int, box: Box | None, chance: Chance) -> _Part:
        """What is resized: all, what the box leaves, or a random part of that."""
        part = _Part(0.0, 0.0, height, width)
        if box is not None and self.box_margin is not None:
            part = _within(box, self.box_margin, height, width, str(chance.key[-1]))
        if self._crops_by_area:
            top, left, h, w = self.augment.crop(part.height, part.width, chance)
            part = _Part(part.top + top, part.left + left, h, w)
        return part

    def _resized(self, height: float, width: float) -> tuple[float, float]:
        if self._crops_by_area:
            return self.image_size, self.image_size
        if self.resize == "squash":
            return self.resize_size, self.resize_size
        scale = self.resize_size / min(height, width)
        return max(self.resize_size, height * scale), max(self.resize_size, width * scale)

    @property
    def _crops_by_area(self) -> bool:
        return self.crop == "random" and self.augment.crop_area is not None

    def _corner(self, height: int, width: int, chance: Chance) -> tuple[int, int]:
        rooms = {"top": height - self.image_size, "left": width - self.image_size}
        if self.crop == "centre" or self._crops_by_area:
            return rooms["top"] // 2, rooms["left"] // 2
        top, left = (chance.below(room + 1, axis) for axis, room in rooms.items())
        return top, left

    def normalize(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Scale a batch to what the weights were trained on: (x / 255 - mean) / std.

        Args:
            images: uint8 (B, 3, S, S), on any device.
            dtype: Of the result; computed in float32.

        Returns:
            (B, 3, S, S) on the same device, channels last: the faster format for convolutions.
        """
        mean, std = (
            torch.tensor(values, device=images.device).view(1, 3, 1, 1)
            for values in (self.mean, self.std)
        )
        scaled: Tensor = torch.addcmul(-mean / std, images, 1 / (255 * std))
        return scaled.to(dtype, memory_format=torch.channels_last)

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON values; `from_dict` reads them back."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The view that `to_dict` wrote.

        Raises:
            SettingError: A field is missing or unknown.
        """
        _check_names(cls, values)
        _check_names(Augment, values["augment"])
        augment = Augment(**{name: _tupled(value) for name, value in values["augment"].items()})
        return cls(
            **{name: _tupled(value) for name, value in values.items()} | {"augment": augment}
        )

    def describe(self) -> str:
        """One line for plans."""
        size, filter_ = self.resize_size, f"({self.interpolation}, antialiased)"
        said = [] if self.box_margin is None else [f"cut to boxes plus {self.box_margin:.0%}"]
        if self._crops_by_area and self.augment.crop_area:
            low, high = self.augment.crop_area
            said += [f"random {low:.0%} to {high:.0%} of the area to {self.image_size} {filter_}"]
        elif self.resize == "squash":
            said += [f"squash to {size} x {size} {filter_}", f"{self.crop} crop {self.image_size}"]
        else:
            said += [f"shorter side to {size} {filter_}", f"{self.crop} crop {self.image_size}"]
        said.append("mirrored at random" if self.mirror else "not mirrored")
        return ", ".join([*said, *self.augment.describe(), f"mean {self.mean}", f"std {self.std}"])


def _within(box: Box, margin: float, height: int, width: int, sample: str) -> _Part:
    """The box and its margin, as far as they lie in the photo."""
    x, y, w, h = box
    top, bottom = max(0.0, y - margin * h), min(float(height), y + h + margin * h)
    left, right = max(0.0, x - margin * w), min(float(width), x + w + margin * w)
    if top >= bottom or left >= right:
        raise DataError(
            f"The box of `{sample}` (left {x:g}, top {y:g}, width {w:g}, height {h:g}) lies "
            f"outside its {width} x {height} pixels. Mend it, or leave `box_margin` out."
        )
    return _Part(top, left, bottom - top, right - left)


def _divided(box: Box | None, divisor: int) -> Box | None:
    if box is None:
        return None
    x, y, w, h = box
    return x / divisor, y / divisor, w / divisor, h / divisor


def _cut(image: Tensor, part: _Part) -> Tensor:
    """The part of (3, H, W), to the nearest pixel and at least one."""
    height, width = image.shape[-2:]
    top, left = min(round(part.top), height - 1), min(round(part.left), width - 1)
    bottom = max(round(part.top + part.height), top + 1)
    right = max(round(part.left + part.width), left + 1)
    if (top, left, bottom, right) == (0, 0, height, width):
        return image
    pixels = image.permute(1, 2, 0).numpy()[top:bottom, left:right]  # (h, w, 3)
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)


def _check_names(kind: type, values: dict[str, Any]) -> None:
    names = {field.name for field in fields(kind)}
    if names != values.keys():
        raise SettingError(
            f"A {kind.__name__.lower()} has the fields {', '.join(sorted(names))}; missing: "
            f"{sorted(names - values.keys())}, unknown: {sorted(values.keys() - names)}."
        )


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value

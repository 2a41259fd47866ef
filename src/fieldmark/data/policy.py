"""RandAugment and TrivialAugment: photos changed by operations drawn from a list.

Operations, magnitudes and defaults are those of torchvision's `v2.RandAugment` and
`v2.TrivialAugmentWide`, and so are the pixels (a test compares them). Those classes draw from
torch's global generator, which all threads share; here every draw has a name (`Chance`).
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal

from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from fieldmark.data.chance import Chance

PolicyName = Literal["none", "randaugment", "trivialaugment"]
LEVELS = 31  # magnitudes of each operation, from none to the strongest

Apply = Callable[[Tensor, float], Tensor]
# From level, of 0 to 1, and the photo's (height, width) to the operation's magnitude.
Magnitude = Callable[[float, int, int], float]


def _affine(
    image: Tensor,
    *,
    move: tuple[int, int] = (0, 0),
    shear: tuple[float, float] = (0, 0),
    from_corner: bool = False,
) -> Tensor:
    changed: Tensor = F.affine(
        image,
        angle=0.0,
        translate=list(move),
        scale=1.0,
        shear=[math.degrees(math.atan(slope)) for slope in shear],
        interpolation=InterpolationMode.NEAREST,
        center=[0, 0] if from_corner else None,
    )
    return changed


OPERATIONS: Mapping[str, Apply] = {
    "Identity": lambda image, _: image,
    "ShearX": lambda image, by: _affine(image, shear=(by, 0), from_corner=True),
    "ShearY": lambda image, by: _affine(image, shear=(0, by), from_corner=True),
    "TranslateX": lambda image, by: _affine(image, move=(int(by), 0)),
    "TranslateY": lambda image, by: _affine(image, move=(0, int(by))),
    "Rotate": lambda image, by: F.rotate(image, angle=by),
    "Brightness": lambda image, by: F.adjust_brightness(image, 1 + by),
    "Color": lambda image, by: F.adjust_saturation(image, 1 + by),
    "Contrast": lambda image, by: F.adjust_contrast(image, 1 + by),
    "Sharpness": lambda image, by: F.adjust_sharpness(image, 1 + by),
    "Posterize": lambda image, by: F.posterize(image, bits=int(by)),
    "Solarize": lambda image, by: F.solarize(image, threshold=255.0 * by),
    "AutoContrast": lambda image, _: F.autocontrast(image),
    "Equalize": lambda image, _: F.equalize(image),
}
_BOTH_WAYS = frozenset(
    (
        *("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"),
        *("Brightness", "Color", "Contrast", "Sharpness"),
    )
)


def _up_to(most: float) -> Magnitude:
    return lambda level, _height, _width: most * level


def _bits_taken(most: int) -> Magnitude:
    return lambda level, _height, _width: round(8 - most * level)


RANDAUGMENT: Mapping[str, Magnitude] = {
    "Identity": _up_to(0),
    "ShearX": _up_to(0.3),
    "ShearY": _up_to(0.3),
    "TranslateX": lambda level, _height, width: 150 / 331 * width * level,
    "TranslateY": lambda level, height, _width: 150 / 331 * height * level,
    "Rotate": _up_to(30),
    "Brightness": _up_to(0.9),
    "Color": _up_to(0.9),
    "Contrast": _up_to(0.9),
    "Sharpness": _up_to(0.9),
    "Posterize": _bits_taken(4),
    "Solarize": lambda level, _height, _width: 1 - level,
    "AutoContrast": _up_to(0),
    "Equalize": _up_to(0),
}
TRIVIALAUGMENT: Mapping[str, Magnitude] = {
    **RANDAUGMENT,
    "ShearX": _up_to(0.99),
    "ShearY": _up_to(0.99),
    "TranslateX": _up_to(32),
    "TranslateY": _up_to(32),
    "Rotate": _up_to(135),
    "Brightness": _up_to(0.99),
    "Color": _up_to(0.99),
    "Contrast": _up_to(0.99),
    "Sharpness": _up_to(0.99),
    "Posterize": _bits_taken(6),
}


def randaugment(image: Tensor, chance: Chance, *, operations: int, magnitude: int) -> Tensor:
    """Apply so many operations drawn at random, all at one magnitude (Cubuk et al. 2020).

    Args:
        image: uint8 (3, H, W).
        chance: Decides which, and which way.
        operations: How many, one after the other.
        magnitude: From 0 to `LEVELS` - 1.
    """
    for turn in range(operations):
        image = _apply(image, RANDAUGMENT, magnitude, chance, turn)
    return image


def trivialaugment(image: Tensor, chance: Chance) -> Tensor:
    """Apply one operation at one magnitude, both drawn at random (Müller and Hutter 2021).

    Args:
        image: uint8 (3, H, W).
        chance: Decides which, how much, and which way.
    """
    return _apply(image, TRIVIALAUGMENT, chance.below(LEVELS, "policy", "magnitude"), chance, 0)


def _apply(
    image: Tensor, space: Mapping[str, Magnitude], level: int, chance: Chance, turn: int
) -> Tensor:
    name = chance.choice(tuple(space), "policy", "operation", turn)
    magnitude = space[name](level / (LEVELS - 1), *image.shape[-2:])
    if name in _BOTH_WAYS and chance.happens(0.5, "policy", "sign", turn):
        magnitude = -magnitude
    return OPERATIONS[name](image, magnitude)

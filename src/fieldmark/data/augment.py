"""What training changes in a photo by chance: where it is cut, colours, policies, erasing."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from fieldmark.data.chance import Chance
from fieldmark.data.policy import LEVELS, PolicyName, randaugment, trivialaugment
from fieldmark.errors import SettingError

Range = tuple[float, float]

_ATTEMPTS = 10  # at a rectangle of the drawn area and shape that fits
_ERASED_AREA = (0.02, 0.33)  # shares of the photo, Zhong et al. 2020
_ERASED_RATIO = (0.3, 3.3)
_JITTER: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}


@dataclass(frozen=True)
class Augment:
    """How photos are changed by chance in training; nothing is, unless asked for.

    Attributes:
        crop_area: Least and most share of the photo that a random-resized crop takes (Szegedy et
            al. 2015). None: a window of the photo as it is resized for evaluation.
        crop_ratio: Least and most width / height of that crop.
        brightness: Factors are drawn from 1 - x to 1 + x.
        contrast: Likewise.
        saturation: Likewise.
        hue: Turns of the colour circle are drawn from -x to x, at most 0.5.
        policy: `randaugment`, `trivialaugment` or `none`.
        policy_operations: How many operations `randaugment` applies.
        policy_magnitude: How strongly, from 0 to 30.
        erase: Probability that a rectangle is painted over with the mean colour.

    Raises:
        SettingError: A value is out of range.
    """

    crop_area: Range | None = None
    crop_ratio: Range = (3 / 4, 4 / 3)
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    policy: PolicyName = "none"
    policy_operations: int = 2
    policy_magnitude: int = 9
    erase: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what can't work, now rather than at the first photo."""
        low, high = self.crop_area or (1.0, 1.0)
        policies = ("none", "randaugment", "trivialaugment")
        least, most = self.crop_ratio
        for holds, name, allowed, advice in (
            (0 < low <= high <= 1, "crop_area", "two shares, 0 < least <= most <= 1", "[0.3, 1]"),
            (0 < least <= most < math.inf, "crop_ratio", "two, 0 < least <= most", "[0.75, 1.333]"),
            (0 <= self.brightness < math.inf, "brightness", "at least 0", "0.2"),
            (0 <= self.contrast < math.inf, "contrast", "at least 0", "0.2"),
            (0 <= self.saturation < math.inf, "saturation", "at least 0", "0.2"),
            (0 <= self.hue <= 0.5, "hue", "from 0 to 0.5", "0.05"),
            (self.policy in policies, "policy", ", ".join(policies), "none"),
            (self.policy_operations >= 1, "policy_operations", "at least 1", "2"),
            (0 <= self.policy_magnitude < LEVELS, "policy_magnitude", "from 0 to 30", "9"),
            (0 <= self.erase <= 1, "erase", "a probability", "0.25"),
        ):
            if not holds:
                raise SettingError(
                    f"`{name}` must be {allowed}, got {getattr(self, name)!r}. Use {advice}."
                )

    def apply(self, image: Tensor, chance: Chance, mean: tuple[int, int, int]) -> Tensor:
        """Change one photo; colours first, then the policy, then the erasing.

        Args:
            image: uint8 (3, H, W).
            chance: Decides over all of it.
            mean: Colour of what is erased.

        Returns:
            uint8 (3, H, W).
        """
        image = self._jitter(image, chance)
        if self.policy == "randaugment":
            image = randaugment(
                image,
                chance,
                operations=self.policy_operations,
                magnitude=self.policy_magnitude,
            )
        elif self.policy == "trivialaugment":
            image = trivialaugment(image, chance)
        if self.erase and chance.happens(self.erase, "erase"):
            image = _erase(image, chance, mean)
        return image

    def crop(
        self, height: float, width: float, chance: Chance
    ) -> tuple[float, float, float, float]:
        """Top, left, height and width of a random-resized crop, in fractions of a pixel.

        All four grow with the photo, so a photo decoded at half its size is cut at the same place.
        """
        area = height * width
        for attempt in range(_ATTEMPTS):
            h, w = _sides(area, self.crop_area or (1.0, 1.0), self.crop_ratio, chance, attempt)
            if h <= height and w <= width:
                break
        else:  # the largest crop of an allowed shape, at the centre
            ratio = min(max(width / height, self.crop_ratio[0]), self.crop_ratio[1])
            h, w = min(height, width / ratio), min(width, height * ratio)
            return (height - h) / 2, (width - w) / 2, h, w
        top = chance.uniform(0, height - h, "crop", "top")
        return top, chance.uniform(0, width - w, "crop", "left"), h, w

    def describe(self) -> list[str]:
        """What is done, in words; empty where nothing is."""
        said = [f"{name} ± {getattr(self, name):g}" for name in _JITTER if getattr(self, name)]
        if self.policy == "randaugment":
            said.append(f"randaugment {self.policy_operations} x {self.policy_magnitude}")
        if self.policy == "trivialaugment":
            said.append("trivialaugment")
        return said + ([f"{self.erase:.0%} partly erased"] if self.erase else [])

    def _jitter(self, image: Tensor, chance: Chance) -> Tensor:
        asked = [name for name in _JITTER if getattr(self, name)]
        for name in chance.shuffled(asked, "jitter", "order"):
            amount, middle = getattr(self, name), 0.0 if name == "hue" else 1.0
            low = -amount if name == "hue" else max(0.0, middle - amount)
            image = _JITTER[name](image, chance.uniform(low, middle + amount, name))
        return image


NOTHING = Augment()


def _sides(
    area: float, shares: Range, ratios: Range, chance: Chance, attempt: int, what: str = "crop"
) -> tuple[float, float]:
    """Height and width of a rectangle, uniform in its area and in log(width / height)."""
    part = area * chance.uniform(*shares, what, "area", attempt)
    low, high = map(math.log, ratios)
    ratio = math.exp(chance.uniform(low, high, what, "ratio", attempt))
    return math.sqrt(part / ratio), math.sqrt(part * ratio)


def _erase(image: Tensor, chance: Chance, mean: tuple[int, int, int]) -> Tensor:
    """Paint a rectangle over (Zhong et al. 2020)."""
    height, width = image.shape[-2:]
    for attempt in range(_ATTEMPTS):
        sides = _sides(height * width, _ERASED_AREA, _ERASED_RATIO, chance, attempt, "erase")
        h, w = map(round, sides)
        if h < height and w < width:
            top = chance.below(height - h + 1, "erase", "top")
            left = chance.below(width - w + 1, "erase", "left")
            colour = torch.tensor(mean, dtype=torch.uint8).view(3, 1, 1)
            image = image.clone()
            image[:, top : top + h, left : left + w] = colour
            break
    return image

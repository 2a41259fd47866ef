"""Keys of a recipe: what chance changes in training photos, one by one and batch by batch."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from fieldmark.checked_yaml import Section

Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Augment(Section):
    """What chance changes in training photos; on frozen features only where `views` keep some."""

    crop_area: tuple[Share, Share] | None = None
    """Least and most share of the photo that a random-resized crop takes; else a plain window."""
    crop_ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """Least and most width / height of that crop."""
    brightness: NotNegative = 0.0
    """Brightness is multiplied by 1 - x to 1 + x."""
    contrast: NotNegative = 0.0
    """Contrast is multiplied by 1 - x to 1 + x."""
    saturation: NotNegative = 0.0
    """Saturation is multiplied by 1 - x to 1 + x."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Colours are turned by -x to x of the circle."""
    policy: Literal["none", "randaugment", "trivialaugment"] = "none"
    """Operations drawn from a list, as torchvision's RandAugment or TrivialAugmentWide."""
    policy_operations: Annotated[int, Field(ge=1)] = 2
    """How many operations `randaugment` applies to a photo."""
    policy_magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """How strongly `randaugment` applies them."""
    erase: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the photos in which a rectangle is painted over with the mean colour."""
    mixup: NotNegative = 0.0
    """Blend neighbours of a batch and their labels by shares from Beta(x, x); 0 does not."""
    cutmix: NotNegative = 0.0
    """Paste a part of its neighbour into each photo, by shares from Beta(x, x); 0 does not."""

    @field_validator("crop_area", "crop_ratio")
    @classmethod
    def _least_first(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value and value[0] > value[1]:
            raise ValueError(f"give the least first, as in [{value[1]:g}, {value[0]:g}].")
        return value

"""Mixup and CutMix: each photo of a batch shares its picture and its label with another one."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fieldmark.data.chance import Chance
from fieldmark.errors import SettingError


@dataclass(frozen=True)
class Mixing:
    """How batches are mixed; where both are given, each batch draws one of the two.

    With share λ from Beta(α, α), drawn once a batch, photo i and its neighbour i - 1 become
    λ x_i + (1 - λ) x_(i-1) (mixup, Zhang et al. 2018), or a rectangle of 1 - λ of the area of x_i
    is taken from x_(i-1) (CutMix, Yun et al. 2019); labels are mixed alike. As torchvision does,
    neighbours are those of the batch, whose order is drawn in each epoch.

    Attributes:
        mixup: α of mixup; 0 never mixes so.
        cutmix: α of CutMix; 0 never mixes so.

    Raises:
        SettingError: An α is negative or infinite.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what can't work, now rather than at the first batch."""
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SettingError(
                    f"`{name}` must be at least 0, got {getattr(self, name)}. Use 0.2, or 0."
                )

    def __bool__(self) -> bool:
        """Whether anything is mixed."""
        return bool(self.mixup or self.cutmix)

    def mix(
        self, images: Tensor, labels: Tensor, classes: int, chance: Chance
    ) -> tuple[Tensor, Tensor]:
        """Images and targets of a mixed batch.

        Args:
            images: float (B, 3, S, S).
            labels: int64 (B,).
            classes: K.
            chance: The batch's.

        Returns:
            (B, 3, S, S), channels last in memory, and probabilities (B, K).
        """
        targets = F.one_hot(labels, classes).float()  # (B, K)
        if not self:
            return images, targets
        cuts = bool(self.cutmix) and (not self.mixup or chance.happens(0.5, "mix", "way"))
        share = chance.beta(self.cutmix if cuts else self.mixup, "mix", "share")
        if cuts:
            images, share = _cut_in(images, share, chance)
        else:
            images = _blend(images, share)
        return images.contiguous(memory_format=torch.channels_last), _blend(targets, share)


def _blend(batch: Tensor, share: float) -> Tensor:
    return share * batch + (1 - share) * batch.roll(1, 0)


def _cut_in(images: Tensor, share: float, chance: Chance) -> tuple[Tensor, float]:
    """A rectangle around a uniform centre, cut off at the border, and the share that is left."""
    height, width = images.shape[-2:]
    half = 0.5 * math.sqrt(1 - share)
    y, x = chance.below(height, "mix", "row"), chance.below(width, "mix", "column")
    rows = slice(max(0, y - int(half * height)), min(height, y + int(half * height)))
    columns = slice(max(0, x - int(half * width)), min(width, x + int(half * width)))
    mixed = images.clone()
    mixed[..., rows, columns] = images.roll(1, 0)[..., rows, columns]
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, 1 - area / (height * width)

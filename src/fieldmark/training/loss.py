"""What training lowers: cross-entropy with smoothed labels and weighted classes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from fieldmark.errors import SettingError

ClassWeights = Literal["balanced"] | Mapping[str, float]


@dataclass(frozen=True)
class Loss:
    """Cross-entropy in nats, as `torch.nn.CrossEntropyLoss` defines it.

    A sample's loss is -Σ_c w_c ((1 - ε) y_c + ε / K) log p_c, and a step's is the sum over its
    samples divided by the sum of their weights, Σ_i Σ_c w_c y_ic. So a step of several batches has
    the loss of one large batch. (Torch divides by the weights only where labels are not mixed, and
    by the number of samples where they are; there the two differ.)

    Attributes:
        label_smoothing: ε, from 0 to 1 (Szegedy et al. 2016).
        class_weights: w (K,), or None where all are 1.
    """

    label_smoothing: float = 0.0
    class_weights: Tensor | None = None

    def total(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum over a batch.

        Args:
            logits: (B, K).
            labels: int64 (B,), or probabilities (B, K) where photos are mixed.
        """
        return F.cross_entropy(
            logits,
            labels,
            weight=self._weights_at(logits.device),
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )

    def weight(self, labels: Tensor) -> float:
        """What a batch weighs: the number of its samples where all classes weigh 1."""
        weights = self._weights_at(labels.device)
        if weights is None:
            return len(labels)
        if labels.is_floating_point():
            return float((labels @ weights).sum())
        return float(weights[labels].sum())

    def _weights_at(self, device: torch.device) -> Tensor | None:
        return None if self.class_weights is None else self.class_weights.to(device)


PLAIN = Loss()


def make_loss(
    label_smoothing: float,
    class_weights: ClassWeights | None,
    *,
    labels: Sequence[int],
    class_names: Sequence[str],
) -> Loss:
    """The loss of a stage.

    Args:
        label_smoothing: Share of each label that is spread over all classes.
        class_weights: `balanced`, which is N / (K N_c) for a class with N_c of the N samples, or
            weights by the names of classes, 1 where a class is not named.
        labels: Of the training samples.
        class_names: By label.

    Raises:
        SettingError: A name is no class.
    """
    if class_weights is None:
        return Loss(label_smoothing)
    if class_weights == "balanced":
        counts = Counter(labels)
        weights = [
            len(labels) / (len(counts) * counts[label]) if label in counts else 1.0
            for label in range(len(class_names))
        ]
        return Loss(label_smoothing, torch.tensor(weights))
    unknown = sorted(class_weights.keys() - set(class_names))
    if unknown:
        raise SettingError(
            f"`class_weights` names no class of the photos: {', '.join(unknown[:5])}. "
            f"The first classes are {', '.join(class_names[:5])}."
        )
    return Loss(label_smoothing, torch.tensor([class_weights.get(n, 1.0) for n in class_names]))

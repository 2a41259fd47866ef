"""From logits and labels to numbers, in numpy, so that reading results never loads torch."""

from typing import cast

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.floating]
Labels = NDArray[np.integer]

_Z95 = 1.959963984540054


def log_softmax(logits: Logits) -> NDArray[np.float64]:
    """Log-probabilities, (N, K) -> (N, K), in float64 and safe against overflow."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return cast("NDArray[np.float64]", shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def cross_entropy(logits: Logits, labels: Labels) -> float:
    """Mean negative log-likelihood in nats of `labels` (N,) under `logits` (N, K)."""
    return float(-log_softmax(logits)[np.arange(len(labels)), labels].mean())


def top1(logits: Logits, labels: Labels) -> float:
    """Share of photos, 0 to 1, whose largest logit is their label's; a tie goes to the first."""
    return float((logits.argmax(axis=1) == labels).mean())


def classification_metrics(logits: Logits, labels: Labels) -> dict[str, float]:
    """`loss` and `top1` of `logits` (N, K) against `labels` (N,)."""
    return {"loss": cross_entropy(logits, labels), "top1": top1(logits, labels)}


def wilson_interval(share: float, count: int, z: float = _Z95) -> tuple[float, float]:
    """Interval of a share seen in `count` photos, 95 % by default.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    It speaks of other photos of the same kind, not of other seeds.
    """
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = share * (1 - share) / count + z * z / (4 * count * count)
    half = z / (1 + z * z / count) * float(np.sqrt(spread))
    return centre - half, centre + half

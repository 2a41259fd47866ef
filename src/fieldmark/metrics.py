"""From logits and labels to numbers, in numpy, so that reading results never loads torch."""

from typing import cast

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.floating]
Labels = NDArray[np.integer]

CONFIDENCE_BINS = 15  # of equal width, that calibration is seen in
_Z95 = 1.959963984540054


def log_softmax(logits: Logits) -> NDArray[np.float64]:
    """Log-probabilities, (N, K) -> (N, K), in float64 and safe against overflow."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return cast("NDArray[np.float64]", shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def cross_entropies(logits: Logits, labels: Labels) -> NDArray[np.float64]:
    """Negative log-likelihood in nats of each of `labels` (N,) under `logits` (N, K), (N,)."""
    return -log_softmax(logits)[np.arange(len(labels)), labels]


def cross_entropy(logits: Logits, labels: Labels) -> float:
    """Their mean."""
    return float(cross_entropies(logits, labels).mean())


def top1(logits: Logits, labels: Labels) -> float:
    """Share of photos, 0 to 1, whose largest logit is their label's; a tie goes to the first."""
    return float((logits.argmax(axis=1) == labels).mean())


def top5(logits: Logits, labels: Labels) -> float:
    """Share of photos with their label among the five largest logits; a tie counts for it."""
    own = logits[np.arange(len(labels)), labels]
    return float(((logits > own[:, None]).sum(axis=1) < 5).mean())


def mean_class_top1(logits: Logits, labels: Labels) -> float:
    """Top-1 of each class that has photos, averaged: a rare class counts as much as any."""
    right = logits.argmax(axis=1) == labels
    counts = np.bincount(labels)
    shares = np.bincount(labels, weights=right)[counts > 0] / counts[counts > 0]
    return float(shares.mean())


def confidence_bin(confidence: NDArray[np.floating]) -> NDArray[np.int64]:
    """Which of `CONFIDENCE_BINS` equal ones, open below, each of some confidences (N,) is in."""
    place = np.ceil(confidence * CONFIDENCE_BINS).astype(np.int64) - 1
    return np.asarray(place.clip(0, CONFIDENCE_BINS - 1))


def calibration_error(logits: Logits, labels: Labels) -> float:
    """Expected calibration error: mean gap, 0 to 1, of confidence to top-1 within equal bins.

    Sum over bins of n_bin / N |accuracy - confidence|; Guo et al., "On calibration of modern
    neural networks", arXiv 1706.04599, equation 3.
    """
    confidence = np.exp(log_softmax(logits).max(axis=1))
    right = logits.argmax(axis=1) == labels
    gaps = np.bincount(confidence_bin(confidence), weights=right - confidence)
    return float(np.abs(gaps).sum() / len(labels))


def classification_metrics(logits: Logits, labels: Labels) -> dict[str, float]:
    """All of this page for `logits` (N, K) against `labels` (N,); `top5` from six classes on."""
    metrics = {
        "loss": cross_entropy(logits, labels),
        "top1": top1(logits, labels),
        "mean_class_top1": mean_class_top1(logits, labels),
        "calibration_error": calibration_error(logits, labels),
    }
    return metrics | ({"top5": top5(logits, labels)} if logits.shape[1] > 5 else {})


def wilson_interval(share: float, count: int, z: float = _Z95) -> tuple[float, float]:
    """Interval of a share seen in `count` photos, 95 % by default.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    It speaks of other photos of the same kind, not of other seeds.
    """
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = share * (1 - share) / count + z * z / (4 * count * count)
    half = z / (1 + z * z / count) * float(np.sqrt(spread))
    return max(0.0, centre - half), min(1.0, centre + half)  # beyond by rounding alone

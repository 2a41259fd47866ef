"""The best linear classifier for each of many weight decays: no rate, no schedule, no luck.

    loss(W, b) = mean cross-entropy + decay / 2 |W|²

is convex, so L-BFGS (Liu and Nocedal 1989; scipy's) finds its one minimum. Along a path of decays
each solution is the start of the next. The search goes on in the principal coordinates of the
features about their mean m, Z - 1 mᵀ = U S Qᵀ: the bias takes up W m, and what both could do alike
makes no long flat valley. They are stretched so that the curvature is about 1 in every direction:
in direction j it is about c s_j² / N + decay, where c is the mean p (1 - p) of the classes'
probabilities at the solution before. Few steps are then enough, and |gradient|² / 2 tells about
how far the minimum is. Where nearly all photos are told apart that may be too little; but it is not
beyond |gradient of W|² / (2 decay) of the features' own coordinates, the decay's part of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from fieldmark.errors import SettingError

_CORRECTIONS = 20  # pairs L-BFGS remembers
_MOST_STEPS = 1000
_DOUBT = 10  # photos differ in p (1 - p), so the true gap may be this much more than the estimate


@dataclass(frozen=True)
class ExactHead:
    """The minimum at one decay.

    Attributes:
        decay: Of the weight; the bias is not decayed.
        weight: (K, D).
        bias: (K,).
        loss: Mean cross-entropy plus the decay's share, in nats.
        gap: At most about so far above the minimum `loss` is, in nats.
        converged: Whether `gap` fell to the tolerance.
    """

    decay: float
    weight: Tensor
    bias: Tensor
    loss: float
    gap: float
    converged: bool


def decay_path(
    features: Tensor,
    labels: Tensor,
    decays: Sequence[float],
    *,
    classes: int,
    tolerance: float = 1e-4,
    share: float = 1e-3,
) -> list[ExactHead]:
    """The minimum for each decay, in the order given.

    Args:
        features: (N, D) float32.
        labels: int64 (N,).
        decays: Each above 0, or there may be no minimum.
        classes: K.
        tolerance: How far above the minimum a loss may be, in nats.
        share: And as a share of it: with little decay the whole loss is less than most tolerances.

    Raises:
        SettingError: a decay is not above 0.
    """
    wrong = [decay for decay in decays if not decay > 0]
    if wrong:
        raise SettingError(
            f"An exact head needs decays above 0, got {wrong[0]}: without decay, separable photos "
            "have no best classifier. Use 1e-8 for almost none."
        )
    search = _Search(features, labels, classes)
    found = {
        decay: search.minimum(decay, tolerance, share)
        for decay in sorted(set(decays), reverse=True)
    }
    return [found[decay] for decay in decays]


class _Search:
    """Goes down the path of decays, in the features' principal coordinates."""

    def __init__(self, features: Tensor, labels: Tensor, classes: int) -> None:
        self.labels, self.classes = labels, classes
        self.mean = features.mean(0)  # (D,)
        centred = features - self.mean
        left, self.spread, self.axes = torch.linalg.svd(centred, full_matrices=False)
        self.rows = left * self.spread  # (N, R)
        self.weight = torch.zeros(classes, self.rows.shape[1])
        self.bias = torch.zeros(classes)
        self.uncertain = (1 - 1 / classes) / classes  # mean p (1 - p); here of chance

    def minimum(self, decay: float, tolerance: float, share: float) -> ExactHead:
        curvature = self.uncertain * self.spread.square() / len(self.labels) + decay  # (R,)
        stretch = curvature.rsqrt()
        of_bias = self.uncertain**-0.5
        problem = _Problem(
            self.rows * stretch, self.labels, self.classes, decay * stretch.square(), of_bias
        )

        def is_near() -> bool:
            return problem.gap <= min(tolerance, share * problem.loss)

        def stop_when_near(_: object) -> None:
            if is_near():
                raise StopIteration

        begin = torch.cat([self.weight / stretch, self.bias[:, None] / of_bias], 1)
        result = minimize(
            problem,
            begin.double().flatten().numpy(),
            jac=True,
            method="L-BFGS-B",
            callback=stop_when_near,
            options={"maxcor": _CORRECTIONS, "gtol": 0, "ftol": 0, "maxiter": _MOST_STEPS},
        )
        problem(result.x)
        weight, bias = problem.unpack(result.x)
        self.weight, self.bias = weight * stretch, bias * of_bias
        self.uncertain = problem.uncertain
        whole = self.weight @ self.axes  # (K, D)
        return ExactHead(
            decay,
            whole,
            self.bias - whole @ self.mean,
            problem.loss,
            problem.gap,
            is_near(),
        )


class _Problem:
    """Loss and gradient of one decay, at stretched weights and biases laid end to end."""

    def __init__(
        self, rows: Tensor, labels: Tensor, classes: int, decay: Tensor, of_bias: float
    ) -> None:
        self.rows, self.labels, self.classes = rows, labels, classes
        self.decay, self.of_bias = decay, of_bias
        self.loss = self.gap = self.uncertain = float("inf")
        self._each = torch.arange(len(labels))

    def unpack(self, point: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """Weight (K, R) and bias (K,)."""
        values = torch.from_numpy(point).float().view(self.classes, -1)
        return values[:, :-1], values[:, -1]

    def __call__(self, point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weight, bias = self.unpack(point)
        # From here on in float64: the search compares losses that differ in the seventh digit, and
        # where photos are told apart 1 - p is far below float32's last digit of p.
        logits = torch.addmm(bias * self.of_bias, self.rows, weight.T).double()
        log_p = logits.log_softmax(1)  # (N, K)
        cross_entropy = -log_p[self._each, self.labels].mean()
        decayed = weight * self.decay
        self.loss = float(cross_entropy + (weight * decayed).double().sum() / 2)
        p = log_p.exp_()
        self.uncertain = float((p - p.square()).mean())
        p[self._each, self.labels] -= 1
        p = (p / len(self.labels)).float()
        slope = torch.empty(self.classes, self.rows.shape[1] + 1)
        slope[:, :-1] = torch.addmm(decayed, p.T, self.rows)
        slope[:, -1] = p.sum(0) * self.of_bias
        square = slope.double().square()
        self.gap = _DOUBT * float(square.sum()) / 2
        self.gap = max(self.gap, float((square[:, :-1] / self.decay).sum()) / 2)
        return self.loss, slope.view(-1).double().numpy()

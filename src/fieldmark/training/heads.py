"""Many linear classifiers trained at once, on features that stand still.

Heads that share the photos and the order of samples take their steps together, as one product.
Each is trained as if it were alone, by SGD with momentum and L2 decay: learning rate, momentum,
decay, schedule, smoothing and initial weights may differ from head to head.

`PrimalHeads` keeps weights W (K, D) and their momentum V; `dual_heads.DualHeads` keeps them as sums
over the training photos, which is far less where D is larger than their number.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldmark.layers.dropout import chances, hide

STRIPS = 6  # of a matrix of products: with more, those left out no longer pay for narrow ones

Column = NDArray[np.float64]  # (H,): a number for each head, exact enough to be multiplied up


@dataclass(frozen=True)
class HeadSettings:
    """How one of many heads is trained.

    Attributes:
        weight: Initial, (K, D); heads may share one tensor.
        bias: Initial, (K,).
        lr: Of the weight, times `factor` of the step.
        bias_lr: Of the bias, likewise.
        momentum: As in `torch.optim.SGD`; `nesterov` too.
        weight_decay: L2 decay of the weight.
        bias_decay: L2 decay of the bias.
        label_smoothing: Share of each label that is spread over all classes.
        drop_rate: Share of a sample's entries that is hidden, anew at each step.
        drop_seed: Of what is hidden; the step's number is added to it.
        factor: Step, from 0, to the multiplier of the rates.
    """

    weight: Tensor
    bias: Tensor
    lr: float
    bias_lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    bias_decay: float = 0.0
    label_smoothing: float = 0.0
    drop_rate: float = 0.0
    drop_seed: int = 0
    factor: Callable[[int], float] = lambda _: 1.0


class FrozenFeatures:
    """Features of all photos, (M, D) float32, and the products of all pairs of them."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    @cached_property
    def gram(self) -> Tensor:
        """Z Zᵀ, (M, M), strip by strip from the diagonal on: the other half is its mirror."""
        Z, M = self.rows, len(self.rows)
        gram = Z.new_empty(M, M)
        for start in range(0, M, -(-M // STRIPS)):
            own, rest = slice(start, start - (-M // STRIPS)), slice(start, None)
            gram[own, rest] = Z[own] @ Z[rest].T
            gram[rest, own] = gram[own, rest].T
        return gram


@dataclass(eq=False)
class Heads(ABC):
    """H linear classifiers in training.

    Args:
        features: Of all photos, F kinds.
        train: int64 (N,), the photos trained on, as positions in `features`.
        labels: int64 (N,), their classes.
        heads: H of them: the first H / F are over the first features, and so on.
    """

    features: Sequence[FrozenFeatures]
    train: Tensor
    labels: Tensor
    heads: Sequence[HeadSettings]

    def __post_init__(self) -> None:
        heads = self.heads
        self.bias = torch.stack([head.bias for head in heads])  # (H, K)
        self._bias_momentum = torch.zeros_like(self.bias)
        self._momentum = column(head.momentum for head in heads)  # (H,)
        self._nesterov = np.array([head.nesterov for head in heads])
        self._lead = torch.from_numpy(self._nesterov)[:, None]
        self._decay = column(head.weight_decay for head in heads)
        self._lr = column(head.lr for head in heads)
        self._bias_lr = column(head.bias_lr for head in heads)
        self._bias_decay = float32(column(head.bias_decay for head in heads))[:, None]
        self._smooths = any(head.label_smoothing for head in heads)
        self._smoothing = float32(column(head.label_smoothing for head in heads))[:, None]

    def foresee(self, steps: Sequence[Tensor], first: int) -> None:  # noqa: B027 - may be nothing
        """Be told of the steps to come, from `first` on; what may be computed ahead is."""

    def step(self, number: int, samples: Tensor) -> Tensor:
        """One step of every head on the same samples.

        Args:
            number: Of the step, from 0.
            samples: int64 (B,), positions in `train`.

        Returns:
            Each head's loss on them before the step, (H,), in nats.
        """
        logits = self._logits_of(samples) + self.bias  # (B, H, K)
        labels = self.labels[samples]
        log_p = logits.log_softmax(2)
        right = labels[:, None, None].expand(-1, len(self.heads), 1)
        losses, s = -log_p.gather(2, right)[:, :, 0], self._smoothing  # (B, H), (H, 1)
        if self._smooths:
            losses = (1 - s[:, 0]) * losses - s[:, 0] * log_p.mean(2)
        grad = log_p.exp_()  # (B, H, K)
        if self._smooths:
            grad -= s / logits.shape[2]
        grad.scatter_add_(2, right, (s - 1).expand(len(samples), -1, -1))
        grad /= len(samples)
        factors = column(head.factor(number) for head in self.heads)
        self._move(samples, grad, self._lr * factors)
        self._move_bias(grad.sum(0), self._bias_lr * factors)
        return losses.mean(0)

    @abstractmethod
    def logits(self, photos: Tensor) -> Tensor:
        """Logits (P, H, K) of photos, int64 (P,), as positions in `features`."""

    @abstractmethod
    def weight(self, head: int) -> Tensor:
        """One head's weight, (K, D)."""

    @abstractmethod
    def _logits_of(self, samples: Tensor) -> Tensor:
        """Logits (B, H, K) of training samples, the bias aside."""

    @abstractmethod
    def _move(self, samples: Tensor, grad: Tensor, lr: Column) -> None:
        """Step the weights by the gradient (B, H, K) of the logits, at the rates (H,)."""

    def _move_bias(self, grad: Tensor, lr: Column) -> None:
        momentum = float32(self._momentum)[:, None]
        grad = grad + self._bias_decay * self.bias
        self._bias_momentum = momentum * self._bias_momentum + grad
        ahead = grad + momentum * self._bias_momentum
        moved = torch.where(self._lead, ahead, self._bias_momentum)
        self.bias = self.bias - float32(lr)[:, None] * moved


class PrimalHeads(Heads):
    """Heads as weights and momentum; for features shorter than the list of photos, of one kind."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._weight = torch.stack([head.weight for head in self.heads])  # (H, K, D)
        self._velocity = torch.zeros_like(self._weight)

    def logits(self, photos: Tensor) -> Tensor:
        """Logits (P, H, K) of photos, int64 (P,), as positions in `features`."""
        return self._product(photos) + self.bias

    def weight(self, head: int) -> Tensor:
        """One head's weight, (K, D)."""
        return self._weight[head]

    def _logits_of(self, samples: Tensor) -> Tensor:
        return self._product(self.train[samples])

    def _product(self, photos: Tensor) -> Tensor:
        flat = self.features[0].rows[photos] @ self._weight.flatten(0, 1).T
        return flat.view(len(photos), *self.bias.shape)

    def _slope(self, samples: Tensor, grad: Tensor) -> Tensor:
        """Gradient of the weights, (H, K, D), from that of the logits, (B, H, K)."""
        batch = self.features[0].rows[self.train[samples]]  # (B, D)
        return (grad.flatten(1).T @ batch).view_as(self._weight)

    def _move(self, samples: Tensor, grad: Tensor, lr: Column) -> None:
        momentum, decay, rate = (
            float32(scalar)[:, None, None] for scalar in (self._momentum, self._decay, lr)
        )
        slope = self._slope(samples, grad)
        if self._decay.any():
            slope.addcmul_(decay, self._weight)
        self._velocity.mul_(momentum).add_(slope)
        if self._nesterov.any():
            ahead = slope.addcmul_(momentum, self._velocity)
            moved = torch.where(self._lead[..., None], ahead, self._velocity)
        else:
            moved = self._velocity
        self._weight.addcmul_(-rate, moved)


class DropoutHeads(PrimalHeads):
    """Heads that hide entries of their samples: no products of pairs hold for two steps.

    Those of one rate and seed see the same, which is made once for all of them.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._alike: dict[tuple[float, int], list[int]] = {}
        for number, head in enumerate(self.heads):
            self._alike.setdefault((head.drop_rate, head.drop_seed), []).append(number)
        self._shown: list[tuple[list[int], Tensor]] = []

    def step(self, number: int, samples: Tensor) -> Tensor:
        """One step of every head on the same samples, each on what its rate leaves of them."""
        batch = self.features[0].rows[self.train[samples]]  # (B, D)
        drawn = {seed: chances(seed + number, samples, batch.shape[1]) for _, seed in self._alike}
        self._shown = [
            (heads, hide(batch, drawn[seed], rate)) for (rate, seed), heads in self._alike.items()
        ]
        return super().step(number, samples)

    def _logits_of(self, samples: Tensor) -> Tensor:
        logits = self._weight.new_empty(len(samples), *self.bias.shape)
        for heads, batch in self._shown:
            flat = batch @ self._weight[heads].flatten(0, 1).T
            logits[:, heads] = flat.view(len(samples), len(heads), -1)
        return logits

    def _slope(self, samples: Tensor, grad: Tensor) -> Tensor:  # noqa: ARG002 - as they are shown
        slope = torch.empty_like(self._weight)
        for heads, batch in self._shown:
            flat = grad[:, heads].flatten(1).T @ batch
            slope[heads] = flat.view(len(heads), *self._weight.shape[1:])
        return slope


def column(values: Iterable[float]) -> Column:
    """A number for each head."""
    return np.array(list(values), dtype=np.float64)


def float32(values: NDArray[np.float64]) -> Tensor:
    """What float32 holds of them; what it does not is infinite."""
    with np.errstate(over="ignore"):
        return torch.from_numpy(values.astype(np.float32))

"""Many linear classifiers trained at once, on features that stand still.

Heads that share the photos and the order of samples take their steps together, as one product.
Each is trained as if it were alone, by SGD with momentum and L2 decay: learning rate, momentum,
decay, schedule, smoothing and initial weights may differ from head to head.

Two forms, equal but for rounding. `PrimalHeads` keeps weights W (K, D) and their momentum V.
`DualHeads` makes use of a step's gradient being a sum over its samples, so that

    W = a W0 + Aᵀ Z        V = v W0 + Cᵀ Z        Z (N, D): the training features

with A and C (N, K), and only the rows of the step's own samples get anything new. All the rest,
momentum and decay, is one 2x2 matrix a step, the same for every row: it is multiplied up aside,
and applied to the rows now and then. So a step costs B x N x K products in place of B x D x K
twice and six passes over (K, D) numbers. Where D is larger than N, that is far less.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Column = NDArray[np.float64]  # (H,): a number for each head, exact enough to be multiplied up
Columns = NDArray[np.float64]

_LEAST_DETERMINANT = 0.1  # rounding grows by its inverse between two times rows are brought up


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
    factor: Callable[[int], float] = lambda _: 1.0


class FrozenFeatures:
    """Features of all photos, (M, D) float32, and the products of all pairs of them."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows

    @cached_property
    def gram(self) -> Tensor:
        """Z Zᵀ, (M, M)."""
        return self.rows @ self.rows.T


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
        self._momentum = _column(head.momentum for head in heads)  # (H,)
        self._nesterov = np.array([head.nesterov for head in heads])
        self._lead = torch.from_numpy(self._nesterov)[:, None]
        self._decay = _column(head.weight_decay for head in heads)
        self._lr = _column(head.lr for head in heads)
        self._bias_lr = _column(head.bias_lr for head in heads)
        self._bias_decay = _float32(_column(head.bias_decay for head in heads))[:, None]
        self._smoothing = _float32(_column(head.label_smoothing for head in heads))[:, None]

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
        s = self._smoothing  # (H, 1)
        losses = -(1 - s[:, 0]) * log_p.gather(2, right)[:, :, 0] - s[:, 0] * log_p.mean(2)
        grad = log_p.exp() - s / logits.shape[2]  # (B, H, K)
        grad.scatter_add_(2, right, (s - 1).expand(len(samples), -1, -1))
        grad /= len(samples)
        factors = _column(head.factor(number) for head in self.heads)
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
        momentum = _float32(self._momentum)[:, None]
        grad = grad + self._bias_decay * self.bias
        self._bias_momentum = momentum * self._bias_momentum + grad
        ahead = grad + momentum * self._bias_momentum
        moved = torch.where(self._lead, ahead, self._bias_momentum)
        self.bias = self.bias - _float32(lr)[:, None] * moved


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

    def _move(self, samples: Tensor, grad: Tensor, lr: Column) -> None:
        momentum, decay, rate = (
            _float32(scalar)[:, None, None] for scalar in (self._momentum, self._decay, lr)
        )
        batch = self.features[0].rows[self.train[samples]]  # (B, D)
        slope = (grad.flatten(1).T @ batch).view_as(self._weight)
        if self._decay.any():
            slope.addcmul_(decay, self._weight)
        self._velocity.mul_(momentum).add_(slope)
        if self._nesterov.any():
            ahead = slope.addcmul_(momentum, self._velocity)
            moved = torch.where(self._lead[..., None], ahead, self._velocity)
        else:
            moved = self._velocity
        self._weight.addcmul_(-rate, moved)


class DualHeads(Heads):
    """Heads as sums over training photos; for features longer than the list of photos."""

    def __post_init__(self) -> None:
        super().__post_init__()
        features, train = self.features, self.train
        H, K = self.bias.shape
        self._each = H // len(features)  # heads
        self._among = torch.stack([kind.gram[train][:, train] for kind in features])  # (F, N, N)
        # A and C as `_product` left them.
        self._rows = torch.zeros(len(features), len(train), 2, self._each, K)
        self._passed = _identity(H)  # since then
        self._start = _identity(H)  # since the first step: for W0
        begun = [self._begin(number) for number in range(len(features))]
        self._begun = torch.cat(begun, 1)  # logits of W0, (M, H, K)

    def _begin(self, number: int) -> Tensor:
        """Logits (M, H / F, K) of the initial weights over one kind of features."""
        heads = self.heads[number * self._each : (number + 1) * self._each]
        rows = self.features[number].rows
        weights = {id(head.weight): head.weight for head in heads}
        logits = {key: rows @ weight.T for key, weight in weights.items()}
        return torch.stack([logits[id(head.weight)] for head in heads], 1)

    def logits(self, photos: Tensor) -> Tensor:
        """Logits (P, H, K) of photos, int64 (P,), as positions in `features`."""
        grams = torch.stack([kind.gram[photos][:, self.train] for kind in self.features])
        return self._product(photos, grams) + self.bias

    def weight(self, head: int) -> Tensor:
        """One head's weight, (K, D)."""
        self._bring_up()
        kind, place = divmod(head, self._each)
        begun = self.heads[head].weight * float(self._start[head, 0, 0])
        rows = self.features[kind].rows[self.train]
        return torch.addmm(begun, self._rows[kind, :, 0, place].T, rows)

    def _logits_of(self, samples: Tensor) -> Tensor:
        return self._product(self.train[samples], self._among[:, samples])

    def _product(self, photos: Tensor, grams: Tensor) -> Tensor:
        rows = self._rows.flatten(2)  # (F, N, 2 H/F K)
        # A batched product of one is a third slower than a plain one.
        flat = (grams[0] @ rows[0])[None] if len(rows) == 1 else grams @ rows
        by_kind = flat.view(*flat.shape[:2], *self._rows.shape[2:])
        sums = by_kind.permute(1, 2, 0, 3, 4).reshape(len(photos), 2, *self.bias.shape)
        from_rows, from_momentum = _float32(self._passed[:, 0].T)[..., None]  # each (H, 1)
        logits: Tensor = (sums[:, 0] * from_rows).addcmul_(sums[:, 1], from_momentum)
        return logits.addcmul_(self._begun[photos], _float32(self._start[:, 0, 0])[:, None])

    def _move(self, samples: Tensor, grad: Tensor, lr: Column) -> None:
        turn, gain = self._turn(lr)
        with np.errstate(all="ignore"):  # a head that diverges is none of the others' business
            self._passed = turn @ self._passed
            self._start = turn @ self._start
            (aa, ac), (ca, cc) = self._passed.transpose(1, 2, 0)  # each (H,)
            determinant = aa * cc - ac * ca
            of_A = (cc * gain[0] - ac * gain[1]) / determinant
            of_C = (aa * gain[1] - ca * gain[0]) / determinant
        per_head = np.stack([of_A, of_C])  # (2, H)
        new = grad[:, None] * _float32(per_head)[:, :, None]  # (B, 2, H, K)
        by_kind = new.view(len(samples), 2, -1, *self._rows.shape[3:]).permute(2, 0, 1, 3, 4)
        self._rows.index_add_(1, samples, by_kind)
        if np.nanmin(abs(determinant), initial=1) < _LEAST_DETERMINANT:
            self._bring_up()

    def _turn(self, lr: Column) -> tuple[Columns, Columns]:
        """The 2x2 matrix of a step on (W, V) and what it adds to the two per gradient.

        SGD: V = mu V + decay W + g, then W -= lr V; Nesterov's W -= lr (decay W + g + mu V).
        """
        momentum, decay = self._momentum, self._decay
        lead = np.where(self._nesterov, 1 + momentum, 1.0)
        along = np.where(self._nesterov, momentum**2, momentum)
        # Without momentum V is never read; keeping its row regular keeps the matrix so.
        seen = (momentum != 0).astype(float)
        kept = np.where(seen, momentum, 1.0)
        turn = np.array([[1 - lr * decay * lead, -lr * along], [decay * seen, kept]])
        return turn.transpose(2, 0, 1), np.array([-lr * lead, seen])

    def _bring_up(self) -> None:
        """Apply to all rows what has been multiplied up, so that numbers stay of one size."""
        passed = self._passed.reshape(len(self.features), 1, self._each, 1, 4)
        aa, ac, ca, cc = _float32(passed).unbind(4)  # each (F, 1, H/F, 1)
        A, C = self._rows[:, :, 0], self._rows[:, :, 1]
        A_now = (A * aa).addcmul_(C, ac)
        C.mul_(cc).addcmul_(A, ca)
        A.copy_(A_now)
        self._passed = _identity(len(self.heads))


def _column(values: Iterable[float]) -> Column:
    return np.array(list(values), dtype=np.float64)


def _float32(values: Columns) -> Tensor:
    with np.errstate(over="ignore"):
        return torch.from_numpy(values.astype(np.float32))


def _identity(count: int) -> Columns:
    return np.tile(np.eye(2), (count, 1, 1))

"""Many linear classifiers as sums over training photos, for features longer than their list.

Equal to `heads.PrimalHeads` but for rounding. A step's gradient is a sum over its samples, so that
the weights W and their momentum V are

    W = a W0 + Aᵀ Z        V = v W0 + Cᵀ Z        Z (N, D): the training features

with A and C (N, K), and only the rows of the step's own samples get anything new. All the rest,
momentum and decay, is one 2x2 matrix a step, the same for every row: it is multiplied up aside,
and applied to the rows now and then. So a step costs B x N x K products in place of B x D x K
twice and six passes over (K, D) numbers. Where D is larger than N, that is far less.

A product of one batch is bound by reading A and C. So those of several steps to come are computed
at once, by what A and C are before them; what each step then adds reaches the later ones by a
product among the samples of these few steps alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldmark.training.heads import Column, Heads, float32

Matrices = NDArray[np.float64]  # (H, 2, 2)

MOST_AHEAD = 128  # samples whose products are computed at once; more gain nothing
LEAST_TIMES = 4  # as many photos there should be: samples ahead cost products of their own
_LEAST_DETERMINANT = 0.1  # rounding grows by its inverse between two times rows are brought up


@dataclass
class _Ahead:
    """Steps to come, and those of them taken.

    Attributes:
        samples: Of all of them in turn, (P,).
        grams: Products of their features, (F, P, P).
        sums: What A and C as they were before make of them, (F, P, 2, H / F, K).
        new: What they add to A and C, likewise.
        taken: How many samples.
        settled: How many of those A and C have.
    """

    samples: Tensor
    grams: Tensor
    sums: Tensor
    new: Tensor
    taken: int = 0
    settled: int = 0

    def begins(self, samples: Tensor) -> bool:
        """Whether these are the next."""
        return torch.equal(self.samples[self.taken : self.taken + len(samples)], samples)


class DualHeads(Heads):
    """Heads as sums over training photos; for features longer than the list of photos."""

    def __post_init__(self) -> None:
        super().__post_init__()
        features, train = self.features, self.train
        H, K = self.bias.shape
        self._each = H // len(features)  # heads
        self._among = self._grams(train)  # (F, N, N)
        # A and C as they are since `_passed` began.
        self._rows = torch.zeros(len(features), len(train), 2, self._each, K)
        nothing = torch.empty(0, dtype=torch.int64)
        self._ahead = _Ahead(nothing, self._among[:, :0, :0], self._rows[:, :0], self._rows[:, :0])
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

    def _grams(self, photos: Tensor) -> Tensor:
        """Products of photos, as positions in `features`, with those trained on, (F, P, N)."""
        # Many times as quick as gram[photos][:, train], which asks for every entry by itself.
        chosen = (kind.gram.index_select(0, photos) for kind in self.features)
        return torch.stack([rows.index_select(1, self.train) for rows in chosen])

    def foresee(self, steps: Sequence[Tensor], first: int) -> None:
        """Compute ahead what the sums as they are make of the samples of a few steps."""
        if self._ahead.taken < len(self._ahead.samples):
            return
        room = min(MOST_AHEAD, len(self.train) // LEAST_TIMES)
        last = first + 1
        while last < len(steps) and sum(map(len, steps[first : last + 1])) <= room:
            last += 1
        self._look_at(torch.cat(list(steps[first:last])))

    def _look_at(self, samples: Tensor) -> None:
        self._settle()
        grams = self._among.index_select(1, samples)  # (F, P, N)
        sums = self._product(grams)
        self._ahead = _Ahead(samples, grams.index_select(2, samples), sums, torch.empty_like(sums))

    def logits(self, photos: Tensor) -> Tensor:
        """Logits (P, H, K) of photos, int64 (P,), as positions in `features`."""
        self._settle()
        return self._combined(self._product(self._grams(photos)), photos) + self.bias

    def weight(self, head: int) -> Tensor:
        """One head's weight, (K, D)."""
        self._settle()
        self._bring_up()
        kind, place = divmod(head, self._each)
        begun = self.heads[head].weight * float(self._start[head, 0, 0])
        rows = self.features[kind].rows[self.train]
        return torch.addmm(begun, self._rows[kind, :, 0, place].T, rows)

    def _logits_of(self, samples: Tensor) -> Tensor:
        if not self._ahead.begins(samples):
            self._look_at(samples)
        ahead = self._ahead
        part = slice(ahead.taken, ahead.taken + len(samples))
        sums = ahead.sums[:, part]
        if ahead.taken:
            grams, new = ahead.grams[:, part, : ahead.taken], ahead.new[:, : ahead.taken]
            sums += _product(grams, new.flatten(2)).view_as(sums)
        return self._combined(sums, self.train[samples])

    def _product(self, grams: Tensor) -> Tensor:
        """What the sums make of P photos, (F, P, 2, H / F, K), given products (F, P, N)."""
        flat = _product(grams, self._rows.flatten(2))  # (F, P, 2 H/F K)
        return flat.view(*flat.shape[:2], *self._rows.shape[2:])

    def _combined(self, sums: Tensor, photos: Tensor) -> Tensor:
        """Logits (P, H, K) of photos, the bias aside, by what the sums make of them."""
        sums = sums.permute(1, 2, 0, 3, 4).reshape(len(photos), 2, *self.bias.shape)
        from_rows, from_momentum = float32(self._passed[:, 0].T)[..., None]  # each (H, 1)
        logits: Tensor = (sums[:, 0] * from_rows).addcmul_(sums[:, 1], from_momentum)
        return logits.addcmul_(self._begun[photos], float32(self._start[:, 0, 0])[:, None])

    def _move(self, samples: Tensor, grad: Tensor, lr: Column) -> None:
        turn, gain = self._turn(lr)
        with np.errstate(all="ignore"):  # a head that diverges is none of the others' business
            self._passed = turn @ self._passed
            self._start = turn @ self._start
            (aa, ac), (ca, cc) = self._passed.transpose(1, 2, 0)  # each (H,)
            determinant = aa * cc - ac * ca
            of_A = (cc * gain[0] - ac * gain[1]) / determinant
            of_C = (aa * gain[1] - ca * gain[0]) / determinant
        self._add(len(samples), grad, float32(np.stack([of_A, of_C])))
        if np.nanmin(abs(determinant), initial=1) < _LEAST_DETERMINANT:
            self._bring_up()

    def _add(self, count: int, grad: Tensor, shares: Tensor) -> None:
        """Note the step's gradient (B, H, K), of which A and C get their shares (2, H)."""
        F, _, _, each, K = self._rows.shape
        ahead, end = self._ahead, self._ahead.taken + count
        of_kind = grad.view(count, F, 1, each, K).transpose(0, 1)  # (F, B, 1, H/F, K)
        of_heads = shares.view(2, F, each, 1).transpose(0, 1)[:, None]  # (F, 1, 2, H/F, 1)
        torch.mul(of_kind, of_heads, out=ahead.new[:, ahead.taken : end])
        ahead.taken = end

    def _settle(self) -> None:
        """Add to A and C what the steps since the last time added."""
        ahead = self._ahead
        part = slice(ahead.settled, ahead.taken)
        self._rows.index_add_(1, ahead.samples[part], ahead.new[:, part])
        ahead.settled = ahead.taken

    def _turn(self, lr: Column) -> tuple[Matrices, Column]:
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
        aa, ac, ca, cc = float32(passed).unbind(4)  # each (F, 1, H/F, 1)
        taken = self._ahead.taken
        for rows in (self._rows, self._ahead.sums[:, taken:], self._ahead.new[:, :taken]):
            A, C = rows[:, :, 0], rows[:, :, 1]
            A_now = (A * aa).addcmul_(C, ac)
            C.mul_(cc).addcmul_(A, ca)
            A.copy_(A_now)
        self._passed = _identity(len(self.heads))


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Batched, but that a batch of one is a third slower than a plain product."""
    return (left[0] @ right[0])[None] if len(left) == 1 else left @ right


def _identity(count: int) -> Matrices:
    return np.tile(np.eye(2), (count, 1, 1))

"""Any number of heads through the same steps, as many at a time as is fastest."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fieldmark.training.dual_heads import DualHeads
from fieldmark.training.heads import (
    DropoutHeads,
    FrozenFeatures,
    Heads,
    HeadSettings,
    PrimalHeads,
)

Watch = Callable[[list[int], int, Heads], None]

# Of weights and momentum. A step of `PrimalHeads` goes through all of them, so they should stay in
# a shared third-level cache; `DualHeads` go through theirs once in several steps.
MOST_BYTES = {PrimalHeads: 8 << 20, DropoutHeads: 8 << 20, DualHeads: 64 << 20}


def train_heads(
    groups: Sequence[tuple[FrozenFeatures, Sequence[HeadSettings]]],
    train: Tensor,
    labels: Tensor,
    steps: Sequence[Tensor],
    watch: Watch,
    watch_after: Collection[int] = (),
    taken: int | None = None,
) -> Tensor:
    """Train all heads through the same steps, as many at a time as is fastest.

    Args:
        groups: Features of all photos, and the heads over them; H heads in all.
        train: int64 (N,), the photos trained on, as positions in the features.
        labels: int64 (N,), their classes.
        steps: The samples of each step, int64 (B,), positions in `train`.
        watch: Called with the numbers of the heads it is about, counted through all groups, the
            number of steps done and those heads, after the last step and those in `watch_after`.
        watch_after: Numbers of steps; 0 is before the first.
        taken: Samples of all steps, where these are only the first of a training.

    Returns:
        The loss of each step's samples before the step, (S, H), in nats.
    """
    losses = torch.empty(len(steps), sum(len(heads) for _, heads in groups))
    for chunk in _chunks(groups, len(train), taken or sum(map(len, steps))):
        part = chunk.make(chunk.features, train, labels, chunk.heads)
        for number, samples in enumerate(steps):
            if number in watch_after:
                watch(chunk.numbers, number, part)
            part.foresee(steps, number)
            losses[number, chunk.numbers[0] : chunk.numbers[-1] + 1] = part.step(number, samples)
        watch(chunk.numbers, len(steps), part)
    return losses


@dataclass
class _Chunk:
    """Heads that are trained together, by the same number over each kind of features."""

    make: type[Heads]
    features: list[FrozenFeatures]
    heads: list[HeadSettings]
    numbers: list[int]

    def takes(self, other: "_Chunk", room: int) -> bool:
        """Whether `other`, of one kind of features, fits in as well."""
        alike = self.make is other.make is DualHeads
        alike = alike and len(self.heads) == len(self.features) * len(other.heads)
        return alike and len(self.heads) + len(other.heads) <= room

    def take(self, other: "_Chunk") -> None:
        self.features += other.features
        self.heads += other.heads
        self.numbers += other.numbers


def _form(
    features: FrozenFeatures, heads: Sequence[HeadSettings], train: int, taken: int
) -> type[Heads]:
    """The cheaper form for so many photos to train on and samples taken, in products.

    A step of `PrimalHeads` also goes six times through all weights, which doubles its cost. Where
    rows are many, as with several views, and heads are few, the products of all pairs do not pay.
    """
    if any(head.drop_rate for head in heads):
        return DropoutHeads
    rows, D = features.rows.shape
    each = 2 * taken * len(heads) * len(heads[0].bias)
    return DualHeads if rows**2 * D + each * train < each * 2 * D else PrimalHeads


def _chunks(
    groups: Sequence[tuple[FrozenFeatures, Sequence[HeadSettings]]], train: int, taken: int
) -> Iterator[_Chunk]:
    """Cut long groups in parts, and join short ones, as far as there is room."""
    held: _Chunk | None = None
    first = 0
    for features, heads in groups:
        D = features.rows.shape[1]
        make = _form(features, heads, train, taken)  # only sums over photos can be joined
        width = train if make is DualHeads else D
        room = max(1, MOST_BYTES[make] // (4 * 2 * width * len(heads[0].bias)))
        for start in range(0, len(heads), room):
            part = list(heads[start : start + room])
            numbers = list(range(first + start, first + start + len(part)))
            chunk = _Chunk(make, [features], part, numbers)
            if held and held.takes(chunk, room):
                held.take(chunk)
                continue
            if held:
                yield held
            held = chunk
        first += len(heads)
    if held:
        yield held

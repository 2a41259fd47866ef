"""Numbers drawn under a name: the same wherever, whenever and in whatever order they are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from fieldmark.data.dataset import draw

Item = TypeVar("Item")


@dataclass(frozen=True)
class Chance:
    """The chance of one sample or batch, in place of a generator.

    Every draw has a name of its own, so threads share nothing, and a new draw changes no other.

    Attributes:
        key: What all draws depend on, such as (seed, epoch, sample).
    """

    key: tuple[str | int, ...]

    def below(self, count: int, *name: str | int) -> int:
        """An integer from 0 to `count` - 1; uniform to within 1 part in 10^15."""
        return draw(*self.key, *name) % count

    def uniform(self, low: float, high: float, *name: str | int) -> float:
        """A number in [low, high)."""
        return low + (high - low) * (draw(*self.key, *name) >> 11) * 2**-53

    def happens(self, probability: float, *name: str | int) -> bool:
        """True in this share of all draws."""
        return self.uniform(0, 1, *name) < probability

    def choice(self, items: Sequence[Item], *name: str | int) -> Item:
        """One of `items`."""
        return items[self.below(len(items), *name)]

    def shuffled(self, items: Sequence[Item], *name: str | int) -> list[Item]:
        """`items` in an order drawn for them."""
        ranks = [draw(*self.key, *name, place) for place in range(len(items))]
        return [items[place] for place in sorted(range(len(items)), key=ranks.__getitem__)]

    def beta(self, alpha: float, *name: str | int) -> float:
        """A number in [0, 1] from Beta(alpha, alpha)."""
        return float(
            np.random.Generator(np.random.Philox(key=draw(*self.key, *name))).beta(alpha, alpha)
        )

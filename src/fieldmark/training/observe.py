"""What can be seen of a step from outside: how far it went, what it cost."""

import time
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from fieldmark.training.optim import trained

Item = TypeVar("Item")


def norm(tensors: Iterable[Tensor]) -> float:
    """Length of all tensors taken as one vector."""
    return float(torch.nn.utils.get_total_norm(list(tensors)))


class StepObserver:
    """Measures single steps: the gradient's length, and the move's beside the weights' own.

    A ratio near 1e-3 is usual; far above, the rate is too high, far below, too low.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._parameters = trained(optimizer)
        self._before: list[Tensor] = []
        self._grad_norm = 0.0
        self._armed = False

    def arm(self) -> None:
        """Measure the next step."""
        self._armed = True

    @torch.no_grad()
    def before_step(self) -> None:
        """Called between gradient and step."""
        if self._armed:
            self._before = [parameter.detach().clone() for parameter in self._parameters]
            self._grad_norm = norm(p.grad for p in self._parameters if p.grad is not None)

    @torch.no_grad()
    def after_step(self) -> dict[str, float]:
        """`train/grad_norm` and `train/update_ratio` of a step that was to be measured."""
        if not self._armed:
            return {}
        moves = torch._foreach_sub([p.detach() for p in self._parameters], self._before)
        ratio = norm(moves) / max(norm(self._before), 1e-12)
        self._before, self._armed = [], False
        return {"train/grad_norm": self._grad_norm, "train/update_ratio": ratio}


class Stopwatch(Generic[Item]):
    """Passes items on and adds up how long they were waited for, and how long they were used."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self._waited = 0.0
        self._since = time.perf_counter()

    def __iter__(self) -> Iterator[Item]:
        """Iterate once."""
        return self

    def __next__(self) -> Item:
        """The next item, timed."""
        started = time.perf_counter()
        try:
            return next(self._items)
        finally:
            self._waited += time.perf_counter() - started

    def lap(self) -> dict[str, float]:
        """`train/data_seconds` and `train/compute_seconds` since the last lap."""
        now = time.perf_counter()
        waited, total = self._waited, now - self._since
        self._waited, self._since = 0.0, now
        return {"train/data_seconds": waited, "train/compute_seconds": total - waited}

    def leave_out(self, seconds: float) -> None:
        """Count this much of the lap as neither: it was a pause."""
        self._since += seconds

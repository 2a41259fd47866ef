"""A running average of the weights, which is often better than the last of them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of what a model trains.

    a <- d a + (1 - d) w after each step, with d = min(decay, (1 + n) / (10 + n)) at step n so that
    the start is forgotten quickly (as in TensorFlow's ExponentialMovingAverage). Statistics of
    BatchNorm layers are not averaged: they are averages already.

    Args:
        model: its parameters with gradient are averaged.
        decay: 0 to 1; 0.99 looks back about 100 steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._live = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._average = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` steps of the stage."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, parameter in self._live.items():
            self._average[name].lerp_(parameter, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the averaged weights; after, its own again."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def keep(self) -> None:
        """Give the model the averaged weights for good."""
        self._swap()

    def state(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return self._average

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put the averages back to a state kept before."""
        for name, value in state.items():
            self._average[name].copy_(value)

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._live.items():
            own = parameter.detach().clone()
            parameter.copy_(self._average[name])
            self._average[name].copy_(own)

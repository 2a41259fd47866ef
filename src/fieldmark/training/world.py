"""Several processes at one training: who this one is, what is its part, what all of them say.

A launcher such as `torchrun` starts the processes and tells each of them its number; accelerate
joins them. The gradient of a step is the sum over the processes, each of which computes that of its
own part of every batch, so parts of unequal size weigh by their samples and nothing is padded.
Processes that hold the same weights and add the same gradient hold the same weights again.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Item = TypeVar("Item")


@dataclass(frozen=True)
class World:
    """The processes of a training, seen from one of them; alone unless told otherwise.

    Each method marked *together* must be called by every process, in the same order.

    Attributes:
        rank: Number of this process, from 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def part(self, count: int) -> range:
        """This process's part of `count` samples; parts are neighbours and differ by one at most.

        Where there are fewer samples than processes, some parts are empty.
        """
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def turns(self, items: Sequence[Item]) -> Sequence[Item]:
        """Those of `items` that are this process's turn: every `size`-th."""
        return items[self.rank :: self.size]

    def wait(self) -> None:
        """Together: go on when every process has come here."""
        if self.size > 1:
            _state().wait_for_everyone()

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Together: the leader does what is inside, then the others, who find its results."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()

    def heard(self, said: Item) -> Item:
        """Together: what the leader says, which others take in place of their own."""
        if self.size == 1:
            return said
        from accelerate.utils import broadcast_object_list  # noqa: PLC0415

        return cast("Item", broadcast_object_list([said])[0])

    def all_said(self, said: Item) -> list[Item]:
        """Together: what each process says, by rank."""
        if self.size == 1:
            return [said]
        from accelerate.utils import gather_object  # noqa: PLC0415

        return cast("list[Item]", gather_object([said]))

    def rows(self, row: Tensor) -> Tensor:
        """Together: the row (N,) of each process, as (size, N)."""
        if self.size == 1:
            return row[None]
        from accelerate.utils import gather  # noqa: PLC0415

        return cast("Tensor", gather(row[None].to(_state().device))).to(row.device)

    def sum(self, tensor: Tensor) -> Tensor:
        """Together: the sum of what each process has, the same bits on all of them."""
        if self.size == 1:
            return tensor
        from accelerate.utils import reduce  # noqa: PLC0415

        return cast("Tensor", reduce(tensor.to(_state().device), "sum")).to(tensor.device)

    @torch.no_grad()
    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Together: replace each gradient by the sum over the processes.

        A parameter that no process has a gradient for is left without one.
        """
        if self.size == 1:
            return
        device = parameters[0].device
        there = torch.tensor([float(p.grad is not None) for p in parameters], device=device)
        zero = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        total = self.sum(torch.cat([there, *(gradient.flatten() for gradient in zero)]))
        held, rest = total[: len(parameters)].tolist(), total[len(parameters) :]
        parts = torch.split(rest, [p.numel() for p in parameters])
        for parameter, has, gradient, part in zip(parameters, held, zero, parts, strict=True):
            if has:
                parameter.grad = gradient.copy_(part.view_as(gradient))


ALONE = World()


@cache
def world() -> World:
    """The processes a launcher has started for this training; `ALONE` where there is none."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    state = _state()
    return World(state.process_index, state.num_processes)


@cache
def _state() -> Any:
    from accelerate import PartialState  # noqa: PLC0415 - takes long, and most trainings are alone

    # NCCL refuses two processes on one GPU; those that take turns talk through the processor.
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return PartialState(cpu=torch.cuda.device_count() < here)

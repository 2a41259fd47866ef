"""One stage's steps: freeze, iterate, and prove that what was frozen stayed so."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from fieldmark.errors import TrainingError
from fieldmark.layers.dropout import drawn_for
from fieldmark.layers.weights import tensors_hash
from fieldmark.training.loss import PLAIN, Loss
from fieldmark.training.memory import Passes, is_out_of_memory, moving_statistics, undone_on_error
from fieldmark.training.nonfinite import all_finite, first_bad
from fieldmark.training.optim import ParameterPlan, shape_gradients, trained
from fieldmark.training.world import ALONE, World

_NOT_AGAIN = "but not when it was taken once more: the computer's memory may be unsound"


class Batch(NamedTuple):
    """What one forward pass takes: which samples, what the network sees of them, their classes."""

    indices: Tensor  # (B,) int64
    inputs: Tensor  # (B, ...)
    labels: Tensor  # (B,) int64, or probabilities (B, K) where samples are mixed


def set_trainable(model: nn.Module, plan: ParameterPlan, *, train_batch_norm: bool) -> None:
    """Make exactly the plan's trained parameters move, and put each module in its mode.

    A module none of whose parameters train is in eval mode, so its BatchNorm statistics and its
    dropout stand still. `train_batch_norm` lets the statistics of the other BatchNorms move.
    """
    trained = {name for group in plan.trained for name in group.names}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    _set_mode(model, train_batch_norm)


def _set_mode(module: nn.Module, train_batch_norm: bool) -> None:
    if _is_frozen(module) or (isinstance(module, _BatchNorm) and not train_batch_norm):
        module.eval()
        return
    module.training = True
    for child in module.children():
        _set_mode(child, train_batch_norm)


def _is_frozen(module: nn.Module) -> bool:
    """Whether it has parameters, none of which train."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(p.requires_grad for p in parameters)


def frozen_hash(model: nn.Module) -> str:
    """SHA-256 over everything that must not move: 64 hex digits.

    That is each parameter without gradient and each buffer, but for the statistics of BatchNorm
    layers in training mode that are not frozen themselves. Equal before and after a stage, or the
    stage was not what it says.
    """
    moving = {
        f"{name}.{buffer}" if name else buffer
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.training and not _is_frozen(module)
        for buffer, _ in module.named_buffers(recurse=False)
    }
    parameters = (item for item in model.named_parameters() if not item[1].requires_grad)
    buffers = (item for item in model.named_buffers() if item[0] not in moving)
    return tensors_hash(chain(parameters, buffers))


def train_steps(
    network: Callable[[Tensor], Tensor],
    steps: Iterable[Sequence[Batch]],
    optimizer: Optimizer,
    *,
    model: nn.Module,
    factor: Callable[[int], float],
    seed: int,
    loss: Loss = PLAIN,
    clip_norm: float | None = None,
    before_step: Callable[[], None] = lambda: None,
    first: int = 0,
    name: Callable[[int], str] = str,
    passes: Passes | None = None,
    look: bool = True,
    world: World = ALONE,
) -> Iterator[float]:
    """Take one optimiser step for each group of batches and yield its mean loss in nats.

    The gradient of a group is that of the mean over all of its samples, so four batches of 8 step
    as one of 32 does. The caller decides between two steps what to record and when to stop.

    Args:
        network: inputs to logits (B, K).
        steps: this process's part of each step's batches; several where gradients accumulate.
        optimizer: its groups carry `base_lr`.
        model: what `network` computes with, wholly or in part.
        factor: step, from 0, to the multiplier of every `base_lr`.
        seed: of dropout and its like: masks depend on it, the step and the sample.
        loss: what is lowered.
        clip_norm: longest gradient a step may take.
        before_step: called when the gradient is there and nothing has moved.
        first: the number of the first step, where an interrupted stage goes on.
        name: what a sample is called in a message.
        passes: what to do where a batch does not fit into memory.
        look: at each gradient, beside the loss; needless where `gradient_is_as_good_as_loss`.
        world: the processes that share each step; all of them have its gradient and its loss.

    Raises:
        TrainingError: the loss or the gradient is no longer finite, says at which step, for which
            samples and where first; or memory does not suffice for one sample.
    """
    passes = passes or Passes()
    statistics = moving_statistics(model)
    for step, batches in enumerate(steps, start=first):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor(step)
        weight = _agree(world, sum(loss.weight(batch.labels) for batch in batches), passes)
        gradient = _Gradient(network, optimizer, loss, weight, seed + step, world.rank, statistics)
        total, parts = gradient.fitting(batches, passes)
        total = _add_up(world, total, optimizer)
        bad = _what_is_not_finite(total, optimizer, whole=look)
        if bad:
            told = world.all_said(_origin(model, gradient, parts, name))
            raise TrainingError(_telling(bad, step, optimizer, told))
        before_step()
        _move(optimizer, clip_norm)
        yield total


def _move(optimizer: Optimizer, clip_norm: float | None) -> None:
    """The step itself, whose memory no smaller batch makes less."""
    try:
        shape_gradients(optimizer, clip_norm)
        optimizer.step()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        weights = sum(parameter.nbytes for parameter in trained(optimizer))
        raise TrainingError(
            f"Memory does not suffice for the optimiser's step on {weights / 1e6:,.0f} MB of "
            "weights, whatever the batch. End other programs and go on with --resume, or freeze "
            "more of the backbone (`train`); sgd keeps half of what adam keeps."
        ) from error


@dataclass(frozen=True)
class _Gradient:
    """The gradient of one step's mean loss, left in the parameters."""

    network: Callable[[Tensor], Tensor]
    optimizer: Optimizer
    loss: Loss
    weight: float
    seed: int  # of the step
    rank: int
    statistics: Sequence[Tensor]

    def take(self, batches: Sequence[Batch]) -> float:
        """Compute it anew and return the loss, or this process's share of it."""
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        # What a backbone draws knows no sample; no two processes may draw the same.
        seed = (self.seed + (self.rank << 40)) % 2**63
        with seeded(seed, trained(self.optimizer)[0].device):
            for batch in batches:
                with drawn_for(self.seed, batch.indices):
                    logits = self.network(batch.inputs)
                part = self.loss.total(logits, batch.labels) / self.weight
                part.backward()  # type: ignore[no-untyped-call]
                total += part.item()
        return total

    def fitting(self, batches: Sequence[Batch], passes: Passes) -> tuple[float, list[Batch]]:
        """The same in passes that memory has room for; returns them too."""
        largest = max(len(batch.indices) for batch in batches)
        failed = None
        while True:
            parts = [part for batch in batches for part in _cut(batch, passes.most)]
            try:
                with undone_on_error(self.statistics):
                    total = self.take(parts)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                tried = max(len(part.indices) for part in parts)
                failed = failed or tried
                passes.halve(tried, error)
                continue
            if failed:
                passes.tell(largest, failed, norms=bool(self.statistics))
            return total, parts


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch draws from `seed`, on the processor and on a GPU; after, as if nothing was."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        generators.append(torch.cuda.default_generators[device.index or 0])
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def gradient_is_as_good_as_loss(network: object) -> bool:
    """Whether a finite loss proves a finite gradient, if the inputs are finite.

    So it is for a linear classifier, with or without dropout: its gradient is a sum of inputs times
    differences of probabilities.
    """
    return isinstance(network, nn.Sequential) and all(
        isinstance(layer, nn.Linear | nn.Dropout) for layer in network
    )


def _agree(world: World, weight: float, passes: Passes) -> float:
    """What a step weighs in all processes, whose passes are from now on the shortest of any."""
    if world.size == 1:
        return weight
    own = torch.tensor([weight, passes.most or math.inf], dtype=torch.float64)
    weights, most = world.rows(own).T
    if most.isfinite().any():
        passes.join(int(most.min()))
    return float(weights.sum())


def _add_up(world: World, loss: float, optimizer: Optimizer) -> float:
    """The whole loss, and in the parameters the whole gradient, of the shares of all processes."""
    if world.size == 1:
        return loss
    world.add_gradients(trained(optimizer))
    return float(world.sum(torch.tensor(loss, dtype=torch.float64)))


def _cut(batch: Batch, most: int | None) -> list[Batch]:
    if len(batch.indices) == 0:  # this process has no part of a small batch
        return []
    if most is None:
        return [batch]
    return [
        Batch(*parts) for parts in zip(*(torch.split(part, most) for part in batch), strict=True)
    ]


def _what_is_not_finite(loss: float, optimizer: Optimizer, *, whole: bool) -> str | None:
    """Loss or, where the whole gradient is to be looked at, gradient."""
    if not math.isfinite(loss):
        return f"The loss became {loss}"
    gradients = (p.grad for p in trained(optimizer) if whole and p.grad is not None)
    return (
        None if all_finite(gradients) else f"The gradient became infinite or nan (loss {loss:.3g})"
    )


def _telling(bad: str, step: int, optimizer: Optimizer, origins: Sequence[str | None]) -> str:
    """The message of a failed step, with the first origin a process found."""
    rate = max(group["lr"] for group in optimizer.param_groups)
    origin = next(filter(None, origins), _NOT_AGAIN)
    return f"{bad} at step {step + 1} of the stage, at lr {rate:g}, {origin}."


def _origin(
    model: nn.Module, gradient: _Gradient, batches: Sequence[Batch], name: Callable[[int], str]
) -> str | None:
    """The samples of a failed step, the first bad tensor and what to do; None if it is not here."""
    samples = {
        int(index): bool(inputs.isfinite().all())
        for batch in batches
        for index, inputs in zip(batch.indices, batch.inputs, strict=True)
    }
    bad = [sample for sample, finite in samples.items() if not finite]
    names = [name(sample) for sample in bad or samples]
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    if bad:
        return f"on {shown}. First bad: the inputs. Look at these photos, or change `precision`"
    first = first_bad(model, lambda: gradient.take(batches))
    advice = "Lower the stage's lr tenfold, or give it a warmup"
    return first and f"on {shown}. First bad: {first}. {advice}"

"""One stage's steps: freeze, iterate, and prove that what was frozen stayed so."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from fieldmark.errors import TrainingError
from fieldmark.layers.weights import tensors_hash
from fieldmark.training.loss import PLAIN, Loss
from fieldmark.training.optim import ParameterPlan, shape_gradients


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
    parameters = list(module.parameters())
    frozen = bool(parameters) and not any(p.requires_grad for p in parameters)
    if frozen or (isinstance(module, _BatchNorm) and not train_batch_norm):
        module.eval()
        return
    module.training = True
    for child in module.children():
        _set_mode(child, train_batch_norm)


def frozen_hash(model: nn.Module) -> str:
    """SHA-256 over everything that must not move: 64 hex digits.

    That is each parameter without gradient and each buffer, but for the statistics of BatchNorm
    layers in training mode. Equal before and after a stage, or the stage was not what it says.
    """
    moving = {
        f"{name}.{buffer}" if name else buffer
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.training
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
    factor: Callable[[int], float],
    seed: int,
    loss: Loss = PLAIN,
    clip_norm: float | None = None,
    before_step: Callable[[], None] = lambda: None,
    first: int = 0,
    name: Callable[[int], str] = str,
) -> Iterator[float]:
    """Take one optimiser step for each group of batches and yield its mean loss in nats.

    The gradient of a group is that of the mean over all of its samples, so four batches of 8 step
    as one of 32 does. The caller decides between two steps what to record and when to stop.

    Args:
        network: inputs to logits (B, K).
        steps: the batches of each step; more than one where gradients accumulate.
        optimizer: its groups carry `base_lr`.
        factor: step, from 0, to the multiplier of every `base_lr`.
        seed: of dropout and its like, which depend on it and on the step alone.
        loss: what is lowered.
        clip_norm: longest gradient a step may take.
        before_step: called when the gradient is there and nothing has moved.
        first: the number of the first step, where an interrupted stage goes on.
        name: what a sample is called in a message.

    Raises:
        TrainingError: the loss is no longer finite; says at which step and for which samples.
    """
    for step, batches in enumerate(steps, start=first):
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor(step)
        optimizer.zero_grad(set_to_none=True)
        weight = sum(loss.weight(batch.labels) for batch in batches)
        total = 0.0
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed((seed + step) % 2**63)
            for batch in batches:
                part = loss.total(network(batch.inputs), batch.labels) / weight
                part.backward()  # type: ignore[no-untyped-call]
                total += part.item()
        if not abs(total) < float("inf"):
            raise TrainingError(_non_finite(total, step, batches, optimizer, name))
        before_step()
        shape_gradients(optimizer, clip_norm)
        optimizer.step()
        yield total


def _non_finite(
    loss: float,
    step: int,
    batches: Sequence[Batch],
    optimizer: Optimizer,
    name: Callable[[int], str],
) -> str:
    samples = [name(int(index)) for batch in batches for index in batch.indices]
    rate = max(group["lr"] for group in optimizer.param_groups)
    more = f" and {len(samples) - 4} more" if len(samples) > 4 else ""
    return (
        f"The loss became {loss} at step {step + 1} of the stage, at lr {rate:g}, on "
        f"{', '.join(samples[:4])}{more}. Lower the stage's lr tenfold, or give it a warmup."
    )

"""Where a number that is none came from: the first bad tensor of a failed step."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every entry is a number and not infinite.

    Sums are quick and pass nothing on that is not finite; they may overflow of themselves, so only
    then the entries are looked at one by one.
    """
    found = list(tensors)
    if not found or bool(torch.stack([tensor.sum() for tensor in found]).sum().isfinite()):
        return True
    return all(map(_is_finite, found))


def first_bad(model: nn.Module, take_again: Callable[[], float]) -> str | None:
    """Name the first tensor that is not finite when a failed step is taken once more, if any is.

    Looked for in the order in which they come about: what each module gives, the loss, gradients.

    Args:
        model: whose modules and parameters are named.
        take_again: computes the step's loss and gradients as before, and returns the loss.
    """
    outputs: list[str] = []
    gradients: list[str] = []
    with _watched(model, outputs, gradients):
        loss = take_again()
    of_loss = [] if math.isfinite(loss) else ["the loss, of finite logits"]
    return next(iter(outputs + of_loss + gradients), None)


def bad_logits(
    model: nn.Module, logits: NDArray[np.float32], name: Callable[[int], str]
) -> str | None:
    """What is wrong with logits (N, K) that an evaluation gave, and why; None if all are numbers.

    Args:
        model: what gave them; the first of its tensors that is not finite is named.
        logits: of N samples.
        name: what a sample is called in a message.
    """
    rows = np.flatnonzero(~np.isfinite(logits).all(axis=1)).tolist()
    if not rows:
        return None
    shown = ", ".join(map(name, rows[:4])) + (f" and {len(rows) - 4} more" if rows[4:] else "")
    held = chain(model.named_parameters(), model.named_buffers())
    first = next(
        (key for key, tensor in held if not _is_finite(tensor)), "the logits, of finite weights"
    )
    return (
        f"the logits of {shown} became infinite or nan. First bad: {first}. "
        "Lower the stage's lr tenfold, or give it a warmup."
    )


@contextmanager
def _watched(model: nn.Module, outputs: list[str], gradients: list[str]) -> Iterator[None]:
    """Inside, note each bad output and gradient as it comes about."""

    def after_forward(name: str, module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and not _is_finite(output):
            bad = [key for key, p in module.named_parameters(name) if not _is_finite(p)]
            why = f", for {bad[0]} is not finite" if bad else ""
            outputs.append(f"the output of {name or 'the model'}{why}")

    def after_backward(name: str, gradient: Tensor) -> None:
        if not _is_finite(gradient):
            gradients.append(f"the gradient of {name}")

    handles = [
        module.register_forward_hook(partial(after_forward, name))
        for name, module in model.named_modules()
    ]
    handles += [
        parameter.register_hook(partial(after_backward, name))  # type: ignore[no-untyped-call]
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _is_finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())

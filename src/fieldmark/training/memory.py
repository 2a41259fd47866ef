"""What to do when a step does not fit into memory: take it in smaller passes, and say so."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fieldmark.errors import TrainingError

_SAYINGS = ("can't allocate memory", "not enough memory", "out of memory", "_alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice; torch's allocators have many ways."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(s in str(error).lower() for s in _SAYINGS)


def _warn(line: str) -> None:
    warnings.warn(line.strip(), stacklevel=3)


class Passes:
    """How many samples go through the network at once: whole batches, or what memory allows.

    A batch cut in passes gives the same gradient, for each pass weighs by its samples. What differs
    is what is measured a pass: BatchNorm in training sees fewer samples at a time. Photos are mixed
    before, and dropout masks belong to samples, so neither does.

    Args:
        most: samples in a pass; None for whole batches.
        tell: is told of each change, once it works; by default it is a warning.
    """

    def __init__(self, most: int | None = None, tell: Callable[[str], None] = _warn) -> None:
        self.most = most
        self.say = tell

    def halve(self, largest: int, error: BaseException) -> None:
        """Go on with half of the pass that did not fit.

        Raises:
            TrainingError: it was one sample.
        """
        if largest == 1:
            first = str(error).strip().partition("\n")[0] or "MemoryError"
            raise TrainingError(
                f"A single photo does not fit into memory ({first}). Lower `data.image_size`, "
                "freeze more of the backbone (`train`), or end other programs."
            ) from error
        self.most = -(-largest // 2)

    def join(self, most: int) -> None:
        """Take no more at a time than another process of the training has room for."""
        if most != self.most:
            self.most = most
            self.say(f"  out of memory in one process: none takes more than {most} at a time now")

    def tell(self, batch: int, failed: int, *, norms: bool) -> None:
        """Say that batches of `batch` samples are cut now, since `failed` at once did not fit."""
        most = self.most or batch
        size = f"{most}" if batch % most == 0 else f"up to {most}"
        line = (
            f"out of memory at batch {failed}: steps are now taken as {-(-batch // most)} x {size}"
        )
        self.say(f"  {line}" + (", and BatchNorm measures each alone" if norms else ""))


def in_passes(
    compute: Callable[[Tensor], Sequence[Tensor]], batch: Tensor, passes: Passes
) -> list[Tensor]:
    """`compute(batch)` without gradients, in smaller passes where memory does not suffice for all.

    Args:
        compute: (B, ...) to some (B, ...), each sample by itself.
        batch: (B, ...).
        passes: what is known so far, and who is told.

    Raises:
        TrainingError: one sample does not fit.
    """
    failed = None
    while True:
        size = min(passes.most or len(batch), len(batch))
        try:
            seen = [compute(part) for part in torch.split(batch, size)]
            found = [torch.cat(parts) for parts in zip(*seen, strict=True)]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            failed = failed or size
            passes.halve(size, error)
            continue
        if failed:
            passes.say(f"  out of memory at {failed} photos seen at once: now {size} at a time")
        return found


def moving_statistics(model: nn.Module) -> list[Tensor]:
    """What BatchNorm layers in training mode change in a forward pass."""
    norms = (m for m in model.modules() if isinstance(m, _BatchNorm) and m.training)
    return [buffer for norm in norms for buffer in norm.buffers(recurse=False)]


@contextmanager
def undone_on_error(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Put the tensors back as they were if what is inside fails."""
    before = [tensor.clone() for tensor in tensors]
    try:
        yield
    except BaseException:
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)
        raise

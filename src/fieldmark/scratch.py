"""Tensors too large to hold: the disk lends the room, and memory keeps what it can."""

import os
import tempfile
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fieldmark import durable, machine
from fieldmark.disk_room import check_room

MOST_GB = 4.0  # unless $FIELDMARK_MEMORY_GB says otherwise


def most_bytes() -> int:
    """How many bytes of features a process holds in memory; more are memory-mapped.

    Raises:
        SettingError: $FIELDMARK_MEMORY_GB is no size.
    """
    return machine.gigabytes("FIELDMARK_MEMORY_GB", MOST_GB, "of features are held in memory")


def empty_rows(shape: Sequence[int], folder: Path, *, held: int = 0) -> Tensor:
    """A float32 tensor to be filled: in memory, or in a file without a name where that is too much.

    Args:
        shape: Of the tensor.
        folder: Where the file's room is taken from, until the tensor is gone.
        held: Bytes of such tensors that are in memory by now.

    Raises:
        DiskError: the disk has no room for it.
    """
    size = 4 * prod(shape)
    if held + size <= most_bytes():
        return torch.empty(*shape)
    durable.make_folder(folder)
    check_room(folder / "rows", size)
    with tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # else a disk that fills up ends the process
            os.posix_fallocate(file.fileno(), 0, size)
        return torch.from_numpy(np.memmap(file, np.float32, "w+", shape=tuple(shape)))

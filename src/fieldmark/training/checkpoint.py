"""Where a training is, in one file: weights, optimiser and position, without pickle.

One safetensors file holds both the tensors and, as JSON in its header, everything else. It is
replaced as a whole, so a checkpoint is either the old one or the new one, never half of each.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from fieldmark import durable
from fieldmark.errors import RecordError
from fieldmark.layers.weights import tensors_hash
from fieldmark.training.optim import trained

FORMAT = 1


class Checkpoint(NamedTuple):
    """What was kept: the tensors by name, and where the training was."""

    tensors: dict[str, Tensor]
    position: dict[str, Any]

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix`, without it."""
        return {
            name.removeprefix(prefix): value
            for name, value in self.tensors.items()
            if name.startswith(prefix)
        }


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: Optimizer | None,
    position: Mapping[str, Any],
    average: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint in place of the one before.

    Args:
        path: the file.
        model: its whole state is kept.
        optimizer: None between two stages, where each begins with a new one.
        position: JSON values that say where the training is.
        average: a running average of the weights, where there is one.
    """
    tensors = {f"model.{key}": value for key, value in model.state_dict().items()}
    tensors |= {f"average.{key}": value for key, value in (average or {}).items()}
    numbers: dict[str, Any] = {}
    if optimizer is not None:
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                name = f"optimizer.{index}.{key}"
                if isinstance(value, Tensor):
                    tensors[name] = value
                else:
                    numbers[name] = value
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    header = {
        "format": str(FORMAT),
        "position": json.dumps(dict(position)),
        "numbers": json.dumps(numbers),
    }
    header["checksum"] = _checksum(tensors, header)
    size = sum(value.nbytes for value in tensors.values())
    with durable.replacing(path, size=size) as temporary:
        save_file(tensors, temporary, metadata=header)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint whole.

    Raises:
        RecordError: it is damaged, or of a newer Fieldmark.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RecordError(f"{path} can't be read: {error}. Remove it to start again.") from error
    if header.get("format") != str(FORMAT):
        raise RecordError(
            f"{path} has format {header.get('format')}, this Fieldmark reads {FORMAT}. "
            "Use the version that wrote it."
        )
    if header.pop("checksum", None) != _checksum(tensors, header):
        raise RecordError(f"{path} is damaged: its checksum differs. Remove it to start again.")
    position = json.loads(header["position"])
    for name, value in json.loads(header["numbers"]).items():
        tensors[name] = torch.tensor(value)
    return Checkpoint(tensors, position)


def restore(checkpoint: Checkpoint, model: nn.Module, optimizer: Optimizer | None) -> None:
    """Put the model, and the optimiser where there is one, back to where they were.

    Raises:
        RecordError: the checkpoint is of another model.
    """
    state = checkpoint.under("model.")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise RecordError(f"The checkpoint is of another model: {reason}") from error
    if optimizer is None:
        return
    parameters = trained(optimizer)
    kept: dict[int, dict[str, Tensor]] = {}
    for name, value in checkpoint.under("optimizer.").items():
        index, _, key = name.partition(".")
        like = parameters[int(index)]
        if value.shape == like.shape:
            # Files know no memory format, and fused optimisers walk raw memory: a momentum whose
            # layout is not its parameter's would be added to the wrong entries.
            value = torch.empty_like(like, requires_grad=False).copy_(value)  # noqa: PLW2901
        kept.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": kept, "param_groups": groups})


def _checksum(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    words = json.dumps(dict(sorted(header.items())))
    return sha256(f"{words} {tensors_hash(tensors.items())}".encode()).hexdigest()

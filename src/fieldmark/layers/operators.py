"""What the custom operators of this folder share.

An operator registered with torch is opaque to `torch.compile`: it runs as written, needs no
compiler, and breaks no graph.
"""

from typing import Any


# torch passes `output` by name.
def keep_tensors(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    """Save an operator's tensors for its backward, lists of them flattened, without numbers."""
    kept: list[Any] = []
    for value in inputs:
        if isinstance(value, list | tuple):
            kept += value
        elif not isinstance(value, int):
            kept.append(value)
    ctx.save_for_backward(*kept)

"""What several networks make of the same feature maps; sketches share one Gram matrix."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fieldmark.layers.pooling import CompactBilinearPooling
from fieldmark.layers.sketch import TensorSketch, sketches_of


@torch.no_grad()
def seen_together(networks: Sequence[nn.Module], maps: Tensor) -> list[Tensor]:
    """What each network makes of the maps, the same bits as by itself.

    A Gram matrix costs several times as much as adding it into a sketch, and is the same for all.

    Args:
        networks: Each from maps to `(B, ...)`; those that begin with a sketch may share.
        maps: `(B, C, H, W)` float32; where no network begins with a sketch, of any shape.
    """
    sharing: dict[int, TensorSketch] = {}
    rest = list(networks)
    for number, network in enumerate(networks):
        parts = list(network) if isinstance(network, nn.Sequential) else []
        match parts:
            case [CompactBilinearPooling(sketch=TensorSketch() as sketch), *head] if (
                sketch.takes_gram(maps.flatten(2))
            ):
                sharing[number], rest[number] = sketch, nn.Sequential(*head)
    if not sharing:
        return [network(maps) for network in networks]
    found = sketches_of(maps.flatten(2), list(sharing.values()))  # (B, D) each
    pooled = dict(zip(sharing, found, strict=True))
    return [network(pooled.get(number, maps)) for number, network in enumerate(rest)]

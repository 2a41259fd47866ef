"""What networks make of maps together is what each makes of them alone."""

import pytest
import torch
from torch import nn

from fieldmark.layers import gram
from fieldmark.layers.activation import L2Normalize, SignedSqrt
from fieldmark.layers.pooling import make_pooling
from fieldmark.layers.together import seen_together

CHANNELS = 130


def compact(dim: int, seed: int = 0, **options: object) -> nn.Sequential:
    pooling = make_pooling("compact_bilinear", CHANNELS, seed=seed, sketch_dim=dim, **options)
    return nn.Sequential(pooling, SignedSqrt(), L2Normalize())


@pytest.mark.parametrize("side", [3, 14])
@pytest.mark.parametrize("threads", [1, 2])
def test_each_network_sees_the_bits_it_sees_alone(
    side: int, threads: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("fieldmark.layers.operators._LEAST_SHARE", 1)
    monkeypatch.setattr("fieldmark.layers.gram._LEAST_STRIP", 1)
    networks = [
        compact(4096),
        compact(512, seed=1),
        compact(8),  # which may take the spectrum instead
        compact(64, method="random_maclaurin"),
        compact(512, pool=False),
        nn.Sequential(make_pooling("average", CHANNELS, seed=0)),
        nn.Identity(),
    ]
    maps = torch.randn(5, CHANNELS, side, side, generator=torch.Generator().manual_seed(0))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = seen_together(networks, maps)
        for network, seen in zip(networks, together, strict=True):
            assert torch.equal(seen, network(maps))
    finally:
        torch.set_num_threads(before)


def test_sketches_of_one_map_share_its_gram_matrix(monkeypatch: pytest.MonkeyPatch):
    made: list[int] = []
    add_strips = gram._add_strips

    def note(x: torch.Tensor, strips: list[object], sketches: list[torch.Tensor]) -> None:
        made.append(len(sketches))
        add_strips(x, strips, sketches)

    monkeypatch.setattr(gram, "_add_strips", note)
    maps = torch.randn(2, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(0))
    networks = [compact(2048), compact(1024), compact(1024, seed=1)]
    found = seen_together(networks, maps)
    assert made == [3]
    assert [tuple(rows.shape) for rows in found] == [(2, 2048), (2, 1024), (2, 1024)]
    assert not any(rows.requires_grad for rows in found)

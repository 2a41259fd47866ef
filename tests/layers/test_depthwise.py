"""The quick backward is torch's own, rearranged."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fieldmark.layers import depthwise
from fieldmark.layers.depthwise import QuickDepthwise, depthwise_conv2d

GEOMETRIES = [
    (side, kernel, stride, padding)
    for side in (9, 10)
    for kernel in (3, 5, 7)
    for stride in (1, 2, 3)
    for padding in (0, 1, kernel // 2)
]


def _map(side: int, kernel: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(side * kernel)
    x = torch.randn(2, 4, side, side + 1, generator=generator, dtype=dtype)
    weight = torch.randn(4, 1, kernel, kernel, generator=generator, dtype=dtype)
    return x.requires_grad_(), weight.requires_grad_()


@pytest.mark.parametrize(("side", "kernel", "stride", "padding"), GEOMETRIES)
def test_gradients_are_those_of_torch(side: int, kernel: int, stride: int, padding: int) -> None:
    x, weight = _map(side, kernel, torch.float64)
    ours = depthwise_conv2d(x, weight, stride=stride, padding=padding)
    theirs = F.conv2d(x, weight, stride=stride, padding=padding, groups=4)
    assert torch.equal(ours, theirs)
    grad = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1), dtype=ours.dtype)
    for mine, reference in zip(
        torch.autograd.grad(ours, (x, weight), grad),
        torch.autograd.grad(theirs, (x, weight), grad),
        strict=True,
    ):
        torch.testing.assert_close(mine, reference)


def test_gradcheck() -> None:
    x, weight = _map(9, 5, torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: depthwise_conv2d(a, b, stride=2), (x, weight))


def _network(*, bias: bool) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=bias),
            nn.Conv2d(8, 8, 5, stride=2, padding=2, groups=8, bias=bias),
            nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=bias),
        )


@pytest.mark.parametrize("bias", [False, True])
def test_a_network_within_it_has_the_same_gradients(bias: bool) -> None:
    network = _network(bias=bias)
    images = torch.randn(2, 3, 19, 19, generator=torch.Generator().manual_seed(2))

    def gradients() -> list[Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = network(images).float().square().mean()
        return list(torch.autograd.grad(loss, list(network.parameters())))

    plain = gradients()
    with QuickDepthwise():
        quick = gradients()
    for mine, reference in zip(quick, plain, strict=True):
        torch.testing.assert_close(mine, reference, rtol=0.02, atol=0.002)


def test_only_depthwise_bfloat16_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def counted(x: Tensor, weight: Tensor, **options: int) -> Tensor:
        taken.append(weight.shape[-1])
        return depthwise_conv2d(x, weight, **options)

    monkeypatch.setattr(depthwise, "depthwise_conv2d", counted)
    network, images = _network(bias=False), torch.zeros(1, 3, 19, 19)
    with QuickDepthwise():
        network(images)
        assert not taken  # float32 has quick kernels of its own
        network.bfloat16()(images.bfloat16())
    assert taken == [5]
    network(images.bfloat16())
    assert taken == [5]

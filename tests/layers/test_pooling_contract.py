"""What every pooling promises, held for all of them alike."""

import pytest
import torch
from torch import nn

from fieldmark.layers.activation import L2Normalize, SignedSqrt
from fieldmark.layers.pooling import (
    POOLINGS,
    BilinearPooling,
    CompactBilinearPooling,
    Pooling,
    make_pooling,
)

CHANNELS = 6
CASES = {
    **{name: (name, {}) for name in POOLINGS if name != "compact_bilinear"},
    "sketch by gram": ("compact_bilinear", {"sketch_dim": 40}),
    "sketch by spectrum": ("compact_bilinear", {"sketch_dim": 1}),
    "maclaurin": ("compact_bilinear", {"sketch_dim": 15, "method": "random_maclaurin"}),
    "two maps, bilinear": ("bilinear", {"channels2": 4}),
    "two maps, sketch": ("compact_bilinear", {"sketch_dim": 15, "channels2": 4}),
    "two maps, maclaurin": (
        "compact_bilinear",
        {"sketch_dim": 15, "channels2": 4, "method": "random_maclaurin"},
    ),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture
def pooling(case) -> Pooling:
    name, options = case
    return make_pooling(name, CHANNELS, seed=1, **options)


@pytest.fixture
def maps(pooling) -> list[torch.Tensor]:
    return draw_maps(pooling)


def draw_maps(pooling: Pooling, *, size: int = 3, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    channels = [pooling.channels] + [pooling.channels2] * (pooling.channels2 is not None)
    # Above zero and without ties, so that GeM and max are smooth there.
    return [torch.rand(3, c, size, size, generator=generator) + 0.1 for c in channels]


def pool_with_gradients(pooling: nn.Module, maps: list[torch.Tensor]) -> list[torch.Tensor]:
    leaves = [m.detach().clone().requires_grad_() for m in maps]
    pooled = pooling(*leaves)
    return [pooled, *torch.autograd.grad(pooled.square().sum(), leaves)]


def assert_all_close(got: list[torch.Tensor], want: list[torch.Tensor], **tolerance) -> None:
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


def test_registered_names_are_covered():
    assert {name for name, _ in CASES.values()} == set(POOLINGS)


def test_an_empty_batch_gives_no_rows(pooling, maps):
    pooled, *gradients = pool_with_gradients(pooling, [m[:0] for m in maps])
    assert pooled.shape == (0, pooling.out_features)
    assert [g.shape for g in gradients] == [m[:0].shape for m in maps]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_shape(pooling, size):
    assert pooling(*draw_maps(pooling, size=size)).shape == (3, pooling.out_features)


def test_gradient(pooling, maps):
    inputs = [m[:2].double().requires_grad_() for m in maps]
    assert torch.autograd.gradcheck(pooling.double(), inputs)


def test_gradients_of_any_layout(pooling, maps):
    """Expanded, as of a sum, and strided, as behind a transposition."""
    leaves = [m.requires_grad_() for m in maps]
    strided = torch.arange(3.0 * pooling.out_features).view(-1, 3).T
    for grad in (torch.ones(1, 1).expand(3, pooling.out_features), strided):
        got, want = (
            torch.autograd.grad(pooling(*leaves), leaves, g) for g in (grad, grad.contiguous())
        )
        assert_all_close(got, want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_float32_or_wider(pooling, maps, dtype):
    given = [m.to(dtype) for m in maps]
    pooled, *gradients = pool_with_gradients(pooling, given)
    assert pooled.dtype == torch.promote_types(dtype, torch.float32)
    assert all(g.dtype == dtype for g in gradients)
    wide = pooling.double()(*(m.double() for m in given))
    torch.testing.assert_close(pooled.double(), wide, rtol=1e-4, atol=1e-5)


def test_autocast_changes_nothing(pooling, maps):
    want = pool_with_gradients(pooling, maps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = pool_with_gradients(pooling, maps)
    assert_all_close(got, want, rtol=0, atol=0)


def test_sample_does_not_depend_on_its_batch(pooling, maps):
    pooled, *gradients = pool_with_gradients(pooling, maps)
    for sample in range(3):
        alone = pool_with_gradients(pooling, [m[sample : sample + 1] for m in maps])
        assert_all_close(alone, [t[sample : sample + 1] for t in (pooled, *gradients)])


def test_order_of_positions_does_not_matter(pooling, maps):
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    shuffled = [m.flatten(2)[:, :, order].view_as(m) for m in maps]
    torch.testing.assert_close(pooling(*shuffled), pooling(*maps), rtol=1e-4, atol=1e-5)


def test_saved_state_restores_it(pooling, maps, case):
    name, options = case
    other = make_pooling(name, CHANNELS, seed=2, **options)
    other.load_state_dict(pooling.state_dict())
    assert torch.equal(other(*maps), pooling(*maps))


def test_global_generator_is_left_alone(case):
    name, options = case
    before = torch.get_rng_state()
    pooling = make_pooling(name, CHANNELS, seed=1, **options)
    pooling(*draw_maps(pooling))
    assert torch.equal(before, torch.get_rng_state())


def test_channels_last_maps_give_the_same(pooling, maps):
    got = pool_with_gradients(pooling, [m.to(memory_format=torch.channels_last) for m in maps])
    assert_all_close(got, pool_with_gradients(pooling, maps))


@pytest.mark.parametrize("autocast", [False, True])
def test_compiles_as_one_graph(pooling, maps, autocast):
    torch.compiler.reset()
    # Traces forward and backward as the default backend does, and needs no C++ compiler.
    compiled = torch.compile(pooling, fullgraph=True, backend="aot_eager")
    want = pool_with_gradients(pooling, maps)
    for _ in range(2):  # the first call also compiles
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            assert_all_close(pool_with_gradients(compiled, maps), want)


def test_repr_tells_the_sizes(pooling):
    assert f"channels={CHANNELS}" in repr(pooling)


class Network(nn.Module):
    """A pooling and what follows it, as in a model of one's own."""

    def __init__(self, pooling: Pooling):
        super().__init__()
        self.pooling = pooling
        self.head = nn.Sequential(
            SignedSqrt(), L2Normalize(), nn.Linear(pooling.out_features, 3), nn.ReLU()
        )

    def forward(self, *maps: torch.Tensor) -> torch.Tensor:
        return self.head(self.pooling(*maps))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_cast_whole_gives_what_it_gave_before(pooling, maps, dtype):
    network = Network(pooling)
    want = pool_with_gradients(network, maps)
    network.to(dtype)
    got = pool_with_gradients(network, [m.to(dtype) for m in maps])
    assert [t.dtype for t in got] == [dtype] * len(got)
    # Weights and logits are rounded: a few units of what the type can tell.
    assert_all_close([t.float() for t in got], want, rtol=0.02, atol=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_pooling_that_was_cast_gives_that_unless_it_sums_products(pooling, maps, dtype):
    given = [m.to(dtype) for m in maps]
    want = pooling(*given)
    cast = pooling.to(dtype)(*given)
    sums = isinstance(pooling, (BilinearPooling, CompactBilinearPooling))
    assert cast.dtype == (torch.float32 if sums else dtype)
    torch.testing.assert_close(cast, want.to(cast.dtype), rtol=0.005, atol=0)
    assert torch.equal(pooling.float()(*given), want)


def test_a_cast_network_holds_sums_that_its_type_can_not(pooling, maps):
    # 2,500 positions of 100 * 100: 25 million a product, 400 times what float16 can hold.
    large = [torch.full((1, m.shape[1], 50, 50), 100.0) for m in maps]
    large[0][:, :, ::2] = 50.0  # a map all alike has no covariance
    network = Network(pooling)
    want = network(*large)
    assert want.isfinite().all()
    got = network.half()(*(m.half() for m in large))
    torch.testing.assert_close(got.float(), want, rtol=0.02, atol=0.01)

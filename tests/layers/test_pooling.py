import re

import pytest
import torch

from fieldmark.errors import SettingError
from fieldmark.layers.activation import l2_normalize, signed_sqrt
from fieldmark.layers.pooling import (
    AveragePooling,
    BilinearPooling,
    CompactBilinearPooling,
    CovariancePooling,
    GeMPooling,
    MaxPooling,
    make_pooling,
)


def feature_map(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_average_and_max_by_hand():
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[-1.0, -2.0], [-3.0, -6.0]]]])
    assert AveragePooling(2)(x).tolist() == [[3, -3]]
    assert MaxPooling(2)(x).tolist() == [[6, -1]]


def test_gem_runs_from_average_to_max():
    x = feature_map(2, 3, 4, 4).abs()
    torch.testing.assert_close(GeMPooling(3, p=1).double()(x), x.mean((2, 3)))
    torch.testing.assert_close(GeMPooling(3, p=400).double()(x), x.amax((2, 3)), rtol=0.01, atol=0)
    cubic = x.pow(3).mean((2, 3)).pow(1 / 3)
    torch.testing.assert_close(GeMPooling(3).double()(x), cubic)


def test_gem_learns_p_unless_told_otherwise():
    assert [p.requires_grad for p in GeMPooling(3).parameters()] == [True]
    assert [p.requires_grad for p in GeMPooling(3, trainable=False).parameters()] == [False]


@pytest.mark.parametrize("channels2", [None, 4])
def test_bilinear_is_the_sum_of_outer_products(channels2):
    x = feature_map(2, 3, 5, 2).requires_grad_()
    y = feature_map(2, 4, 5, 2).requires_grad_() if channels2 else None
    want = torch.einsum("bchw,bdhw->bcd", x, x if y is None else y).flatten(1)
    got = BilinearPooling(3, channels2=channels2)(x, y)
    torch.testing.assert_close(got, want)
    weight = feature_map(*want.shape)
    inputs = [m for m in (x, y) if m is not None]
    for a, b in zip(
        *(torch.autograd.grad((out * weight).sum(), inputs) for out in (want, got)), strict=True
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("method", ["tensor_sketch", "random_maclaurin"])
def test_compact_bilinear_nears_the_bilinear_kernel(method):
    x = feature_map(6, 16, 5, 5)
    kernels = []
    for pooling in (BilinearPooling(16), CompactBilinearPooling(16, 20000, method=method)):
        pooled = l2_normalize(pooling(x))
        kernels.append(pooled @ pooled.T)
    torch.testing.assert_close(*kernels, rtol=0, atol=0.05)


@pytest.mark.parametrize("method", ["tensor_sketch", "random_maclaurin"])
@pytest.mark.parametrize("channels2", [None, 5])
def test_unpooled_sketches_sum_to_the_pooled_one(method, channels2):
    options = {"method": method, "channels2": channels2, "seed": 4}
    maps = [feature_map(2, c, 3, 5) for c in (8, channels2) if c]
    each = CompactBilinearPooling(8, 21, pool=False, **options)(*maps)
    assert each.shape == (2, 21, 3, 5)
    torch.testing.assert_close(
        each.sum((2, 3)), CompactBilinearPooling(8, 21, **options)(*maps), rtol=1e-10, atol=1e-10
    )


def test_covariance_is_the_matrix_square_root():
    x = feature_map(2, 4, 6, 6)
    centred = x.flatten(2) - x.flatten(2).mean(2, keepdim=True)
    values, vectors = torch.linalg.eigh(centred @ centred.mT / 36)
    root = vectors @ values.sqrt().diag_embed() @ vectors.mT
    row, column = torch.triu_indices(4, 4)
    got = CovariancePooling(4, iterations=20)(x)
    torch.testing.assert_close(got, root[:, row, column])
    torch.testing.assert_close(CovariancePooling(4)(x), got, rtol=0.05, atol=0.05)


def test_covariance_of_a_flat_map_is_zero_with_a_finite_gradient():
    x = torch.ones(1, 3, 2, 2, requires_grad=True)
    pooled = CovariancePooling(3)(x)
    pooled.sum().backward()
    assert pooled.abs().max() < 1e-6
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels2", [None, 32])
@pytest.mark.parametrize("method", ["tensor_sketch", "random_maclaurin"])
def test_half_precision_does_not_overflow(method, channels2, dtype):
    # 1600 positions of 20 * 20: 640,000 a product, ten times what float16 can hold.
    x = torch.full((1, 32, 40, 40), 20.0, dtype=dtype)
    pooling = CompactBilinearPooling(32, 64, method=method, channels2=channels2)
    maps = [x] if channels2 is None else [x, x]
    torch.testing.assert_close(pooling(*maps), pooling(*(m.float() for m in maps)))
    bilinear = BilinearPooling(32, channels2=channels2)(*maps)
    torch.testing.assert_close(bilinear, torch.full((1, 1024), 640_000.0))


def test_head_trains_through_a_sparse_map():
    # One feature in a hundred is on: most sketched numbers are exact zeros.
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(2, 64, 4, 4, generator=generator) < 0.01).float().requires_grad_()
    pooled = CompactBilinearPooling(64, 512)(x)
    assert (pooled == 0).float().mean() > 0.5
    l2_normalize(signed_sqrt(pooled)).sum().backward()
    assert x.grad.isfinite().all()


def test_make_pooling_passes_seed_and_options_on():
    pooling = make_pooling("compact_bilinear", 8, seed=5, sketch_dim=16, method="random_maclaurin")
    same = CompactBilinearPooling(8, 16, method="random_maclaurin", seed=5)
    x = feature_map(1, 8, 2, 2)
    assert torch.equal(pooling(x), same(x))
    assert "sketch_dim=16, method=random_maclaurin, seed=5" in repr(pooling)


@pytest.mark.parametrize(
    ("name", "options", "messages"),
    [
        ("compact_bilinar", {}, ["unknown pooling 'compact_bilinar'. Did you mean 'compact_bil"]),
        ("average", {"p": 2}, ["`average` has no option 'p'. It has none."]),
        ("compact_bilinear", {}, ["`compact_bilinear` needs `sketch_dim`"]),
        (
            "compact_bilinear",
            {"sketch_dim": 0, "methd": 1, "method": "tensorsketch"},
            [
                "no option 'methd'. Did you mean 'method'?",
                "`sketch_dim` must be a whole number of at least 1, got 0",
                "unknown `method` 'tensorsketch'. Did you mean 'tensor_sketch'?",
            ],
        ),
        ("gem", {"p": 0.5, "eps": 0}, ["`p` must be at least 1, got 0.5", "`eps` must be above 0"]),
        ("covariance", {"iterations": 2.5}, ["`iterations` must be a whole number of at least 1"]),
        ("bilinear", {"channels2": 0}, ["`channels2` must be a whole number of at least 1, got 0"]),
    ],
)
def test_make_pooling_names_all_mistakes(name, options, messages):
    with pytest.raises(SettingError, match=re.escape(messages[0])) as raised:
        make_pooling(name, 8, seed=0, **options)
    assert [message for message in messages if message not in str(raised.value)] == []


def test_maps_that_do_not_fit_are_refused():
    two = BilinearPooling(4, channels2=3)
    with pytest.raises(SettingError, match=r"must be \(batch, 4, height, width\), got \(2, 5, 3"):
        AveragePooling(4)(torch.empty(2, 5, 3, 3))
    with pytest.raises(SettingError, match="BilinearPooling was built for two maps, got 1"):
        two(torch.empty(2, 4, 3, 3))
    with pytest.raises(SettingError, match="MaxPooling was built for one map, got 2"):
        MaxPooling(4)(torch.empty(2, 4, 3, 3), torch.empty(2, 4, 3, 3))
    with pytest.raises(SettingError, match="two maps must share batch, height and width"):
        two(torch.empty(2, 4, 3, 3), torch.empty(2, 3, 3, 4))

import pytest
import torch

from fieldmark.errors import SettingError
from fieldmark.layers.activation import L2Normalize, SignedSqrt, l2_normalize, signed_sqrt


def slope(x: float, **options) -> float:
    point = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    signed_sqrt(point, **options).backward()
    return point.grad.item()


@pytest.mark.parametrize("caffe_backward", [False, True])
def test_signed_sqrt_of_squares(caffe_backward):
    x = torch.tensor([-9.0, -1.0, 0.0, 4.0, 25.0])
    root = signed_sqrt(x, caffe_backward=caffe_backward)
    torch.testing.assert_close(root, torch.tensor([-3.0, -1.0, 0.0, 2.0, 5.0]))


def test_signed_sqrt_has_its_own_derivative_also_at_zero():
    x = torch.tensor([-2.0, -0.3, 0.0, 0.2, 5.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: signed_sqrt(x, eps=0.01), x, eps=1e-8)


def test_signed_sqrt_slope_is_bounded_and_largest_at_zero():
    assert slope(0.0, eps=1e-4) == pytest.approx(100)
    assert all(0 < slope(x, eps=1e-4) <= 100 for x in (-1.0, -1e-5, -1e-12, 1e-9, 1e-4, 10.0))


@pytest.mark.parametrize("caffe_backward", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_signed_sqrt_of_infinity_is_infinite_and_hardly_slopes(dtype, caffe_backward):
    largest = torch.finfo(dtype).max
    x = torch.tensor([torch.inf, -torch.inf, largest, -largest, 4.0], dtype=dtype)
    root = signed_sqrt(x.requires_grad_(), caffe_backward=caffe_backward)
    root.sum().backward()
    assert root[:2].tolist() == [torch.inf, -torch.inf]
    assert root[2:4].isfinite().all()
    assert ((x.grad >= 0) & (x.grad <= 0.2501)).all()  # that at 4
    assert x.grad[:2].float().abs().max() < 1e-9
    assert signed_sqrt(torch.tensor(torch.nan), caffe_backward=caffe_backward).isnan()


@pytest.mark.parametrize("x", [0.0, 0.25, -4.0])
def test_caffe_backward_is_damped(x):
    assert slope(x, caffe_backward=True) == pytest.approx(0.5 / (abs(x) ** 0.5 + 0.03))


def test_l2_normalize_gives_unit_length_and_leaves_zero_alone():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    unit = l2_normalize(x)
    torch.testing.assert_close(unit, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    unit.sum().backward()
    assert x.grad.isfinite().all()


def test_modules_do_what_their_functions_do():
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(SignedSqrt(eps=0.1)(x), signed_sqrt(x, eps=0.1))
    torch.testing.assert_close(L2Normalize(eps=0.1)(x), l2_normalize(x, eps=0.1))
    zero = torch.zeros(1, requires_grad=True)
    SignedSqrt(caffe_backward=True)(zero).backward()
    assert zero.grad.item() == pytest.approx(0.5 / 0.03)
    assert "eps=0.1" in repr(SignedSqrt(eps=0.1))
    assert "eps=0.1" in repr(L2Normalize(eps=0.1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_inputs_are_computed_in_float32_and_keep_their_type(dtype):
    # The sum of squares is 8e9; float16 ends at 65,504, and its smallest root is of 6e-8.
    x = torch.tensor([[60_000.0, -60_000.0, 30_000.0, 1e-7]], dtype=dtype)
    for layer in (l2_normalize, signed_sqrt, lambda x: signed_sqrt(x, caffe_backward=True)):
        got = layer(x)
        assert got.dtype == dtype
        assert torch.equal(got, layer(x.float()).to(dtype))
    assert l2_normalize(x)[0, 0].item() == pytest.approx(2 / 3, rel=0.01)


@pytest.mark.parametrize("module", [SignedSqrt, L2Normalize])
def test_eps_must_be_positive(module):
    with pytest.raises(SettingError, match="`eps` must be above 0, got 0"):
        module(eps=0)

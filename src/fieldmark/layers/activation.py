"""What follows a pooling: the signed square root and the L2 norm, safe at zero."""

import torch
from torch import Tensor, nn

from fieldmark.errors import SettingError
from fieldmark.layers.typed import TypedModule, widened

# The bend of the square root near zero. Slope there: 1 / sqrt(eps) = 1000.
SQRT_EPS = 1e-6
# What the original Caffe layer adds to the square root in its backward pass.
CAFFE_DAMPING = 0.03


class _CaffeSignedSqrt(torch.autograd.Function):
    """Forward sign(x) sqrt|x|, backward 0.5 / (sqrt|x| + 0.03): the two do not agree, by design."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.sign() * x.abs().sqrt()

    @staticmethod
    def setup_context(
        ctx: torch.autograd.function.FunctionCtx, _inputs: tuple[Tensor], output: Tensor
    ) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        root: Tensor = ctx.saved_tensors[0]  # type: ignore[attr-defined]  # untyped in torch
        return grad * 0.5 / (root.abs() + CAFFE_DAMPING)


def signed_sqrt(x: Tensor, *, eps: float = SQRT_EPS, caffe_backward: bool = False) -> Tensor:
    """Take the signed square root, `x / sqrt(|x| + eps)`.

    The textbook `sign(x) sqrt|x|` has an infinite slope at 0, hence the NaN that so many bilinear
    networks met. This form is smooth, odd, equal to it to `eps / (2|x|)` relative, and its slope,
    at most `1 / sqrt(eps)`, is the true derivative of what forward computes.

    Computed in float32 at least; what comes out has the type of x. Of an infinite x it is infinite,
    with a slope of nearly 0.

    Args:
        x: Any shape.
        eps: Where the bend sits, in units of x; positive.
        caffe_backward: As the original Caffe layer: the textbook root forward and
            `0.5 / (sqrt|x| + 0.03)` backward: a slope of at most 16.7, not the derivative. Leaves
            `eps` unused.
    """
    wide = widened(x)
    if caffe_backward:
        root: Tensor = _CaffeSignedSqrt.apply(wide)
    else:
        size = wide.abs().clamp(max=torch.finfo(wide.dtype).max)  # inf * rsqrt(inf) would be nan
        root = wide * (size + eps).rsqrt()
    return root.to(x.dtype)


def l2_normalize(x: Tensor, *, eps: float = 1e-12) -> Tensor:
    """Scale each sample to unit length, `x / max(|x|, eps)`, over the last dimension.

    Computed in float32 at least, since a sum of squares soon leaves float16's range; what comes out
    has the type of x.
    """
    return nn.functional.normalize(widened(x), dim=-1, eps=eps).to(x.dtype)


def _check_eps(eps: float) -> None:
    if not eps > 0:
        raise SettingError(f"`eps` must be above 0, got {eps}. Use {SQRT_EPS}.")


class SignedSqrt(nn.Module):
    """`signed_sqrt` as a module (Carreira et al. 2012, arXiv 1504.07889)."""

    def __init__(self, *, eps: float = SQRT_EPS, caffe_backward: bool = False) -> None:
        super().__init__()
        _check_eps(eps)
        self.eps = eps
        self.caffe_backward = caffe_backward

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same out."""
        return signed_sqrt(x, eps=self.eps, caffe_backward=self.caffe_backward)

    def extra_repr(self) -> str:
        """Arguments, as in the constructor."""
        return f"eps={self.eps}, caffe_backward={self.caffe_backward}"


class L2Normalize(TypedModule):
    """`l2_normalize` as a module.

    Cast to float16 or bfloat16 it gives that, whatever it is given: here the sums of a bilinear
    pooling, which float16 can't hold, come within reach of a linear layer cast likewise.
    """

    def __init__(self, *, eps: float = 1e-12) -> None:
        super().__init__()
        _check_eps(eps)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """`(..., features)` in, the same out, each sample of length 1 (or 0)."""
        return self.as_cast(l2_normalize(x, eps=self.eps))

    def extra_repr(self) -> str:
        """Arguments, as in the constructor."""
        return f"eps={self.eps}"

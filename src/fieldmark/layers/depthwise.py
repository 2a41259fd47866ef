"""Depthwise convolution whose backward is as quick as its forward, for bfloat16 on CPUs.

oneDNN has quick kernels for every forward, for the weights of 3x3 kernels and for the input at
stride 1. For the rest it falls back on reference code, 20 to 50 times slower, and these few
layers then take four fifths of a training step of EfficientNet or MobileNet. Both are exact
rearrangements of what is quick:

    input, stride s     the stride-1 convolution of the gradient, spread out by zeros, with the
                        kernel turned round
    weights, k x k      one 3x3 block of the kernel at a time, from the input moved by its place
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_BLOCK = 3  # side of the kernels whose weight gradient is quick
_CONV2D_ARGUMENTS = 7  # modules give all of them, by position


class QuickDepthwise(TorchFunctionMode):
    """Within it, depthwise convolutions in bfloat16 on the CPU take the quick backward.

    The model is left as it is; values differ from torch's own only by rounding.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d and not kwargs and len(args) == _CONV2D_ARGUMENTS:
            x, weight, bias, stride, padding, dilation, groups = args
            if torch.is_autocast_enabled("cpu"):
                x, weight = (t.to(torch.get_autocast_dtype("cpu")) for t in (x, weight))
            if _is_for_us(x, weight, stride, padding, dilation, groups):
                y = depthwise_conv2d(x, weight, stride=stride[0], padding=_pair(padding)[0])
                return y if bias is None else y + bias.to(y.dtype)[:, None, None]
        return func(*args, **kwargs)


def depthwise_conv2d(x: Tensor, weight: Tensor, *, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolve each channel with a kernel of its own: (B, C, H, W) to (B, C, H', W').

    Args:
        x: The map.
        weight: One kernel a channel, (C, 1, k, k) with odd k of 3 or more.
        stride: Step between outputs, both ways.
        padding: Zeros around the map, on all sides.
    """
    return cast("Tensor", _Depthwise.apply(x, weight, stride, padding))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, stride=stride, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        dx = dw = None
        if ctx.needs_input_grad[0]:
            dx = _input_gradient(grad, x, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[1]:
            dw = _weight_gradient(grad, x, weight, ctx.stride, ctx.padding)
        return dx, dw, None, None


def _input_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    if stride == 1:
        return _native(grad, x, weight, stride, padding, input_too=True)
    k = weight.shape[-1]
    # Zeros between, where the stride skipped positions, and around, where the kernel reached over.
    shape = *x.shape[:2], x.shape[2] + k - 1, x.shape[3] + k - 1
    spread = torch.empty(shape, dtype=grad.dtype, memory_format=torch.channels_last).zero_()
    first, rows, columns = k - 1 - padding, *grad.shape[2:]
    spread[:, :, first::stride, first::stride][:, :, :rows, :columns] = grad
    return F.conv2d(spread, weight.flip(2, 3), groups=len(weight))


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    k = weight.shape[-1]
    if k == _BLOCK:
        return _native(grad, x, weight, stride, padding, input_too=False)
    padded = F.pad(x, (padding,) * 4)
    height, width = ((side - 1) * stride + _BLOCK for side in grad.shape[2:])
    dw = torch.empty_like(weight)
    for top, left in _corners(k):
        rows, columns = slice(top, top + _BLOCK), slice(left, left + _BLOCK)
        moved = padded[:, :, top : top + height, left : left + width]
        moved = moved.contiguous(memory_format=torch.channels_last)
        block = weight[:, :, rows, columns].contiguous()
        dw[:, :, rows, columns] = _native(grad, moved, block, stride, 0, input_too=False)
    return dw


def _corners(k: int) -> Iterator[tuple[int, int]]:
    """Upper left corners of the 3x3 blocks that cover a k x k kernel; they overlap by one."""
    starts = range(0, k - _BLOCK + 1, _BLOCK - 1)
    return ((top, left) for top in starts for left in starts)


def _native(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, *, input_too: bool
) -> Tensor:
    """Torch's own gradient: of the input, or of the weights."""
    mask = [input_too, not input_too, False]
    steps, zeros = [stride] * 2, [padding] * 2
    gradients = torch.ops.aten.convolution_backward(
        grad, x, weight, None, steps, zeros, [1, 1], False, [0, 0], len(weight), mask
    )
    return cast("Tensor", gradients[0 if input_too else 1])


def _pair(value: Any) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else value
    return first, second


def _is_for_us(
    x: Tensor, weight: Tensor, stride: Any, padding: Any, dilation: Any, groups: int
) -> bool:
    if x.device.type != "cpu" or x.dtype != torch.bfloat16 or isinstance(padding, str):
        return False
    k = weight.shape[-1]
    alike = all(len(set(_pair(value))) == 1 for value in (stride, padding, tuple(weight.shape[2:])))
    depthwise = groups == x.shape[1] == len(weight)
    return depthwise and alike and k % 2 == 1 and k >= _BLOCK and _pair(dilation) == (1, 1)

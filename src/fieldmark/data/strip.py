"""Long strips, whose shorter side alone decides how large they become: a part of them is resized.

Of 1 x 10,000 pixels with a shorter side of 256 would come 2.6 million by 256, of which a crop sees
a ten-thousandth.
"""

import math

from torch import Tensor

LONGEST = 16  # how often its shorter side a photo's longer side may hold and be resized whole
_REACH = 3  # pixels of photo or result, whichever are larger: 2 of a bicubic filter, and rounding


def around_window(
    image: Tensor, size: tuple[int, int], corner: tuple[int, int], window: int
) -> tuple[Tensor, tuple[int, int], tuple[int, int]]:
    """What is resized so that a window shows nearly what it shows of the whole photo resized.

    Args:
        image: uint8 (3, H, W).
        size: Height and width the whole of it would be resized to.
        corner: Top and left of the window in that.
        window: Its side.

    Returns:
        the photo, what to resize it to and where the window is then; as given unless it is a strip.
    """
    if max(size) <= LONGEST * min(size):
        return image, size, corner
    axis = 0 if size[0] > size[1] else 1
    length, at = image.shape[-2:][axis], corner[axis]
    ratio = length / size[axis]
    beyond = math.ceil(_REACH * max(1.0, 1 / ratio))
    first = round(max(0, at - beyond) * ratio)
    last = min(length, round((at + window + beyond) * ratio))
    begin, end = round(first / ratio), round(last / ratio)  # where whole pixels of the photo lie
    part = image.narrow(axis - 2, first, last - first)
    if axis == 0:
        return part, (end - begin, size[1]), (at - begin, corner[1])
    return part, (size[0], end - begin), (corner[0], at - begin)

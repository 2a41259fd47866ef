"""What surrounds a bird: blurred backdrops, perches, leaves, light and the camera's own faults."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from fieldmark.data.toy_bird import flat, ink
from fieldmark.data.toy_form import Colour, Points, spline

# Top and bottom of the backdrop, then two colours of things out of focus.
BACKDROPS = np.array(
    [
        [(0.62, 0.72, 0.58), (0.30, 0.42, 0.24), (0.86, 0.88, 0.56), (0.22, 0.33, 0.20)],  # wood
        [(0.72, 0.82, 0.90), (0.55, 0.68, 0.74), (0.94, 0.96, 0.97), (0.45, 0.58, 0.52)],  # sky
        [(0.84, 0.78, 0.58), (0.58, 0.50, 0.32), (0.93, 0.86, 0.62), (0.45, 0.44, 0.30)],  # reeds
        [(0.80, 0.62, 0.42), (0.50, 0.32, 0.22), (0.95, 0.72, 0.34), (0.36, 0.26, 0.22)],  # autumn
        [(0.88, 0.90, 0.93), (0.70, 0.75, 0.80), (0.97, 0.97, 0.98), (0.50, 0.55, 0.60)],  # snow
        [(0.46, 0.44, 0.50), (0.25, 0.27, 0.28), (0.80, 0.62, 0.62), (0.18, 0.22, 0.22)],  # dusk
        [(0.78, 0.80, 0.70), (0.52, 0.56, 0.40), (0.92, 0.66, 0.72), (0.38, 0.46, 0.34)],  # orchard
    ]
)
BARK = np.array([(0.40, 0.30, 0.22), (0.50, 0.46, 0.40), (0.60, 0.54, 0.34), (0.38, 0.42, 0.22)])
LEAVES = np.array([(0.36, 0.50, 0.20), (0.46, 0.58, 0.26), (0.28, 0.42, 0.24), (0.72, 0.48, 0.18)])
LEAF = spline(0j, 0.25 - 0.2j, 0.6 - 0.19j, 1.0, 0.6 + 0.19j, 0.25 + 0.2j, steps=4)


def backdrop(side: int, clutter: float, rng: np.random.Generator) -> Image.Image:
    """A scene out of focus, `side` pixels square; `clutter` 0..1 says how busy it is."""
    colours = BACKDROPS[rng.integers(len(BACKDROPS))] + rng.normal(0, 0.04, (4, 3))
    coarse = 48
    down = np.linspace(0, 1, coarse)[:, None, None]
    field = np.repeat(colours[0] + (colours[1] - colours[0]) * down, coarse, axis=1)
    small = Image.fromarray((field.clip(0, 1) * 255).astype(np.uint8))
    small = small.resize((96, 96), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(small, "RGBA")
    for x, y, r, tone, thick in rng.random((int(10 + 30 * clutter), 5)):
        radius = 3 + 13 * r * r
        box = (96 * x - radius, 96 * y - radius, 96 * x + radius, 96 * y + radius)
        pen.ellipse(box, ink(colours[2 + int(tone > 0.5)], 0.25 + 0.45 * thick))
    for x, lean, thick, tone in rng.random((int(6 * clutter), 4)):  # stems out of focus
        top = 96 * (x + 0.8 * (lean - 0.5))
        shade = ink(colours[1] * (0.5 + 0.7 * tone), 0.7)
        pen.line((96 * x, 97, top, -1), shade, int(1 + 4 * thick))
    blurred = small.filter(ImageFilter.GaussianBlur(float(rng.uniform(1.2, 3.5 - 1.5 * clutter))))
    return blurred.resize((side, side), Image.Resampling.BICUBIC)


def perch(
    canvas: Image.Image,
    foot: complex,
    reach: complex,
    thick: float,
    rng: np.random.Generator,
) -> None:
    """A branch through `foot`, by the vector `reach` either way."""
    along = reach / abs(reach)
    sag = rng.normal(0, 0.02 * abs(reach), 7) * np.array([1, 1, 0.1, 0, 0.1, 1, 1])
    way = np.array([-1.0, -0.5, -0.17, 0.0, 0.17, 0.5, 1.0]) * abs(reach)
    line = spline(*(foot + along * (way + 1j * (sag + 0.5 * thick))), closed=False, steps=8)
    colour = BARK[rng.integers(len(BARK))] * rng.uniform(0.7, 1.2)
    taper = 1 + 0.35 * np.linspace(-1, 1, line.size) * rng.choice([-1, 1])
    up = (-1j if along.real > 0 else 1j) * along
    pen = ImageDraw.Draw(canvas, "RGBA")
    for low, high, tone in ((-0.5, 0.5, 0.75), (-0.25, 0.5, 0.95), (0.1, 0.42, 1.2)):
        sides = [line + up * thick * taper * high, (line + up * thick * taper * low)[::-1]]
        pen.polygon(flat(np.concatenate(sides)), ink(colour * tone))
    for t, side, long in rng.random((14, 3)):  # cracks in the bark
        start = line[int(t * (line.size - 1))] + up * thick * (side - 0.5) * 0.8
        crack = np.array([start, start + along * thick * (0.4 + long)])
        pen.line(flat(crack), ink(colour * 0.55, 0.7), 2)


def sprig(
    canvas: Image.Image, root: complex, reach: complex, colour: Colour, rng: np.random.Generator
) -> None:
    """A twig from `root` along the vector `reach`, with leaves on both sides."""
    pen = ImageDraw.Draw(canvas, "RGBA")
    bend = reach * complex(0.55, rng.normal(0, 0.12))
    twig = root + spline(0j, bend, reach, closed=False, steps=6)
    pen.line(flat(twig), ink(colour * 0.6), max(1, round(abs(reach) * 0.025)))
    for number, at in enumerate(twig[3::2]):
        side = (-1) ** number * rng.uniform(0.5, 1.0) if at != twig[-1] else 0.1
        stalk = reach * np.exp(1j * side) * rng.uniform(0.28, 0.42)
        _leaf(pen, at, complex(stalk), colour * rng.uniform(0.8, 1.2))


def _leaf(pen: ImageDraw.ImageDraw, at: complex, stalk: complex, colour: Colour) -> None:
    shape: Points = at + LEAF * stalk
    pen.polygon(flat(shape), ink(colour))
    pen.polygon(flat(shape[: shape.size // 2 + 1]), ink(colour * 1.18))
    tip = at + 0.92 * stalk
    pen.line((at.real, at.imag, tip.real, tip.imag), ink(colour * 0.7, 0.8), 2)


def leaf_colour(rng: np.random.Generator) -> Colour:
    """Green, mostly; sometimes autumn."""
    colour: Colour = LEAVES[rng.integers(len(LEAVES))] * rng.uniform(0.7, 1.15)
    return colour


@dataclass(frozen=True)
class Exposure:
    """What light and camera do to a scene."""

    gain: Colour  # red, green, blue: exposure times white balance
    contrast: float
    slope: complex  # how the light falls off across the frame
    blur: float  # pixels
    noise: float  # standard deviation, 0..255


def expose(image: Image.Image, exposure: Exposure, rng: np.random.Generator) -> Image.Image:
    """The photograph of a painted scene."""
    if exposure.blur > 0.25:
        image = image.filter(ImageFilter.GaussianBlur(exposure.blur))
    pixels: NDArray[Any] = np.asarray(image, dtype=np.float32)
    h, w, _ = pixels.shape
    x, y = np.linspace(-1, 1, w), np.linspace(-1, 1, h)[:, None]
    fall = 1 + exposure.slope.real * x + exposure.slope.imag * y
    gain = exposure.gain * exposure.contrast
    pixels = pixels * (fall[..., None] * gain).astype(np.float32)
    pixels += np.float32(118 * (1 - exposure.contrast))
    grain = rng.standard_normal((h, w), dtype=np.float32) * np.float32(exposure.noise)
    pixels += grain[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))

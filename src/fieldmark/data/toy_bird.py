"""Paint one small bird in layers: the body, and the field marks that tell its kind."""

from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fieldmark.data.toy_form import (
    BARS,
    BODY,
    BREAST,
    COVERTS,
    EGG_TILT,
    EYE,
    EYE_LINE,
    EYE_RADIUS,
    FEATHER_TIPS,
    HEAD,
    HEAD_OUTLINE,
    HEAD_RADIUS,
    SHOULDER,
    STOUT_BILL,
    TAIL,
    TAIL_ANGLE,
    TAIL_FAN,
    THIN_BILL,
    WING,
    Bird,
    Colour,
    Points,
    Pose,
    spline,
)

Tints: TypeAlias = NDArray[np.float64]  # (..., 3), each in 0..1
GRAIN = 8  # pixels between samples of a plumage's smooth colours


def ink(colour: Colour, opacity: float = 1.0) -> tuple[int, ...]:
    """A colour for Pillow's pen."""
    return (*(int(255 * min(max(c, 0.0), 1.0)) for c in colour), int(255 * opacity))


def flat(points: Points) -> Any:
    """x0, y0, x1, y1, ...: how Pillow likes its polygons."""
    return np.ascontiguousarray(points).view(np.float64).tolist()


def rise(x: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    smooth: NDArray[np.float64] = t * t * (3 - 2 * t)
    return smooth


class _Layer:
    """A patch of plumage: a smooth field of colour, to be drawn upon and cut to a shape."""

    def __init__(self, outlines: list[Points], pose: Pose) -> None:
        around = np.concatenate(outlines)
        x, y = int(around.real.min()) - 2, int(around.imag.min()) - 2
        self.size = int(around.real.max()) - x + 3, int(around.imag.max()) - y + 3
        self.corner = (x, y)
        self.pose = replace(pose, at=pose.at - complex(x, y))
        self.outlines = [outline - complex(x, y) for outline in outlines]

    def grid(self) -> Points:
        """The bird's frame, sampled every `GRAIN` pixels of the layer."""
        w, h = (-(-side // GRAIN) for side in self.size)
        x, y = (np.arange(n) * GRAIN + GRAIN / 2 for n in (w, h))
        return self.pose.unplace(x + 1j * y[:, None])

    def fill(self, colours: Tints) -> None:
        """Lay the ground, from a colour for each point of `grid`."""
        self.colours = colours
        small = Image.fromarray((colours.clip(0, 1) * 255).astype(np.uint8))
        whole = small.resize((small.width * GRAIN, small.height * GRAIN), Image.Resampling.BILINEAR)
        self.image = whole.crop((0, 0, *self.size))
        self.pen = ImageDraw.Draw(self.image, "RGBA")

    def colour_at(self, pixels: Points) -> Tints:
        """The ground's colours at some pixels, (n, 3)."""
        h, w, _ = self.colours.shape
        x, y = (pixels.real // GRAIN).astype(int), (pixels.imag // GRAIN).astype(int)
        found: Tints = self.colours[y.clip(0, h - 1), x.clip(0, w - 1)]
        return found

    def paste(self, canvas: Image.Image) -> None:
        """Cut the patch to its outlines and lay it on the canvas."""
        mask = Image.new("L", self.size)
        pen = ImageDraw.Draw(mask)
        for outline in self.outlines:
            pen.polygon(flat(outline), fill=255)
        canvas.paste(self.image, self.corner, mask)


def paint_bird(canvas: Image.Image, bird: Bird, rng: np.random.Generator) -> None:
    """Paint a bird; `rng` moves feathers and streaks, alike for every species."""
    feathers, streaks = rng.spawn(2)
    pose, species = bird.pose, bird.species
    pen = ImageDraw.Draw(canvas, "RGBA")
    _tail(pen, bird)
    coat = _Layer([pose.place(BODY), pose.place(pose.head(HEAD_OUTLINE))], pose)
    coat.fill(_coat_colours(coat.grid(), bird))
    _feathers(coat, feathers)
    if species.breast_streaks:
        _streaks(coat, bird, streaks)
    line = flat(coat.pose.place(pose.head(EYE_LINE)))
    coat.pen.line(line, ink(bird.plumage.dark, 0.8 * bird.plumage.eye_line), _width(pose, 0.035))
    if species.crown_stripe:
        _crown(coat, bird)
    coat.paste(canvas)
    _wing(canvas, bird)
    _bill(pen, bird)
    _eye(pen, bird)


def _width(pose: Pose, units: float) -> int:
    return max(1, round(units * pose.scale))


def _shade(z: Points, centre: complex, axes: complex, bird: Bird) -> NDArray[np.float64]:
    """How much light falls on an egg of half-axes `axes`: about -1 in shadow, 1 in the light."""
    q = (z - centre) * np.exp(-1j * EGG_TILT)
    n = (q.real / axes.real + 1j * q.imag / axes.imag) * np.exp(1j * (EGG_TILT + bird.pose.lean))
    n = -n.conj() if bird.pose.left else n
    n /= np.maximum(1, abs(n))
    shade: NDArray[np.float64] = (n * np.conj(bird.light)).real * abs(n)
    return shade


def _mix(a: Tints, b: Tints, t: NDArray[np.float64]) -> Tints:
    mixed: Tints = a + (b - a) * t[..., None]
    return mixed


def _coat_colours(z: Points, bird: Bird) -> Tints:
    """Body and head: dark above, pale below, rounded by the light."""
    plumage = bird.plumage
    across = ((z - (0.62 - 0.34j)) / (-1.22 + 0.62j)).imag * -1.37  # from the side's midline
    body = _mix(plumage.upper, plumage.under, rise(across, -0.08, 0.16))
    h = bird.pose.unhead(z)
    head = _mix(plumage.upper, plumage.throat, rise(h.imag - 0.25 * h.real, 0.05, 0.5))
    head = _mix(head, plumage.cap, 1 - rise(h.imag + 0.15 * h.real, -0.5, -0.25))
    head = _mix(head, plumage.dark, plumage.cheek * (1 - rise(abs(h - (0.05 + 0.15j)), 0.2, 0.6)))
    on_head = 1 - rise(abs(h), 0.85, 1.35)
    round_body = _shade(z, 0.02 + 0.02j, 0.72 + 0.42j, bird)
    round_head = _shade(z, HEAD, (1 + 1j) * HEAD_RADIUS, bird)
    shade = round_body + (round_head - round_body) * on_head
    colours: Tints = _mix(body, head, on_head) * (1 + 0.28 * shade)[..., None]
    return colours


def _feathers(coat: _Layer, rng: np.random.Generator, count: int = 170) -> None:
    """Short strokes along the lie of the plumage."""
    x, y, jitter, tone = rng.random((4, count))
    start = coat.outlines[0].mean() + coat.pose.scale * 1.5 * ((x - 0.5) + 0.9j * (y - 0.6))
    z = coat.pose.unplace(start)
    lie = np.exp(1j * (2.55 + 0.5 * (jitter - 0.5) - 0.9 * rise(z.real, 0.1, 0.6)))
    end = coat.pose.place(z + 0.085 * lie)
    colours = coat.colour_at((start + end) / 2) * (1 + 0.30 * (tone - 0.55))[:, None]
    width = _width(coat.pose, 0.012)
    for a, b, colour in zip(start, end, colours, strict=True):
        coat.pen.line((a.real, a.imag, b.real, b.imag), ink(colour, 0.6), width)


def _streaks(coat: _Layer, bird: Bird, rng: np.random.Generator) -> None:
    """Dark drops in rows from the breast to the flank."""
    rows, columns = np.mgrid[0:4, 0:9].reshape(2, -1)
    a = (columns + 0.5 * (rows % 2) + 0.5 * rng.random(rows.size)) / 9.6
    b = (rows + 0.3 + 0.5 * rng.random(rows.size)) / 4
    rim = BREAST[(a * (BREAST.size - 1)).astype(int)]
    at = rim + ((0.12 - 0.02j) - rim) * 0.5 * b
    lie = np.exp(1j * (1.75 + 0.95 * a))
    drop = np.array([-0.045, 0.012 + 0.016j, 0.04 + 0.012j, 0.05, 0.04 - 0.012j, 0.012 - 0.016j])
    drop = drop.real + 1j * drop.imag * bird.marks.size
    colour = ink(bird.plumage.dark, 0.9 * bird.marks.contrast)
    for z, turn in zip(at, lie, strict=True):
        coat.pen.polygon(flat(coat.pose.place(z + turn * drop)), colour)


def _crown(coat: _Layer, bird: Bird) -> None:
    """A pale stripe along the crown, edged with dark."""
    sweep = np.linspace(0, 1, 16)
    turn = np.exp(-1j * (0.3 + 2.4 * sweep))
    half = 0.13 * bird.marks.size * np.sqrt(np.sin(np.pi * (0.06 + 0.88 * sweep)))
    for low, high, colour in ((1.75, 0.9, bird.plumage.dark), (1.0, 1.0, bird.plumage.pale)):
        band = np.concatenate([turn * (0.80 + high * half), (turn * (0.80 - low * half))[::-1]])
        pixels = coat.pose.place(coat.pose.head(band))
        coat.pen.polygon(flat(pixels), ink(colour, 0.95 * bird.marks.contrast))


def _wing(canvas: Image.Image, bird: Bird) -> None:
    """The folded wing: its outline, and what is drawn on it."""
    outline = bird.pose.place(_turn_wing(WING, bird.pose))
    wing = _Layer([outline], bird.pose)
    z = wing.grid()
    tone = _mix(bird.plumage.upper, bird.plumage.wing, rise(-z.real, -0.2, 0.25))
    wing.fill(tone * (1 + 0.25 * _shade(z, -0.1 + 0.02j, 0.6 + 0.36j, bird))[..., None])
    _wing_feathers(wing, bird)
    wing.paste(canvas)
    pen = ImageDraw.Draw(canvas, "RGBA")
    rim = np.append(outline, outline[0])
    pen.line(flat(rim), ink(bird.plumage.wing * 0.5, 0.45), _width(bird.pose, 0.014))


def _turn_wing(z: Points, pose: Pose) -> Points:
    turned: Points = (z - SHOULDER) * np.exp(1j * pose.wing) + SHOULDER
    return turned


def _wing_feathers(wing: _Layer, bird: Bird) -> None:
    """Coverts, the long feathers, and the bars where the species has them."""
    plumage, marks = bird.plumage, bird.marks
    width = _width(bird.pose, 0.014)
    edge, shadow = ink(plumage.under, plumage.edges), ink(plumage.wing * 0.6)

    def pixels(points: Points) -> Any:
        return flat(wing.pose.place(_turn_wing(points, bird.pose)))

    for row in COVERTS:
        wing.pen.line(pixels(row), shadow, width)
    roots = BARS[1][np.linspace(1, BARS[1].size - 2, 8).astype(int)]
    for root, tip in zip(roots, FEATHER_TIPS, strict=True):
        feather = spline(root, (root + tip) / 2 + 0.03j, tip, closed=False, steps=4)
        wing.pen.line(pixels(feather), shadow, 2 * width)
        wing.pen.line(pixels(feather + (0.012 - 0.012j)), edge, width)
    for bar, needed in zip(BARS, (2, 1), strict=True):
        wing.pen.line(pixels(bar + (-0.05 + 0.02j)), shadow, 4 * width)
        if bird.species.wing_bars >= needed:  # pale feather tips: smooth before, scalloped behind
            scallops = 0.6 + 0.4 * abs(np.sin(np.linspace(0, 5 * np.pi, bar.size)))
            behind = bar + (-0.064 + 0.028j) * marks.size * scallops
            band = np.concatenate([bar, behind[::-1]])
            wing.pen.polygon(pixels(band), ink(plumage.pale, 0.95 * marks.contrast))


def _tail(pen: ImageDraw.ImageDraw, bird: Bird) -> None:
    """A closed tail, notched, with a pale band before the tip."""
    pose, plumage = bird.pose, bird.plumage
    turn = np.exp(1j * (TAIL_ANGLE + pose.tail))

    def pixels(*points: complex) -> Any:
        return flat(pose.place(TAIL + np.array(points) * turn))

    pen.polygon(pixels(*TAIL_FAN), ink(plumage.wing))
    if bird.species.tail_band:
        near, far = 0.64 - 0.15 * bird.marks.size, 0.64
        band = pixels(near - 0.122j, far - 0.127j, far + 0.127j, near + 0.122j)
        pen.polygon(band, ink(plumage.pale, 0.95 * bird.marks.contrast))
    width = _width(pose, 0.012)
    for y in (-0.08, -0.03, 0.03, 0.08):
        shaft = pixels(0.1 + 0.75j * y, 0.74 + y * 1j)
        pen.line(shaft, ink(plumage.wing * 0.5, 0.6), width)
    pen.line(pixels(0.0 - 0.092j, 0.7 - 0.125j), ink(plumage.under, plumage.edges), width)


def paint_legs(canvas: Image.Image, bird: Bird, along: complex) -> None:
    """Two legs and their toes, on a perch that runs along the unit vector `along` (in pixels)."""
    pose, colour = bird.pose, bird.plumage.leg
    pen = ImageDraw.Draw(canvas, "RGBA")
    width = max(2, _width(pose, 0.04))
    ahead = -pose.scale if pose.left else pose.scale
    hips = pose.place(np.array([-0.10 + 0.36j, 0.10 + 0.38j]))
    for hip, step in zip(hips, (-0.07, 0.10), strict=True):
        foot = pose.at + step * ahead * along
        knee = hip + (foot - hip) * 0.35 - 0.05 * ahead
        pen.line(flat(np.array([hip, knee, foot])), ink(colour), width, "curve")
        for toe in (-0.075, 0.07, 0.11):
            tip = foot + (along * toe + 0.03j) * pose.scale
            pen.line(flat(np.array([foot, tip])), ink(colour * 0.9), width)


def _bill(pen: ImageDraw.ImageDraw, bird: Bird) -> None:
    pose = bird.pose
    bill = STOUT_BILL if bird.species.stout_bill else THIN_BILL
    pen.polygon(flat(pose.place(pose.head(bill))), ink(bird.plumage.bill))
    gape = np.array([0.80 + 0.15j, bill[bill.real.argmax()]])
    pixels = flat(pose.place(pose.head(gape)))
    pen.line(pixels, ink(bird.plumage.bill * 0.5), _width(pose, 0.012))


def _eye(pen: ImageDraw.ImageDraw, bird: Bird) -> None:
    marks, plumage = bird.marks, bird.plumage
    eye = bird.pose.place(bird.pose.head(np.array([EYE])))[0]
    radius = EYE_RADIUS * HEAD_RADIUS * bird.pose.scale

    def disc(at: complex, r: float, colour: tuple[int, ...]) -> None:
        pen.ellipse((at.real - r, at.imag - r, at.real + r, at.imag + r), colour)

    if bird.species.eye_ring:
        disc(eye, radius * (1.2 + 0.55 * marks.size), ink(plumage.pale, 0.95 * marks.contrast))
    disc(eye, radius * 1.15, ink(plumage.dark * 0.6))
    disc(eye, radius, ink(np.array([0.06, 0.04, 0.03])))
    disc(eye + radius * (0.3 - 0.35j), radius * 0.3, ink(np.ones(3), 0.9))

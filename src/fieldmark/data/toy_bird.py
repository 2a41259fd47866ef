"""One small bird, painted in layers: the body, and the field marks that tell its kind.

A point is a complex number, x + iy with y pointing down, so turning and scaling are one product
and mirroring is one conjugate. Every bird is built in one frame (it faces right, bill to tail is
about two units long) and placed on the canvas by its `Pose`.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points: TypeAlias = NDArray[np.complex128]
Colour: TypeAlias = NDArray[np.float64]  # red, green, blue in 0..1

BILL_TO_TAIL = 2.15  # units of the bird's own frame
FOOT = 0.03 + 0.66j  # where the bird meets its perch


@dataclass(frozen=True)
class Species:
    """A kind of bird, told from the others by these six field marks and nothing else."""

    name: str
    wing_bars: Literal[0, 1, 2] = 0
    eye_ring: bool = False
    crown_stripe: bool = False
    stout_bill: bool = False
    breast_streaks: bool = False
    tail_band: bool = False

    @property
    def folder(self) -> str:
        """The name as a folder: `Ash-crowned_Warbler`."""
        return self.name.replace(" ", "_")


@dataclass(frozen=True)
class Pose:
    """How a bird holds itself and where it stands; angles in radians, positive is clockwise."""

    lean: float = 0.0
    tail: float = 0.0
    wing: float = 0.0
    head_tilt: float = 0.0
    head_turn: float = 1.0  # 1: in profile; 0.7: half towards us; -1: looking back
    plump: float = 1.0
    left: bool = False
    scale: float = 200.0  # pixels a unit
    at: complex = 0j  # pixel of the foot

    def place(self, points: Points) -> Points:
        """Bird's frame -> pixels."""
        turned = (points - FOOT) * np.exp(1j * self.lean)
        return (-turned.conj() if self.left else turned) * self.scale + self.at

    def unplace(self, pixels: Points) -> Points:
        """Pixels -> bird's frame."""
        turned = (pixels - self.at) / self.scale
        return (-turned.conj() if self.left else turned) * np.exp(-1j * self.lean) + FOOT

    def extent(self) -> tuple[complex, complex]:
        """The pixels of the upper left and the lower right corner of what the bird fills."""
        tail_tip = TAIL + 0.8 * np.exp(1j * (TAIL_ANGLE + self.tail))
        ends = self.head(np.array([1.8 + 0.1j, -1j]))
        points = self.place(np.concatenate([BODY, ends, [tail_tip, FOOT + 0.1j]]))
        x, y = points.real, points.imag
        return complex(x.min(), y.min()), complex(x.max(), y.max())

    def head(self, points: Points) -> Points:
        """Head's frame (centre 0, radius 1) -> bird's frame."""
        turned = points.real * self.head_turn + 1j * points.imag
        return turned * np.exp(1j * self.head_tilt) * HEAD_RADIUS + HEAD

    def unhead(self, points: Points) -> Points:
        """Bird's frame -> head's frame."""
        turned = (points - HEAD) / HEAD_RADIUS * np.exp(-1j * self.head_tilt)
        return turned.real / self.head_turn + 1j * turned.imag


@dataclass(frozen=True)
class Plumage:
    """The colours of one bird: they vary inside a species and tell nothing about it."""

    upper: Colour
    under: Colour
    wing: Colour
    cap: Colour
    throat: Colour
    bill: Colour
    leg: Colour
    pale: Colour  # of pale marks
    dark: Colour  # of dark marks
    eye_line: float = 0.0  # 0..1, opacity
    cheek: float = 0.0
    edges: float = 0.3  # how much the feather edges show


@dataclass(frozen=True)
class Marks:
    """How plainly the marks show: `size` scales their width, `contrast` (0..1) their opacity."""

    size: float = 1.0
    contrast: float = 1.0


HEAD, HEAD_RADIUS = 0.49 - 0.46j, 0.275
TAIL, TAIL_ANGLE = -0.50 + 0.20j, 2.62
SHOULDER = 0.30 - 0.12j
EGG_TILT = -0.53  # the body's long axis
GRAIN = 8  # pixels between samples of a plumage's smooth colours


def spline(*points: complex, closed: bool = True, steps: int = 7) -> Points:
    """A smooth line through `points` (Catmull and Rom 1974)."""
    p = np.array(points)
    p = np.concatenate([p[-1:], p, p[:2]] if closed else [p[:1], p, p[-1:]])
    a, b, c, d = p[:-3, None], p[1:-2, None], p[2:-1, None], p[3:, None]
    t = np.linspace(0, 1, steps, endpoint=False)
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return curve.ravel() if closed else np.append(curve.ravel(), points[-1])


BODY = spline(
    *(0.24 - 0.58j, 0.02 - 0.40j, -0.24 - 0.16j, -0.46 + 0.06j, -0.62 + 0.21j, -0.56 + 0.33j),
    *(-0.36 + 0.37j, -0.08 + 0.44j, 0.22 + 0.41j, 0.46 + 0.23j, 0.60 - 0.03j, 0.66 - 0.27j),
    *(0.60 - 0.50j,),
)
HEAD_OUTLINE = spline(
    *(1.00 + 0.10j, 0.84 - 0.50j, 0.42 - 0.90j, -0.14 - 1.0j, -0.70 - 0.76j, -1.0 - 0.2j),
    *(-0.95 + 0.5j, -0.4 + 0.95j, 0.35 + 0.92j, 0.84 + 0.55j),
)
WING = spline(
    *(0.37 - 0.13j, 0.24 - 0.31j, 0.0 - 0.27j, -0.25 - 0.09j, -0.50 + 0.11j, -0.86 + 0.36j),
    *(-0.52 + 0.29j, -0.22 + 0.27j, 0.06 + 0.23j, 0.28 + 0.09j),
)
BARS = (
    spline(0.12 - 0.29j, 0.07 - 0.13j, 0.12 + 0.02j, 0.23 + 0.13j, closed=False),  # median coverts
    spline(-0.10 - 0.20j, -0.13 - 0.04j, -0.08 + 0.11j, 0.05 + 0.23j, closed=False),  # greater
)
THIN_BILL = spline(0.88 - 0.03j, 1.30 + 0.03j, 1.76 + 0.17j, 1.30 + 0.23j, 0.88 + 0.26j, 0.84 + 0.12j)
STOUT_BILL = spline(0.84 - 0.30j, 1.22 - 0.20j, 1.58 + 0.18j, 1.22 + 0.40j, 0.84 + 0.46j, 0.74 + 0.1j)
BAR_WIDTH = 0.07
COVERTS = [
    spline(0.31 - 0.22j + d, 0.26 - 0.12j + d, 0.30 - 0.02j + d, closed=False)
    for d in (0, -0.07 + 0.02j, -0.14 + 0.04j)
]
FEATHER_TIPS = np.array(
    [
        *(-0.38 + 0.03j, -0.50 + 0.12j, -0.62 + 0.20j, -0.76 + 0.29j),
        *(-0.84 + 0.345j, -0.68 + 0.32j, -0.52 + 0.285j, -0.36 + 0.275j),
    ]
)
EYE, EYE_RADIUS = 0.44 - 0.08j, 0.165


def ink(colour: Colour, opacity: float = 1.0) -> tuple[int, ...]:
    """A colour for Pillow's pen."""
    return (*(int(255 * min(max(c, 0.0), 1.0)) for c in colour), int(255 * opacity))


def flat(points: Points) -> Any:
    """x0, y0, x1, y1, ...: how Pillow likes its polygons."""
    return np.ascontiguousarray(points).view(np.float64).tolist()


def rise(x: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


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

    def fill(self, colours: NDArray[np.float64]) -> None:
        self.colours = colours
        small = Image.fromarray((colours.clip(0, 1) * 255).astype(np.uint8))
        whole = small.resize((small.width * GRAIN, small.height * GRAIN), Image.Resampling.BILINEAR)
        self.image = whole.crop((0, 0, *self.size))
        self.pen = ImageDraw.Draw(self.image, "RGBA")

    def colour_at(self, pixels: Points) -> NDArray[np.float64]:
        h, w, _ = self.colours.shape
        x, y = (pixels.real // GRAIN).astype(int), (pixels.imag // GRAIN).astype(int)
        return self.colours[y.clip(0, h - 1), x.clip(0, w - 1)]

    def paste(self, canvas: Image.Image) -> None:
        mask = Image.new("L", self.size)
        pen = ImageDraw.Draw(mask)
        for outline in self.outlines:
            pen.polygon(flat(outline), fill=255)
        canvas.paste(self.image, self.corner, mask)


def paint_bird(
    canvas: Image.Image,
    species: Species,
    pose: Pose,
    plumage: Plumage,
    marks: Marks,
    light: complex,
    rng: np.random.Generator,
) -> None:
    """Paints a bird on `canvas`; `rng` moves feathers and streaks, alike for every species."""
    feathers, streaks = rng.spawn(2)
    pen = ImageDraw.Draw(canvas, "RGBA")
    _tail(pen, species, pose, plumage, marks)
    coat = _Layer([pose.place(BODY), pose.place(pose.head(HEAD_OUTLINE))], pose)
    coat.fill(_coat_colours(coat.grid(), pose, plumage, light))
    _feathers(coat, plumage, feathers)
    if species.breast_streaks:
        _streaks(coat, plumage, marks, streaks)
    _face(coat, plumage)
    if species.crown_stripe:
        _crown(coat, plumage, marks)
    coat.paste(canvas)
    _wing(canvas, species, pose, plumage, marks, light)
    _bill(pen, species, pose, plumage)
    _eye(pen, species, pose, plumage, marks)


def _shade(z: Points, centre: complex, axes: complex, pose: Pose, light: complex) -> Any:
    """How much light falls on an egg of half-axes `axes`: about 0, -1 in shadow, 1 in light."""
    q = (z - centre) * np.exp(-1j * EGG_TILT)
    n = (q.real / axes.real + 1j * q.imag / axes.imag) * np.exp(1j * (EGG_TILT + pose.lean))
    n = -n.conj() if pose.left else n
    n /= np.maximum(1, abs(n))
    return (n * np.conj(light)).real * abs(n)


def _mix(a: Any, b: Any, t: NDArray[Any]) -> Any:
    return a + (b - a) * t[..., None]


def _coat_colours(z: Points, pose: Pose, plumage: Plumage, light: complex) -> Any:
    """Body and head: dark above, pale below, rounded by the light."""
    across = ((z - (0.62 - 0.34j)) / (-1.22 + 0.62j)).imag * -1.37
    body = _mix(plumage.upper, plumage.under, rise(across, -0.08, 0.16))
    h = pose.unhead(z)
    head = _mix(plumage.upper, plumage.throat, rise(h.imag - 0.25 * h.real, 0.05, 0.5))
    head = _mix(head, plumage.cap, 1 - rise(h.imag + 0.15 * h.real, -0.5, -0.25))
    head = _mix(head, plumage.dark, plumage.cheek * (1 - rise(abs(h - (0.05 + 0.15j)), 0.2, 0.6)))
    on_head = 1 - rise(abs(h), 0.85, 1.35)
    round_body = _shade(z, 0.02 + 0.02j, 0.72 + 0.42j, pose, light)
    round_head = _shade(z, HEAD, (1 + 1j) * HEAD_RADIUS, pose, light)
    shade = round_body + (round_head - round_body) * on_head
    colours = _mix(body, head, on_head)
    return colours * (1 + 0.28 * shade)[..., None]


def _feathers(coat: _Layer, plumage: Plumage, rng: np.random.Generator, count: int = 170) -> None:
    """Short strokes along the lie of the plumage."""
    x, y, jitter, tone = rng.random((4, count))
    start = coat.outlines[0].mean() + coat.pose.scale * 1.5 * ((x - 0.5) + 0.9j * (y - 0.6))
    z = coat.pose.unplace(start)
    lie = np.exp(1j * (2.55 + 0.5 * (jitter - 0.5) - 0.9 * rise(z.real, 0.1, 0.6)))
    end = coat.pose.place(z + 0.085 * lie)
    colours = coat.colour_at((start + end) / 2) * (1 + 0.30 * (tone - 0.55))[:, None]
    width = max(1, round(0.012 * coat.pose.scale))
    for a, b, colour in zip(start, end, colours, strict=True):
        coat.pen.line((a.real, a.imag, b.real, b.imag), ink(colour, 0.6), width)


def _streaks(coat: _Layer, plumage: Plumage, marks: Marks, rng: np.random.Generator) -> None:
    """Dark drops in rows from the breast to the flank."""
    edge = spline(0.60 - 0.16j, 0.57 + 0.04j, 0.45 + 0.22j, 0.22 + 0.36j, -0.12 + 0.40j, closed=False)
    rows, columns = np.mgrid[0:4, 0:9].reshape(2, -1)
    a = (columns + 0.5 * (rows % 2) + 0.5 * rng.random(rows.size)) / 9.6
    b = (rows + 0.3 + 0.5 * rng.random(rows.size)) / 4
    rim = edge[(a * (edge.size - 1)).astype(int)]
    at = rim + ((0.12 - 0.02j) - rim) * 0.5 * b
    lie = np.exp(1j * (1.75 + 0.95 * a))
    drop = np.array([-0.045, 0.012 + 0.016j, 0.04 + 0.012j, 0.05, 0.04 - 0.012j, 0.012 - 0.016j])
    for z, turn in zip(at, lie, strict=True):
        shape = z + turn * (drop.real + 1j * drop.imag * marks.size)
        coat.pen.polygon(flat(coat.pose.place(shape)), ink(plumage.dark, 0.9 * marks.contrast))


def _face(coat: _Layer, plumage: Plumage) -> None:
    line = spline(0.95 + 0.02j, 0.5 - 0.06j, 0.0 - 0.02j, -0.5 + 0.12j, closed=False)
    width = max(1, round(0.035 * coat.pose.scale))
    pixels = coat.pose.place(coat.pose.head(line))
    coat.pen.line(flat(pixels), ink(plumage.dark, 0.8 * plumage.eye_line), width)


def _crown(coat: _Layer, plumage: Plumage, marks: Marks) -> None:
    """A pale stripe along the crown, edged with dark."""
    sweep = np.linspace(0, 1, 16)
    turn = np.exp(-1j * (0.3 + 2.4 * sweep))
    half = 0.13 * marks.size * np.sqrt(np.sin(np.pi * (0.06 + 0.88 * sweep)))
    for low, high, colour in ((1.75, 0.9, plumage.dark), (1.0, 1.0, plumage.pale)):
        band = np.concatenate([turn * (0.80 + high * half), (turn * (0.80 - low * half))[::-1]])
        pixels = coat.pose.place(coat.pose.head(band))
        coat.pen.polygon(flat(pixels), ink(colour, 0.95 * marks.contrast))


def _wing(
    canvas: Image.Image,
    species: Species,
    pose: Pose,
    plumage: Plumage,
    marks: Marks,
    light: complex,
) -> None:
    """The folded wing: coverts, the long feathers, and the bars."""
    turn = np.exp(1j * pose.wing)

    def to_bird(z: Points) -> Points:
        return (z - SHOULDER) * turn + SHOULDER

    wing = _Layer([pose.place(to_bird(WING))], pose)
    z = wing.grid()
    shade = _shade(z, -0.1 + 0.02j, 0.6 + 0.36j, pose, light)
    tone = _mix(plumage.upper, plumage.wing, rise(-z.real, -0.2, 0.25))
    wing.fill(tone * (1 + 0.25 * shade)[..., None])
    width = max(1, round(0.014 * pose.scale))
    edge, shadow = ink(plumage.under, plumage.edges), ink(plumage.wing * 0.6)

    def draw(points: Points, colour: tuple[int, ...], width: int) -> None:
        wing.pen.line(flat(wing.pose.place(to_bird(points))), colour, width)

    for row in COVERTS:  # small feathers on the shoulder
        draw(row, shadow, width)
    roots = BARS[1][np.linspace(1, BARS[1].size - 2, 8).astype(int)]
    for root, tip in zip(roots, FEATHER_TIPS, strict=True):
        feather = spline(root, (root + tip) / 2 + 0.03j, tip, closed=False, steps=4)
        draw(feather, shadow, 2 * width)
        draw(feather + 0.012 - 0.012j, edge, width)
    for bar, shown in zip(BARS, (species.wing_bars > 1, species.wing_bars > 0), strict=True):
        draw(bar + (-0.05 + 0.02j), shadow, 4 * width)
        if shown:  # a row of pale feather tips: smooth before, scalloped behind
            ripple = abs(np.sin(np.linspace(0, 5 * np.pi, bar.size)))
            behind = bar + (-0.92 + 0.4j) * BAR_WIDTH * marks.size * (0.6 + 0.4 * ripple)
            band = flat(wing.pose.place(to_bird(np.concatenate([bar, behind[::-1]]))))
            wing.pen.polygon(band, ink(plumage.pale, 0.95 * marks.contrast))
    wing.paste(canvas)
    pen = ImageDraw.Draw(canvas, "RGBA")
    lower = pose.place(to_bird(WING))
    pen.line(flat(np.append(lower, lower[0])), ink(plumage.wing * 0.5, 0.45), width)


def _tail(
    pen: ImageDraw.ImageDraw, species: Species, pose: Pose, plumage: Plumage, marks: Marks
) -> None:
    """A closed tail, notched, with a pale band before the tip."""
    turn = np.exp(1j * (TAIL_ANGLE + pose.tail))

    def pixels(*points: complex) -> Any:
        return flat(pose.place(TAIL + np.array(points) * turn))

    pen.polygon(
        pixels(-0.05 - 0.09j, 0.7 - 0.13j, 0.78 - 0.09j, 0.73, 0.78 + 0.09j, 0.7 + 0.13j, -0.05 + 0.09j),
        ink(plumage.wing),
    )
    if species.tail_band:
        near, far = 0.64 - 0.15 * marks.size, 0.64
        pen.polygon(
            pixels(near - 0.122j, far - 0.127j, far + 0.127j, near + 0.122j),
            ink(plumage.pale, 0.95 * marks.contrast),
        )
    width = max(1, round(0.012 * pose.scale))
    for y in (-0.08, -0.03, 0.03, 0.08):
        pen.line(pixels(0.1 + 0.75j * y, 0.74 + y * 1j), ink(plumage.wing * 0.5, 0.6), width)
    pen.line(pixels(0.0 - 0.092j, 0.7 - 0.125j), ink(plumage.under, plumage.edges), width)


def legs(canvas: Image.Image, pose: Pose, plumage: Plumage, perch: complex) -> None:
    """Two legs and their toes on a perch that runs along `perch` (in pixels)."""
    pen = ImageDraw.Draw(canvas, "RGBA")
    width = max(2, round(0.04 * pose.scale))
    along = perch / abs(perch) * pose.scale
    for hip, foot in ((-0.10 + 0.36j, -0.07), (0.10 + 0.38j, 0.10)):
        a = pose.place(np.array([hip]))[0]
        b = pose.at + (-foot if pose.left else foot) * along
        knee = a + (b - a) * 0.35 - (-0.05 if pose.left else 0.05) * pose.scale
        pen.line([a.real, a.imag, knee.real, knee.imag, b.real, b.imag], ink(plumage.leg), width, "curve")
        for toe in (-0.075, 0.07, 0.11):
            tip = b + along * toe + 0.03j * pose.scale
            pen.line([b.real, b.imag, tip.real, tip.imag], ink(plumage.leg * 0.9), width)


def _bill(pen: ImageDraw.ImageDraw, species: Species, pose: Pose, plumage: Plumage) -> None:
    bill = STOUT_BILL if species.stout_bill else THIN_BILL
    pen.polygon(flat(pose.place(pose.head(bill))), ink(plumage.bill))
    gape = np.array([0.80 + 0.15j, bill[bill.real.argmax()]])
    width = max(1, round(0.012 * pose.scale))
    pen.line(flat(pose.place(pose.head(gape))), ink(plumage.bill * 0.5), width)


def _eye(
    pen: ImageDraw.ImageDraw, species: Species, pose: Pose, plumage: Plumage, marks: Marks
) -> None:
    eye = pose.place(pose.head(np.array([EYE])))[0]
    radius = EYE_RADIUS * HEAD_RADIUS * pose.scale

    def disc(at: complex, r: float, colour: tuple[int, ...]) -> None:
        pen.ellipse((at.real - r, at.imag - r, at.real + r, at.imag + r), colour)

    if species.eye_ring:
        disc(eye, radius * (1.2 + 0.55 * marks.size), ink(plumage.pale, 0.95 * marks.contrast))
    disc(eye, radius * 1.15, ink(plumage.dark * 0.6))
    disc(eye, radius, ink(np.array([0.06, 0.04, 0.03])))
    disc(eye + radius * (0.3 - 0.35j), radius * 0.3, ink(np.array([1.0, 1.0, 1.0]), 0.9))

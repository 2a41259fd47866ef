"""A small bird's form: its field marks, its pose and the outlines of its parts.

A point is a complex number, x + iy with y pointing down, so turning and scaling are one product
and mirroring is one conjugate. Every bird is built in one frame (it faces right, bill to tail is
about two units long) and placed on the canvas by its `Pose`.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Points: TypeAlias = NDArray[np.complex128]
Colour: TypeAlias = NDArray[np.float64]  # red, green, blue in 0..1

BILL_TO_TAIL = 2.15  # units of the bird's own frame
FOOT = 0.03 + 0.66j  # where the bird meets its perch
HEAD, HEAD_RADIUS = 0.49 - 0.46j, 0.275
TAIL, TAIL_ANGLE = -0.50 + 0.20j, 2.62
SHOULDER = 0.30 - 0.12j
EGG_TILT = -0.53  # the body's long axis


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

    @property
    def marks(self) -> tuple[str, ...]:
        """Its field marks in words, as a caption has them."""
        words = {
            "crown stripe": self.crown_stripe,
            "eye ring": self.eye_ring,
            "one wing bar": self.wing_bars == 1,
            "two wing bars": self.wing_bars == 2,
            "breast streaks": self.breast_streaks,
            "tail band": self.tail_band,
            "stout bill": self.stout_bill,
        }
        return tuple(word for word, shown in words.items() if shown)


# A tree of look-alikes: from any species to any other by changing one mark at a time.
SPECIES: tuple[Species, ...] = (
    Species("Plain Thornlet"),
    Species("Spectacled Thornlet", eye_ring=True),
    Species("Band-tailed Thornlet", eye_ring=True, tail_band=True),
    Species("Marsh Thornlet", breast_streaks=True),
    Species("Single-barred Warbler", wing_bars=1, crown_stripe=True),
    Species("Ash-crowned Warbler", wing_bars=2, crown_stripe=True),
    Species("Orchard Warbler", wing_bars=2, crown_stripe=True, eye_ring=True),
    Species("Dune Warbler", wing_bars=2, crown_stripe=True, breast_streaks=True),
    Species("Heath Finch", stout_bill=True, breast_streaks=True),
    Species("Ribbon-tailed Finch", stout_bill=True, breast_streaks=True, tail_band=True),
    Species("Two-barred Finch", stout_bill=True, breast_streaks=True, wing_bars=2),
    Species("Crowned Finch", stout_bill=True, breast_streaks=True, wing_bars=2, crown_stripe=True),
)


@dataclass(frozen=True)
class Pose:
    """How a bird holds itself and where it stands; angles in radians, positive is clockwise."""

    lean: float = 0.0
    tail: float = 0.0
    wing: float = 0.0
    head_tilt: float = 0.0
    head_turn: float = 1.0  # 1: in profile; 0.7: half towards us; -1: looking back
    left: bool = False
    scale: float = 200.0  # pixels a unit
    at: complex = 0j  # pixel of the foot

    def place(self, points: Points) -> Points:
        """Bird's frame -> pixels."""
        turned = (points - FOOT) * np.exp(1j * self.lean)
        pixels: Points = (-turned.conj() if self.left else turned) * self.scale + self.at
        return pixels

    def unplace(self, pixels: Points) -> Points:
        """Pixels -> bird's frame."""
        turned = (pixels - self.at) / self.scale
        turned = -turned.conj() if self.left else turned
        points: Points = turned * np.exp(-1j * self.lean) + FOOT
        return points

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
        placed: Points = turned * np.exp(1j * self.head_tilt) * HEAD_RADIUS + HEAD
        return placed

    def unhead(self, points: Points) -> Points:
        """Bird's frame -> head's frame."""
        turned = (points - HEAD) / HEAD_RADIUS * np.exp(-1j * self.head_tilt)
        freed: Points = turned.real / self.head_turn + 1j * turned.imag
        return freed


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


@dataclass(frozen=True)
class Bird:
    """All there is to know for painting one."""

    species: Species
    pose: Pose
    plumage: Plumage
    marks: Marks
    light: complex  # where it comes from, in pixels' directions; its length is its strength


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
THIN_BILL = spline(
    *(0.88 - 0.03j, 1.30 + 0.03j, 1.76 + 0.17j, 1.30 + 0.23j, 0.88 + 0.26j, 0.84 + 0.12j)
)
STOUT_BILL = spline(
    *(0.84 - 0.30j, 1.22 - 0.20j, 1.58 + 0.18j, 1.22 + 0.40j, 0.84 + 0.46j, 0.74 + 0.10j)
)
BREAST = spline(
    *(0.60 - 0.16j, 0.57 + 0.04j, 0.45 + 0.22j, 0.22 + 0.36j, -0.12 + 0.40j), closed=False
)
EYE_LINE = spline(0.95 + 0.02j, 0.5 - 0.06j, 0.0 - 0.02j, -0.5 + 0.12j, closed=False)
TAIL_FAN = np.array(
    [
        *(-0.05 - 0.09j, 0.70 - 0.13j, 0.78 - 0.09j, 0.73),
        *(0.78 + 0.09j, 0.70 + 0.13j, -0.05 + 0.09j),
    ]
)
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

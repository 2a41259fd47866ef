"""Draw one bird in its surroundings: every choice that is left to chance is made here.

Chance never looks at the marks: with the same stream two species get the same pose, plumage,
perch, backdrop and light, and differ in their field marks alone.
"""

from dataclasses import replace

import numpy as np
from PIL import Image

from fieldmark.data.toy_bird import paint_bird, paint_legs
from fieldmark.data.toy_form import BILL_TO_TAIL, Bird, Marks, Plumage, Pose, Species
from fieldmark.data.toy_scene import Exposure, backdrop, expose, leaf_colour, perch, sprig
from fieldmark.errors import SettingError

UPPER = np.array(
    [
        *((0.44, 0.45, 0.27), (0.46, 0.36, 0.26), (0.47, 0.49, 0.50), (0.36, 0.43, 0.52)),
        *((0.56, 0.36, 0.24), (0.37, 0.44, 0.31), (0.58, 0.49, 0.37)),
    ]
)
UNDER = np.array(
    [
        *((0.93, 0.92, 0.88), (0.90, 0.81, 0.66), (0.93, 0.84, 0.46), (0.92, 0.72, 0.55)),
        *((0.80, 0.81, 0.81), (0.88, 0.86, 0.66)),
    ]
)
SUPERSAMPLING = 2
DRAWING = 1  # to be raised whenever the same arguments give other pixels
CREAM = np.array([0.97, 0.95, 0.88])


def draw_bird(
    species: Species, *, seed: int, size: int = 320, difficulty: float = 0.5
) -> Image.Image:
    """Draw one bird of `species` in its surroundings.

    Args:
        species: One of `SPECIES`, or any other set of marks.
        seed: The same arguments give the same pixels; another seed gives another bird.
        size: Side of the square image in pixels, 32 or more.
        difficulty: 0 (plain marks, little variation) to 1 (faint marks, much of it hidden).

    Raises:
        SettingError: If an argument is out of range.
    """
    check(seed, size, difficulty)
    key = np.random.SeedSequence([seed, *species.name.encode()])
    return draw_scene(species, key, size, difficulty)


def check(seed: int, size: int, difficulty: float) -> None:
    """Refuse what `draw_bird` can't draw.

    Raises:
        SettingError: If an argument is out of range.
    """
    if seed < 0:
        raise SettingError(f"`seed` must be 0 or more, got {seed}.")
    if size < 32:
        raise SettingError(f"`size` must be at least 32 pixels, got {size}. Try 320.")
    if not 0 <= difficulty <= 1:
        raise SettingError(f"`difficulty` must lie in 0..1, got {difficulty}. Try 0.5.")


def draw_scene(
    species: Species, key: np.random.SeedSequence, size: int, difficulty: float
) -> Image.Image:
    """The scene that `key` holds, with a bird of `species` in it."""
    streams = [np.random.Generator(np.random.Philox(child)) for child in key.spawn(7)]
    surround, stance, colours, feathers, front, camera, sun = streams
    side = size * SUPERSAMPLING
    canvas = backdrop(side, difficulty, surround)
    bird = Bird(
        species=species,
        pose=_pose(stance, side, difficulty),
        plumage=plumage_at(difficulty, colours),
        marks=marks_at(difficulty),
        light=complex(0.8 * np.exp(1j * sun.uniform(-2.6, -0.5))),
    )
    along = _perch(canvas, bird.pose, surround)
    paint_bird(canvas, bird, feathers)
    paint_legs(canvas, bird, along)
    _leaves(canvas, bird.pose, along, difficulty, front)
    return expose(canvas.reduce(SUPERSAMPLING), _exposure(camera, difficulty, size), camera)


def marks_at(difficulty: float) -> Marks:
    """Marks shrink and fade as it gets harder."""
    return Marks(size=1.4 - 0.7 * difficulty, contrast=1.0 - 0.35 * difficulty)


def _pose(rng: np.random.Generator, side: int, difficulty: float) -> Pose:
    share = rng.uniform(0.8 - 0.45 * difficulty, 0.85)  # of the frame, bill to tail
    turn = rng.uniform(1 - 0.3 * difficulty, 1.0)
    back = rng.random() < 0.25 * difficulty
    left = rng.random() < 0.5
    spread = np.array([0.2, 0.2, 0.05, 0.14]) * (0.15 + 0.85 * difficulty)
    lean, tail, wing, tilt = rng.normal(0, spread)
    pose = Pose(
        lean=float(lean),
        tail=float(tail),
        wing=float(wing),
        head_tilt=float(tilt),
        head_turn=-turn if back else turn,
        left=bool(left),
        scale=share * side / BILL_TO_TAIL,
    )
    low, high = pose.extent()
    room = complex(side, side) - (high - low)
    spot = complex(max(room.real, 0) * rng.random(), max(room.imag, 0) * rng.uniform(0.2, 0.8))
    return replace(pose, at=spot - low)


def plumage_at(difficulty: float, rng: np.random.Generator) -> Plumage:
    """Colours from the range all species share; wider, and marks less pure, as it gets harder."""
    spread = min(1.0, 0.4 + 1.2 * difficulty)
    upper = UPPER.mean(0) + spread * (UPPER[rng.integers(len(UPPER))] - UPPER.mean(0))
    upper = upper * rng.uniform(1 - 0.3 * difficulty, 1 + 0.2 * difficulty)
    upper = upper + rng.normal(0, 0.02, 3)
    under = UNDER.mean(0) + spread * (UNDER[rng.integers(len(UNDER))] - UNDER.mean(0))
    under = under * rng.uniform(0.88, 1.05) + rng.normal(0, 0.02, 3)
    return Plumage(
        upper=upper,
        under=under,
        wing=upper * rng.uniform(0.55, 0.8),
        cap=upper * rng.uniform(0.65, 1.05),
        throat=under + (CREAM - under) * rng.uniform(0, 0.7),
        bill=np.array([0.28, 0.25, 0.23]) * rng.uniform(0.7, 1.6),
        leg=np.array([0.45, 0.33, 0.28]) * rng.uniform(0.6, 1.3),
        pale=CREAM + (under - CREAM) * rng.uniform(0, 0.6 * difficulty),
        dark=upper * 0.42,
        eye_line=float(rng.uniform(0, difficulty)),
        cheek=float(rng.uniform(0, 0.8 * difficulty)),
        edges=float(rng.uniform(0.1, 0.3 + 0.3 * difficulty)),
    )


def _perch(canvas: Image.Image, pose: Pose, rng: np.random.Generator) -> complex:
    steep = rng.random() < 0.25
    angle = rng.choice([-1, 1]) * rng.uniform(0.9, 1.2) if steep else rng.normal(0, 0.16)
    along = complex(np.exp(1j * angle))
    thick = pose.scale * rng.uniform(0.06, 0.1 if steep else 0.17)
    perch(canvas, pose.at, 1.5 * canvas.width * along, thick, rng)
    return along


def _leaves(
    canvas: Image.Image, pose: Pose, along: complex, difficulty: float, rng: np.random.Generator
) -> None:
    """Sprigs before the bird: beside it, and the harder the task the more across it."""
    colour = leaf_colour(rng)
    for at, angle, long in rng.random((int(rng.integers(0, 2) + 3 * difficulty), 3)):
        apart = (0.85 - 0.6 * difficulty) + 0.7 * at
        root = pose.at + along * pose.scale * apart * rng.choice([-1, 1])
        reach = pose.scale * (0.45 + 0.5 * long) * np.exp(-1j * (0.4 + 2.3 * angle))
        sprig(canvas, root, complex(reach), colour, rng)


def _exposure(rng: np.random.Generator, difficulty: float, size: int) -> Exposure:
    balance = 1 + 0.09 * difficulty * rng.normal(0, 1, 3)
    return Exposure(
        gain=balance * np.exp(rng.uniform(-1, 0.75) * (0.03 + 0.4 * difficulty)),
        contrast=float(rng.uniform(1 - 0.35 * difficulty, 1.05)),
        slope=complex(*rng.normal(0, 0.03 + 0.1 * difficulty, 2)),
        blur=float(rng.uniform(0, difficulty) * size / 320),
        noise=float(rng.uniform(1, 1 + 7 * difficulty)),
    )

"""The built-in data: a field guide to small birds that differ only by their field marks.

Everything else about a bird (pose, plumage, light, perch, backdrop, what hides it) is drawn from
the same distribution for every species, so only the marks tell. Some pairs differ by one mark.
"""

import io
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from fieldmark import durable
from fieldmark.data.toy_bird import BILL_TO_TAIL, Colour, Marks, Plumage, Pose, Species, legs, paint_bird
from fieldmark.data.toy_scene import Exposure, backdrop, expose, leaf_colour, perch, sprig
from fieldmark.errors import DataError, SettingError

# A tree of look-alikes: from any species to any other by changing one mark at a time.
SPECIES: tuple[Species, ...] = (
    Species("Plain Thornlet"),
    Species("Spectacled Thornlet", eye_ring=True),
    Species("Ash-crowned Warbler", wing_bars=2, crown_stripe=True),
    Species("Single-barred Warbler", wing_bars=1, crown_stripe=True),
    Species("Heath Finch", stout_bill=True, breast_streaks=True),
    Species("Ribbon-tailed Finch", stout_bill=True, breast_streaks=True, tail_band=True),
    Species("Marsh Thornlet", breast_streaks=True),
    Species("Band-tailed Thornlet", eye_ring=True, tail_band=True),
    Species("Orchard Warbler", wing_bars=2, eye_ring=True, crown_stripe=True),
    Species("Dune Warbler", wing_bars=2, crown_stripe=True, breast_streaks=True),
    Species("Two-barred Finch", wing_bars=2, stout_bill=True, breast_streaks=True),
    Species("Crowned Finch", wing_bars=2, crown_stripe=True, stout_bill=True, breast_streaks=True),
)

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


def draw_bird(
    species: Species, *, seed: int, size: int = 320, difficulty: float = 0.5
) -> Image.Image:
    """Draws one bird of `species` in its surroundings.

    Args:
        species: One of `SPECIES`, or any other set of marks.
        seed: The same arguments give the same pixels; another seed gives another bird.
        size: Side of the square image in pixels, 32 or more.
        difficulty: 0 (plain marks, little variation) to 1 (faint marks, much of it hidden).

    Raises:
        SettingError: If an argument is out of range.
    """
    _check(seed, size, difficulty)
    key = np.random.SeedSequence([seed, *species.name.encode()])
    return _scene(species, key, size, difficulty)


def _check(seed: int, size: int, difficulty: float) -> None:
    if seed < 0:
        raise SettingError(f"`seed` must be 0 or more, got {seed}.")
    if size < 32:
        raise SettingError(f"`size` must be at least 32 pixels, got {size}. Try 320.")
    if not 0 <= difficulty <= 1:
        raise SettingError(f"`difficulty` must lie in 0..1, got {difficulty}. Try 0.5.")


def _scene(
    species: Species, key: np.random.SeedSequence, size: int, difficulty: float
) -> Image.Image:
    streams = [np.random.Generator(np.random.Philox(child)) for child in key.spawn(7)]
    surround, stance, colours, feathers, front, camera, sun = streams
    side = size * SUPERSAMPLING
    canvas = backdrop(side, difficulty, surround)
    pose = _pose(stance, side, difficulty)
    plumage = _plumage(colours, difficulty)
    light = 0.8 * np.exp(1j * sun.uniform(-2.6, -0.5))
    along = _perch(canvas, pose, surround)
    paint_bird(canvas, species, pose, plumage, marks_at(difficulty), complex(light), feathers)
    legs(canvas, pose, plumage, along)
    _leaves(canvas, pose, along, difficulty, front)
    return expose(canvas.reduce(SUPERSAMPLING), _exposure(camera, difficulty, size), camera)


def marks_at(difficulty: float) -> Marks:
    """Marks shrink and fade as it gets harder."""
    return Marks(size=1.4 - 0.7 * difficulty, contrast=1.0 - 0.35 * difficulty)


def _pose(rng: np.random.Generator, side: int, difficulty: float) -> Pose:
    share = rng.uniform(0.8 - 0.45 * difficulty, 0.85)  # of the frame, bill to tail
    turn = rng.uniform(1 - 0.3 * difficulty, 1.0)
    back = rng.random() < 0.25 * difficulty
    left = rng.random() < 0.5
    lean, tail, wing, tilt = rng.normal(0, 1, 4) * (0.2, 0.2, 0.05, 0.14) * np.array(0.15 + 0.85 * difficulty)
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


def _plumage(rng: np.random.Generator, difficulty: float) -> Plumage:
    upper = UPPER[rng.integers(len(UPPER))] * rng.uniform(1 - 0.3 * difficulty, 1 + 0.2 * difficulty) + rng.normal(0, 0.02, 3)
    under = UNDER[rng.integers(len(UNDER))] * rng.uniform(0.88, 1.05) + rng.normal(0, 0.02, 3)
    cream = np.array([0.97, 0.95, 0.88])
    return Plumage(
        upper=upper,
        under=under,
        wing=upper * rng.uniform(0.55, 0.8),
        cap=upper * rng.uniform(0.65, 1.05),
        throat=under + (cream - under) * rng.uniform(0, 0.7),
        bill=np.array([0.28, 0.25, 0.23]) * rng.uniform(0.7, 1.6),
        leg=np.array([0.45, 0.33, 0.28]) * rng.uniform(0.6, 1.3),
        pale=cream + (under - cream) * rng.uniform(0, 0.6 * difficulty),
        dark=upper * 0.42,
        eye_line=float(rng.uniform(0, difficulty)),
        cheek=float(rng.uniform(0, 0.8 * difficulty)),
        edges=float(rng.uniform(0.1, 0.3 + 0.3 * difficulty)),
    )


def _perch(canvas: Image.Image, pose: Pose, rng: np.random.Generator) -> complex:
    steep = rng.random() < 0.25
    angle = rng.choice([-1, 1]) * rng.uniform(0.9, 1.2) if steep else rng.normal(0, 0.16)
    along = complex(np.exp(1j * angle))
    perch(canvas, pose.at, along, pose.scale * rng.uniform(0.06, 0.1 if steep else 0.17), rng)
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


def write_toy(
    folder: Path,
    *,
    per_class: int = 60,
    seed: int = 0,
    size: int = 320,
    difficulty: float = 0.5,
    species: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes the drawings as photos, one folder a species: `folder/Heath_Finch/007.jpg`.

    The settings are kept in `folder/toy.json`. The same call again draws only what is missing.

    Args:
        folder: New, empty, or written by the same call before.
        per_class: Drawings of each species.
        seed: Another seed gives other birds.
        size: As for `draw_bird`.
        difficulty: As for `draw_bird`.
        species: Only the first so many of `SPECIES`; None for all.
        progress: Called with (drawings done, drawings in all) after each.

    Raises:
        SettingError: If an argument is out of range.
        DataError: If `folder` holds anything else.
    """
    count = len(SPECIES) if species is None else species
    _check(seed, size, difficulty)
    if not 2 <= count <= len(SPECIES):
        raise SettingError(f"`species` must lie in 2..{len(SPECIES)}, got {species}.")
    if not 1 <= per_class <= 1000:
        raise SettingError(f"`per_class` must lie in 1..1000, got {per_class}.")
    folder = Path(folder)
    settings = {
        "per_class": per_class,
        "seed": seed,
        "size": size,
        "difficulty": difficulty,
        "drawing": DRAWING,
        "species": [asdict(kind) for kind in SPECIES[:count]],
    }
    _claim(folder, settings)
    for number, kind in enumerate(SPECIES[:count]):
        durable.make_folder(folder / kind.folder)
        for index in range(per_class):
            path = folder / kind.folder / f"{index:03d}.jpg"
            if not path.exists() or path.stat().st_size == 0:  # emptied by a power cut
                image = draw_bird(
                    kind, seed=1000 * seed + index, size=size, difficulty=difficulty
                )
                durable.replace(path, _jpeg(image), sync=False)
            if progress:
                progress(number * per_class + index + 1, count * per_class)
    return folder


def _claim(folder: Path, settings: dict[str, object]) -> None:
    """Writes the settings into a new or empty folder, or finds the same ones there."""
    note = folder / "toy.json"
    text = json.dumps(settings, indent=2) + "\n"
    if note.is_file():
        if note.read_text() != text:
            raise DataError(
                f"`{folder}` holds a toy set drawn with other settings (see `{note}`). "
                "Give another folder, or delete this one first."
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"`{folder}` exists and is no toy set; nothing was written. "
            "Give a new or an empty folder."
        )
    durable.make_folder(folder)
    durable.replace(note, text.encode())


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()

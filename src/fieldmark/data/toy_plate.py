"""The field guide's plate: every species once, with lines that point to its field marks."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fieldmark.data.toy_bird import flat, ink, paint_bird, paint_legs
from fieldmark.data.toy_draw import SUPERSAMPLING, plumage_at
from fieldmark.data.toy_form import (
    BARS,
    EYE,
    SPECIES,
    TAIL,
    TAIL_ANGLE,
    Bird,
    Marks,
    Pose,
    Species,
)
from fieldmark.data.toy_scene import leaf_colour, perch, sprig
from fieldmark.errors import SettingError

PAPER, TEXT = np.array([0.965, 0.940, 0.880]), (62, 50, 40)
FAINT, RED = (122, 106, 90), np.array([0.70, 0.20, 0.14])
TITLE = "Look-alikes of hedge, heath and marsh"
NOTE = "Colours vary within every species. Trust the marks."
CELL = 400, 360  # width and height


def plate(*, columns: int = 4, seed: int = 0) -> Image.Image:
    """Draw all of `SPECIES` on one page, 400 pixels a column, after Peterson's field guides.

    Args:
        columns: Birds in a row.
        seed: Another seed gives other colours and perches.

    Raises:
        SettingError: If `columns` is not within 1..12.
    """
    if not 1 <= columns <= len(SPECIES):
        raise SettingError(f"`columns` must lie in 1..{len(SPECIES)}, got {columns}. Try 4.")
    rows = -(-len(SPECIES) // columns)
    top, bottom, margin = 110, 66, 30
    wide, high = columns * CELL[0] + 2 * margin, top + rows * CELL[1] + bottom
    page = _paper(wide, high, np.random.default_rng(seed))
    for number, species in enumerate(SPECIES):
        row, column = divmod(number, columns)
        corner = margin + column * CELL[0], top + row * CELL[1]
        _portrait(page, corner, species, np.random.default_rng([seed, number]))
    pen = ImageDraw.Draw(page)
    pen.rectangle((14, 14, wide - 15, high - 15), outline=FAINT, width=1)
    pen.rectangle((19, 19, wide - 20, high - 20), outline=FAINT, width=2)
    pen.text((wide / 2, 68), TITLE, TEXT, ImageFont.load_default(38), anchor="mm")
    pen.text((wide / 2, high - 50), NOTE, FAINT, ImageFont.load_default(20), anchor="mm")
    return page


def _paper(wide: int, high: int, rng: np.random.Generator) -> Image.Image:
    """Old paper: warm, a little uneven."""
    stains = Image.fromarray(rng.integers(0, 256, (high // 60, wide // 60), dtype=np.uint8))
    smooth = np.asarray(stains.resize((wide, high), Image.Resampling.BICUBIC)) / 255 - 0.5
    grain = rng.normal(0, 0.006, (high, wide))
    sheet = PAPER * (1 + 0.025 * smooth + grain)[..., None]
    return Image.fromarray((sheet * 255).clip(0, 255).astype(np.uint8))


def _portrait(
    page: Image.Image, corner: tuple[int, int], species: Species, rng: np.random.Generator
) -> None:
    """One bird on its twig, its pointers and its caption."""
    x, y = corner
    size = CELL[0], CELL[1] - 70
    ground = page.crop((x, y, x + size[0], y + size[1]))
    canvas = ground.resize((size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING))
    pose = Pose(scale=0.70 * canvas.width / 2.15, at=complex(0.53, 0.635) * canvas.width)
    bird = Bird(species, pose, plumage_at(0.45, rng), Marks(size=1.1), light=-0.35 - 0.75j)
    _twig(canvas, pose, rng)
    paint_bird(canvas, bird, rng)
    paint_legs(canvas, bird, 1 + 0j)
    _pointers(canvas, bird)
    page.paste(canvas.reduce(SUPERSAMPLING), corner)
    pen = ImageDraw.Draw(page)
    middle = x + CELL[0] / 2
    pen.text((middle, y + 302), species.name, TEXT, ImageFont.load_default(25), anchor="mm")
    words = " · ".join(species.marks) or "no marks: the plainest of them"
    pen.text((middle, y + 329), words, FAINT, ImageFont.load_default(15), anchor="mm")


def _twig(canvas: Image.Image, pose: Pose, rng: np.random.Generator) -> None:
    perch(canvas, pose.at, 0.9 * pose.scale + 0j, 0.09 * pose.scale, rng)
    root = pose.at + 0.75 * pose.scale
    sprig(canvas, root, pose.scale * complex(0.35, -0.40), leaf_colour(rng), rng)


def _pointers(canvas: Image.Image, bird: Bird) -> None:
    """Thin lines from the margin to every mark of the species, in the manner of Peterson."""
    pen = ImageDraw.Draw(canvas, "RGBA")
    pose, species = bird.pose, bird.species
    band = TAIL + 0.56 * np.exp(1j * TAIL_ANGLE)
    bar = BARS[0] if species.wing_bars == 2 else BARS[1]
    spots = (
        (species.crown_stripe, pose.head(np.array([-0.30 - 0.98j]))[0], -0.45 - 0.22j),
        (species.eye_ring, pose.head(np.array([EYE + 0.25 - 0.12j]))[0], 0.48 - 0.26j),
        (species.stout_bill, pose.head(np.array([1.35 + 0.42j]))[0], 0.16 + 0.26j),
        (species.wing_bars > 0, bar[2], -0.34 - 0.34j),
        (species.breast_streaks, 0.53 + 0.09j, 0.34 + 0.10j),
        (species.tail_band, band - 0.11j, -0.08 - 0.36j),
    )
    for shown, spot, way in spots:
        if shown:
            line = pose.place(np.array([spot + 0.04 * way / abs(way), spot + way]))
            pen.line(flat(line), ink(RED, 0.85), 3)

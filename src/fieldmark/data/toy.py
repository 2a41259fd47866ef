"""The built-in data: a field guide to small birds that differ only by their field marks.

Everything else about a bird (pose, plumage, light, perch, backdrop, what hides it) is drawn from
the same distribution for every species, so only the marks tell. Some pairs differ by one mark.
"""

import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from fieldmark import durable
from fieldmark.data.toy_draw import DRAWING, check, draw_bird
from fieldmark.data.toy_form import SPECIES, Species
from fieldmark.data.toy_plate import plate
from fieldmark.errors import DataError, SettingError

__all__ = ["SPECIES", "Species", "draw_bird", "plate", "write_toy"]


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
    """Write the drawings as photos, one folder a species: `folder/Heath_Finch/007.jpg`.

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
    check(seed, size, difficulty)
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
                image = draw_bird(kind, seed=1000 * seed + index, size=size, difficulty=difficulty)
                durable.replace(path, _jpeg(image), sync=False)
            if progress:
                progress(number * per_class + index + 1, count * per_class)
    return folder


def _claim(folder: Path, settings: dict[str, object]) -> None:
    """Write the settings into a new or empty folder, or find the same ones there."""
    note = folder / "toy.json"
    if note.is_file():
        _compare(note, settings)
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(
            f"`{folder}` exists and is no toy set; nothing was written. "
            "Give a new or an empty folder."
        )
    durable.make_folder(folder)
    durable.replace(note, (json.dumps(settings, indent=2) + "\n").encode())


def _compare(note: Path, settings: dict[str, object]) -> None:
    way_out = "Give another folder, or delete this one first."
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
        differing = [
            f"other `{name}`" + ("" if name == "species" else f": {found.get(name)}, not {value}")
            for name, value in settings.items()
            if found.get(name) != value
        ]
    except (ValueError, AttributeError, OSError) as error:
        raise DataError(f"`{note}` can't be read ({error}). {way_out}") from error
    if differing:
        raise DataError(f"`{note.parent}` holds a toy set with {'; '.join(differing)}. {way_out}")


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()

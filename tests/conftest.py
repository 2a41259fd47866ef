"""What every test starts from."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

DrawSquares = Callable[..., Path]
COLOURS = {"amber": (220, 150, 40), "olive": (110, 120, 40), "teal": (30, 120, 120)}


@pytest.fixture(autouse=True)
def the_same_chance_in_every_run():
    """Tests that draw from torch's global generator draw the same, alone or among others."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def draw_squares() -> DrawSquares:
    """Fills a folder with photos that a tiny network tells apart: a colour a class, in noise."""

    def draw(
        folder: Path,
        classes: Iterable[str] = COLOURS,
        *,
        per_class: int = 20,
        noise: float = 60,
        suffix: str = "png",
    ) -> Path:
        generator = np.random.default_rng(0)
        for name in classes:
            (folder / name).mkdir(parents=True)
            for number in range(per_class):
                drawn = generator.normal(0, noise, size=(40, 48, 3))
                pixels = np.clip(np.array(COLOURS[name]) + drawn, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / name / f"{number:02}.{suffix}", quality=95)
        return folder

    return draw

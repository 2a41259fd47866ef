"""The picture that `fieldmark inspect` draws."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark.build import build
from fieldmark.checked_yaml import check_text
from fieldmark.contact_sheet import _fit, _text, save_contact_sheet, written_on
from fieldmark.recipe import Recipe

RECIPE = """\
data: {folder: "%s", image_size: 32, resize_size: 36, mirror: true}
backbone: {name: test_resnet, weights: none}
stages: [{name: head, train: head, lr: 1, length: 1 epoch}]
"""


def test_the_contact_sheet_shows_photos_as_the_network_sees_them(draw_squares, tmp_path: Path):
    photos = draw_squares(tmp_path / "photos", per_class=20)
    task = build(check_text(RECIPE % photos, Recipe))
    save_contact_sheet(task, tmp_path / "inputs.png")
    with Image.open(tmp_path / "inputs.png") as sheet:
        assert sheet.size == (8 + 8 * 176, 8 + 3 * 210)
        tile = np.asarray(sheet.convert("RGB"))[8 + 34 : 8 + 34 + 168, 8 : 8 + 168]
    photo = task.part("train")[0]
    seen = task.train_view.load(photo.path, seed=0, epoch=0, sample=photo.key)
    assert np.abs(tile.mean(axis=(0, 1)) - seen.numpy().mean(axis=(1, 2))).max() < 3


def written(text: str) -> bytes:
    return written_on((200, 40), [_text(text, 4, 24, 11, "#000000")]).tobytes()


@pytest.mark.parametrize("letter", [*"äöüßÅøéñçŁšığ", "<", "&", '"', "'"])
def test_letters_beyond_ascii_are_drawn(letter: str):
    assert len({written(letter), written("\U0010fffe"), written("")}) == 3


def test_what_cannot_be_printed_is_a_dot_and_breaks_nothing():
    assert written("a\x00\x1b[2Jb\n") == written("a··[2Jb·")


def test_a_long_name_is_cut_to_its_tile():
    assert _fit("Grün fink") == "Grün fink"
    assert _fit("x" * 26) == "x" * 26
    assert _fit("x" * 27) == "x" * 25 + "…"
    assert _fit("鳥" * 14) == "鳥" * 12 + "…"  # each as wide as two

"""Photos as the network sees them, on one picture."""

import io
from collections.abc import Iterator
from html import escape
from pathlib import Path

import vl_convert
from PIL import Image
from rich.cells import cell_len
from torch import Tensor

from fieldmark import durable
from fieldmark.build import SplitName, Task
from fieldmark.data.transform import View

SHOWN = 8
TILE, GAP, CAPTION = 168, 8, 34  # pixels
PAPER, INK, FAINT = "#FFFFFF", "#333333", "#767676"
CELLS = 26  # of a terminal, as wide as a tile of small letters


def contact_sheet(task: Task) -> Image.Image:
    """Eight training inputs above the same photos through the eval view, then eight of `val`.

    A column of the first two rows is one photo: what differs is what augmentation does. Photos
    are taken evenly over the split, so that several classes show.
    """
    rows: list[tuple[str, SplitName, View]] = [
        (f"train, epoch 0: {task.train_view.describe()}", "train", task.train_view),
        (
            f"the same, as minitrain and val are seen: {task.eval_view.describe()}",
            "train",
            task.eval_view,
        ),
        ("val", "val", task.eval_view),
    ]
    rows = [row for row in rows if task.part(row[1])]
    width = GAP + SHOWN * (TILE + GAP)
    sheet = Image.new("RGB", (width, GAP + len(rows) * (CAPTION + TILE + GAP)), PAPER)
    texts: list[str] = []
    for number, (caption, split, view) in enumerate(rows):
        top = GAP + number * (CAPTION + TILE + GAP)
        texts += [_text(caption, GAP, top + 11, 13, INK), *_row(sheet, task, split, view, top)]
    written = written_on(sheet.size, texts)
    sheet.paste(written, mask=written)
    return sheet


def save_contact_sheet(task: Task, path: Path) -> None:
    """Write the sheet as PNG."""
    buffer = io.BytesIO()
    contact_sheet(task).save(buffer, format="PNG")
    durable.replace(path, buffer.getvalue())


def _row(sheet: Image.Image, task: Task, split: SplitName, view: View, top: int) -> Iterator[str]:
    """Paste the photos of a row; yields the names to be written above them."""
    photos = task.part(split)
    for place in range(min(SHOWN, len(photos))):
        photo = photos[place * len(photos) // min(SHOWN, len(photos))]
        seed = task.recipe.seed
        pixels = view.load(
            photo.path, box=photo.box, seed=seed, epoch=0, sample=photo.key
        )  # (3, S, S)
        left = GAP + place * (TILE + GAP)
        sheet.paste(_to_image(pixels).resize((TILE, TILE)), (left, top + CAPTION))
        yield _text(_fit(task.photos.class_names[photo.label]), left, top + 28, 11, FAINT)


def _text(text: str, left: int, base: int, size: int, colour: str) -> str:
    """A line of text as SVG, from `left` on, its letters standing on `base`."""
    shown = "".join(letter if letter.isprintable() else "·" for letter in text)
    place = f'x="{left}" y="{base}" font-size="{size}" fill="{colour}"'
    return f'<text {place} font-family="sans-serif">{escape(shown)}</text>'


def written_on(size: tuple[int, int], texts: list[str]) -> Image.Image:
    """Lines of text on a transparent picture, in the system's fonts, whatever their script."""
    width, height = size
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
    png = vl_convert.svg_to_png("".join([head, *texts, "</svg>"]))
    return Image.open(io.BytesIO(png)).convert("RGBA")


def _fit(name: str) -> str:
    if cell_len(name) <= CELLS:
        return name
    while cell_len(name) >= CELLS:
        name = name[:-1]
    return f"{name}…"


def _to_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())

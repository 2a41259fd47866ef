"""Photos as the network sees them, on one picture."""

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fieldmark import durable
from fieldmark.build import SplitName, Task
from fieldmark.data.transform import View

SHOWN = 8
TILE, GAP, CAPTION = 168, 8, 34  # pixels
PAPER, INK, FAINT = "#FFFFFF", "#333333", "#767676"


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
    for number, (caption, split, view) in enumerate(rows):
        top = GAP + number * (CAPTION + TILE + GAP)
        _row(sheet, task, caption, split, view, top)
    return sheet


def save_contact_sheet(task: Task, path: Path) -> None:
    """Write the sheet as PNG."""
    buffer = io.BytesIO()
    contact_sheet(task).save(buffer, format="PNG")
    durable.replace(path, buffer.getvalue())


def _row(
    sheet: Image.Image, task: Task, caption: str, split: SplitName, view: View, top: int
) -> None:
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, top), caption, fill=INK, font=ImageFont.load_default(13))
    photos = task.part(split)
    for place in range(min(SHOWN, len(photos))):
        photo = photos[place * len(photos) // min(SHOWN, len(photos))]
        seed = task.recipe.seed
        pixels = view.load(
            photo.path, box=photo.box, seed=seed, epoch=0, sample=photo.key
        )  # (3, S, S)
        left = GAP + place * (TILE + GAP)
        sheet.paste(_to_image(pixels).resize((TILE, TILE)), (left, top + CAPTION))
        name = task.photos.class_names[photo.label]
        pen.text((left, top + 17), _fit(name), fill=FAINT, font=ImageFont.load_default(11))


def _fit(name: str) -> str:
    font = ImageFont.load_default(11)
    while font.getlength(name) > TILE:
        name = name[:-2] + "…"
    return name


def _to_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())

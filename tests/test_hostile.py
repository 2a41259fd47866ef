"""A folder of photos as bad as folders get trains with exactly the right n, or stops before step 1.

Every kind of trouble is a file of its own, so a count or list that is off by one names its kind.
"""

import os
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark.checked_yaml import check_text
from fieldmark.errors import DataError
from fieldmark.evaluate import evaluate_run
from fieldmark.ledger import Silent
from fieldmark.recipe import Recipe
from fieldmark.studies.run import Run
from fieldmark.train import train
from fieldmark.training.features import FeatureStore

RECIPE = """\
data: {folder: "%s", image_size: 32, resize_size: 36}
backbone: {name: test_resnet, weights: none}
pooling: {name: average}
threads: 1
stages:
  - {name: head, train: head, lr: 1, length: 1 epoch, batch_size: 8}
  - {name: all, train: all, lr: 0.01, length: 2 steps, batch_size: 8}
"""


def picture(seed: int = 0, size: tuple[int, int] = (40, 48)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int = 6, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x112] = orientation
    return encoded(picture(), kind, exif=exif)


def animated() -> bytes:
    frames = [picture(seed).quantize(16) for seed in range(3)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def sixteen_bits() -> bytes:
    return encoded(Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40), "PNG")


def bomb() -> bytes:
    data = bytearray(encoded(picture()))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    return bytes(data)


ODD: dict[str, Callable[[], bytes]] = {  # every one of them is a photo
    "UPPER.JPG": lambda: encoded(picture()),
    "png-by-another-name.jpg": lambda: encoded(picture(), "PNG"),
    "cmyk.jpg": lambda: encoded(picture().convert("CMYK")),
    "grey.jpg": lambda: encoded(picture().convert("L")),
    "clear.png": lambda: encoded(picture().convert("RGBA"), "PNG"),
    "palette.png": lambda: encoded(picture().quantize(16), "PNG", transparency=3),
    "sixteen-bits.png": sixteen_bits,
    "turned.jpg": turned,
    "on its side.png": lambda: turned(5, "PNG"),
    "on its other side.webp": lambda: turned(8, "WEBP"),
    "animated.gif": animated,
    "progressive.jpg": lambda: encoded(picture(), progressive=True),
    "one-pixel.png": lambda: encoded(picture(size=(1, 1)), "PNG"),
    "thin.png": lambda: encoded(picture(size=(2, 900)), "PNG"),
    "strip.png": lambda: encoded(picture(size=(20_000, 10)), "PNG"),
    "Öl 鳥 'quoted' #100%.jpg": lambda: encoded(picture()),
    "two\nlines.jpg": lambda: encoded(picture()),
    f"{'long' * 60}.jpg": lambda: encoded(picture()),
    "garbage-behind.jpg": lambda: encoded(picture()) + b"\0" * 1000,
    "folder.jpg/inside.webp": lambda: encoded(picture(), "WEBP"),
}
NO_PHOTOS = ("Thumbs.db", "notes.txt", "desktop.ini", "raw.cr2")
HIDDEN = (".DS_Store", "._UPPER.JPG", "__MACOSX/x.jpg", ".thumbnails/x.jpg")
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut.jpg": (lambda: encoded(picture())[:700], "truncated|broken|not processed"),
    "cut.png": (lambda: encoded(picture(), "PNG")[:900], "truncated|broken"),
    "empty.jpg": (lambda: b"", "in no known image format, or empty"),
    "page.jpg": (lambda: b"<html>404 Not Found</html>", "in no known image format"),
    "head-alone.jpg": (lambda: b"\xff\xd8\xff\xe0", "in no known image format"),
    "bomb.jpg": (bomb, "more than 178,956,970 pixels"),
    "floats.tiff": (lambda: encoded(Image.new("F", (9, 9)), "TIFF"), "32-bit numbers"),
}


class Listener(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def make_odd(folder: Path) -> int:
    """Two classes, one of odd photos amid what is none; return how many photos there are."""
    for name, content in ODD.items():
        put(folder / "odd" / name, content())
    for name in (*NO_PHOTOS, *HIDDEN):
        put(folder / "odd" / name, b"no photo")
    (folder / "odd" / "loop").symlink_to(folder / "odd", target_is_directory=True)
    for number in range(len(ODD)):
        put(folder / "plain" / f"{number}.jpg", encoded(picture(number)))
    return 2 * len(ODD)


def make_bad(folder: Path) -> dict[str, str]:
    """Every bad file; return the reason that is expected of each."""
    for name, (content, _) in BAD.items():
        put(folder / name, content())
    (folder / "nowhere.jpg").symlink_to(folder / "gone")
    os.mkfifo(folder / "pipe.jpg")
    reasons = {name: reason for name, (_, reason) in BAD.items()}
    return reasons | {"nowhere.jpg": "No such file", "pipe.jpg": "no regular file"}


def run(
    photos: Path,
    folder: Path,
    *overrides: str,
    open_test: bool = True,
    told: Listener | None = None,
) -> Run:
    recipe = check_text(RECIPE % photos, Recipe, overrides)
    store = FeatureStore(folder.parent / "features")
    reporter = told or Listener()
    return train(recipe, folder, store=store, reporter=reporter, open_test=open_test)


def test_a_folder_of_odd_photos_trains_on_every_one(tmp_path: Path):
    count = make_odd(tmp_path / "photos")
    assert len(ODD) + len(NO_PHOTOS) + len(HIDDEN) + len(BAD) + 3 >= 20
    told = Listener()
    found = run(tmp_path / "photos", tmp_path / "run", told=told)
    assert found.status == "finished"
    counts = found.manifest["counts"]
    assert counts["train"] + counts["val"] + counts["test"] == count
    assert found.manifest["skipped"] == {}
    # The loop of folders is counted too: it is not entered.
    begins = f"{len(NO_PHOTOS) + 1} files are no photos of a class: "
    (others,) = [line for line in told.lines if line.startswith(begins)]
    assert all(name in others for name in (*NO_PHOTOS, "odd/loop"))
    for split in ("val", "test"):
        assert len(found.predictions(split)) == counts[split]


def test_every_bad_file_is_listed_with_its_reason_before_step_1(tmp_path: Path):
    make_odd(tmp_path / "photos")
    reasons = make_bad(tmp_path / "photos" / "plain")
    with pytest.raises(DataError, match=rf"^{len(reasons)} photos can't be read:") as caught:
        run(tmp_path / "photos", tmp_path / "run")
    lines = str(caught.value).splitlines()[1:-1]
    listed = {Path(line.strip().partition(": ")[0]).name: line for line in lines}
    assert listed.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert any(part in listed[name] for part in reason.split("|")), listed[name]
    assert not (tmp_path / "run").exists()


def test_bad_training_photos_are_skipped_by_choice_counted_and_named(tmp_path: Path):
    photos = tmp_path / "photos"
    count = make_odd(photos / "train")
    reasons = make_bad(photos / "train" / "plain")
    make_odd(photos / "val")
    told = Listener()
    found = run(photos, tmp_path / "run", "data.split=official", "data.bad_files=skip", told=told)
    assert found.manifest["counts"] == {
        "train": count, "minitrain": count, "val": count, "test": 0
    }  # fmt: skip
    assert found.manifest["skipped"].keys() == {f"train/plain/{name}" for name in reasons}
    assert any(f"they can't be read: {len(reasons)} training photos" in line for line in told.lines)
    assert (found.folder / "log.txt").read_text().count("skipped, since they can't be read") == 1
    assert evaluate_run(found.folder)["top1"] == found.series("val/top1")[1][-1]


def test_a_bad_val_photo_stops_even_where_bad_files_are_skipped(tmp_path: Path):
    photos = tmp_path / "photos"
    make_odd(photos / "train")
    make_odd(photos / "val")
    put(photos / "train" / "odd" / "bad.jpg", b"")
    put(photos / "val" / "odd" / "worse.jpg", b"")
    with pytest.raises(DataError, match=r"^1 photo can't be read:\n.*val/odd/worse\.jpg: it "):
        run(photos, tmp_path / "run", "data.split=official", "data.bad_files=skip")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_that_is_not_utf8_is_told_before_step_1(tmp_path: Path):
    make_odd(tmp_path / "photos")
    put(Path(os.fsdecode(bytes(tmp_path / "photos" / "odd" / "x") + b"\xff.jpg")), b"")
    with pytest.raises(DataError, match=r"1 name is not UTF-8: odd/x\\udcff\.jpg"):
        run(tmp_path / "photos", tmp_path / "run")


NAMES = (
    "Wren",
    "wren",
    " Wren ",
    "two\nlines",
    "O\u0308l",
    "鳥",
    "-1",
    "1",
    "10",
    "2",
    "null",
    "x.jpg",
)


def test_classes_of_odd_names_are_kept_apart_to_the_end(tmp_path: Path):
    for number, name in enumerate(NAMES):
        for photo in range(6):
            content = encoded(picture(100 * number + photo), "PNG")
            put(tmp_path / "photos" / name / f"{photo}.png", content)
    (tmp_path / "photos" / "all of them").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "itself").symlink_to(tmp_path / "photos" / "itself")
    put(tmp_path / "photos" / ".hidden" / "0.png", encoded(picture()))
    told = Listener()
    found = run(tmp_path / "photos", tmp_path / "run", told=told)
    assert found.class_names == sorted(NAMES)
    assert sum(found.manifest["counts"][split] for split in ("train", "val", "test")) == 72
    held = found.predictions("test").select("path", "label").rows()
    assert all(path.rpartition("/")[0] == label for path, label in held)
    assert {label for _, label in held} == set(NAMES)
    assert "class names that differ only in case or spaces:  Wren , Wren, wren" in told.lines
    others = "3 files are no photos of a class: .hidden, all of them, itself"
    assert others in told.lines
    assert evaluate_run(found.folder)["top1"] == found.series("val/top1")[1][-1]


def test_classes_that_look_the_same_stop_before_step_1(tmp_path: Path):
    for name in ("\u00d6l", "O\u0308l", "Wren"):
        put(tmp_path / "photos" / name / "0.jpg", encoded(picture()))
    with pytest.raises(DataError, match="look the same but are written with other Unicode"):
        run(tmp_path / "photos", tmp_path / "run")
    assert not (tmp_path / "run").exists()

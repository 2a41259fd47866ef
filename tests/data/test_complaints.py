"""What people lost days to with other tools, each as a test of what prevents it here."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark.build import Task, build, check_files
from fieldmark.checked_yaml import check_text
from fieldmark.data.audit import check_photos
from fieldmark.data.dataset import Photo
from fieldmark.data.loader import load_batches
from fieldmark.data.sources import check_class_names, read_photos
from fieldmark.data.split import make_split
from fieldmark.data.transform import View
from fieldmark.errors import DataError
from fieldmark.metrics import classification_metrics
from fieldmark.recipe import Recipe

VIEW = View(image_size=24, resize_size=32, mirror=True)
RECIPE = """\
data: {folder: "%s", image_size: 32}
backbone: {name: test_resnet, weights: none}
pooling: {name: average}
stages: [{name: head, train: head, lr: 1, length: 1 epoch}]
"""


def save(path: Path, seed: int = 0, mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def fill(folder: Path, *names: str, count: int = 6) -> Path:
    for label, name in enumerate(names):
        for number in range(count):
            save(folder / name / f"{number}.jpg", seed=100 * label + number)
    return folder


def task(folder: Path, *overrides: str) -> Task:
    return build(check_text(RECIPE % folder, Recipe, overrides))


def checked(folder: Path, memory: Path, *overrides: str, open_test: bool = False) -> Task:
    return check_files(task(folder, *overrides), memory, open_test=open_test)


def test_a_class_missing_from_val_shifts_no_label(tmp_path: Path) -> None:
    """B1: labels of val shift when one of its class folders is empty or missing."""
    fill(tmp_path / "train", "ani", "gull", "wren")
    fill(tmp_path / "val", "ani", "wren")
    (tmp_path / "val" / "gull").mkdir()
    found = task(tmp_path, "data.split=official")
    assert {(photo.key.split("/")[1], photo.label) for photo in found.part("val")} == {
        ("ani", 0),
        ("wren", 2),
    }
    assert "val has no photos of 1 class: gull" in found.notes


def test_class_order_is_one_and_weights_refuse_another(tmp_path: Path) -> None:
    """B2: classes sorted "1, 10, 2" here and by number there are judged as one another."""
    fill(tmp_path / "tree", "1", "2", "10", count=1)
    lines = "1/0.jpg 1\n2/0.jpg 2\n10/0.jpg 10\n"
    (tmp_path / "list.txt").write_text(lines, encoding="utf-8")
    by_tree = read_photos(tmp_path / "tree")
    by_list = read_photos(tmp_path / "tree", lists={"all": tmp_path / "list.txt"})
    assert by_tree.class_names == by_list.class_names == ("1", "10", "2")
    assert by_tree.photos == by_list.photos
    with pytest.raises(DataError, match="the same names in another order"):
        check_class_names(("1", "2", "10"), by_tree)


def test_val_is_never_augmented(tmp_path: Path) -> None:
    """B7: val goes through the train transform after a random split."""
    found = task(fill(tmp_path, "ani", "wren"), "data.mirror=true")
    path = found.part("val")[0].path
    shown = [
        found.eval_view.load(path, seed=seed, epoch=epoch, sample="x")
        for seed, epoch in ((0, 0), (0, 1), (7, 0))
    ]
    assert all(torch.equal(shown[0], other) for other in shown[1:])
    assert any(
        not torch.equal(shown[0], found.train_view.load(path, seed=0, epoch=e, sample="x"))
        for e in range(4)
    )


def test_prediction_sees_the_pixels_that_evaluation_saw(tmp_path: Path) -> None:
    """B8: val and predict disagree on one photo because each has its own preprocessing."""
    path = save(tmp_path / "x.jpg")
    kept = View.from_dict(VIEW.eval().to_dict())
    assert torch.equal(kept.load(path), VIEW.eval().load(path))


def test_photos_that_stand_in_train_and_val_are_named(tmp_path: Path) -> None:
    """B9: test photos are byte for byte in the training set, or under two labels."""
    fill(tmp_path / "p" / "train", "ani", "wren")
    fill(tmp_path / "p" / "val", "ani", "wren", count=1)
    save(tmp_path / "p" / "val" / "wren" / "new.jpg", seed=999)
    save(tmp_path / "p" / "val" / "ani" / "torn.jpg", seed=999)
    notes = "\n".join(checked(tmp_path / "p", tmp_path / "m", "data.split=official").notes)
    assert "2 photos stand in more than one part, byte for byte" in notes
    assert "train: train/ani/0.jpg = val: val/ani/0.jpg" in notes
    assert "val/ani/torn.jpg (ani) = val/wren/new.jpg (wren)" in notes


def test_photos_that_look_the_same_in_train_and_val_are_named(tmp_path: Path) -> None:
    """B9: a test photo is a training photo saved again, so its bytes are not the same."""
    fill(tmp_path / "p" / "train", "ani", "wren", count=2)
    for number, bird in enumerate(("ani", "wren")):
        save(tmp_path / "p" / "val" / bird / "own.jpg", seed=50 + number)
    blots = np.random.default_rng(5).integers(0, 256, (9, 12, 3), np.uint8)
    scene = Image.fromarray(blots).resize((320, 240), Image.Resampling.BICUBIC)
    scene.save(tmp_path / "p" / "train" / "ani" / "scene.jpg", quality=95)
    scene.resize((200, 150)).save(tmp_path / "p" / "val" / "wren" / "scene.jpg", quality=60)
    notes = checked(tmp_path / "p", tmp_path / "m", "data.split=official").notes
    (note,) = (note for note in notes if "looks nearly like" in note)
    assert note.startswith("1 photo looks nearly like one of an earlier part")
    assert "val: val/wren/scene.jpg ~ train: train/ani/scene.jpg (" in note
    assert note.endswith(", ani and wren)")


def test_closed_test_photos_are_not_opened(tmp_path: Path) -> None:
    """B10: the test set takes part in choices before it should."""
    photos, memory = fill(tmp_path / "p", "ani", "wren", count=10), tmp_path / "m"
    for photo in task(photos).part("test"):
        photo.path.unlink()
        os.mkfifo(photo.path)  # opening one would wait for ever
    assert checked(photos, memory).skipped == ()
    with pytest.raises(DataError, match=r"^4 photos can't be read"):
        checked(photos, memory, open_test=True)


def test_one_bad_photo_is_named_before_training_not_hours_later(tmp_path: Path) -> None:
    """B20: one bad image stops training hours later, and the error does not name it."""
    photos, memory = fill(tmp_path / "p", "ani", "wren"), tmp_path / "m"
    bad = task(photos).part("train")[0]
    bad.path.write_bytes(b"<html>")
    with pytest.raises(DataError, match=rf"{bad.key}: it is in no known image format") as caught:
        checked(photos, memory)
    assert "data.bad_files: skip" in str(caught.value)
    left = checked(photos, memory, "data.bad_files=skip")
    assert [finding.key for finding in left.skipped] == [bad.key]
    assert bad.key not in {photo.key for photo in left.photos.photos}
    assert len(left.part("train")) == len(task(photos).part("train")) - 1
    assert len(left.part("minitrain")) == len(left.part("val"))


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *(("x.jpg", mode) for mode in ("RGB", "L", "CMYK")),
        *(("x.png", mode) for mode in ("RGBA", "LA", "P", "1", "I;16")),
    ],
)
def test_every_kind_of_pixel_becomes_three_channels(tmp_path: Path, name: str, mode: str) -> None:
    """B21: CMYK, transparent, grey and 16-bit images crash or come in wrong."""
    path = save(tmp_path / name, mode=mode)
    assert VIEW.load(path).shape == (3, 24, 24)
    assert check_photos([Photo(path, 0, name)], tmp_path / "m").findings == ()


def test_a_class_that_alone_is_grey_is_told(tmp_path: Path) -> None:
    """B21: one class is all grey, so a network needs no more than that to know it."""
    photos, memory = fill(tmp_path / "p", "ani", "gull", "wren"), tmp_path / "m"
    assert not any("colour" in note for note in checked(photos, memory).notes)
    for path in (photos / "gull").iterdir():
        save(path, mode="L")
    for _ in range(2):  # told again from memory
        (note,) = (note for note in checked(photos, memory).notes if "colour" in note)
        assert note.startswith("colour may give 1 class away: gull (grey in 5 of 5 photos")


def test_loading_has_no_processes_that_could_die(tmp_path: Path) -> None:
    """B24: worker processes die of signals, need shared memory, or hang."""
    photos = [Photo(save(tmp_path / f"{i}.jpg", i), 0, str(i)) for i in range(4)]
    before = multiprocessing.active_children()
    stream = load_batches(photos, VIEW, [[0, 1], [2, 3]], seed=0, epoch=0, workers=4)
    next(stream)
    assert multiprocessing.active_children() == before
    stream.close()


def test_epochs_differ_and_workers_do_not_matter(tmp_path: Path) -> None:
    """B25: every worker and every epoch draws the same augmentation."""
    photos = [Photo(save(tmp_path / f"{i}.jpg"), 0, str(i)) for i in range(8)]  # equal pixels

    def shown(epoch: int, workers: int) -> torch.Tensor:
        (batch,) = load_batches(photos, VIEW, [range(8)], seed=0, epoch=epoch, workers=workers)
        return batch.images

    assert torch.equal(shown(0, 0), shown(0, 8))
    assert not torch.equal(shown(0, 2), shown(1, 2))
    assert len({image.numpy().tobytes() for image in shown(0, 4)}) > 4


def test_any_alphabet_in_paths_and_class_names(tmp_path: Path) -> None:
    """B26: paths beyond ASCII give None or a crash."""
    names = ("Öland", "鳥 small", "pájaro's", "птица" * 20)
    photos = fill(tmp_path / "Vögel 鳥", *names)
    found = checked(photos, tmp_path / "m")
    assert found.photos.class_names == tuple(sorted(names))
    assert len(found.photos.photos) == 24


def test_no_split_loses_a_class(tmp_path: Path) -> None:
    """B27: the last 20 % of an ordered list hold no photo of most classes."""
    photos = read_photos(fill(tmp_path, *(f"{i:02}" for i in range(12)), count=7))
    split = make_split(photos, kind="fractions", seed=0)
    for part in (split.train, split.val, split.test):
        assert {photos.photos[i].label for i in part} == set(range(12))
    rare = [photo for photo in photos.photos if photo.label or photo.key.endswith("0.jpg")]
    with pytest.raises(DataError, match=r"needs 3 photos or more in all; too few: 00 \(1\)"):
        make_split(
            type(photos)(photos.root, tuple(rare), photos.class_names), kind="fractions", seed=0
        )


def test_accuracy_does_not_hide_a_class_never_found() -> None:
    """B28: with 98 photos in 100 of one class, always saying it scores 98 %."""
    labels = np.array([0] * 98 + [1] * 2)
    found = classification_metrics(np.tile([1.0, 0.0], (100, 1)), labels)
    assert (found["top1"], found["mean_class_top1"]) == (0.98, 0.5)


def test_a_folder_that_grew_says_what_is_new(tmp_path: Path) -> None:
    """Only new photos are decoded; new classes are named."""
    photos, memory = fill(tmp_path / "p", "ani", "wren"), tmp_path / "m"
    assert not any("not looked at" in note for note in checked(photos, memory).notes)
    fill(photos, "gull")
    shown = [note for note in checked(photos, memory).notes if "not looked at" in note]
    assert len(shown) == 1
    assert shown[0].endswith("new classes: gull")


def test_every_key_of_the_source_reaches_the_photos(tmp_path: Path) -> None:
    folder = fill(tmp_path / "p", "ani", "wren", count=8)
    rows = [f"{c}/{i}.jpg,{c},{c}{i // 2}" for c in ("ani", "wren") for i in range(8)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label,bird", *rows]), encoding="utf-8")
    fixes = "path,action,value\nani/0.jpg,relabel,wren\nani/1.jpg,exclude,\n"
    (tmp_path / "c.csv").write_text(fixes, encoding="utf-8")
    found = task(
        folder,
        f"data.lists={tmp_path / 't.csv'}",
        "data.group=bird",
        f"data.corrections={tmp_path / 'c.csv'}",
        "data.split=folds",
        "data.folds=2",
        "data.fold=1",
    )
    assert len(found.photos.photos) == 15
    assert {photo.key: photo.label for photo in found.photos.photos}["ani/0.jpg"] == 1
    parts = [{photo.group for photo in found.part(name)} for name in ("train", "val", "test")]
    assert sum(map(len, parts)) == 8  # birds, each in one part


def test_cutting_to_boxes_that_nobody_gave_is_told(tmp_path: Path) -> None:
    """A crop that silently does nothing is taken for one that does not help."""
    fill(tmp_path / "photos", "ani", "gull", count=5)
    with pytest.raises(DataError, match=r"none of the 10 photos in .* has one\. Boxes come with"):
        checked(tmp_path / "photos", tmp_path / "memory.json", "data.box_margin=0.1")

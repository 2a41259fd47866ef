import errno
import hashlib
import os
import shutil
from pathlib import Path

import pytest

from fieldmark.data.dataset import content_hash, draw
from fieldmark.data.sources import read_photos
from fieldmark.errors import DataError
from fieldmark.predict import find_photos


def write_tree(root: Path, *keys: str) -> Path:
    for key in keys:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(key.encode())
    return root


CUB = {
    "images.txt": "1 001.Wren/b.jpg\n2 001.Wren/a b.jpg\n3 002.Ani/c.JPG\n",
    "classes.txt": "1 001.Wren\n2 002.Ani\n",
    "image_class_labels.txt": "1 1\n2 1\n3 2\n",
    "train_test_split.txt": "1 1\n2 0\n3 1\n",
}


def write_cub(root: Path, **changed: str) -> Path:
    write_tree(root, "images/001.Wren/b.jpg", "images/001.Wren/a b.jpg", "images/002.Ani/c.JPG")
    for name, text in CUB.items():
        (root / name).write_text(changed.get(name.removesuffix(".txt"), text), encoding="utf-8")
    return root


def test_tree_has_labels_by_name_and_photos_by_key(tmp_path: Path) -> None:
    write_tree(tmp_path, "wren/2.png", "wren/1.JPEG", "Ani/x.webp", "duck/y.tif")
    photos = read_photos(tmp_path)
    assert photos.root == tmp_path
    assert photos.class_names == ("Ani", "duck", "wren")  # code points: capitals first
    assert [(photo.key, photo.label, photo.split) for photo in photos.photos] == [
        ("Ani/x.webp", 0, None),
        ("duck/y.tif", 1, None),
        ("wren/1.JPEG", 2, None),
        ("wren/2.png", 2, None),
    ]
    assert all(photo.path == tmp_path / photo.key for photo in photos.photos)


def test_deeper_folders_belong_to_the_class_above(tmp_path: Path) -> None:
    write_tree(tmp_path, "ani/2023/may/1.jpg", "ani/2.jpg", "wren/x/3.jpg")
    photos = read_photos(tmp_path)
    assert photos.class_names == ("ani", "wren")
    assert [photo.key for photo in photos.photos] == [
        "ani/2.jpg",
        "ani/2023/may/1.jpg",
        "wren/x/3.jpg",
    ]


def test_other_files_are_counted_and_hidden_ones_are_not(tmp_path: Path) -> None:
    write_tree(tmp_path, "a/1.jpg", "a/notes.txt", "a/.DS_Store", "a/.thumbs/2.jpg", "b/3.jpg")
    write_tree(tmp_path, "README.md", ".git/4.jpg", "__MACOSX/a/5.jpg", "stray.jpg")
    photos = read_photos(tmp_path)
    assert photos.class_names == ("a", "b")
    assert [photo.key for photo in photos.photos] == ["a/1.jpg", "b/3.jpg"]
    # A hidden folder of photos may be meant as a class, so it is told.
    told = ["stray.jpg", ".git", "README.md", "notes.txt"]
    assert [Path(name).name for name in photos.ignored] == told


@pytest.mark.parametrize("name", ["Öland", "鳥", "two words", "quote's", "x" * 200])
def test_any_name_is_a_class_name(tmp_path: Path, name: str) -> None:
    write_tree(tmp_path, f"{name}/Grünfink 鳥 1.jpg", "a/2.jpg")
    photos = read_photos(tmp_path)
    assert name in photos.class_names
    assert f"{name}/Grünfink 鳥 1.jpg" in {photo.key for photo in photos.photos}


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere` does not exist\. Set `data.folder`"):
        read_photos(tmp_path / "nowhere")
    write_tree(tmp_path, "file")
    with pytest.raises(DataError, match="is a file, not a folder"):
        read_photos(tmp_path / "file")


def test_photos_without_class_folders(tmp_path: Path) -> None:
    write_tree(tmp_path, "1.jpg", "2.jpg")
    with pytest.raises(DataError, match=r"photos but no class folders\. Arrange .*<class name>"):
        read_photos(tmp_path)


def test_fewer_than_two_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no class folders; at least two"):
        read_photos(tmp_path)
    write_tree(tmp_path, "wren/1.jpg")
    with pytest.raises(DataError, match=r"only one class folder \(`wren`\)"):
        read_photos(tmp_path)


def test_folder_above_a_cub_folder_points_to_it(tmp_path: Path) -> None:
    write_cub(tmp_path / "CUB_200_2011")
    with pytest.raises(DataError, match=r"Did you mean `.*CUB_200_2011`"):
        read_photos(tmp_path)


def test_every_empty_class_folder_is_named(tmp_path: Path) -> None:
    write_tree(tmp_path, "ani/1.jpg", "wren/2.jpg", "gull/notes.txt")
    (tmp_path / "tern").mkdir()
    with pytest.raises(DataError, match=r"2 class folders hold no photos: gull, tern\."):
        read_photos(tmp_path)


def test_split_folders_are_not_taken_for_classes(tmp_path: Path) -> None:
    write_tree(tmp_path, "train/ani/1.jpg", "val/ani/2.jpg")
    with pytest.raises(DataError, match=r"\(train, val\) are named like splits, not classes"):
        read_photos(tmp_path, "tree")


def test_cub_layout(tmp_path: Path) -> None:
    photos = read_photos(write_cub(tmp_path))
    assert photos.class_names == ("001.Wren", "002.Ani")
    assert [(photo.key, photo.label, photo.split) for photo in photos.photos] == [
        ("images/001.Wren/a b.jpg", 0, "test"),
        ("images/001.Wren/b.jpg", 0, "train"),
        ("images/002.Ani/c.JPG", 1, "train"),
    ]
    assert all(photo.path.is_file() for photo in photos.photos)


def test_cub_classes_are_numbered_by_name_whatever_their_ids(tmp_path: Path) -> None:
    swapped = {"classes": "1 002.Ani\n2 001.Wren\n", "image_class_labels": "1 2\n2 2\n3 1\n"}
    by_list = read_photos(write_cub(tmp_path, **swapped))
    by_folder = read_photos(tmp_path / "images", "tree")
    assert by_list.class_names == by_folder.class_names == ("001.Wren", "002.Ani")
    assert [p.label for p in by_list.photos] == [p.label for p in by_folder.photos]


def test_cub_with_a_byte_order_mark_blank_lines_and_windows_line_ends(tmp_path: Path) -> None:
    text = "\ufeff1 001.Wren/b.jpg\r\n\r\n2 001.Wren/a b.jpg\r\n3 002.Ani/c.JPG\r\n"
    assert len(read_photos(write_cub(tmp_path, images=text)).photos) == 3


@pytest.mark.parametrize(
    ("changed", "mistake"),
    [
        ({"images": "1\n"}, r"images\.txt line 1: not `<id> <path>`: '1'"),
        ({"classes": "1 A\n1 B\n"}, r"classes\.txt line 2: id 1 stands on line 1 too"),
        ({"classes": "1 A\n2 A\n"}, r"classes\.txt line 2: A stands on line 1 too"),
        ({"classes": "1 A\n"}, r"image_class_labels\.txt line 3: class 2 is not in classes\.txt"),
        ({"classes": "1 A\n"}, r"classes\.txt: at least two classes are needed, got 1"),
        ({"classes": "1 A\n2 B\n3 C\n"}, r"classes\.txt line 3: class C has no photos"),
        ({"train_test_split": "1 1\n2 yes\n3 0\n"}, r"line 2: not 0 \(test\) or 1 \(train\): yes"),
        ({"train_test_split": "1 1\n2 0\n"}, r"images\.txt line 3: id 3 is not in train_test"),
        ({"image_class_labels": "1 1\n2 1\n3 2\n9 1\n"}, r"line 4: id 9 is not in images\.txt"),
        ({"images": "1 001.Wren/b.jpg\n2 gone.jpg\n3 002.Ani/c.JPG\n"}, r"no such file: .*gone"),
        ({"images": "1 001.Wren/b.jpg\n2 ../x.jpg\n3 002.Ani/c.JPG\n"}, r"not a photo below"),
    ],
)
def test_cub_mistakes_stand_with_file_and_line(
    tmp_path: Path, changed: dict[str, str], mistake: str
) -> None:
    with pytest.raises(DataError, match=mistake):
        read_photos(write_cub(tmp_path, **changed))


def test_cub_shows_ten_mistakes_and_counts_the_rest(tmp_path: Path) -> None:
    lines = "".join(f"{i} 001.Wren/gone{i}.jpg\n" for i in range(1, 16))
    labels = "".join(f"{i} {1 + i % 2}\n" for i in range(1, 16))
    flags = "".join(f"{i} 1\n" for i in range(1, 16))
    write_cub(tmp_path, images=lines, image_class_labels=labels, train_test_split=flags)
    with pytest.raises(DataError, match=r"15 mistakes") as caught:
        read_photos(tmp_path)
    assert str(caught.value).count("no such file") == 10
    assert "and 5 more" in str(caught.value)


def test_cub_without_a_list(tmp_path: Path) -> None:
    (write_cub(tmp_path) / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"classes\.txt: can't be read \(No such file"):
        read_photos(tmp_path)
    (tmp_path / "classes.txt").write_bytes(b"1 \xff\n")
    with pytest.raises(DataError, match=r"classes\.txt: can't be read \(not UTF-8\)"):
        read_photos(tmp_path)


def test_cub_boxes(tmp_path: Path) -> None:
    write_cub(tmp_path)
    assert {photo.box for photo in read_photos(tmp_path).photos} == {None}
    (tmp_path / "bounding_boxes.txt").write_text("1 60.0 27.0 325.5 304.0\n3 0 1 2 3\n")
    boxes = {photo.key: photo.box for photo in read_photos(tmp_path).photos}
    assert boxes == {
        "images/001.Wren/a b.jpg": None,
        "images/001.Wren/b.jpg": (60.0, 27.0, 325.5, 304.0),
        "images/002.Ani/c.JPG": (0.0, 1.0, 2.0, 3.0),
    }


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("1 60 27 325", r"bounding_boxes\.txt line 1: not `left top width height`, .*: 60 27 325"),
        ("1 60 27 0 304", "width and height above 0: 60 27 0 304"),
        ("1 60 27 nan 304", "above 0: 60 27 nan 304"),
        ("9 60 27 5 5", r"bounding_boxes\.txt line 1: id 9 is not in images\.txt"),
    ],
)
def test_cub_boxes_that_are_none(tmp_path: Path, line: str, mistake: str) -> None:
    (write_cub(tmp_path) / "bounding_boxes.txt").write_text(f"{line}\n")
    with pytest.raises(DataError, match=mistake):
        read_photos(tmp_path)


def test_reading_writes_nothing(tmp_path: Path) -> None:
    write_cub(tmp_path / "photos")
    before = shutil.make_archive(str(tmp_path / "before"), "tar", tmp_path / "photos")
    read_photos(tmp_path / "photos")
    after = shutil.make_archive(str(tmp_path / "after"), "tar", tmp_path / "photos")
    assert Path(before).read_bytes() == Path(after).read_bytes()


def test_content_hash_is_blake2b_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    known = hashlib.blake2b(b"abc" * 100_000, digest_size=32).hexdigest()
    assert content_hash(tmp_path / "x") == known


def test_draws_are_fixed_for_ever_and_told_apart() -> None:
    assert draw(0, "order") == int.from_bytes(
        hashlib.blake2b(b"0\0order", digest_size=8).digest(), "little"
    )
    assert len({draw(1, 23), draw(12, 3), draw(1, 2, 3), draw("1", "2")}) == 4


def test_draws_are_uniform() -> None:
    counts = [0] * 8
    for i in range(8000):
        counts[draw(7, i) % 8] += 1
    # Chi-squared with 7 degrees of freedom stays below 24.3 with probability 0.999.
    assert sum((count - 1000) ** 2 / 1000 for count in counts) < 24.3


def test_a_file_name_that_is_not_utf8_can_be_drawn_for() -> None:
    assert draw(0, "bird\udcff.jpg") != draw(0, "bird\udcfe.jpg")


def test_every_folder_that_is_shut_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos must not be left out unseen; root may look anywhere, so the system is played."""
    write_tree(tmp_path, "a/1.jpg", "a/shut/2.jpg", "b/3.jpg", "b/x/shut/4.jpg")
    scan = os.scandir

    def scandir(folder: str | Path) -> object:
        if Path(folder).name == "shut":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    told = r"^2 folders can't be looked into: .*a/shut \(Permission denied\), .*b/x/shut \(P"
    with pytest.raises(DataError, match=told):
        read_photos(tmp_path)
    with pytest.raises(DataError, match=told):
        find_photos([tmp_path])


def test_a_class_that_is_a_link_to_where_it_stands_is_none(tmp_path: Path) -> None:
    """It would give every photo a second time, under its own label."""
    root = write_tree(tmp_path / "photos", "a/1.jpg", "b/2.jpg")
    elsewhere = write_tree(tmp_path / "more", "3.jpg")
    (root / "here").symlink_to(root)
    (root / "above").symlink_to(tmp_path)
    (root / "itself").symlink_to(root / "itself")
    (root / "c").symlink_to(elsewhere)  # as a link to another folder is
    photos = read_photos(root)
    assert photos.class_names == ("a", "b", "c")
    assert [photo.key for photo in photos.photos] == ["a/1.jpg", "b/2.jpg", "c/3.jpg"]
    assert photos.ignored == ("above", "here", "itself")

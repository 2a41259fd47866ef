"""Corrections that are written can be read again, and keep those made before."""

from pathlib import Path

import pytest

from fieldmark.data.corrections import relabelled, write_relabelled
from fieldmark.data.sources import read_photos
from fieldmark.errors import DataError

BEFORE = (
    "path,action,value\nani/1.jpg,relabel,wren\nani/1.jpg,group,g\nwren/2.jpg,exclude,blurred\n"
)


def test_a_name_with_a_comma_is_kept_whole() -> None:
    assert relabelled({"a, b/1.jpg": 'the "gull"'}) == (
        'path,action,value\n"a, b/1.jpg",relabel,"the ""gull"""\n'
    )


def test_what_was_corrected_before_is_kept_but_for_the_labels_given_anew(tmp_path: Path) -> None:
    before = tmp_path / "before.csv"
    before.write_text(BEFORE)
    assert relabelled({"ani/1.jpg": "ani", "ani/3.jpg": "wren"}, before).splitlines() == [
        "path,action,value",
        "ani/1.jpg,group,g",
        "wren/2.jpg,exclude,blurred",
        "ani/1.jpg,relabel,ani",
        "ani/3.jpg,relabel,wren",
    ]
    assert before.read_text() == BEFORE


def test_what_is_written_is_what_a_recipe_reads(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for key in ("ani/1.jpg", "ani/2.jpg", "wren/1.jpg"):
        (photos / key).parent.mkdir(parents=True, exist_ok=True)
        (photos / key).write_bytes(b"x")
    path = tmp_path / "labels.csv"
    write_relabelled(path, {"ani/2.jpg": "wren"})
    found = read_photos(photos, corrections=path)
    named = {photo.key: found.class_names[photo.label] for photo in found.photos}
    assert named == {"ani/1.jpg": "ani", "ani/2.jpg": "wren", "wren/1.jpg": "wren"}


def test_no_file_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(BEFORE)
    with pytest.raises(DataError, match=r"labels\.csv` is there already\. Name a new file"):
        write_relabelled(path, {"ani/1.jpg": "ani"})
    assert path.read_text() == BEFORE
    with pytest.raises(DataError, match=r"written as `\.csv`, got `.*labels\.txt`"):
        write_relabelled(tmp_path / "labels.txt", {})

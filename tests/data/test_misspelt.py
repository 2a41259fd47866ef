"""Tiny classes named nearly as a large one are told, and no others."""

from pathlib import Path

import pytest

from fieldmark.build import _notes
from fieldmark.data.corrections import corrected
from fieldmark.data.dataset import Photo, PhotoSet
from fieldmark.data.misspelt import misspelt_notes
from fieldmark.data.split import Split, make_split
from fieldmark.errors import DataError


def birds(**counts: int) -> PhotoSet:
    """So many photos of each class; `_` stands for a blank."""
    named = {name.replace("_", " "): count for name, count in counts.items()}
    return of(named)


def of(counts: dict[str, int]) -> PhotoSet:
    photos = [
        Photo(Path(f"{name}/{n}.jpg"), label, f"{name}/{n}.jpg", group=f"burst {n % 3}")
        for label, name in enumerate(sorted(counts))
        for n in range(counts[name])
    ]
    return PhotoSet(Path("birds"), tuple(photos), tuple(sorted(counts)))


@pytest.mark.parametrize(
    ("tiny", "large"),
    [
        ("Crowned Finsh", "Crowned Finch"),
        ("Crowned Finc", "Crowned Finch"),
        ("crowned finch", "Crowned Finch"),
        ("Crowned  Finch ", "Crowned Finch"),
        ("Crowned_Finch", "Crowned Finch"),
        ("Cro\u0302wned Finch", "Crôwned Finch"),
        ("Ｃrowned Finch", "Crowned Finch"),
        ("017.Cardnal", "017.Cardinal"),
    ],
)
def test_a_slip_is_told_with_what_is_meant_and_what_to_do(tiny: str, large: str):
    assert misspelt_notes(of({tiny: 1, large: 30, "Heath Wren": 25})) == [
        "1 class of few photos has nearly the name of a large one; if that is a slip, `relabel` "
        f"the photos by `data.corrections`: {tiny} (1) ≈ {large} (30)"
    ]


@pytest.mark.parametrize(
    "counts",
    [
        {"Crested Finch": 1, "Crowned Finch": 30},  # another bird
        {"Crowned Finsh": 4, "Crowned Finch": 19},  # less than five times as many
        {"Crowned Finsh": 6, "Crowned Finch": 600},  # six photos are no slip
        {"class 1": 1, "class 2": 30, "class 11": 30},  # numbers are names
        {f"bird {'x' * n}": 1 + 29 * (n > 21) for n in range(24)},  # most are tiny
    ],
)
def test_what_is_no_slip_is_not_told(counts: dict[str, int]):
    assert misspelt_notes(of(counts)) == []


def test_it_is_told_before_training_and_no_more_once_it_is_corrected(tmp_path: Path):
    photos = birds(Crowned_Finsh=2, Crowned_Finch=30, Heath_Wren=30)
    none = Split((), (), (), ())
    assert "Crowned Finsh (2) ≈ Crowned Finch (30)" in _notes(photos, none)[0]
    table = tmp_path / "corrections.csv"
    rows = [f"Crowned Finsh/{n}.jpg,relabel,Crowned Finch" for n in range(2)]
    table.write_text("\n".join(["path,action,value", *rows]), encoding="utf-8")
    assert not [note for note in _notes(corrected(photos, table), none) if "≈" in note]


def test_a_class_too_small_to_be_split_is_told_with_what_may_be_meant():
    alone = [Photo(p.path, p.label, p.key) for p in of({"Finsh": 1, "Finch": 30, "Wren": 9}).photos]
    photos = PhotoSet(Path("birds"), tuple(alone), ("Finch", "Finsh", "Wren"))
    with pytest.raises(DataError, match=r"too few: Finsh \(1\)\."):
        make_split(photos, kind="fractions", seed=0)  # 0.8 alike: four of five letters
    photos = PhotoSet(Path("birds"), tuple(alone), ("Swift Finch", "Swift Finsh", "Wren"))
    with pytest.raises(DataError, match=r"too few: Swift Finsh \(1, Swift Finch\?\)\. .*correct"):
        make_split(photos, kind="fractions", seed=0)

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fieldmark.data.dataset import Photo, PhotoSet
from fieldmark.data.split import Kind, Split, make_split, reduced, without
from fieldmark.errors import DataError, SettingError


def photo_set(counts: Sequence[int], flags: Sequence[Sequence[str]] = ()) -> PhotoSet:
    photos = [
        Photo(Path(f"c{c}/{i}.jpg"), c, f"c{c:02}/{i:04}.jpg", flags[c][i] if flags else None)
        for c, count in enumerate(counts)
        for i in range(count)
    ]
    return PhotoSet(Path("birds"), tuple(photos), tuple(f"c{c:02}" for c in range(len(counts))))


def per_class(photos: PhotoSet, part: Sequence[int]) -> list[int]:
    counts = Counter(photos.photos[i].label for i in part)
    return [counts[label] for label in range(len(photos.class_names))]


def keys(photos: PhotoSet, part: Sequence[int]) -> set[str]:
    return {photos.photos[i].key for i in part}


def test_known_counts() -> None:
    split = make_split(photo_set([10, 20, 30]), kind="fractions", seed=0)
    photos = photo_set([10, 20, 30])
    assert per_class(photos, split.test) == [2, 4, 6]
    assert per_class(photos, split.val) == [2, 3, 5]  # 20 % of 8, 16, 24: 1.6, 3.2, 4.8 -> 10
    assert per_class(photos, split.train) == [6, 13, 19]
    assert per_class(photos, split.minitrain) == [2, 3, 5]


@given(
    counts=st.lists(st.integers(5, 60), min_size=2, max_size=12),
    val_fraction=st.floats(0.2, 0.6),
    test_fraction=st.floats(0.2, 0.6),
    seed=st.integers(0, 2**40),
)
def test_split_properties(
    counts: list[int], val_fraction: float, test_fraction: float, seed: int
) -> None:
    photos, classes = photo_set(counts), len(counts)
    fractions = {"val_fraction": val_fraction, "test_fraction": test_fraction}
    test_size = int(test_fraction * len(photos.photos) + 0.5)
    pool = len(photos.photos) - test_size
    val_size = int(val_fraction * pool + 0.5)
    assume(2 * classes <= pool)
    assume(classes <= val_size <= pool - classes)
    split = make_split(photos, kind="fractions", **fractions, seed=seed)

    assert (len(split.test), len(split.val)) == (test_size, val_size)  # exact
    everyone = [*split.train, *split.val, *split.test]
    assert sorted(everyone) == list(range(len(photos.photos)))  # disjoint and complete
    assert set(split.minitrain) <= set(split.train)
    assert len(split.minitrain) == min(val_size, len(split.train))
    for part in (split.train, split.val, split.test, split.minitrain):
        assert list(part) == sorted(part)
        assert min(per_class(photos, part)) >= 1
    for label, count in enumerate(counts):  # stratified, but for the bounds
        share = test_size * count / len(photos.photos)
        given_ = per_class(photos, split.test)[label]
        if 1 <= share <= count - 2 and all(
            1 <= test_size * c / len(photos.photos) <= c - 2 for c in counts
        ):
            assert abs(given_ - share) < 1


def test_order_of_files_does_not_matter() -> None:
    photos = photo_set([9, 12, 7])
    turned = replace(photos, photos=photos.photos[::-1])
    here = make_split(photos, kind="fractions", seed=3).to_json(photos)
    there = make_split(turned, kind="fractions", seed=3).to_json(turned)
    assert {name: sorted(part) for name, part in here.items()} == {
        name: sorted(part) for name, part in there.items()
    }


def test_seeds_differ_and_repeat() -> None:
    photos = photo_set([30, 30])
    splits = [make_split(photos, kind="fractions", seed=seed) for seed in (0, 0, 1)]
    assert splits[0] == splits[1]
    assert splits[0].val != splits[2].val


def test_a_photo_more_moves_few() -> None:
    small = photo_set([100] * 5)
    extra = Photo(Path("new.jpg"), 2, "c02/new.jpg")
    large = replace(small, photos=(*small.photos, extra))
    before, after = (make_split(photos, kind="fractions", seed=0) for photos in (small, large))
    for name in ("val", "test"):
        old, new = keys(small, getattr(before, name)), keys(large, getattr(after, name))
        assert len(old - new) <= 2


def test_two_seeds_overlap_as_chance_would_have_it() -> None:
    photos = photo_set([400, 400])
    first, second = (make_split(photos, kind="fractions", seed=seed).test for seed in (0, 1))
    # Hypergeometric: 160 of 800 twice share 32 on average, with a standard deviation of 4.5.
    assert abs(len(set(first) & set(second)) - 32) < 4 * 4.5


def test_official_keeps_the_sources_test_photos() -> None:
    flags = [["train"] * 6 + ["test"] * 4, ["test"] * 5 + ["train"] * 10]
    photos = photo_set([10, 15], flags)
    split = make_split(photos, kind="official", seed=0)
    assert all(photos.photos[i].split == "test" for i in split.test)
    assert len(split.test) == 9
    assert per_class(photos, split.val) == [1, 2]
    assert per_class(photos, split.train) == [5, 8]


def test_a_class_absent_from_test_shifts_no_label() -> None:
    flags = [["train"] * 5, ["train"] * 5, ["train"] * 5 + ["test"] * 3]
    photos = photo_set([5, 5, 8], flags)
    split = make_split(photos, kind="official", seed=0)
    assert {photos.photos[i].label for i in split.test} == {2}
    assert photos.class_names[2] == "c02"


def test_official_needs_flags_on_every_photo() -> None:
    with pytest.raises(DataError, match=r"no official split: 6 photo.* c00/0000\.jpg.*fractions"):
        make_split(photo_set([3, 3]), kind="official", seed=0)


def test_a_class_only_in_test_is_named() -> None:
    photos = photo_set([4, 4], [["test"] * 4, ["train"] * 4])
    with pytest.raises(DataError, match=r"needs 2 photo.* outside test; too few: c00 \(0\)\. Add"):
        make_split(photos, kind="official", seed=0)


def test_a_class_too_small_is_named_with_its_count() -> None:
    with pytest.raises(DataError, match=r"needs 3 photos or more in all; too few: c01 \(2\)\."):
        make_split(photo_set([10, 2]), kind="fractions", seed=0)


def test_three_photos_are_enough_for_three_parts() -> None:
    photos = photo_set([3, 40])
    split = make_split(photos, kind="fractions", val_fraction=0.4, test_fraction=0.4, seed=0)
    for part in (split.train, split.val, split.test):
        assert per_class(photos, part)[0] == 1


def test_no_val_and_no_test() -> None:
    photos = photo_set([10, 10])
    split = make_split(photos, kind="fractions", val_fraction=0, test_fraction=0, seed=0)
    assert len(split.train) == 20
    assert split.val == split.test == ()
    assert per_class(photos, split.minitrain) == [2, 2]


def test_a_fraction_below_a_photo_a_class() -> None:
    with pytest.raises(DataError, match=r"`val_fraction` 0\.01 of 40 photos is 0, but 2 classes"):
        make_split(photo_set([25, 25]), kind="fractions", val_fraction=0.01, seed=0)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_fractions_out_of_range(fraction: float) -> None:
    with pytest.raises(SettingError, match="`val_fraction` must be at least 0 and below 1"):
        make_split(photo_set([5, 5]), kind="fractions", val_fraction=fraction, seed=0)


def test_unknown_kind() -> None:
    with pytest.raises(SettingError, match="fractions, files or folds, got 'random'"):
        make_split(photo_set([5, 5]), kind="random", seed=0)  # type: ignore[arg-type]


def test_written_form_finds_the_same_photos_in_another_order() -> None:
    photos = photo_set([8, 9])
    turned = replace(photos, photos=photos.photos[::-1])
    split = make_split(photos, kind="fractions", seed=0)
    written = json.loads(json.dumps(split.to_json(photos)))
    assert Split.from_json(written, photos) == split
    found = Split.from_json(written, turned)
    for name in ("train", "val", "test", "minitrain"):
        assert keys(turned, getattr(found, name)) == keys(photos, getattr(split, name))


def test_a_fraction_of_train_leaves_val_and_test_and_is_written_down() -> None:
    photos = photo_set([20, 30])
    whole = make_split(photos, kind="fractions", seed=0)
    half = reduced(photos, whole, 0.5, seed=0)
    assert (half.val, half.test) == (whole.val, whole.test)
    assert per_class(photos, half.train) == [7, 9]  # of 13 and 19; the odd one falls to the smaller
    assert sorted((*half.train, *half.unused)) == list(whole.train)
    assert set(half.minitrain) <= set(half.train)
    assert Split.from_json(half.to_json(photos), photos) == half
    fewer, left = without(photos, half, {photos.photos[half.unused[0]].key}, seed=0)
    assert len(left.unused) == len(half.unused) - 1
    assert keys(fewer, left.train) == keys(photos, half.train)
    assert reduced(photos, whole, 1, seed=0) is whole


def test_written_form_refuses_another_folder() -> None:
    photos = photo_set([8, 9])
    written = make_split(photos, kind="fractions", seed=0).to_json(photos)
    with pytest.raises(DataError, match=r"classes.*missing: c01; extra: gull"):
        Split.from_json(written, replace(photos, class_names=("c00", "gull")))
    with pytest.raises(DataError, match=r"photos.*missing: c00/0000\.jpg; extra: none"):
        Split.from_json(written, replace(photos, photos=photos.photos[1:]))
    grown = replace(photos, photos=(*photos.photos, Photo(Path("new.jpg"), 0, "c00/new.jpg")))
    with pytest.raises(DataError, match="missing: none; extra: c00/new"):
        Split.from_json(written, grown)


def test_written_form_refuses_contradictions() -> None:
    photos = photo_set([8, 9])
    written = make_split(photos, kind="fractions", seed=0).to_json(photos)
    leaked = written | {"val": [*written["val"], written["train"][0]]}
    with pytest.raises(DataError, match=f"contradicts itself about: {written['train'][0]}"):
        Split.from_json(leaked, photos)
    with pytest.raises(DataError, match="contradicts itself"):
        Split.from_json(written | {"minitrain": written["val"]}, photos)
    with pytest.raises(DataError, match="not a written split; it lacks: class_names, train"):
        Split.from_json({}, photos)


def test_the_tutorials_split_of_the_full_set() -> None:
    counts = [60] * 188 + [41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 26, 27]
    photos = photo_set(counts)
    assert len(photos.photos) == 11_788
    split = make_split(photos, kind="tutorial", seed=0)
    assert len(split.test) == 1_192
    assert len(split.train) + len(split.val) == 10_596
    assert min(per_class(photos, split.test)) >= 1
    assert "1,192 test photos, the other 10,596" in split.notes[0]
    assert "10,597 + 1,192 is one more than the 11,788" in split.notes[0]
    assert make_split(photos, kind="tutorial", seed=1).test != split.test


def test_official_keeps_the_sources_val_photos() -> None:
    flags = [["train"] * 6 + ["val"] * 2 + ["test"] * 2] * 2
    photos = photo_set([10, 10], flags)
    split = make_split(photos, kind="official", val_fraction=0.5, seed=0)
    assert {photos.photos[i].split for i in split.val} == {"val"}
    assert [len(part) for part in (split.train, split.val, split.test)] == [12, 4, 4]


def test_cutting_a_split_source_anew_is_said() -> None:
    photos = photo_set([10, 10], [["train"] * 6 + ["test"] * 4] * 2)
    split = make_split(photos, kind="fractions", seed=0)
    assert split.notes == ("the source marks its own split; `split: fractions` cuts anew",)


def test_parts_from_files(tmp_path: Path) -> None:
    photos = photo_set([5, 5])
    (tmp_path / "test.txt").write_text("c00/0000.jpg\n\nc01/0001.jpg\r\n", encoding="utf-8")
    (tmp_path / "val.txt").write_text("c00/0002.jpg\nc01/0002.jpg\n", encoding="utf-8")
    files = {part: tmp_path / f"{part}.txt" for part in ("test", "val")}
    split = make_split(photos, kind="files", files=files, seed=0)
    assert keys(photos, split.test) == {"c00/0000.jpg", "c01/0001.jpg"}
    assert keys(photos, split.val) == {"c00/0002.jpg", "c01/0002.jpg"}
    assert len(split.train) == 6


def test_parts_from_the_split_of_a_run(tmp_path: Path) -> None:
    photos = photo_set([8, 9])
    split = make_split(photos, kind="fractions", seed=4)
    path = tmp_path / "split.json"
    path.write_text(json.dumps(split.to_json(photos)), encoding="utf-8")
    assert make_split(photos, kind="files", files={"all": path}, seed=0) == split


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"test": "c09/1.jpg"},
            r"1 photo of the split's lists can't be found in `birds`: c09/1\.jpg",
        ),
        (
            {"test": "c00/0000.jpg", "val": "c00/0000.jpg"},
            r"stands in the lists for test and for v",
        ),
        (
            {"train": "c00/0000.jpg"},
            r"9 photos are marked neither train, val nor test, such as c00/0001\.jpg",
        ),
        ({"all": "nonsense"}, r"all` is no JSON"),
        ({"all": "[]"}, r"not a written split; it lacks: class_names"),
    ],
)
def test_mistakes_of_files_are_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for part, content in files.items():
        (tmp_path / part).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        make_split(
            photo_set([5, 5]), kind="files", files={part: tmp_path / part for part in files}, seed=0
        )


@pytest.mark.parametrize("kind", ["official", "folds", "fractions", "tutorial", "files"])
def test_without_val_all_but_test_is_trained_on(tmp_path: Path, kind: Kind) -> None:
    photos = photo_set([10, 12], [["train"] * 6 + ["val"] * 2 + ["test"] * c for c in (2, 4)])
    path = tmp_path / "split.json"
    path.write_text(json.dumps(make_split(photos, kind="official", seed=0).to_json(photos)))
    split = make_split(photos, kind=kind, files={"all": path}, val_fraction=0, seed=0)
    assert split.val == ()
    assert len(split.train) + len(split.test) == 22
    assert set(split.minitrain) <= set(split.train)


def test_leaving_photos_out_moves_no_other() -> None:
    photos = photo_set([10, 20])
    split = make_split(photos, kind="fractions", seed=0)
    bad = photos.photos[split.minitrain[0]].key
    kept, left = without(photos, split, {bad}, seed=0)
    assert keys(kept, left.train) == keys(photos, split.train) - {bad}
    assert keys(kept, left.val) == keys(photos, split.val)
    assert keys(kept, left.test) == keys(photos, split.test)
    assert len(left.minitrain) == len(split.minitrain)
    assert len(keys(kept, left.minitrain) - keys(photos, split.minitrain)) <= 1
    assert without(photos, split, set(), seed=0) == (photos, split)


def test_leaving_out_a_whole_class_is_refused() -> None:
    photos = photo_set([3, 20])
    split = make_split(photos, kind="fractions", seed=0)
    bad = {key for key in keys(photos, split.train) if key.startswith("c00")}
    with pytest.raises(DataError, match=r"in train that can be read; too few: c00 \(0\)"):
        without(photos, split, bad, seed=0)

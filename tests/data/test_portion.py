"""Cuts that keep groups whole, and folds: what must hold for any photos."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldmark.data.dataset import Photo, PhotoSet
from fieldmark.data.portion import deal, first_part, pick
from fieldmark.data.split import make_split
from fieldmark.errors import DataError, SettingError


def grouped(sizes: Sequence[Sequence[int]]) -> PhotoSet:
    """Photos of one class for each entry, in groups of the sizes given."""
    photos = [
        Photo(Path("x"), c, f"c{c}/{g:03}-{i:03}.jpg", group=f"c{c}g{g}")
        for c, groups in enumerate(sizes)
        for g, size in enumerate(groups)
        for i in range(size)
    ]
    return PhotoSet(Path("birds"), tuple(photos), tuple(f"c{c}" for c in range(len(sizes))))


def labels(photos: PhotoSet, part: Sequence[int]) -> set[int]:
    return {photos.photos[i].label for i in part}


classes = st.lists(st.lists(st.integers(1, 12), min_size=4, max_size=12), min_size=2, max_size=6)
photographers = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=12, max_size=80)


@given(sizes=classes, seed=st.integers(0, 2**40), kind=st.sampled_from(["fractions", "folds"]))
def test_groups_never_straddle_parts_and_no_class_is_lost(
    sizes: list[list[int]], seed: int, kind: str
) -> None:
    photos = grouped(sizes)
    split = make_split(photos, kind=kind, folds=2, seed=seed)  # type: ignore[arg-type]
    parts = (split.train, split.val, split.test)
    assert sorted(i for part in parts for i in part) == list(range(len(photos.photos)))
    groups = [{photos.photos[i].group for i in part} for part in parts]
    assert not groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2]
    for part in parts:  # each class has at least four groups: enough for all three
        assert labels(photos, part) == set(range(len(sizes)))
    assert set(split.minitrain) <= set(split.train)
    assert len(split.minitrain) == min(len(split.val), len(split.train))
    assert split.notes == ()


@given(owners=photographers, seed=st.integers(0, 2**20))
def test_groups_across_classes_stay_whole_too(owners: list[tuple[int, int]], seed: int) -> None:
    named = [(0, 90), (1, 91), (2, 92), (3, 93), *owners]  # one group more for each class
    photos = PhotoSet(
        Path("birds"),
        tuple(
            Photo(Path("x"), label, f"{i:03}.jpg", group=f"photographer {owner}")
            for i, (label, owner) in enumerate(named)
        ),
        ("a", "b", "c", "d"),
    )
    split = make_split(photos, kind="fractions", seed=seed)
    seen = Counter(
        group
        for part in (split.train, split.val, split.test)
        for group in {photos.photos[i].group for i in part}
    )
    assert set(seen.values()) == {1}
    assert labels(photos, split.train) == {0, 1, 2, 3}


@given(sizes=classes, seed=st.integers(0, 2**40))
def test_no_group_left_out_would_bring_the_part_nearer(sizes: list[list[int]], seed: int) -> None:
    photos = grouped(sizes)
    everyone = range(len(photos.photos))
    wanted = round(0.4 * len(everyone))
    taken = pick(photos, everyone, wanted, "test", seed=seed, leave=1)
    for label, groups in enumerate(sizes):
        got = sum(photos.photos[i].label == label for i in taken)
        aim = wanted * sum(groups) / len(everyone)
        # A class ends at most half of its largest group from its share, rounding aside.
        assert abs(got - aim) <= max(groups) / 2 + 1.5


def test_sizes_come_near_with_many_groups() -> None:
    photos = grouped([[3, 5, 2, 4, 1, 6, 3, 2] * 5] * 8)
    split = make_split(photos, kind="fractions", seed=0)
    assert abs(len(split.test) - 0.2 * len(photos.photos)) <= 8
    assert abs(len(split.val) - 0.16 * len(photos.photos)) <= 8


def test_a_class_with_one_group_stays_in_train_and_is_named() -> None:
    photos = grouped([[9], [3, 3, 3, 3, 3]])
    split = make_split(photos, kind="fractions", seed=0)
    assert labels(photos, split.train) == {0, 1}
    assert labels(photos, split.val) == labels(photos, split.test) == {1}
    assert split.notes == (
        "val has no photos of 1 class: c0",
        "test has no photos of 1 class: c0",
    )


def test_a_group_more_moves_few() -> None:
    small, large = grouped([[2] * 40] * 3), grouped([[2] * 40, [2] * 41, [2] * 40])
    before, after = (make_split(photos, kind="fractions", seed=0) for photos in (small, large))
    old = {small.photos[i].key for i in before.test}
    new = {large.photos[i].key for i in after.test}
    assert len(old - new) <= 4


def test_an_official_split_that_tears_groups_says_which() -> None:
    photos = [
        Photo(
            Path("x"), c, f"{c}{i}.jpg", "test" if i == 0 else "train", "burst" if i < 2 else None
        )
        for c in range(2)
        for i in range(5)
    ]
    found = make_split(PhotoSet(Path("x"), tuple(photos), ("a", "b")), kind="official", seed=0)
    assert found.notes == ("1 group stands in more than one part of the split: burst",)


@given(
    counts=st.lists(st.integers(2, 30), min_size=2, max_size=8),
    folds=st.integers(2, 7),
    seed=st.integers(0, 2**40),
)
def test_folds_cover_everything_once_and_evenly(counts: list[int], folds: int, seed: int) -> None:
    keys = [(c, f"c{c}/{i}.jpg") for c, count in enumerate(counts) for i in range(count)]
    photos = PhotoSet(
        Path("x"),
        tuple(Photo(Path("x"), c, key) for c, key in keys),
        tuple(f"c{c}" for c in range(len(counts))),
    )
    dealt = deal(photos, range(len(keys)), folds, seed=seed)
    assert sorted(i for part in dealt for i in part) == list(range(len(keys)))
    sizes = [len(part) for part in dealt]
    assert max(sizes) - min(sizes) <= 1
    for label in range(len(counts)):
        here = [sum(photos.photos[i].label == label for i in part) for part in dealt]
        assert max(here) - min(here) <= 1


def test_grouped_folds_are_balanced() -> None:
    photos = grouped([[4, 2, 2, 3, 1, 3, 2, 3]] * 5)
    dealt = deal(photos, range(len(photos.photos)), 4, seed=1)
    sizes = [len(part) for part in dealt]
    assert max(sizes) - min(sizes) <= 6
    assert all(labels(photos, part) == set(range(5)) for part in dealt)


def test_each_fold_is_val_once_and_test_stays() -> None:
    photos = grouped([[1] * 20, [1] * 15])
    splits = [make_split(photos, kind="folds", folds=4, fold=fold, seed=0) for fold in range(4)]
    assert len({split.test for split in splits}) == 1
    vals = [i for split in splits for i in split.val]
    assert sorted([*vals, *splits[0].test]) == list(range(35))


def test_a_fold_out_of_range_is_refused() -> None:
    with pytest.raises(SettingError, match="`fold` must be from 0 to 4 with 5 folds, got 5"):
        make_split(grouped([[1] * 9] * 2), kind="folds", fold=5, seed=0)


def test_folds_leave_no_class_without_training_photos() -> None:
    def every_fold() -> None:
        for fold in range(2):
            make_split(grouped([[3], [1] * 9]), kind="folds", folds=2, fold=fold, seed=0)

    with pytest.raises(DataError, match=r"in train; too few: c0 \(0\)"):
        every_fold()


@given(
    sizes=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=20), min_size=1, max_size=5),
    fractions=st.lists(st.floats(0.3, 1), min_size=2, max_size=4).map(sorted),
    seed=st.integers(0, 2**40),
)
def test_fractions_are_nested_whole_groups_of_every_class(
    sizes: list[list[int]], fractions: list[float], seed: int
) -> None:
    photos = grouped(sizes)
    everyone = range(len(photos.photos))
    fractions = [f for f in fractions if round(f * len(everyone)) > len(sizes)]
    parts = [set(first_part(photos, everyone, f, seed=seed)) for f in fractions]
    for smaller, larger in pairwise(parts):
        assert smaller <= larger
    for part in parts:
        assert labels(photos, list(part)) == set(range(len(sizes)))
        inside = {photos.photos[i].group for i in part}
        assert part == {i for i in everyone if photos.photos[i].group in inside}


def test_a_fraction_takes_of_each_class_its_share_and_one_at_least() -> None:
    sizes = [40, 20, 3]
    photos = PhotoSet(
        Path("birds"),
        tuple(
            Photo(Path("x"), c, f"{c}-{i:02}.jpg") for c, n in enumerate(sizes) for i in range(n)
        ),
        ("a", "b", "c"),
    )

    def counts(fraction: float) -> list[int]:
        part = first_part(photos, range(63), fraction, seed=3)
        return [sum(photos.photos[i].label == c for i in part) for c in range(3)]

    assert counts(1) == sizes
    assert counts(1 / 3) == [13, 7, 1]  # 21 in all
    assert counts(3 / 63) == [1, 1, 1]
    with pytest.raises(
        DataError, match=r"`train_fraction` 0.03 of 63 training photos is 2, but 3 .* Use 0.048"
    ):
        counts(0.03)


@pytest.mark.parametrize(
    ("sizes", "options", "left"),
    [
        ([[9], [9]], {"kind": "fractions"}, r"`val`: .* 18 photos in 2 groups, which stay"),
        ([[3] * 3] * 2, {"kind": "folds", "fold": 4}, r"fold 4 of 5: .* in 4 groups, which"),
        ([[1] * 4] * 2, {"kind": "folds", "folds": 9, "fold": 8}, r"fold 8 of 9: .* 6 photos"),
    ],
)
def test_a_val_that_nothing_is_left_for_is_refused(sizes, options, left: str) -> None:
    """Else every choice that looks at val would be made on nothing."""
    with pytest.raises(DataError, match=rf"^Nothing is left for {left}.*`data\.val_fraction` to 0"):
        make_split(grouped(sizes), **options, seed=0)


def test_a_test_part_that_no_group_could_go_to_is_told() -> None:
    split = make_split(grouped([[5, 5], [5, 5]]), kind="fractions", seed=0)
    assert (len(split.train), len(split.val), split.test) == (10, 10, ())
    assert split.notes == ("`test` is empty: no class has a group to spare for it",)

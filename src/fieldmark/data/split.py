"""Who trains on which photos: train, val, test, and minitrain, a part of train.

A split is a pure function of (photo keys, labels, source flags, seed). Within a class, photos are
ranked by a hash of (seed, part, key) and the first ones are taken. So the order of files does not
matter, and a photo added later moves few others: one photo per class and part, and one more where
the class's share is rounded differently. (A permutation from a generator would deal all anew.)
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, Self

from fieldmark.data.dataset import PhotoSet, draw, listed
from fieldmark.errors import DataError, SettingError

Kind = Literal["official", "fractions"]

_PARTS = ("train", "val", "test")
_MINITRAIN_FRACTION = 0.2  # of train, where there is no val whose size it could take


@dataclass(frozen=True)
class Split:
    """Positions in `PhotoSet.photos`, ascending.

    Attributes:
        train: Photos that weights are fitted to.
        val: Photos that settings are chosen on; cut from train.
        test: Photos for the final number.
        minitrain: Part of train, of val's size, to be seen through the eval view: a gap between
            the two means memorising and nothing else.
    """

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]
    minitrain: tuple[int, ...]

    def to_json(self, photos: PhotoSet) -> dict[str, list[str]]:
        """The form to write down: class names, and each part as photo keys."""
        parts = {
            name: [photos.photos[i].key for i in getattr(self, name)]
            for name in (*_PARTS, "minitrain")
        }
        return {"class_names": list(photos.class_names), **parts}

    @classmethod
    def from_json(cls, written: Mapping[str, Any], photos: PhotoSet) -> Self:
        """Find the photos of a written split again.

        Raises:
            DataError: The photos or classes differ from those the split was written for.
        """
        _check_written(written, photos)
        position = {photo.key: i for i, photo in enumerate(photos.photos)}
        return cls(
            **{
                name: tuple(sorted(position[key] for key in written[name]))
                for name in (*_PARTS, "minitrain")
            }
        )


def make_split(
    photos: PhotoSet,
    *,
    kind: Kind,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    seed: int,
) -> Split:
    """Cut photos into train, val and test, every class by its share.

    Shares are rounded by largest remainder, so a part has exactly round(fraction * photos) photos,
    and every class has a photo in train, and in each part whose fraction is above 0.

    Args:
        photos: What is to be cut.
        kind: `official` keeps the source's test photos; `fractions` draws them.
        val_fraction: Part of the photos outside test that become val; 0 trains on all of them.
        test_fraction: Part of all photos that become test, with `fractions` only.
        seed: Another seed, another split.

    Raises:
        SettingError: A fraction is outside [0, 1).
        DataError: The source has no official split, or a class has too few photos.
    """
    _check_fraction("val_fraction", val_fraction)
    _check_fraction("test_fraction", test_fraction)
    kept = 1 + (val_fraction > 0)  # photos of each class that test must leave
    everyone = range(len(photos.photos))
    if kind == "official":
        test = _official_test(photos)
    elif kind == "fractions":
        _check_counts(photos, everyone, kept + (test_fraction > 0), "in all")
        test = _cut(photos, everyone, test_fraction, "test", seed=seed, leave=kept)
    else:
        raise SettingError(f"`split` must be official or fractions, got {kind!r}.")

    pool = sorted(set(everyone) - set(test))
    _check_counts(photos, pool, kept, "outside test")
    val = _cut(photos, pool, val_fraction, "val", seed=seed, leave=1)
    train = sorted(set(pool) - set(val))
    size = min(len(val), len(train)) if val else max(1, _share(_MINITRAIN_FRACTION, len(train)))
    minitrain = _pick(photos, train, size, "minitrain", seed=seed, leave=0)
    return Split(tuple(train), tuple(val), tuple(test), tuple(minitrain))


def _official_test(photos: PhotoSet) -> list[int]:
    unmarked = [photo.key for photo in photos.photos if photo.split not in ("train", "test")]
    if unmarked:
        raise DataError(
            f"`{photos.root}` has no official split: {len(unmarked)} photo(s), such as "
            f"{unmarked[0]}, are marked neither train nor test. Use `split: fractions`."
        )
    return [i for i, photo in enumerate(photos.photos) if photo.split == "test"]


def _cut(
    photos: PhotoSet, pool: Sequence[int], fraction: float, part: str, *, seed: int, leave: int
) -> list[int]:
    """The photos of a new part: a fraction of the pool, at least one and not all of each class."""
    if fraction == 0:
        return []
    size, classes = _share(fraction, len(pool)), len(photos.class_names)
    low, high = classes, len(pool) - leave * classes
    if not low <= size <= high:
        raise DataError(
            f"`{part}_fraction` {fraction:g} of {len(pool)} photos is {size}, but {classes} "
            f"classes need {low} to {high}, so that none goes without. Use a fraction of "
            f"{low / len(pool):.3f} to {high / len(pool):.3f}."
        )
    return _pick(photos, pool, size, part, seed=seed, leave=leave)


def _pick(
    photos: PhotoSet, pool: Sequence[int], size: int, part: str, *, seed: int, leave: int
) -> list[int]:
    """`size` photos of the pool, each class by its share, `leave` of each class left over."""
    members: list[list[int]] = [[] for _ in photos.class_names]
    for i in pool:
        members[photos.photos[i].label].append(i)
    quotas = _apportion(size, [len(group) for group in members], leave)

    def rank(i: int) -> tuple[int, str]:
        return draw(seed, part, photos.photos[i].key), photos.photos[i].key

    return sorted(
        i
        for group, quota in zip(members, quotas, strict=True)
        for i in sorted(group, key=rank)[:quota]
    )


def _apportion(total: int, counts: Sequence[int], leave: int) -> list[int]:
    """Whole numbers that sum to `total`, in proportion to `counts`, by largest remainder.

    Each lies in [1, count - leave], or [0, count - leave] where `total` is less than one each.
    """
    share = [total * count / sum(counts) for count in counts]
    low = 1 if total >= len(counts) else 0
    high = [count - leave for count in counts]
    quotas = [min(max(int(s), low), h) for s, h in zip(share, high, strict=True)]
    while sum(quotas) < total:
        owed = [s - q if q < h else -inf for s, q, h in zip(share, quotas, high, strict=True)]
        quotas[owed.index(max(owed))] += 1
    while sum(quotas) > total:
        over = [q - s if q > low else -inf for s, q in zip(share, quotas, strict=True)]
        quotas[over.index(max(over))] -= 1
    return quotas


def _share(fraction: float, count: int) -> int:
    return int(fraction * count + 0.5)


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise SettingError(f"`{name}` must be at least 0 and below 1, got {value!r}. Use 0.2.")


def _check_counts(photos: PhotoSet, pool: Iterable[int], needed: int, where: str) -> None:
    counts = Counter(photos.photos[i].label for i in pool)
    short = [
        f"{name} ({counts[label]})"
        for label, name in enumerate(photos.class_names)
        if counts[label] < needed
    ]
    if short:
        raise DataError(
            f"Every class needs {needed} photo(s) or more {where}; too few: {listed(short)}. Add "
            f"photos, remove the class, or set `val_fraction` or `test_fraction` to 0."
        )


def _check_written(written: Mapping[str, Any], photos: PhotoSet) -> None:
    absent = [name for name in ("class_names", *_PARTS, "minitrain") if name not in written]
    if absent:
        raise DataError(f"This is not a written split; it lacks: {listed(absent)}.")
    names, now = written["class_names"], list(photos.class_names)
    if names != now:
        gone, new = listed(sorted(set(names) - set(now))), listed(sorted(set(now) - set(names)))
        raise DataError(
            f"The classes of `{photos.root}` are not those the split was written for; missing: "
            f"{gone or 'none'}; extra: {new or 'none'}. Put the folders back, or make a new split."
        )
    keys = [key for part in _PARTS for key in written[part]]
    twice = [key for key, count in Counter(keys).items() if count > 1]
    twice += sorted(set(written["minitrain"]) - set(written["train"]))
    if twice:
        raise DataError(f"The written split contradicts itself about: {listed(twice)}.")
    here = {photo.key for photo in photos.photos}
    gone, new = listed(sorted(set(keys) - here)), listed(sorted(here - set(keys)))
    if gone or new:
        raise DataError(
            f"The photos of `{photos.root}` are not those the split was written for; missing: "
            f"{gone or 'none'}; extra: {new or 'none'}. Put the photos back, or make a new split."
        )

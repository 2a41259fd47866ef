"""Who trains on which photos: train, val, test, and minitrain, a part of train.

A split is a pure function of (photo keys, labels, groups, source flags, seed); `portion` says how.
No group is ever torn apart by a cut, and a class that a part lacks is an error or named in `notes`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from fieldmark.data.dataset import PARTS, PhotoSet, listed
from fieldmark.data.misspelt import misspelt
from fieldmark.data.portion import are_grouped, deal, first_part, groups, pick, share
from fieldmark.data.split_files import marked, read_split
from fieldmark.errors import DataError, SettingError, count_of

Kind = Literal["official", "tutorial", "fractions", "files", "folds"]

_KINDS = ("official", "tutorial", "fractions", "files", "folds")
_MINITRAIN_FRACTION = 0.2  # of train, where there is no val whose size it could take
# The tutorial trained on 10,597 photos of CUB-200-2011 and tested on 1,192; the set has 11,788.
_TUTORIAL_TRAIN, _TUTORIAL_TEST, _TUTORIAL_ALL = 10_597, 1_192, 11_788


@dataclass(frozen=True)
class Split:
    """Positions in `PhotoSet.photos`, ascending.

    Attributes:
        train: Photos that weights are fitted to.
        val: Photos that settings are chosen on; cut from train.
        test: Photos for the final number.
        minitrain: Part of train, of val's size, to be seen through the eval view: a gap between
            the two means memorising and nothing else.
        unused: Photos that could be trained on and are not, where a fraction of them is asked for.
        notes: What a person should know of it, one line each.
    """

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]
    minitrain: tuple[int, ...]
    unused: tuple[int, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def minitrain_in_train(self) -> list[int]:
        """Where in `train` the photos of `minitrain` stand."""
        place = {position: number for number, position in enumerate(self.train)}
        return [place[position] for position in self.minitrain]

    def to_json(self, photos: PhotoSet) -> dict[str, list[str]]:
        """The form to write down: class names, and each part as photo keys."""
        parts = {
            name: [photos.photos[i].key for i in getattr(self, name)]
            for name in (*PARTS, "minitrain", *(["unused"] if self.unused else []))
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
        train, val, test, minitrain, unused = (
            tuple(sorted(position[key] for key in written.get(name, ())))
            for name in (*PARTS, "minitrain", "unused")
        )
        return cls(train, val, test, minitrain, unused)


def make_split(
    photos: PhotoSet,
    *,
    kind: Kind,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    folds: int = 5,
    fold: int = 0,
    files: Mapping[str, Path] | None = None,
    seed: int,
) -> Split:
    """Cut photos into train, val and test, every class by its share.

    Without groups, shares are rounded by largest remainder, so a part has exactly
    round(fraction * photos) photos, and every class has a photo in train, and in each part whose
    fraction is above 0. With groups, parts are as near to that as whole groups allow.

    Args:
        photos: What is to be cut.
        kind: `official` keeps the source's test photos, and its val photos if it has any;
            `fractions` draws both; `tutorial` draws a test part of 1,192 in 11,788; `folds` makes
            one of several equal parts val; `files` reads the parts from `files`.
        val_fraction: Part of the photos outside test that become val. With 0 there is no val: all
            of them are trained on, those that the source, a fold or a file has for val too.
        test_fraction: Part of all photos that become test, with `fractions`, and with `folds` where
            the source marks no test photos.
        folds: How many parts take turns as val, with `folds`.
        fold: Which of them is val now, from 0.
        files: With `files`: a list of photo keys for `train`, `val` or `test`, or for `all` the
            split.json of a run. Without a list for `train`, all others are train.
        seed: Another seed, another split.

    Raises:
        SettingError: A fraction or a fold is out of range.
        DataError: The source has no official split, a class has too few photos, or nothing is left
            for val.
    """
    _check_fraction("val_fraction", val_fraction)
    _check_fraction("test_fraction", test_fraction)
    if kind not in _KINDS:
        raise SettingError(f"`split` must be {', '.join(_KINDS[:-1])} or folds, got {kind!r}.")
    if kind == "folds" and not 0 <= fold < folds:
        raise SettingError(f"`fold` must be from 0 to {folds - 1} with {folds} folds, got {fold}.")
    if kind == "files":
        if "all" in (files := files or {}):
            written = Split.from_json(read_split(files["all"]), photos)
            return written if val_fraction else _joined(photos, written, seed)
        photos, kind = marked(photos, files), "official"

    kept = 1 + (val_fraction > 0)  # photos of each class that test must leave
    test, notes = _test_part(photos, kind, test_fraction, seed, kept)
    pool = sorted(set(range(len(photos.photos))) - set(test))
    val = _val_part(photos, pool, kind, val_fraction, folds=folds, fold=fold, seed=seed)
    train = sorted(set(pool) - set(val))
    _check_counts(photos, train, 1, "in train")
    minitrain = _minitrain(photos, train, val, seed)
    notes += _lacking(photos, "val", val) + _lacking(photos, "test", test)
    notes += _torn(photos, {"train": train, "val": val, "test": test})
    return Split(tuple(train), tuple(val), tuple(test), tuple(minitrain), notes=tuple(notes))


def reduced(photos: PhotoSet, split: Split, fraction: float, *, seed: int) -> Split:
    """The split with a fraction of its training photos, see `portion.first_part`.

    Raises:
        DataError: That is less than a photo of every class.
    """
    if fraction == 1:
        return split
    train = first_part(photos, split.train, fraction, seed=seed)
    unused = sorted({*split.unused, *split.train} - set(train))
    minitrain = _minitrain(photos, train, split.val, seed)
    return replace(split, train=tuple(train), minitrain=tuple(minitrain), unused=tuple(unused))


def without(
    photos: PhotoSet, split: Split, left_out: Set[str], *, seed: int
) -> tuple[PhotoSet, Split]:
    """Photos and split without the photos of these keys; minitrain keeps its size if it can.

    Raises:
        DataError: A class has no photo in train any more.
    """
    if not left_out:
        return photos, split
    kept = photos.without(left_out)
    position = {photo.key: i for i, photo in enumerate(kept.photos)}

    def moved(part: Sequence[int]) -> tuple[int, ...]:
        return tuple(position[key] for i in part if (key := photos.photos[i].key) in position)

    train, val, test = moved(split.train), moved(split.val), moved(split.test)
    _check_counts(kept, train, 1, "in train that can be read")
    minitrain = tuple(_minitrain(kept, train, val, seed))
    return kept, Split(train, val, test, minitrain, moved(split.unused), split.notes)


def _test_part(
    photos: PhotoSet, kind: Kind, fraction: float, seed: int, kept: int
) -> tuple[list[int], list[str]]:
    """The test photos, and what is to be said of them."""
    marked = [photo.split is not None for photo in photos.photos]
    if kind == "official" or (kind == "folds" and all(marked)):
        return _official(photos, "test"), []
    everyone = range(len(photos.photos))
    notes = [f"the source marks its own split; `split: {kind}` cuts anew"] if all(marked) else []
    if kind == "tutorial":
        fraction = _TUTORIAL_TEST / _TUTORIAL_ALL
        size = share(fraction, len(everyone))
        notes.append(
            f"split as in the tutorial: {size:,} test photos, the other {len(everyone) - size:,} "
            f"for train and val. The text's {_TUTORIAL_TRAIN:,} + {_TUTORIAL_TEST:,} is one more "
            f"than the {_TUTORIAL_ALL:,} photos of CUB-200-2011; its test part was kept"
        )
    _check_counts(photos, everyone, _needed(photos, kept + (fraction > 0)), "in all")
    test = _cut(photos, everyone, fraction, "test", seed=seed, leave=kept)
    if not test:
        notes.append("`test` is empty: no class has a group to spare for it")
    return test, notes


def _val_part(
    photos: PhotoSet,
    pool: Sequence[int],
    kind: Kind,
    fraction: float,
    *,
    folds: int,
    fold: int,
    seed: int,
) -> list[int]:
    if fraction == 0:
        return []
    if kind == "official" and (val := _official(photos, "val")):
        return val
    _check_counts(photos, pool, _needed(photos, 2), "outside test")
    if kind == "folds":
        val, part = deal(photos, pool, folds, seed=seed)[fold], f"fold {fold} of {folds}"
    else:
        val, part = _cut(photos, pool, fraction, "val", seed=seed, leave=1), "`val`"
    if not val:
        raise _empty(photos, pool, part)
    return val


def _joined(photos: PhotoSet, split: Split, seed: int) -> Split:
    """A split whose val photos are trained on."""
    train = sorted((*split.train, *split.val))
    minitrain = _minitrain(photos, train, (), seed)
    return replace(split, train=tuple(train), val=(), minitrain=tuple(minitrain))


def _minitrain(photos: PhotoSet, train: Sequence[int], val: Sequence[int], seed: int) -> list[int]:
    size = min(len(val), len(train)) if val else max(1, share(_MINITRAIN_FRACTION, len(train)))
    alone = replace(photos, photos=tuple(replace(p, group=None) for p in photos.photos))
    return pick(alone, train, size, "minitrain", seed=seed, leave=0)


def _official(photos: PhotoSet, part: str) -> list[int]:
    unmarked = [photo.key for photo in photos.photos if photo.split is None]
    if unmarked:
        raise DataError(
            f"`{photos.root}` has no official split: "
            f"{count_of(len(unmarked), 'photo is', 'photos are')} marked neither train, val nor "
            f"test, such as {unmarked[0]}. Use `split: fractions`."
        )
    return [i for i, photo in enumerate(photos.photos) if photo.split == part]


def _cut(
    photos: PhotoSet, pool: Sequence[int], fraction: float, part: str, *, seed: int, leave: int
) -> list[int]:
    """The photos of a new part: a fraction of the pool, at least one and not all of each class."""
    if fraction == 0:
        return []
    size, classes = share(fraction, len(pool)), len(photos.class_names)
    low, high = classes, len(pool) - leave * classes
    if not are_grouped(photos) and not low <= size <= high:
        raise DataError(
            f"`{part}_fraction` {fraction:g} of {len(pool)} photos is {size}, but {classes} "
            f"classes need {low} to {high}, so that none goes without. Use a fraction of "
            f"{low / len(pool):.3f} to {high / len(pool):.3f}."
        )
    return pick(photos, pool, size, part, seed=seed, leave=leave)


def _lacking(photos: PhotoSet, part: str, positions: Sequence[int]) -> list[str]:
    there = {photos.photos[i].label for i in positions}
    names = [name for label, name in enumerate(photos.class_names) if label not in there]
    if not names or not positions:
        return []
    return [f"{part} has no photos of {count_of(len(names), 'class', 'classes')}: {listed(names)}"]


def _torn(photos: PhotoSet, parts: Mapping[str, Sequence[int]]) -> list[str]:
    """A note of groups that stand in two parts, as only a source's own split can have them."""
    seen: Counter[str] = Counter()
    for positions in parts.values():
        seen.update({group for group in groups(photos, positions) if group.startswith("\0")})
    torn = sorted(group[1:] for group, count in seen.items() if count > 1)
    if not torn:
        return []
    return [
        f"{count_of(len(torn), 'group stands', 'groups stand')} in more than one part of the "
        f"split: {listed(torn)}"
    ]


def _empty(photos: PhotoSet, pool: Sequence[int], part: str) -> DataError:
    whole = f" in {count_of(len(groups(photos, pool)), 'group')}, which stay whole"
    return DataError(
        f"Nothing is left for {part}: outside test there are {count_of(len(pool), 'photo')}"
        f"{whole if are_grouped(photos) else ''}. Add photos or groups, use fewer `data.folds`, or "
        f"set `data.val_fraction` to 0."
    )


def _needed(photos: PhotoSet, count: int) -> int:
    return 1 if are_grouped(photos) else count


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise SettingError(f"`{name}` must be at least 0 and below 1, got {value!r}. Use 0.2.")


def _check_counts(photos: PhotoSet, pool: Iterable[int], needed: int, where: str) -> None:
    counts = Counter(photos.photos[i].label for i in pool)
    meant = {tiny: f", {photos.class_names[of]}?" for tiny, of in misspelt(photos).items()}
    short = [
        f"{name} ({counts[label]}{meant.get(label, '')})"
        for label, name in enumerate(photos.class_names)
        if counts[label] < needed
    ]
    if short:
        least = count_of(needed, "photo")
        raise DataError(
            f"Every class needs {least} or more {where}; too few: {listed(short)}. "
            f"Add photos, leave the class out or join it to another by `data.corrections`, or set "
            f"`data.val_fraction` to 0."
        )


def _check_written(written: Mapping[str, Any], photos: PhotoSet) -> None:
    absent = [name for name in ("class_names", *PARTS, "minitrain") if name not in written]
    if absent:
        raise DataError(f"This is not a written split; it lacks: {listed(absent)}.")
    names, now = written["class_names"], list(photos.class_names)
    if names != now:
        gone, new = listed(sorted(set(names) - set(now))), listed(sorted(set(now) - set(names)))
        raise DataError(
            f"The classes of `{photos.root}` are not those the split was written for; missing: "
            f"{gone or 'none'}; extra: {new or 'none'}. Put the folders back, or make a new split."
        )
    keys = [key for part in (*PARTS, "unused") for key in written.get(part, ())]
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

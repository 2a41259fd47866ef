"""A fair portion of photos: each class by its share, groups whole, chance by hashes of names.

Photos are ranked by a hash of (seed, part, name) and the first ones are taken. So the order of
files does not matter, and a photo added later moves few others: one photo per class and part, and
one more where the class's share is rounded differently. (A permutation from a generator would deal
all anew.)
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import ceil, inf

from fieldmark.data.dataset import PhotoSet, draw
from fieldmark.errors import DataError


def share(fraction: float, count: int) -> int:
    """The nearest whole number to a fraction of `count`."""
    return int(fraction * count + 0.5)


def are_grouped(photos: PhotoSet) -> bool:
    """Whether any photos belong together."""
    return any(photo.group is not None for photo in photos.photos)


def groups(photos: PhotoSet, pool: Iterable[int]) -> dict[str, list[int]]:
    """The positions of each group; a photo without one stands under its own key."""
    found: dict[str, list[int]] = {}
    for i in pool:
        photo = photos.photos[i]
        # No path holds a NUL, so a group is never mistaken for a photo.
        found.setdefault(photo.key if photo.group is None else f"\0{photo.group}", []).append(i)
    return found


def pick(
    photos: PhotoSet, pool: Sequence[int], size: int, part: str, *, seed: int, leave: int
) -> list[int]:
    """`size` photos of the pool, each class by its share, `leave` of each class left over.

    Where photos are grouped, whole groups are picked, so that each class comes as near to its share
    as one pass through them allows, and `leave` groups of each class are left over. A class with no
    more groups than that is not picked from.
    """
    if are_grouped(photos):
        return _pick_groups(photos, pool, size, part, seed=seed, leave=leave)
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


def first_part(photos: PhotoSet, pool: Sequence[int], fraction: float, *, seed: int) -> list[int]:
    """A share of the pool, each class by its own, which holds that of every smaller fraction.

    Photos stand in one order and the first are taken. A class's photo number r of n stands at
    r / n, from r = 0, so each class has one before any has two (Adams's apportionment; largest
    remainders may take a photo back when more are asked for). Groups are taken whole.

    Raises:
        DataError: the share has no photo for every class.
    """
    size = share(fraction, len(pool))
    sizes = Counter(photos.photos[i].label for i in pool)
    if size < len(sizes):
        raise DataError(
            f"`train_fraction` {fraction:g} of {len(pool)} training photos is {size}, but "
            f"{len(sizes)} classes need one each. Use "
            f"{ceil(1000 * len(sizes) / len(pool)) / 1000:g} or more."
        )
    everyone = groups(photos, pool)
    seen: Counter[int] = Counter()
    place: dict[str, float] = {}
    for name in sorted(everyone, key=lambda name: (draw(seed, "fraction", name), name)):
        counts = Counter(photos.photos[i].label for i in everyone[name])
        place[name] = min(seen[label] / sizes[label] for label in counts)
        seen += counts
    taken: list[int] = []
    for name in sorted(place, key=place.__getitem__):  # equal places in the order drawn
        if place[name] and len(taken) >= size:
            break
        taken += everyone[name]
    return sorted(taken)


def deal(photos: PhotoSet, pool: Sequence[int], folds: int, *, seed: int) -> list[list[int]]:
    """The pool in `folds` parts, each class spread over them evenly, groups whole.

    Without groups, parts differ by one photo at most, in each class and in all.
    """
    everyone = groups(photos, pool)
    dealt: list[list[int]] = [[] for _ in range(folds)]
    if not are_grouped(photos):
        order = sorted(pool, key=lambda i: _fold_rank(photos, i, seed))
        for turn, i in enumerate(order):
            dealt[turn % folds].append(i)
        return [sorted(part) for part in dealt]
    sizes = Counter(photos.photos[i].label for i in pool)
    held: list[Counter[int]] = [Counter() for _ in range(folds)]

    def crowding(fold: int, counts: Counter[int]) -> tuple[float, int]:
        classes = sum(held[fold][c] * n / sizes[c] ** 2 for c, n in counts.items())
        return classes, held[fold].total()

    # The largest first, while there is room to balance them.
    for name in sorted(everyone, key=lambda n: (-len(everyone[n]), draw(seed, "folds", n), n)):
        counts = Counter(photos.photos[i].label for i in everyone[name])
        fold = min(range(folds), key=lambda k: crowding(k, counts))
        held[fold] += counts
        dealt[fold] += everyone[name]
    return [sorted(part) for part in dealt]


def _fold_rank(photos: PhotoSet, i: int, seed: int) -> tuple[int, int, str]:
    photo = photos.photos[i]
    return photo.label, draw(seed, "folds", photo.key), photo.key


def _pick_groups(
    photos: PhotoSet, pool: Sequence[int], size: int, part: str, *, seed: int, leave: int
) -> list[int]:
    everyone = groups(photos, pool)
    counts = {
        name: Counter(photos.photos[i].label for i in all_) for name, all_ in everyone.items()
    }
    photos_of = Counter(photos.photos[i].label for i in pool)
    classes = range(len(photos.class_names))
    owed = dict(enumerate(_apportion(size, [photos_of[label] for label in classes], 0)))
    left = Counter(label for name in everyone for label in counts[name])
    taken: list[str] = []
    gone: set[str] = set()

    def may_go(name: str) -> bool:
        return name not in gone and all(left[label] > leave for label in counts[name])

    def take(name: str) -> None:
        taken.append(name)
        gone.add(name)
        for label, count in counts[name].items():
            owed[label] -= count
            left[label] -= 1

    ranked = sorted(everyone, key=lambda name: (draw(seed, part, name), name))
    for name in ranked:
        nearer = sum(abs(owed[c]) - abs(owed[c] - n) for c, n in counts[name].items())
        if nearer > 0 and may_go(name):
            take(name)
    for label in classes:  # a class whose every group is too large for its share still takes part
        if size and not any(label in counts[name] for name in taken):
            free = [name for name in ranked if label in counts[name] and may_go(name)]
            if free:
                take(min(free, key=lambda name: len(everyone[name])))
    return sorted(i for name in taken for i in everyone[name])


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

"""From photos to batches, by threads: decoding and resizing let go of the interpreter lock.

What a batch holds depends on the photos, the view, the seed and the epoch. It does not depend on
the number of workers: no worker owns a generator, and batches come in the order asked for.

Worker processes can be killed one by one, need room in /dev/shm for what they hand over, start the
user's script again on some systems, and hang with a lock that was held when they were forked.
Threads do none of it. What one raises comes up where its batch is due, as one error that names the
photo; where the system allows no further thread, the caller loads by itself.
"""

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fieldmark.data.dataset import Photo, draw
from fieldmark.data.transform import View
from fieldmark.errors import DataError, FieldmarkError, SettingError

BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Batch:
    """B photos as a view shows them.

    Attributes:
        images: uint8 (B, 3, S, S), channels last in memory.
        labels: int64 (B,).
        indices: int64 (B,), positions in the photos the loader was given.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor


def epoch_order(count: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of range(count) that depends on (count, seed, epoch) alone.

    The raw bits of Philox are ranked: NumPy promises those for all versions, and `permutation`
    for none.
    """
    bits = np.random.Philox(key=draw(seed, epoch, "order")).random_raw(count)
    return np.argsort(bits, kind="stable").astype(np.int64)


def balanced_order(labels: Sequence[int], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """len(labels) positions, in which every class stands equally often, as far as that divides.

    A class takes turns through its own photos, in an order of this epoch: one with few of them
    shows each several times, one with many shows a part. Which classes stand once more than the
    others is drawn in each epoch.
    """
    shuffled = epoch_order(len(labels), seed=seed, epoch=epoch)
    of = np.asarray(labels, dtype=np.int64)[shuffled]
    classes = np.unique(of)
    if len(classes) == 0:
        return shuffled
    lucky = epoch_order(len(classes), seed=draw(seed, "classes"), epoch=epoch)
    each, more = divmod(len(labels), len(classes))
    counts = np.where(lucky < more, each + 1, each)
    drawn = [
        np.resize(shuffled[of == name], count) for name, count in zip(classes, counts, strict=True)
    ]
    order = epoch_order(len(labels), seed=draw(seed, "balanced"), epoch=epoch)
    return np.concatenate(drawn)[order]


def batches(order: Sequence[int] | NDArray[np.int64], batch_size: int) -> list[list[int]]:
    """Cut an order into pieces of `batch_size`, the last one maybe shorter.

    Raises:
        SettingError: `batch_size` is below 1.
    """
    if batch_size < 1:
        raise SettingError(f"`batch_size` must be at least 1, got {batch_size}. Use 32.")
    pieces = range(0, len(order), batch_size)
    return [[int(i) for i in order[at : at + batch_size]] for at in pieces]


def load_batches(
    photos: Sequence[Photo],
    view: View,
    batches: Iterable[Sequence[int]],
    *,
    seed: int,
    epoch: int,
    workers: int,
    first: int = 0,
    resized: Mapping[str, NDArray[np.uint8]] | None = None,
    part: Callable[[int], Sequence[int]] = range,
) -> Generator[Batch]:
    """Load batches in the order given, a few ahead of their use.

    A photo that comes again within an epoch is changed by chance anew.

    Args:
        photos: What the indices point into.
        view: How photos are shown.
        batches: Positions in `photos`, one sequence a batch; all of an epoch where chance matters.
        seed: The run's.
        epoch: Each epoch draws its crops anew.
        workers: Threads that load; 0 loads in the caller's own, when asked for the next batch.
        first: How many batches to pass over, where an interrupted epoch goes on.
        resized: Photos that are decoded and resized already, by key (see `cache`); others are read.
        part: Of a batch of so many photos, the places of those to load, where others load the rest.

    Returns:
        A generator; closing or dropping it ends the threads.

    Raises:
        SettingError: `workers` is negative, or the view can't use resized photos.
        DataError: While iterating: a photo can't be read.
    """
    if workers < 0:
        raise SettingError(f"`workers` must be at least 0, got {workers}. Use 2.")

    for pixels in islice((resized or {}).values(), 1):
        _check_resized(pixels.shape, view.uncropped().image_size)
    source = _Source(photos, view, resized or {}, seed, epoch)
    groups = islice(_with_turns(batches, part), first, None)
    if workers == 0:
        return (
            source.collate(indices, map(source.load, indices, turns)) for indices, turns in groups
        )
    return _load_ahead(source, groups, workers)


@dataclass(frozen=True)
class _Source:
    """What one epoch's batches are made of; no method changes anything, so threads may share it."""

    photos: Sequence[Photo]
    view: View
    resized: Mapping[str, NDArray[np.uint8]]
    seed: int
    epoch: int

    def load(self, index: int, turn: int) -> Tensor:
        photo, view = self.photos[index], self.view
        sample = photo.key + (f"\0{turn}" if turn else "")
        seed, epoch = self.seed, self.epoch
        try:
            if (pixels := self.resized.get(photo.key)) is not None:
                return view.crop_resized(pixels, seed=seed, epoch=epoch, sample=sample)
            return view.load(photo.path, box=photo.box, seed=seed, epoch=epoch, sample=sample)
        except FieldmarkError:
            raise
        except Exception as error:
            raise _broken(photo, error) from error

    def collate(self, indices: Sequence[int], images: Iterable[Tensor]) -> Batch:
        side = self.view.image_size
        rows = [image.permute(1, 2, 0).numpy() for image in images]
        stacked = np.stack(rows) if rows else np.empty((0, side, side, 3), np.uint8)  # (B, S, S, 3)
        return Batch(
            images=torch.from_numpy(stacked).permute(0, 3, 1, 2),  # (B, 3, S, S)
            labels=torch.tensor([self.photos[i].label for i in indices], dtype=torch.int64),
            indices=torch.tensor(list(indices), dtype=torch.int64),
        )


def _broken(photo: Photo, error: Exception) -> DataError:
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return DataError(
        f"`{photo.path}` can't be loaded ({what}). The photo is not at fault: memory ran out, or "
        f"this is a defect of Fieldmark; if it stays, report it."
    )


def _check_resized(shape: tuple[int, ...], side: int) -> None:
    if shape != (side, side, 3):
        raise SettingError(
            f"The view crops from photos resized to {side} x {side}, got {shape}. Make the cache "
            f"with the same `resize_size`."
        )


def _with_turns(
    batches: Iterable[Sequence[int]], part: Callable[[int], Sequence[int]]
) -> Iterator[tuple[Sequence[int], list[int]]]:
    """A part of each batch, and beside each index how often it came before in any part."""
    seen: Counter[int] = Counter()
    for indices in batches:
        turns = []
        for index in indices:
            turns.append(seen[index])
            seen[index] += 1
        places = part(len(indices))
        yield [indices[place] for place in places], [turns[place] for place in places]


def _begin(pool: ThreadPoolExecutor, source: _Source, index: int, turn: int) -> Future[Tensor]:
    try:
        return pool.submit(source.load, index, turn)
    except RuntimeError:  # the system lets no thread start
        done: Future[Tensor] = Future()
        done.set_result(source.load(index, turn))
        return done


def _load_ahead(
    source: _Source, groups: Iterable[tuple[Sequence[int], list[int]]], workers: int
) -> Generator[Batch]:
    def next_batch() -> Batch:
        indices, images = waiting.popleft()
        return source.collate(indices, (image.result() for image in images))

    waiting: deque[tuple[Sequence[int], list[Future[Tensor]]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="fieldmark-loader")
    try:
        for indices, turns in groups:
            loading = [_begin(pool, source, *each) for each in zip(indices, turns, strict=True)]
            waiting.append((indices, loading))
            if len(waiting) > BATCHES_AHEAD:
                yield next_batch()
        while waiting:
            yield next_batch()
    finally:
        pool.shutdown(cancel_futures=True)

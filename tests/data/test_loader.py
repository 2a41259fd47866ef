import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fieldmark.data.augment import Augment
from fieldmark.data.dataset import Photo
from fieldmark.data.loader import Batch, balanced_order, batches, epoch_order, load_batches
from fieldmark.data.transform import View
from fieldmark.errors import DataError, SettingError

VIEW = View(24, 32, mirror=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    made = []
    for i in range(23):
        key = f"{i:02}.{'jpg' if i % 2 else 'png'}"
        Image.fromarray(rng.integers(0, 256, (40, 30 + i, 3), np.uint8)).save(folder / key)
        made.append(Photo(folder / key, i % 5, key))
    return made


def load(photos: list[Photo], workers: int, epoch: int = 0, batch_size: int = 4) -> list[Batch]:
    order = epoch_order(len(photos), seed=1, epoch=epoch)
    cut = batches(order, batch_size)
    return list(load_batches(photos, VIEW, cut, seed=1, epoch=epoch, workers=workers))


def by_photo(loaded: list[Batch]) -> dict[int, bytes]:
    return {
        int(index): image.contiguous().numpy().tobytes()
        for batch in loaded
        for index, image in zip(batch.indices, batch.images, strict=True)
    }


VIEWS = {
    "crop": View(24, 32, augment=Augment(crop_area=(0.08, 1.0))),
    "aspect": View(24, 32, mirror=True, resize="keep_aspect"),
    "box": View(24, 32, mirror=True, box_margin=0.1),
    "jitter": View(24, 32, augment=Augment(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)),
    "randaugment": View(24, 32, augment=Augment(policy="randaugment")),
    "trivialaugment": View(24, 32, augment=Augment(policy="trivialaugment")),
    "erase": View(24, 32, augment=Augment(erase=0.5)),
}


@pytest.mark.parametrize("name", list(VIEWS))
def test_no_change_by_chance_sees_workers_or_batches(photos: list[Photo], name: str) -> None:
    view = VIEWS[name]
    boxed = [replace(photo, box=(3.0, 5.0, 20.0, 25.0)) for photo in photos]
    before = torch.get_rng_state()

    def epoch(workers: int, *, size: int = 4, epoch: int = 0) -> dict[int, bytes]:
        cut = batches(epoch_order(len(photos), seed=1, epoch=epoch), size)
        return by_photo(list(load_batches(boxed, view, cut, seed=1, epoch=epoch, workers=workers)))

    expected = epoch(0)
    assert expected == epoch(1) == epoch(3) == epoch(8) == epoch(3, size=7)
    second = epoch(0, epoch=1)
    assert sum(expected[i] == second[i] for i in expected) <= 5
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_where_it_was_interrupted(photos: list[Photo], workers: int) -> None:
    cut = [[0, 1], [2, 0], [1, 1], [2, 0]]
    whole = list(load_batches(photos, VIEW, cut, seed=1, epoch=0, workers=workers))
    rest = list(load_batches(photos, VIEW, cut, seed=1, epoch=0, workers=workers, first=2))
    assert [batch.indices.tolist() for batch in rest] == cut[2:]
    for a, b in zip(whole[2:], rest, strict=True):
        assert torch.equal(a.images, b.images)


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "fieldmark-loader" in thread.name]


def test_a_batch_holds_what_was_asked_for(photos: list[Photo]) -> None:
    (batch,) = load_batches(photos, VIEW, [[7, 0, 7]], seed=1, epoch=2, workers=2)
    assert batch.images.shape == (3, 3, 24, 24)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels.tolist() == [2, 0, 2]
    assert batch.indices.tolist() == [7, 0, 7]
    assert batch.labels.dtype == batch.indices.dtype == torch.int64
    keys = [photos[7].key, photos[0].key, f"{photos[7].key}\0001"]  # another draw for its return
    for image, i, key in zip(batch.images, (7, 0, 7), keys, strict=True):
        assert torch.equal(image, VIEW.load(photos[i].path, seed=1, epoch=2, sample=key))
    assert not torch.equal(batch.images[0], batch.images[2])


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
def test_any_number_of_workers_gives_the_same(photos: list[Photo], workers: int) -> None:
    expected, got = load(photos, 0), load(photos, workers)
    assert len(got) == 6
    for a, b in zip(expected, got, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.indices, b.indices)


def test_a_photo_does_not_see_its_batch(photos: list[Photo]) -> None:
    assert by_photo(load(photos, 2, batch_size=4)) == by_photo(load(photos, 2, batch_size=7))


def test_two_epochs_differ(photos: list[Photo]) -> None:
    first, second = load(photos, 0), load(photos, 0, epoch=1)
    order = [[int(i) for batch in epoch for i in batch.indices] for epoch in (first, second)]
    assert order[0] != order[1]
    a, b = by_photo(first), by_photo(second)
    # 162 views of a photo: on average 0.14 of the 23 come up twice.
    assert sum(a[i] == b[i] for i in a) <= 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_photo_is_named_and_ends_the_threads(
    photos: list[Photo], workers: int, tmp_path: Path
) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    mixed = [*photos[:10], Photo(tmp_path / "bad.jpg", 0, "bad.jpg"), *photos[10:]]
    stream = load_batches(mixed, VIEW, batches(range(24), 4), seed=0, epoch=0, workers=workers)
    assert next(stream).indices.tolist() == [0, 1, 2, 3]
    assert next(stream).indices.tolist() == [4, 5, 6, 7]
    with pytest.raises(DataError, match=r"bad\.jpg` can't be read as a photo"):
        next(stream)
    assert loader_threads() == []


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("a kernel broke")])
def test_what_breaks_in_a_worker_is_one_line_that_names_the_photo(
    photos: list[Photo], monkeypatch: pytest.MonkeyPatch, workers: int, error: Exception
) -> None:
    original = View.load

    def load(self: View, path: Path, **options: Any) -> torch.Tensor:
        if path.name == "05.jpg":
            raise error
        return original(self, path, **options)

    monkeypatch.setattr(View, "load", load)
    stream = load_batches(photos, VIEW, batches(range(23), 4), seed=0, epoch=0, workers=workers)
    next(stream)
    with pytest.raises(
        DataError, match=r"05\.jpg` can't be loaded \(\w+Error: .*report it\.$"
    ) as told:
        next(stream)
    assert "\n" not in str(told.value)
    assert loader_threads() == []


@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_where_no_thread_may_start_the_caller_loads(
    photos: list[Photo], monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    start, started = threading.Thread.start, []

    def refuse(thread: threading.Thread) -> None:
        if len(started) == allowed:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    expected = load(photos, 0)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    got = load(photos, 4)
    assert len(started) == allowed
    assert all(torch.equal(a.images, b.images) for a, b in zip(expected, got, strict=True))
    assert loader_threads() == []


def test_closing_early_ends_the_threads(photos: list[Photo]) -> None:
    stream = load_batches(photos, VIEW, batches(range(23), 2), seed=0, epoch=0, workers=3)
    next(stream)
    assert loader_threads()
    stream.close()
    assert loader_threads() == []


def test_dropping_it_early_ends_the_threads(photos: list[Photo]) -> None:
    for batch in load_batches(photos, VIEW, batches(range(23), 2), seed=0, epoch=0, workers=3):
        assert len(batch.images) == 2
        break
    assert loader_threads() == []


def test_never_starting_starts_no_threads(photos: list[Photo]) -> None:
    stream = load_batches(photos, VIEW, batches(range(23), 2), seed=0, epoch=0, workers=3)
    assert loader_threads() == []
    stream.close()


def test_only_a_few_batches_are_loaded_ahead(photos: list[Photo]) -> None:
    asked: list[int] = []

    def endless() -> Iterator[list[int]]:
        while True:
            asked.append(len(asked))
            yield [0, 1]

    stream = load_batches(photos, VIEW, endless(), seed=0, epoch=0, workers=2)
    for used in range(1, 6):
        next(stream)
        assert len(asked) <= used + 2
    stream.close()


def test_no_batches() -> None:
    for workers in (0, 2):
        assert list(load_batches([], VIEW, [], seed=0, epoch=0, workers=workers)) == []


def test_negative_workers_are_refused_at_once(photos: list[Photo]) -> None:
    with pytest.raises(SettingError, match="`workers` must be at least 0, got -1"):
        load_batches(photos, VIEW, [[0]], seed=0, epoch=0, workers=-1)


def test_epoch_order_is_a_permutation_that_depends_on_its_key() -> None:
    order = epoch_order(100, seed=0, epoch=0)
    assert sorted(order.tolist()) == list(range(100))
    assert np.array_equal(order, epoch_order(100, seed=0, epoch=0))
    for other in (epoch_order(100, seed=1, epoch=0), epoch_order(100, seed=0, epoch=1)):
        assert (order == other).sum() < 10  # 1 on average, Poisson
    assert epoch_order(0, seed=0, epoch=0).tolist() == []


def test_epoch_orders_are_uniform() -> None:
    counts = np.zeros((4, 4))
    for epoch in range(4000):
        counts[np.arange(4), epoch_order(4, seed=0, epoch=epoch)] += 1
    # 9 degrees of freedom: 27.9 is exceeded with probability 0.001.
    assert ((counts - 1000) ** 2 / 1000).sum() * 3 / 4 < 27.9


def test_a_balanced_order_has_every_class_equally_often() -> None:
    labels = [0] * 50 + [1] * 20 + [4] * 3
    for epoch in range(20):
        order = balanced_order(labels, seed=0, epoch=epoch)
        drawn = np.array(labels)[order]
        assert len(order) == 73
        counts = [int((drawn == name).sum()) for name in (0, 1, 4)]
        assert sorted(counts) == [24, 24, 25]
        assert len(set(order[drawn == 0].tolist())) == counts[0]  # none twice while some wait
        assert {*np.bincount(order[drawn == 4])[70:]} <= {8, 9}  # taken in turns
    seen = [int(i) for epoch in range(20) for i in balanced_order(labels, seed=0, epoch=epoch)]
    assert set(seen) == set(range(73))


def test_balanced_orders_depend_on_their_key_and_are_mixed() -> None:
    labels = [0] * 60 + [1] * 30
    order = balanced_order(labels, seed=0, epoch=0)
    assert np.array_equal(order, balanced_order(labels, seed=0, epoch=0))
    for other in (balanced_order(labels, seed=1, epoch=0), balanced_order(labels, seed=0, epoch=1)):
        assert (order == other).sum() < 15
    assert 12 <= np.array(labels)[order][:45].sum() <= 33  # 22.5 on average, 4.5 of spread
    extra = {
        int((np.array([0, 0, 1])[balanced_order([0, 0, 1], seed=0, epoch=e)] == 0).sum())
        for e in range(30)
    }
    assert extra == {1, 2}  # which class stands once more is drawn
    assert balanced_order([], seed=0, epoch=0).tolist() == []


def test_batches() -> None:
    assert batches(range(5), 2) == [[0, 1], [2, 3], [4]]
    assert batches(np.array([3, 1, 2]), 3) == [[3, 1, 2]]
    assert batches([], 2) == []
    with pytest.raises(SettingError, match="`batch_size` must be at least 1, got 0"):
        batches(range(5), 0)

"""The feature store: each photo once, whatever is asked, in whatever order, after any break."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fieldmark.training import features as module
from fieldmark.training.features import FeatureStore


class Counter:
    """Computes maps that tell which id they are of, and counts how often."""

    def __init__(self, ids: list[str], batch: int = 2, fail_after: int | None = None) -> None:
        self.ids, self.batch, self.fail_after = ids, batch, fail_after
        self.computed: list[str] = []

    def __call__(self, positions: list[int]) -> Iterator[tuple[list[int], torch.Tensor]]:
        for start in range(0, len(positions), self.batch):
            part = positions[start : start + self.batch]
            if self.fail_after is not None and len(self.computed) >= self.fail_after:
                raise RuntimeError("power cut")
            self.computed += [self.ids[position] for position in part]
            yield part, torch.stack([value(self.ids[position]) for position in part])


def value(name: str) -> torch.Tensor:
    return torch.full((2, 3, 3), float(ord(name)), dtype=torch.bfloat16)


def fetch(store: FeatureStore, ids: list[str], counter: Counter, key: str = "k") -> list[str]:
    rows: dict[int, str] = {}
    for positions, maps in store.features(key, ids, counter):
        assert maps.shape == (len(positions), 2, 3, 3)
        for position, row in zip(positions, maps, strict=True):
            assert position not in rows
            assert torch.equal(row, value(chr(int(row[0, 0, 0]))))
            rows[position] = chr(int(row[0, 0, 0]))
    return [rows[position] for position in sorted(rows)]


def test_the_second_time_nothing_is_computed(tmp_path: Path):
    ids = list("abcde")
    first, second = Counter(ids), Counter(ids)
    assert fetch(FeatureStore(tmp_path), ids, first) == ids
    assert fetch(FeatureStore(tmp_path), ids, second) == ids
    assert first.computed == ids
    assert second.computed == []


def test_other_order_subset_and_new_photos_cost_only_the_new(tmp_path: Path):
    store = FeatureStore(tmp_path)
    fetch(store, list("abcde"), Counter(list("abcde")))
    ids = list("exbf")
    counter = Counter(ids)
    assert store.missing("k", ids) == [1, 3]
    assert fetch(store, ids, counter) == ids
    assert counter.computed == ["x", "f"]
    assert store.missing("k", ids) == []


def test_equal_photos_are_computed_once_and_given_to_each(tmp_path: Path):
    ids = list("abacab")
    counter = Counter(ids)
    store = FeatureStore(tmp_path)
    assert fetch(store, ids, counter) == ids
    assert sorted(counter.computed) == ["a", "b", "c"]
    assert fetch(store, ids, Counter(ids)) == ids


def test_keys_are_apart(tmp_path: Path):
    store = FeatureStore(tmp_path)
    fetch(store, ["a"], Counter(["a"]))
    counter = Counter(["a"])
    fetch(store, ["a"], counter, key="other")
    assert counter.computed == ["a"]


def test_a_pass_cut_off_goes_on_after_its_last_whole_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "SHARD_BYTES", 4 * value("a").nbytes)
    ids = list("abcdefgh")
    with pytest.raises(RuntimeError, match="power cut"):
        fetch(FeatureStore(tmp_path), ids, Counter(ids, fail_after=6))
    counter = Counter(ids)
    assert fetch(FeatureStore(tmp_path), ids, counter) == ids
    assert counter.computed == list("efgh")


def test_a_damaged_shard_is_computed_again(tmp_path: Path):
    ids = list("abc")
    fetch(FeatureStore(tmp_path), ids, Counter(ids))
    [shard] = tmp_path.rglob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-20])
    counter = Counter(ids)
    assert fetch(FeatureStore(tmp_path), ids, counter) == ids
    assert counter.computed == ids

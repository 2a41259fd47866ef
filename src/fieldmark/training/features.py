"""Feature maps computed once per photo and kept on disk, shared by every run that needs them."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fieldmark import cache_room
from fieldmark.shards import read_shard, shards_in, write_shard

SHARD_BYTES = 64 << 20  # little enough to lose to a power cut, enough to write at full speed

Positions = list[int]
Compute = Callable[[Positions], Iterator[tuple[Positions, Tensor]]]


def cache_folder() -> Path:
    """Where features are kept: $FIELDMARK_CACHE, or the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FIELDMARK_CACHE") or Path(base) / "fieldmark") / "features"


class FeatureStore:
    """A folder of feature maps, each known by what it was computed from.

    It is handed keys, ids and a way to compute, and knows neither photos nor networks. A key names
    all that decides how a map comes about (weights, preprocessing, size, type); an id names the
    content of a photo. New photos therefore cost only themselves, and a pass that was cut off
    goes on where its last shard ended. Maps are memory-mapped. The folder does not outgrow its
    bound (`cache_room`): what was unused for longest goes, and what then has no room is not kept.

    Args:
        folder: where shards are kept, as `<key>/<hash of ids>.safetensors`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def features(
        self, key: str, ids: Sequence[str], compute: Compute
    ) -> Iterator[tuple[Positions, Tensor]]:
        """Yield (positions in `ids`, their maps (n, C, H, W)) until each position came once.

        Args:
            key: of the way of computing.
            ids: content hash of each photo; two equal photos are computed once.
            compute: positions to batches of (positions, maps), in any order.
        """
        cache_room.use(self.folder / key)
        wanted: dict[str, Positions] = {}
        for position, name in enumerate(ids):
            wanted.setdefault(name, []).append(position)
        for path in shards_in(self.folder / key):
            yield from _read(path, wanted)
        missing = [positions[0] for positions in wanted.values()]
        if missing:
            yield from self._fill(key, ids, wanted, compute(missing))

    def missing(self, key: str, ids: Sequence[str]) -> Positions:
        """Where in `ids` photos stand, each once, that have no map under `key` yet."""
        known = {name for path in shards_in(self.folder / key) for name in read_shard(path)[0]}
        first = {name: position for position, name in reversed(list(enumerate(ids)))}
        return sorted(position for name, position in first.items() if name not in known)

    def add(self, key: str, ids: Sequence[str], positions: Positions, compute: Compute) -> None:
        """Keep the maps of `positions` in `ids`, for whoever asks later."""
        own = {ids[position]: [position] for position in positions}
        for _ in self._fill(key, ids, own, compute(positions)):
            pass

    def _fill(
        self,
        key: str,
        ids: Sequence[str],
        wanted: dict[str, Positions],
        computed: Iterator[tuple[Positions, Tensor]],
    ) -> Iterator[tuple[Positions, Tensor]]:
        names: list[str] = []
        maps: list[Tensor] = []
        for positions, batch in computed:
            names += [ids[position] for position in positions]
            maps.append(batch)
            yield _spread(names[-len(positions) :], batch, wanted)
            if sum(part.nbytes for part in maps) >= SHARD_BYTES:
                self._keep(key, names, torch.cat(maps))
                names, maps = [], []
        if maps:
            self._keep(key, names, torch.cat(maps))

    def _keep(self, key: str, names: Sequence[str], maps: Tensor) -> None:
        """Write a shard, unless the cache is full of what is in use."""
        if cache_room.make_room(self.folder, maps.nbytes):
            write_shard(self.folder / key, names, maps)


def _read(path: Path, wanted: dict[str, Positions]) -> Iterator[tuple[Positions, Tensor]]:
    """Yield what a shard has of `wanted`, and strike it off."""
    names, maps = read_shard(path)
    rows = [row for row, name in enumerate(names) if name in wanted]
    if rows and maps is not None:
        found = [names[row] for row in rows]
        yield _spread(found, maps if len(rows) == len(names) else maps[rows], wanted)
        for name in found:
            wanted.pop(name, None)


def _spread(
    names: Sequence[str], maps: Tensor, wanted: dict[str, Positions]
) -> tuple[Positions, Tensor]:
    """Give each position its map; a photo that stands twice in the data has two."""
    places = [(position, row) for row, name in enumerate(names) for position in wanted[name]]
    if len(places) == len(names):
        return [position for position, _ in places], maps
    return [position for position, _ in places], maps[[row for _, row in places]]

"""Photos decoded and resized once, and kept as the bytes that crops are taken from.

Decoding and resizing are nearly all that loading a photo costs. Squashed to R x R, a photo takes
3 R² bytes: 197 KB for 256, 786 KB for 512. Files are memory-mapped, so the kernel keeps in memory
what is used and there is room for.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fieldmark import cache_room, machine
from fieldmark.data.dataset import Photo
from fieldmark.data.decoding import decoders
from fieldmark.data.loader import batches, load_batches
from fieldmark.data.transform import PIXELS_VERSION, View
from fieldmark.shards import read_shard, shards_in, write_shard

_SHARD_BYTES = 32 << 20  # so much a power cut may undo
_NAME_BYTES = 256  # a photo's id and its share of a header, at most
_BATCH = 32

Pixels = NDArray[np.uint8]  # (R, R, 3)


def resized_photos(
    folder: Path,
    view: View,
    photos: Sequence[Photo],
    ids: Sequence[str],
    *,
    most_bytes: int,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Pixels]:
    """The resized photos a view crops from, read-only, by key; what `folder` lacks is added.

    Once the folder holds `most_bytes`, of whatever views, no more is added: photos that the result
    lacks are decoded by the loader as ever. The folder's bound (`cache_room`) holds beside it.

    Args:
        folder: Where they are kept, as `<name of the way>/<hash of ids>.safetensors`.
        view: Of training or of evaluation; the resized photos of both are the same.
        photos: All that will be loaded.
        ids: What of each photo the view looks at: its content, and its box if that counts.
        most_bytes: The folder does not grow beyond.
        workers: Threads that decode.
        progress: Is told how many of how many photos are there.

    Returns:
        uint8 (R, R, 3) each; hand them to `load_batches`.

    Raises:
        SettingError: Resized photos of the view depend on chance or on a photo's shape.
        DataError: A photo can't be read.
    """
    whole = view.uncropped()
    home = folder / _way(whole)
    cache_room.use(home)
    rows = {name: row for path in shards_in(home) for name, row in _open(path).items()}
    missing = {name: photo for name, photo in zip(ids, photos, strict=True) if name not in rows}
    room = room_for(folder, view, most_bytes)
    chosen, step = list(missing)[:room], max(1, _SHARD_BYTES // photo_bytes(view))
    for start in range(0, len(chosen), step):
        names = chosen[start : start + step]
        pixels = _decode([missing[name] for name in names], whole, workers)
        if not cache_room.make_room(folder.parent, pixels.nbytes):
            break
        rows |= _open(write_shard(home, names, pixels))
        if progress:
            progress(len(ids) - len(missing) + start + len(names), len(ids))
    return {photo.key: rows[name] for photo, name in zip(photos, ids, strict=True) if name in rows}


def photo_bytes(view: View) -> int:
    """What a photo takes, at most."""
    return 3 * view.resize_size**2 + _NAME_BYTES


def room_for(folder: Path, view: View, most_bytes: int) -> int:
    """How many photos more a folder takes until it holds `most_bytes`."""
    return max(0, most_bytes - _bytes_in(folder)) // photo_bytes(view)


def kept_photos(folder: Path, view: View) -> set[str]:
    """The ids of the photos that are there as a view crops them."""
    home = folder / _way(view.uncropped())
    return {name for path in shards_in(home) for name in _open(path)}


def _way(whole: View) -> str:
    """Name of all that decides over a resized photo besides the photo."""
    shown = {name: value for name, value in whole.to_dict().items() if name not in {"mean", "std"}}
    versions = machine.describe()
    parts = {
        "view": shown,
        "pixels": PIXELS_VERSION[whole.resize],
        "decoders": decoders(),
        **{name: versions[name] for name in ("torch", "torchvision", "cpu")},
    }
    name = sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    return f"{whole.resize}@{whole.resize_size}px@{name}"


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/*.safetensors"))


def _decode(photos: Sequence[Photo], whole: View, workers: int) -> torch.Tensor:
    """uint8 (N, R, R, 3)."""
    cut = batches(range(len(photos)), _BATCH)
    loaded = load_batches(photos, whole, cut, seed=0, epoch=0, workers=workers)
    return torch.cat([batch.images.permute(0, 2, 3, 1) for batch in loaded])


def _open(path: Path) -> Mapping[str, Pixels]:
    """The rows of a file, mapped; none where it can't be read, so that they are made again."""
    names, rows = read_shard(path)
    if rows is None:
        return {}
    pixels: NDArray[np.uint8] = rows.numpy()
    pixels.flags.writeable = False
    return dict(zip(names, pixels, strict=True))

"""Tensors of many photos in one file: a row a photo, each known by an id.

A folder of such files is a cache that grows file by file: what a power cut may undo is the file it
was written to, and a file that can't be read is as if it were not there.
"""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fieldmark import durable


def write_shard(folder: Path, ids: Sequence[str], rows: Tensor) -> Path:
    """Keep rows (N, ...) of as many ids in `folder`, in a file named by the ids.

    Raises:
        DiskError: there is no room for it.
    """
    durable.make_folder(folder)
    name = sha256("\n".join(ids).encode()).hexdigest()[:32]
    path = folder / f"{name}.safetensors"
    with durable.replacing(path, size=rows.nbytes) as temporary:
        save_file({"rows": rows.contiguous()}, temporary, metadata={"ids": json.dumps(list(ids))})
    return path


def shards_in(folder: Path) -> list[Path]:
    """The files of a folder, in one order on every machine; none where there is no folder."""
    return sorted(folder.glob("*.safetensors"))


def read_shard(path: Path) -> tuple[list[str], Tensor | None]:
    """Ids and rows, which are mapped and not read yet; no ids where the file can't be read."""
    try:
        with safe_open(path, framework="pt") as shard:
            (name,) = shard.keys()
            return json.loads(shard.metadata()["ids"]), shard.get_tensor(name)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return [], None

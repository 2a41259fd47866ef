"""Where the model looked, as the run kept it."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fieldmark.studies.run import Run

LOOKED = "looked"  # predictions/looked.parquet: path, height, width, shares


class Looks:
    """Grids of shares, by photo."""

    def __init__(self, grids: Mapping[str, NDArray[Any]]) -> None:
        self._grids = grids

    def of(self, key: str) -> NDArray[Any] | None:
        """The grid (H, W) of a photo; None where none was kept."""
        return self._grids.get(key)


def read_looks(run: Run) -> Looks:
    """What a run kept; empty where it kept nothing."""
    path = run.folder / "predictions" / f"{LOOKED}.parquet"
    try:
        table = pl.read_parquet(io.BytesIO(path.read_bytes()))
    except (OSError, pl.exceptions.PolarsError):
        return Looks({})
    return Looks(
        {
            row["path"]: np.asarray(row["shares"], np.float32).reshape(row["height"], row["width"])
            for row in table.to_dicts()
        }
    )

"""Where the model looked, as the run kept it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fieldmark.studies.judged import LOOKED
from fieldmark.studies.run import Run


class Looks:
    """Grids of shares, by photo."""

    def __init__(self, grids: Mapping[str, NDArray[Any]]) -> None:
        self._grids = grids

    def of(self, key: str) -> NDArray[Any] | None:
        """The grid (H, W) of a photo; None where none was kept."""
        return self._grids.get(key)


def has_looks(run: Run) -> bool:
    """Whether a run kept where its model looked."""
    return (run.folder / "predictions" / LOOKED).is_file()


def read_looks(run: Run) -> Looks:
    """What a run kept; empty where it kept nothing."""
    try:
        with np.load(run.folder / "predictions" / LOOKED, allow_pickle=False) as kept:
            paths, shares = kept["paths"].tolist(), kept["shares"]
    except (OSError, ValueError, KeyError):
        return Looks({})
    return Looks(dict(zip(paths, shares, strict=True)))

"""What bands of rates hold, over settings whose good rates a ladder of trainings found."""

from collections.abc import Mapping, Sequence
from typing import Any

HOLDS = "holds a good rate"
LEAST = {HOLDS: 0.8}  # of the bands


def band_shares(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How many settings have a band, and what is true of how many bands, as shares.

    Args:
        rows: of each setting its `band`, if it has one, and what is true of that.
    """
    banded = [row for row in rows if row["band"]]
    told = {key for row in banded for key, value in row.items() if isinstance(value, bool)}
    shares = {
        name: sum(row[name] for row in banded) / max(1, len(banded))
        for name in sorted({HOLDS} | told)
    }
    return {"settings with a band": len(banded) / len(rows)} | shares

"""Keys of a recipe: what it should give, measured once."""

from fieldmark.checked_yaml import Section
from fieldmark.network import Count


class Expectation(Section):
    """What a shipped recipe should give, measured once and stated with its circumstances."""

    command: str
    """What gives it."""
    metric: str
    """What was measured, as in `val/top1`."""
    value: float
    """Mean over `seeds` runs, as a fraction."""
    spread: float
    """How far one run may lie from `value` and still be the same result."""
    seeds: Count
    """Over how many runs."""
    seconds: float
    """How long one took."""
    hardware: str
    """On what."""

"""How a benchmark ends: what missed its target is named, and its exit status says so."""

import json
from collections.abc import Mapping
from typing import Any


def conclude(
    figures: Mapping[str, float],
    *,
    least: Mapping[str, float] | None = None,
    most: Mapping[str, float] | None = None,
    as_json: bool,
    **others: Any,
) -> int:
    """Hold figures against their targets, tell what was missed, and return the exit status.

    Args:
        figures: what was measured.
        least: what some of them must reach.
        most: what others must not exceed.
        as_json: print one object of all this as well, and of `others`.
    """
    least, most = least or {}, most or {}
    missed = [name for name, bound in least.items() if not figures[name] >= bound]  # nan is missed
    missed += [name for name, bound in most.items() if not figures[name] <= bound]
    print()
    for name, value in figures.items():
        bound = f">= {least[name]:g}" if name in least else ""
        bound = f"<= {most[name]:g}" if name in most else bound
        print(f"{name:48} {value:10.4g} {bound:9} {'MISSED' if name in missed else ''}".rstrip())
    print("targets:", f"missed {', '.join(missed)}" if missed else "met")
    if as_json:
        targets = {"least": least, "most": most}
        print(json.dumps({"figures": figures, "targets": targets, "missed": missed, **others}))
    return 1 if missed else 0

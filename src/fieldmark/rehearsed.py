"""Which rehearsals speak for a training: those whose outcome its recipe would not have changed."""

import json
from pathlib import Path
from typing import Any

from fieldmark import durable
from fieldmark.recipe import Recipe, Stage
from fieldmark.schedule import Schedule

RECORD = "rehearsal.json"
REHEARSALS = Path("rehearsals")  # where the command line puts them
AT_ITS_RATE = ("stage", "classes", "fed", "overfit", "blank")  # parts of a record, as against range
# What a rehearsal does not see of a stage, besides its length: it goes on for one of its own.
UNSEEN = ("eval_every", "stop_after", "snapshot_every", "average")

Record = dict[str, Any]


def alike(recipe: Recipe, stage: str) -> dict[str, str]:
    """Content hashes of all that a rehearsal of a stage depends on.

    Neither names nor lengths are among it, nor later stages, nor the seed, of which it tries
    several.

    Returns:
        `at_its_rate`: of learning by heart and of blank photos; `range`: of the range test, which
        tries all rates and knows no schedule.
    """
    stages = [_seen(each) for each in recipe.until(stage).stages]
    any_rate = stages[-1].model_copy(update={"lr": 1.0, "schedule": Schedule()})
    return {
        "at_its_rate": _hash(recipe, stages),
        "range": _hash(recipe, [*stages[:-1], any_rate]),
    }


def what_holds(recipe: Recipe, rehearsals: Path) -> Record | None:
    """What rehearsals found that holds for a training of this recipe too, the newest of each.

    Args:
        recipe: As it will be run.
        rehearsals: A folder with a rehearsal in each of its folders; it may be missing.

    Returns:
        a record as a rehearsal writes it, without what does not hold; None where nothing does.
    """
    mine = {stage.name: alike(recipe, stage.name) for stage in recipe.stages}
    found: Record = {"fed": None, "overfit": None, "blank": None, "range": {}, "from": []}
    for name, record in _newest_first(rehearsals):
        first = record["stage"]
        theirs = {stage: keys for stage, keys in record["alike"].items() if stage in mine}
        same = [stage for stage, keys in theirs.items() if keys["range"] == mine[stage]["range"]]
        new = {stage: record["range"][stage] for stage in same if stage not in found["range"]}
        tried = first in same and theirs[first]["at_its_rate"] == mine[first]["at_its_rate"]
        if tried and found["overfit"] is None:
            found |= {part: record.get(part) for part in AT_ITS_RATE}
        elif not new:
            continue
        found["range"] |= new
        found["from"].append({"name": name, "time": record["time"], "seconds": record["seconds"]})
    found["range"] = {stage: found["range"][stage] for stage in mine if stage in found["range"]}
    return found if found["from"] else None


def keep_what_holds(recipe: Recipe, rehearsals: Path, run: Path) -> None:
    """Put into a run's folder what was rehearsed before it began, where anything was."""
    found = what_holds(recipe, rehearsals)
    if found:
        durable.replace(run / RECORD, json.dumps(found, ensure_ascii=False, indent=1).encode())


def _seen(stage: Stage) -> Stage:
    """The stage, with all it does not matter for set to the same."""
    plain = {name: Stage.model_fields[name].default for name in UNSEEN}
    return stage.model_copy(update={**plain, "length": plain["eval_every"]})


def _hash(recipe: Recipe, stages: list[Stage]) -> str:
    return recipe.model_copy(update={"stages": tuple(stages), "seed": 0}).hash()


def _newest_first(rehearsals: Path) -> list[tuple[str, Record]]:
    """Name and record of each; what can't be read speaks for nothing."""
    found = []
    for path in rehearsals.glob(f"*/{RECORD}"):
        try:
            record = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and "alike" in record:
            found.append((path.parent.name, record))
    return sorted(found, key=lambda each: -each[1]["time"])

"""What a study will take, added up over its trials from a probe of each kind of them."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fieldmark import probe
from fieldmark.build import build
from fieldmark.cost import Cost, Pass, own_memory
from fieldmark.forecast import forecast
from fieldmark.head_cost import add_heads, add_looks
from fieldmark.head_run import Head
from fieldmark.head_trials import start_head
from fieldmark.probe import StageTime, time_stage
from fieldmark.recipe import Recipe, Stage
from fieldmark.studies.results import Slot
from fieldmark.studies.study import Study
from fieldmark.studies.trial import Trial
from fieldmark.training.features import FeatureStore

NO_COST = {"seed", "name", "about", "expected"}
NO_COST_OF_STAGE = {
    *("lr", "length", "momentum", "weight_decay", "l1", "schedule", "eval_every", "stop_after"),
    *("snapshot_every", "label_smoothing", "class_weights"),
}


def foresee(study: Study, store: FeatureStore) -> tuple[Cost, int]:
    """What the runs that are left will take, one worker at a time, and the photos that judge.

    Probes the real backbone on a few photos for each way of seeing them, and a few steps of each
    kind of trial; writes nothing that stays.

    Raises:
        FieldmarkError: the photos or a recipe can't be used.
    """
    cost, known, photos = Cost(), set[Path](), 0
    before: dict[str, Pass] = {}
    dearest, seen = 0.0, None  # of the heads that one is trained again of
    groups = [list(group.slots) for group in study.plan().groups]
    for slots in groups or [_stand_ins(study)]:
        if slots:
            shared = Pass(slots[0].recipe, store, before)
            part, head = _group(shared, slots, known)
            judged = shared.photos if slots[0].cell.folds else shared.task.part("val")
            photos = photos or len(judged)
            cost += part
            if head and part.seconds > dearest:
                dearest, seen = part.seconds, (shared, head)
    if seen:
        add_looks(cost, *seen)
    return cost, photos


def _stand_ins(study: Study) -> list[Slot]:
    """For points that are still to be proposed: as many runs of the first recipe."""
    if not study.plan().later:
        return []
    design = study.design
    (cell,) = design.cells([next(design.corners())])
    runs = study.plan().later * design.file.seeds
    return [Slot(cell, cell.recipe.seed + number) for number in range(runs)]


def _group(shared: Pass, slots: Sequence[Slot], known: set[Path]) -> tuple[Cost, Head | None]:
    """What the slots take, and one of those that train nothing but a head."""
    cost = Cost()
    cost.add("building", shared.building)
    shared.check(cost, known)
    trials = [
        Trial(slot.recipe, Path(str(number)), slot.cell.folds) for number, slot in enumerate(slots)
    ]
    started = probe.clock()
    begun = [start_head(shared.task, trial) for trial in trials]
    cost.add("building", probe.clock() - started)
    if together := [head for head in begun if head]:
        add_heads(cost, shared, together)
    alone: dict[str, list[Trial]] = defaultdict(list)
    for trial, head in zip(trials, begun, strict=True):
        if head is None:
            alone[_likeness(trial.recipe)].append(trial)
    for alike in alone.values():
        _add_alone(cost, shared, alike)
    return cost, next(iter(together), None)


def _likeness(recipe: Recipe) -> str:
    """Equal for recipes of which each step takes as long."""
    content = recipe.model_dump(mode="json", exclude=NO_COST)
    for stage in content["stages"]:
        for key in NO_COST_OF_STAGE:
            del stage[key]
    return json.dumps(content, sort_keys=True)


@dataclass(frozen=True)
class _Counts:
    """Photos of one training."""

    train: int
    measured: int  # each time

    @classmethod
    def of(cls, shared: Pass, folds: int | None) -> "_Counts":
        split = shared.task.split
        if not folds:
            return cls(len(split.train), len(split.minitrain) + len(split.val))
        held = len(shared.photos) // folds
        return cls(len(shared.photos) - held, 2 * held)


def _add_alone(cost: Cost, shared: Pass, trials: Sequence[Trial]) -> None:
    """Add trainings of their own, alike but for what takes no time."""
    recipe, folds = trials[0].recipe, trials[0].folds or 1
    task = build(recipe)
    counts = _Counts.of(shared, trials[0].folds)
    cost.add("building", shared.building, folds * len(trials))
    for number, stage in enumerate(recipe.stages):
        found = time_stage(task, stage, number, shared.seen)
        last = number == len(recipe.stages) - 1
        for trial in trials:
            _add_stage(cost, shared, trial.recipe.stages[number], found, counts, folds, last=last)
        foreseen = forecast(task, stage, kept=shared.missing == 0)
        if foreseen:
            cost.memory = max(cost.memory, own_memory() + foreseen.total)
    weights = sum(4 * tensor.numel() for tensor in task.model.state_dict().values())
    cost.disk += folds * len(trials) * weights


def _add_stage(
    cost: Cost,
    shared: Pass,
    stage: Stage,
    found: StageTime,
    counts: _Counts,
    folds: int,
    *,
    last: bool,
) -> None:
    """Add one stage of one trial, in all folds."""
    what = f"{shared.side}: stage {stage.name}"
    per_epoch = stage.steps_per_epoch(counts.train)
    steps = stage.length.steps(steps_per_epoch=per_epoch)
    every = stage.eval_every.steps(steps_per_epoch=per_epoch, stage_steps=steps)
    measured = 1 + -(-steps // max(1, every)) + last  # before the first step, and for the record
    cost.add(what, found.step, folds * steps)
    cost.add(what, found.judged, folds * measured * counts.measured)
    if found.rows:  # features are read where the stage begins, and for the record
        photos = counts.train + counts.measured // 2
        cost.add(what, found.pooled, folds * (1 + last) * photos)
        for _ in range(folds * (1 + last)):
            shared.look(cost)

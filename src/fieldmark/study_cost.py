"""What a study will take, added up over its trials from a probe of each kind of them."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fieldmark import probe
from fieldmark.build import build, content_ids
from fieldmark.checked_yaml import check_text
from fieldmark.cost import Cost, Pass, own_memory
from fieldmark.data.cache import kept_photos, photo_bytes, room_for
from fieldmark.forecast import forecast
from fieldmark.head_cost import add_heads, add_looks
from fieldmark.head_run import Head
from fieldmark.head_trials import start_head
from fieldmark.inputs import RESIZED
from fieldmark.predict import EVAL_BATCH
from fieldmark.probe import StageTime, time_record, time_stage, time_writing
from fieldmark.recipe import Recipe, Stage
from fieldmark.steps import RECORDS_A_STAGE
from fieldmark.studies.results import Slot
from fieldmark.studies.study import Study
from fieldmark.studies.trial import Trial
from fieldmark.training.features import FeatureStore
from fieldmark.trials import shared_recipe, sharing, with_fold

NO_COST = {"seed", "name", "about", "expected"}
NO_COST_OF_STAGE = {
    *("lr", "length", "momentum", "weight_decay", "l1", "schedule", "eval_every", "stop_after"),
    *("snapshot_every", "label_smoothing", "class_weights"),
}
WRITTEN_OF_STAGE = 3  # the checkpoint at its end, the best weights, and hashes as long as a third
TOLD = 5  # times what reading its recipe takes: each run is read again to tell what was found
OBSERVED = 2  # a recorded step is looked at besides, which takes as long again


def foresee(study: Study, store: FeatureStore) -> tuple[Cost, int]:
    """What the runs that are left will take, one worker at a time, and the photos that judge.

    Probes the real backbone on a few photos for each way of seeing them, and a few steps of each
    kind of trial; writes nothing that stays.

    Raises:
        FieldmarkError: the photos or a recipe can't be used.
    """
    found = _Foresight(store)
    for slots in [list(group.slots) for group in study.plan().groups] or [_stand_ins(study)]:
        trials = [
            Trial(slot.recipe, Path(str(number)), slot.cell.folds)
            for number, slot in enumerate(slots)
        ]
        for alike in sharing(trials):
            found.add(alike)
    found.add_looks()
    return found.cost, found.judged


def _stand_ins(study: Study) -> list[Slot]:
    """For points that are still to be proposed: as many runs of the first recipe."""
    if not study.plan().later:
        return []
    design = study.design
    (cell,) = design.cells([next(design.corners())])
    runs = study.plan().later * design.file.seeds
    return [Slot(cell, cell.recipe.seed + number) for number in range(runs)]


class _Foresight:
    """The cost as far as it is added up, and what was found on the way."""

    def __init__(self, store: FeatureStore) -> None:
        self.cost = Cost()
        self.judged = 0
        self._store = store
        self._passes: dict[str, Pass] = {}
        self._checked: set[tuple[Path, str]] = set()
        self._alone: dict[str, _Alone] = {}
        self._resized: set[str] = set()  # ways
        self._begun: int | None = None  # bytes of the process before anything is tried
        self._dearest = 0.0  # seconds of the heads one of which is trained again
        self._seen: tuple[Pass, Head] | None = None

    def add(self, trials: Sequence[Trial]) -> None:
        """Add trials that can share a pass over the photos, see `trials.sharing`."""
        cost = self.cost
        shared = Pass(shared_recipe(trials[0]), self._store, self._passes)
        self._begun = self._begun or own_memory()
        self.judged = self.judged or len(
            shared.photos if trials[0].folds else shared.task.part("val")
        )
        shared.check(cost, self._checked)
        recipe = trials[0].recipe.to_yaml()
        reading = probe.seconds(lambda: check_text(recipe, Recipe))
        cost.add("telling what was found", reading, TOLD * len(trials))
        together = []
        alone: dict[str, list[Trial]] = defaultdict(list)
        if not trials[0].recipe.trains_backbone:
            cost.add("building", shared.building)
        started = probe.clock()
        for trial in trials:
            if head := start_head(shared.task, trial):
                together.append(head)
            else:
                alone[_likeness(trial)].append(trial)
        cost.add("building", probe.clock() - started)
        if together:
            before = cost.seconds
            add_heads(cost, shared, together)
            if cost.seconds - before > self._dearest:
                self._dearest, self._seen = cost.seconds - before, (shared, together[0])
        for key, alike in alone.items():
            if key not in self._alone:
                kept = _Resized.foreseen(shared, trials[0].folds)
                self._alone[key] = _Alone.probed(alike[0], shared, kept)
                self._keep(kept, self._alone[key].stages)
            self._alone[key].add(cost, shared, alike, self._begun)

    def add_looks(self) -> None:
        """Add the seeing of where one head looked, which ends a study."""
        if self._seen:
            add_looks(self.cost, *self._seen)

    def _keep(self, kept: "_Resized", stages: Sequence[StageTime]) -> None:
        """Add what it takes to decode photos once, for all trials that resize them alike."""
        if kept.new and kept.way not in self._resized:
            self._resized.add(kept.way)
            found = max((stage.resized for stage in stages), key=lambda timed: timed.seconds)
            self.cost.add("decoding photos once", found, kept.new)
            self.cost.disk += kept.new * kept.size


def _likeness(trial: Trial) -> str:
    """Equal for trials of which each step takes as long."""
    content = trial.recipe.model_dump(mode="json", exclude=NO_COST)
    for stage in content["stages"]:
        for key in NO_COST_OF_STAGE:
            del stage[key]
    return json.dumps([content, trial.folds], sort_keys=True)


@dataclass(frozen=True)
class _Alone:
    """What a training of its own takes, whatever its rates and lengths.

    Attributes:
        stages: Seconds of the parts of each.
        copying: Seconds to make the backbone ready, as each measuring on photos does.
        besides: Seconds to foresee memory, to write the run and where the model looked.
        record: Seconds to write down a line of metrics.
        memory: Bytes beside those of the process.
        weights: Bytes of a model.
        train: Photos trained on.
        measured: Photos that are measured each time.
    """

    stages: Sequence[StageTime]
    copying: float
    besides: float
    record: float
    memory: int
    weights: int
    train: int
    measured: int

    @classmethod
    def probed(cls, trial: Trial, shared: Pass, kept: "_Resized") -> "_Alone":
        """Try its stages, each for a few steps."""
        recipe = with_fold(trial.recipe, 0, trial.folds) if trial.folds else trial.recipe
        task = build(recipe)
        found, memory, besides = [], 0, 0.0
        for number, stage in enumerate(recipe.stages):
            found.append(time_stage(task, stage, number, shared.seen, kept.share))
            started = probe.clock()
            if foreseen := forecast(task, stage, kept=shared.missing == 0):
                memory = max(memory, foreseen.total)
            besides += probe.clock() - started
        written = 1 + WRITTEN_OF_STAGE * len(found)
        besides += written * time_writing(task).seconds
        besides += shared.seen.copying + EVAL_BATCH * shared.seen.photo.seconds  # where it looked
        return cls(
            found,
            shared.seen.copying,
            besides,
            time_record(),
            memory,
            sum(4 * tensor.numel() for tensor in task.model.state_dict().values()),
            len(task.split.train),
            len(task.split.minitrain) + len(task.split.val),
        )

    def add(self, cost: Cost, shared: Pass, trials: Sequence[Trial], begun: int) -> None:
        """Add trials of this kind."""
        cost.memory = max(cost.memory, begun + self.memory)
        for trial in trials:
            folds = trial.folds or 1
            cost.add("building", shared.building, folds)
            cost.add("checking files", shared.checking, folds)
            cost.add("writing runs", self.besides, folds)
            stages = trial.recipe.stages
            for number, (stage, found) in enumerate(zip(stages, self.stages, strict=True)):
                self._add_stage(cost, shared, stage, found, folds, last=number == len(stages) - 1)
            kept = 2 + any(stage.solver == "steps" for stage in stages)  # last, final and best
            cost.disk += folds * kept * self.weights

    def _add_stage(
        self, cost: Cost, shared: Pass, stage: Stage, found: StageTime, folds: int, *, last: bool
    ) -> None:
        """Add one stage of one trial, in all folds."""
        what = f"{shared.side}: stage {stage.name}"
        per_epoch = stage.steps_per_epoch(self.train)
        steps = stage.length.steps(steps_per_epoch=per_epoch)
        every = stage.eval_every.steps(steps_per_epoch=per_epoch, stage_steps=steps)
        measured = 1 + -(-steps // max(1, every)) + last  # before the first, and for the record
        cost.add(what, found.step, folds * steps)
        cost.add(what, OBSERVED * self.record, folds * min(steps, RECORDS_A_STAGE))
        cost.add(what, found.judged, folds * measured * self.measured)
        if not found.rows:
            cost.add(what, self.copying, 2 * folds * measured)  # for minitrain and val
        if stage.snapshot_every:
            every = stage.snapshot_every.steps(steps_per_epoch=per_epoch, stage_steps=steps)
            cost.disk += folds * (steps // every) * self.weights
        if found.rows:  # features are read where the stage begins, and for the record
            cost.add(what, found.pooled, folds * (1 + last) * (self.train + self.measured // 2))
            for _ in range(folds * (1 + last)):
                shared.look(cost)


@dataclass(frozen=True)
class _Resized:
    """What the key `data.cache` keeps of the photos trained on.

    Attributes:
        way: Of resizing them, which recipes may share.
        share: Of them all that will be there.
        new: How many are not there yet.
        size: Bytes of one.
    """

    way: str = ""
    share: float = 0.0
    new: int = 0
    size: int = 0

    @classmethod
    def foreseen(cls, shared: Pass, folds: int | None) -> "_Resized":
        """What will be kept once each training photo of all folds was seen."""
        task, folder = shared.task, shared.store.folder / RESIZED
        if not (task.recipe.data.cache and task.recipe.trains_backbone):
            return cls()
        view, photos = task.train_view, shared.photos if folds else task.part("train")
        there = len(kept_photos(folder, view) & set(content_ids(photos, view)))
        room = room_for(folder, view, int(task.recipe.data.cache * 1e9))
        new = min(len(photos) - there, room)
        way = repr(view.uncropped())
        return cls(way, (there + new) / len(photos), new, photo_bytes(view))

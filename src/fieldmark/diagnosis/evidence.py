"""What checks look at: a run's curves by stage and what else it recorded; a study's cells."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fieldmark.checked_yaml import check_text
from fieldmark.diagnosis.curve import Curve, share_error
from fieldmark.diagnosis.finding import Seen, unknown
from fieldmark.errors import FieldmarkError
from fieldmark.recipe import Recipe, Stage
from fieldmark.studies.run import Run
from fieldmark.studies.trial import OUT_OF_FOLD

REHEARSAL = "rehearsal.json"


@dataclass(frozen=True, eq=False)
class StageEvidence:
    """One stage of a run as it was recorded.

    Attributes:
        name: The stage's.
        number: From 0.
        settings: Its part of the recipe; None where the recipe can't be read.
        curves: Key -> finite values.
        bad: Key -> first step at which a value was not finite.
        counts: Photos of each split.
        classes: How many.
        split: What it was judged by: `val`, or `out_of_fold`.
        trains_backbone: Whether any of the backbone moved; None where not known.
        note: What the manifest notes of it.
        band: Lowest and highest rate worth trying, by a rehearsal that speaks for it; None: none.
    """

    name: str
    number: int
    settings: Stage | None
    curves: Mapping[str, Curve]
    bad: Mapping[str, int]
    counts: Mapping[str, int]
    classes: int
    split: str
    trains_backbone: bool | None = None
    note: Mapping[str, Any] = field(default_factory=dict)
    band: tuple[float, float] | None = None

    def curve(self, key: str) -> Curve:
        """One metric's curve; empty where it was not recorded."""
        nothing = np.array([], np.int64), np.array([])
        return self.curves.get(key) or Curve(key, self.name, *nothing)

    def val(self, metric: str) -> Curve:
        """A metric of the photos it is judged by."""
        return self.curve(f"{self.split}/{metric}")

    @property
    def wrong(self) -> Curve:
        """Share of those photos named wrongly, without the look before the first step."""
        found = self.val("top1")
        after = found[found.steps > self.first_step]
        return replace(after, values=1 - after.values)

    def clean(self, metric: str) -> Curve:
        """A metric of the training photos seen as val is seen."""
        return self.curve(f"minitrain/{metric}")

    def error(self, split: str, share: float) -> float:
        """Standard error of a share of a split's photos."""
        return share_error(share, max(1, self.counts.get(split, 0)))

    @property
    def steps(self) -> int:
        """How many it took, as far as recorded."""
        ends = [curve.steps for curve in self.curves.values() if len(curve)]
        return int(max(s[-1] for s in ends) - self.first_step) if ends else 0

    @property
    def first_step(self) -> int:
        """Steps done before it, as far as recorded."""
        return int(min((c.steps[0] for c in self.curves.values() if len(c)), default=0))

    @property
    def steps_per_epoch(self) -> int | None:
        """Steps of one pass over the training photos."""
        photos = self.counts.get("train", 0)
        return self.settings.steps_per_epoch(photos) if self.settings and photos else None

    @property
    def planned_steps(self) -> int:
        """How many it was to take; as many as it took where that is not known."""
        if self.settings is None or self.steps_per_epoch is None:
            return self.steps
        return self.settings.length.steps(steps_per_epoch=self.steps_per_epoch)

    @property
    def warmup_steps(self) -> int:
        """How many of them lr rises in."""
        if self.settings is None or self.steps_per_epoch is None:
            return 0
        warmup, total = self.settings.schedule.warmup, self.planned_steps
        return (
            warmup.steps(steps_per_epoch=self.steps_per_epoch, stage_steps=total) if warmup else 0
        )

    @property
    def epochs(self) -> float | None:
        """Passes over the training photos."""
        return self.steps / self.steps_per_epoch if self.steps_per_epoch else None

    def progress(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """Learning rate added up until each of some steps, (N,), as a share of the whole stage."""
        every = np.arange(self.first_step, self.first_step + max(1, self.steps) + 1)
        reached = np.concatenate([[0.0], np.cumsum(self._rates(every[1:]))])
        share = np.interp(steps, every, reached / max(reached[-1], 1e-300))
        return np.asarray(share, dtype=np.float64)

    @property
    def lr(self) -> Curve:
        """The learning rate, as recorded, else by the recipe; empty where neither is known."""
        recorded = self.curve("train/lr")
        if len(recorded) or self.settings is None or self.steps_per_epoch is None:
            return recorded
        steps = np.arange(self.first_step + 1, self.first_step + self.steps + 1)
        return replace(recorded, steps=steps, values=self.settings.lr * self._rates(steps))

    def _rates(self, steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """Lr at each of some steps: as recorded, else by the recipe, else always the same."""
        recorded = self.curve("train/lr")
        if len(recorded) > 1 and recorded.values.max() > 0:
            return np.interp(steps, recorded.steps, recorded.values)
        if self.settings is None or self.steps_per_epoch is None:
            return np.ones(len(steps))
        schedule, total, epoch = self.settings.schedule, self.planned_steps, self.steps_per_epoch
        first = self.first_step + 1
        return np.array(
            [
                schedule.factor(int(step) - first, total_steps=total, steps_per_epoch=epoch)
                for step in steps
            ]
        )


@dataclass(frozen=True, eq=False)
class RunEvidence:
    """What a run recorded.

    Attributes:
        run: Its folder's reader.
        recipe: None where it can't be read.
        stages: In their order.
        rehearsal: What `fieldmark rehearse` found beforehand; empty where it did not run.
    """

    run: Run
    recipe: Recipe | None
    stages: tuple[StageEvidence, ...]
    rehearsal: Mapping[str, Any]

    @property
    def recipe_name(self) -> str:
        """What to name in a command: the recipe as it was run."""
        return str(self.run.folder / "recipe.yaml")

    @property
    def notes(self) -> list[str]:
        """What was told of the photos and their split."""
        return [str(note) for note in self.run.manifest.get("notes", ())]

    @cached_property
    def split(self) -> str:
        """What the run was judged by."""
        return judged_by(self.run)

    def predictions(self, split: str) -> pl.DataFrame | None:
        """What the model said of each photo; None where not kept."""
        try:
            return self.run.predictions(split)
        except (FieldmarkError, OSError, pl.exceptions.PolarsError):
            return None


def judged_by(run: Run) -> str:
    """`val`, or `out_of_fold` where the run has only that."""
    has = {key.partition("/")[0] for key in run.keys}
    return OUT_OF_FOLD if OUT_OF_FOLD in has and "val" not in has else "val"


def gather(run: Run, rehearsal: Path | None = None, recipe: Recipe | None = None) -> RunEvidence:
    """Read a run for its checks.

    Args:
        run: Finished, failed or still running.
        rehearsal: Folder of `rehearsal.json`; the run's own unless given.
        recipe: As the run has it, where that is known: to read it takes longest.
    """
    recipe = recipe or _recipe(run)
    known = {stage.name: stage for stage in recipe.stages} if recipe else {}
    notes = {note.get("name"): note for note in run.manifest.get("stages", ())}
    split, counts = judged_by(run), _counts(run)
    records, rehearsed = run.metrics(), read_rehearsal(rehearsal or run.folder)
    bands = {stage: test.get("band") for stage, test in rehearsed.get("range", {}).items()}
    stages = []
    for number, span in enumerate(run.stages):
        mine = records.filter(pl.col("stage") == span.name)
        curves, bad = _curves(mine, span.name)
        stages.append(
            StageEvidence(
                span.name,
                number,
                known.get(span.name),
                curves,
                bad,
                counts,
                len(run.class_names),
                split,
                _trains_backbone(recipe, span.name),
                notes.get(span.name, {}),
                tuple(bands[span.name]) if bands.get(span.name) else None,
            )
        )
    return RunEvidence(run, recipe, tuple(stages), rehearsed)


def _recipe(run: Run) -> Recipe | None:
    try:
        return check_text(run.recipe_text, Recipe, [], name="recipe.yaml")
    except (FieldmarkError, OSError, ValueError):
        return None


def _trains_backbone(recipe: Recipe | None, stage: str) -> bool | None:
    alone = [one for one in recipe.stages if one.name == stage] if recipe else []
    if recipe is None or not alone:
        return None
    return recipe.model_copy(update={"stages": tuple(alone)}).trains_backbone


def _counts(run: Run) -> dict[str, int]:
    """Photos of each split: as noted, else as there are predictions."""
    counts = {name: int(count) for name, count in run.manifest.get("counts", {}).items()}
    for path in (run.folder / "predictions").glob("*.parquet"):
        if path.stem not in counts:
            content = io.BytesIO(path.read_bytes())  # its name may be no Unicode
            counts[path.stem] = len(pl.read_parquet(content, columns=["path"]))
    return counts


def _curves(records: pl.DataFrame, stage: str) -> tuple[dict[str, Curve], dict[str, int]]:
    """Each key's curve, the last record of a step counting, and where it was not finite first."""
    curves, bad = {}, {}
    for (key,), rows in records.group_by("key", maintain_order=True):
        last = rows.unique("step", keep="last", maintain_order=True).sort("step")
        steps, values = last["step"].to_numpy(), last["value"].to_numpy()
        finite = np.isfinite(values)
        if not finite.all():
            bad[str(key)] = int(steps[~finite][0])
        curves[str(key)] = Curve(str(key), stage, steps[finite], values[finite])
    return curves, bad


def read_rehearsal(folder: Path) -> Mapping[str, Any]:
    """What `fieldmark rehearse` found; empty where it did not run, or it can't be read."""
    path = folder / REHEARSAL if folder.is_dir() else folder
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


# How a look at one stage becomes a look at a run


def any_stage(look: Callable[[StageEvidence], Seen]) -> Callable[[RunEvidence], Seen]:
    """Fires where it fires in any stage, the last such first; else what the last one told."""

    def at_all(run: RunEvidence) -> Seen:
        seen = [look(stage) for stage in reversed(run.stages)]
        for outcome in ("fires", "does not", "cannot tell"):
            for one in seen:
                if one.outcome == outcome:
                    return one
        return nothing_trained()

    return at_all


def last_stage(look: Callable[[StageEvidence], Seen]) -> Callable[[RunEvidence], Seen]:
    """How the run ends is how its last stage ends."""

    def at_end(run: RunEvidence) -> Seen:
        return look(run.stages[-1]) if run.stages else nothing_trained()

    return at_end


def nothing_trained() -> Seen:
    """Of a run without a single record."""
    return unknown("one_step", found=0)


def lacks(curve: Curve, needed: int) -> Seen | None:
    """Why a curve does not suffice, if it does not."""
    if len(curve) >= needed:
        return None
    return unknown("too_few", key=curve.key, needed=needed, found=len(curve))

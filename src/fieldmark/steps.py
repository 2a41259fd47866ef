"""The optimiser steps of one stage, from its start or from where it was interrupted."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import islice

from fieldmark.build import Task, seed_for
from fieldmark.duration import Duration
from fieldmark.errors import SettingError
from fieldmark.inputs import PhotoInputs, StageInputs, stage_loss, training_steps
from fieldmark.ledger import Ledger
from fieldmark.recipe import Stage
from fieldmark.training.average import WeightAverage
from fieldmark.training.checkpoint import Checkpoint, restore
from fieldmark.training.memory import Passes
from fieldmark.training.observe import StepObserver, Stopwatch
from fieldmark.training.optim import ParameterPlan, make_optimizer
from fieldmark.training.stage import Batch, gradient_is_as_good_as_loss, train_steps
from fieldmark.training.world import world

MOST_WAITING = 0.3  # of the time, before it is said what to do
RECORDS_A_STAGE = 200  # running loss: enough for a smooth curve, few enough to read at once


def check_judged(task: Task) -> None:
    """Refuse stages that go by the loss on `val` where there is none, as in a refit.

    Raises:
        SettingError: a stage has `stop_after`, or the schedule `plateau`, without `val`.
    """
    for stage in task.recipe.stages:
        asked = {"`stop_after`": stage.stop_after, "`plateau`": stage.schedule.name == "plateau"}
        if not task.part("val") and any(asked.values()):
            keys = " and ".join(key for key, value in asked.items() if value)
            raise SettingError(
                f"Stage {stage.name} goes by the loss on `val` ({keys}), and no photo is in `val`. "
                f"Set `stages.{stage.name}.stop_after=null` and another schedule, with the length "
                "that was found, or keep photos for `val`."
            )


class StageSteps:
    """Takes the steps of a stage and decides between them what to record, measure and keep.

    Args:
        task: what is trained, on what.
        stage: how.
        plan: which parameters move.
        inputs: what the stage is fed.
        ledger: where it is written down.
        kept: the checkpoint to go on from, if the stage was interrupted.
        measure: evaluates the model as it is and writes the result down.
    """

    def __init__(
        self,
        task: Task,
        stage: Stage,
        plan: ParameterPlan,
        inputs: StageInputs,
        ledger: Ledger,
        *,
        kept: Checkpoint | None,
        measure: Callable[[], None],
    ) -> None:
        self.task, self.stage, self.inputs = task, stage, inputs
        self.ledger, self.at, self.measure = ledger, ledger.at, measure
        self.per_epoch = stage.steps_per_epoch(len(task.split.train))
        self.total = stage.length.steps(steps_per_epoch=self.per_epoch)
        self.record_every = max(1, self.total // RECORDS_A_STAGE)
        self.optimizer = make_optimizer(task.model, plan, stage)
        self.average = WeightAverage(task.model, stage.average) if stage.average else None
        self.observer = StepObserver(self.optimizer)
        self.spent: Counter[str] = Counter()
        self.passes = Passes(self.at.pass_size, self._note_passes)
        if self.at.stage_step and kept:
            restore(kept, task.model, self.optimizer)
            if self.average:
                self.average.load(kept.under("average."))

    def run(self) -> None:
        """Every step that is left, and what follows from each."""
        at, ledger, stage = self.at, self.ledger, self.stage
        model = self.task.model
        evaluate_every = self._steps(stage.eval_every)
        snapshot_every = self._steps(stage.snapshot_every) if stage.snapshot_every else 0
        batches = Stopwatch(self._batches())
        self._arm()
        for loss in self._losses(batches):
            at.step += 1
            at.stage_step += 1
            at.epoch = at.epochs_before + at.stage_step / self.per_epoch
            at.running.append(loss)
            if self.average:
                self.average.update(at.stage_step)
            observed = self.observer.after_step()
            if self._due(self.record_every):
                lap = batches.lap()
                self.spent.update(lap)
                ledger.record_running(stage, self.optimizer, observed | lap)
                ledger.progress(stage.name, at.stage_step, self.total)
            if self._due(evaluate_every):
                with self.average.applied() if self.average else nullcontext():
                    self.measure()
                    ledger.hold_best(model)
                ledger.judge(stage.schedule)
                if stage.stop_after and at.waited >= stage.stop_after:
                    ledger.say(f"  stopped: {at.waited} evaluations without a lower loss on val")
                    break
            if snapshot_every and at.stage_step % snapshot_every == 0:
                ledger.snapshot(model)
            if at.stage_step < self.total:
                asked = self._is_asked_to_stop()
                if asked or ledger.checkpoint_is_due():
                    state = self.average.state() if self.average else None
                    ledger.checkpoint(model, self.optimizer, state)
                if asked:
                    batches.leave_out(ledger.heed())
            self._arm()
        if self.average:
            self.average.keep()
        self._tell_waiting()

    def _is_asked_to_stop(self) -> bool:
        """Whether to pause or stop; several processes must agree on it, so they ask less often."""
        asks = world().size == 1 or self._due(self.record_every)
        return asks and self.ledger.is_asked_to_stop()

    def _tell_waiting(self) -> None:
        """Say so if the steps waited long for their photos."""
        share = self.spent["train/data_seconds"] / max(sum(self.spent.values()), 1e-9)
        if isinstance(self.inputs, PhotoInputs) and share > MOST_WAITING:
            self.ledger.say(
                f"  {share:.0%} of the time the steps waited for photos: reading them takes longer "
                "than training on them. Store them smaller or on a faster disk, or use more cores."
            )

    def _steps(self, duration: Duration) -> int:
        return duration.steps(steps_per_epoch=self.per_epoch, stage_steps=self.total)

    def _due(self, every: int, ahead: int = 0) -> bool:
        """Whether the step just taken, or one so far ahead, is the last or an `every`-th."""
        step = self.at.stage_step + ahead
        return step == self.total or step % every == 0

    def _arm(self) -> None:
        """Have the next step observed if it is one that will be recorded."""
        if self._due(self.record_every, ahead=1):
            self.observer.arm()

    def _batches(self) -> Iterator[list[Batch]]:
        steps = training_steps(
            self.inputs,
            [photo.label for photo in self.task.part("train")],
            batch_size=self.stage.batch_size,
            accumulate=self.stage.accumulate,
            seed=self._seed,
            sampling=self.stage.sampling,
            first=self.at.stage_step,
        )
        return islice(steps, self.total - self.at.stage_step)

    def _losses(self, batches: Iterator[list[Batch]]) -> Iterator[float]:
        photos = self.task.part("train")
        return train_steps(
            self.inputs.network,
            batches,
            self.optimizer,
            model=self.task.model,
            factor=self._factor,
            seed=self._seed,
            loss=stage_loss(self.task, self.stage),
            clip_norm=self.stage.clip_norm,
            before_step=self.observer.before_step,
            first=self.at.stage_step,
            name=lambda position: photos[position].key,
            passes=self.passes,
            look=not gradient_is_as_good_as_loss(self.inputs.network),
            world=self.inputs.world,
        )

    def _note_passes(self, line: str) -> None:
        self.at.pass_size = self.passes.most
        self.ledger.say(line)

    def _factor(self, step: int) -> float:
        schedule = self.stage.schedule
        factor = schedule.factor(step, total_steps=self.total, steps_per_epoch=self.per_epoch)
        dropped = schedule.gamma**self.at.drops if schedule.gamma and self.at.drops else 1.0
        return factor * dropped

    @property
    def _seed(self) -> int:
        return seed_for(self.task.recipe.seed, "stage", self.at.stage)

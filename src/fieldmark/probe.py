"""How long the parts of a training take here: a few real batches, a few real steps, timed."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median, stdev
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from torch import Tensor, nn

from fieldmark import machine
from fieldmark.build import Task, seed_for
from fieldmark.data.cache import Pixels, resized_photos
from fieldmark.data.dataset import Photo
from fieldmark.data.loader import BATCHES_AHEAD, batches, load_batches
from fieldmark.inputs import PhotoInputs, sample_order, stage_loss, training_steps
from fieldmark.layers.backbone import frozen_copy
from fieldmark.layers.model import split_frozen
from fieldmark.layers.together import seen_together
from fieldmark.predict import EVAL_BATCH, evaluating
from fieldmark.recipe import Stage
from fieldmark.studies.run import RunWriter
from fieldmark.training.checkpoint import save_checkpoint
from fieldmark.training.optim import make_optimizer, parameter_plan
from fieldmark.training.stage import Batch, set_trainable, train_steps

BATCHES = 4  # of photos through the backbone, the first of which warms up
PHOTO_STEPS, ROW_STEPS = 4, 20  # of an optimiser, likewise

clock = time.perf_counter  # of all that is timed here and in the costs made of it

Item = TypeVar("Item")


@dataclass(frozen=True)
class Timed:
    """Seconds that one thing took, each time it was tried."""

    each: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """What it takes: the middle one, which a pause of the machine does not move."""
        return median(self.each)

    @property
    def error(self) -> float:
        """Standard error, as if of the mean; 0 of a single try, which says nothing of it."""
        return stdev(self.each) / len(self.each) ** 0.5 if len(self.each) > 1 else 0.0

    def __truediv__(self, count: float) -> "Timed":
        """Seconds of one of `count` alike."""
        return Timed(tuple(each / count for each in self.each))


def intervals(items: Iterable[Item]) -> Iterator[tuple[Item, float]]:
    """Each item, and the seconds it was waited for."""
    started = clock()
    for item in items:
        yield item, clock() - started
        started = clock()


@dataclass(frozen=True)
class Seen:
    """What a few photos' way through a frozen backbone told.

    Attributes:
        photo: Seconds of one, reading included.
        maps: Of the last batch, (n, C, H, W).
        map_bytes: Of one photo's map, as it is kept.
        copying: Seconds to make the backbone ready, its norms folded.
    """

    photo: Timed
    maps: Tensor
    map_bytes: int
    copying: float


def see_photos(task: Task, photos: Sequence[Photo]) -> Seen:
    """Time the reading of photos spread over all of them, and the frozen backbone on some.

    Reading ahead and computing share the cores, so that in a long pass their times add up; in a
    short one most is read before the first batch is through.
    """
    count = min(len(photos), EVAL_BATCH * BATCHES)
    chosen = [len(photos) * number // count for number in range(count)]
    groups = batches(chosen, EVAL_BATCH)
    started = clock()
    view, workers = task.eval_view, machine.cores()
    loaded = list(load_batches(photos, view, groups, seed=0, epoch=0, workers=workers))
    reading = (clock() - started) / count
    started = clock()
    eyes = frozen_copy(task.model.backbone, task.dtype).to(task.device)
    copying = clock() - started
    times, maps = [], torch.empty(0)
    with torch.inference_mode():
        for batch in loaded:
            started = clock()
            maps = eyes(view.normalize(batch.images.to(task.device), task.dtype)).cpu()
            times.append((clock() - started) / len(batch.images) + reading)
    return Seen(Timed(tuple(times[1:] or times)), maps, maps[0].nbytes, copying)


@torch.no_grad()
def time_networks(networks: Sequence[nn.Module], maps: Tensor, tries: int = 3) -> Timed:
    """Seconds a photo of what follows the backbone, on its maps, where it is and back.

    Of several all together.
    """
    modules = nn.ModuleList(networks)
    place = next((parameter.device for parameter in modules.parameters()), maps.device)

    def see() -> None:
        for seen in seen_together(networks, maps.to(place, torch.float32)):
            seen.to(maps.device)

    with evaluating(modules):
        see()
        return Timed(tuple(seconds(see) for _ in range(tries))) / len(maps)


def seconds(compute: Callable[[], object]) -> float:
    """What something takes."""
    started = clock()
    compute()
    return clock() - started


@dataclass(frozen=True)
class StageTime:
    """What a stage's parts take.

    Attributes:
        step: Seconds of an optimiser step.
        judged: Seconds of a photo that is judged.
        rows: Bytes of a photo's features; 0 where the backbone trains.
        pooled: Seconds from a photo's map to its features.
        resized: Seconds to decode a photo and keep it resized, where that is done.
    """

    step: Timed
    judged: Timed
    rows: int
    pooled: Timed
    resized: Timed = Timed((0.0,))


def time_stage(
    task: Task, stage: Stage, number: int, seen: Seen, resized: float = 0.0
) -> StageTime:
    """Take a few steps of a stage as a training would; the task's model moves.

    Args:
        task: Of the recipe; its model is used up.
        stage: One of its stages.
        number: Its place.
        seen: By the same backbone.
        resized: Share of the training photos that are kept resized (`data.cache`).
    """
    plan = parameter_plan(task.model, stage.train)
    set_trainable(task.model, plan, train_batch_norm=stage.batch_norm == "train")
    prefix, suffix = split_frozen(task.model)
    seed = seed_for(task.recipe.seed, "stage", number)
    if len(prefix) == 0:
        with TemporaryDirectory() as folder:
            kept, decoded = _keep_resized(task, stage, seed, resized, Path(folder))
            steps = _time_photo_steps(task, stage, PhotoInputs(task, kept), seed)
        after = nn.Sequential(*task.model.chain()[1:])
        judged = Timed(
            tuple(s + time_networks([after], seen.maps).seconds for s in seen.photo.each)
        )
        return StageTime(steps, judged, 0, Timed((0.0,)), decoded)
    task.model.cpu()  # a stage before may have trained it elsewhere
    pool = prefix[1:]
    with torch.no_grad():
        rows = pool(seen.maps.float())
    taken = torch.arange(stage.batch_size) % len(rows)
    batch = Batch(taken, rows[taken], taken % len(task.photos.class_names))
    fed = ([batch] * stage.accumulate for _ in range(ROW_STEPS))
    steps = _time_steps(task, stage, suffix, fed, seed)
    return StageTime(
        steps, time_networks([suffix], rows), rows[0].nbytes, time_networks([pool], seen.maps)
    )


def _keep_resized(
    task: Task, stage: Stage, seed: int, share: float, folder: Path
) -> tuple[dict[str, Pixels], Timed]:
    """So much of the photos of the steps that are tried, resized, and the seconds of one."""
    photos = task.part("train")
    order = sample_order(
        [photo.label for photo in photos], sampling=stage.sampling, seed=seed, epoch=0
    )
    ahead = (PHOTO_STEPS * stage.accumulate + BATCHES_AHEAD) * stage.batch_size
    shown = [photos[position] for position in dict.fromkeys(order[:ahead].tolist())]
    shown = shown[: round(share * len(shown))]
    if not shown:
        return {}, Timed((0.0,))
    started = clock()
    keys = [photo.key for photo in shown]
    kept = resized_photos(
        folder, task.train_view, shown, keys, most_bytes=1 << 40, workers=machine.cores()
    )
    return kept, Timed(((clock() - started) / len(shown),))


def _time_photo_steps(task: Task, stage: Stage, inputs: PhotoInputs, seed: int) -> Timed:
    groups = training_steps(
        inputs,
        [photo.label for photo in task.part("train")],
        batch_size=stage.batch_size,
        accumulate=stage.accumulate,
        seed=seed,
        sampling=stage.sampling,
    )
    return _time_steps(task, stage, inputs.network, islice(groups, PHOTO_STEPS), seed)


def time_writing(task: Task, tries: int = 3) -> Timed:
    """Seconds to write a model down, with the sum of all its tensors."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        return Timed(
            tuple(
                seconds(partial(save_checkpoint, path, task.model, None, {})) for _ in range(tries)
            )
        )


def time_record(tries: int = 20) -> float:
    """Seconds to write down a line of metrics."""
    metrics = {"train/loss": 0.1234567, "train/lr": 0.01, "train/grad_norm": 1.234567}
    told: dict[str, list[str]] = {"class_names": []}
    with TemporaryDirectory() as at, RunWriter.create(Path(at) / "run", "", told) as writer:
        record = partial(writer.record, metrics, step=1, stage="one")
        found = [seconds(record) for _ in range(tries)]
        writer.finish()
    return median(found)


def _time_steps(
    task: Task,
    stage: Stage,
    network: Callable[[Tensor], Tensor],
    groups: Iterable[Sequence[Batch]],
    seed: int,
) -> Timed:
    plan = parameter_plan(task.model, stage.train)
    losses = train_steps(
        network,
        groups,
        make_optimizer(task.model, plan, stage),
        model=task.model,
        factor=lambda _: 0.0,  # nothing can diverge
        seed=seed,
        loss=stage_loss(task, stage),
        clip_norm=stage.clip_norm,
    )
    times = [waited for _, waited in intervals(losses)]
    return Timed(tuple(times[1:] or times))

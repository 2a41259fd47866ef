"""What a stage is fed: photos, or features computed once where the backbone stands still."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Literal, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fieldmark import machine
from fieldmark.build import SplitName, Task, content_ids
from fieldmark.data.cache import Pixels, resized_photos
from fieldmark.data.chance import Chance
from fieldmark.data.dataset import Photo, draw
from fieldmark.data.loader import balanced_order, batches, epoch_order, load_batches
from fieldmark.data.mixing import Mixing
from fieldmark.frozen_rows import Progress, frozen_rows
from fieldmark.layers.depthwise import QuickDepthwise
from fieldmark.layers.model import split_frozen
from fieldmark.predict import evaluating, photo_logits
from fieldmark.recipe import Stage
from fieldmark.training.features import FeatureStore
from fieldmark.training.loss import Loss, make_loss
from fieldmark.training.memory import Passes
from fieldmark.training.stage import Batch
from fieldmark.training.world import ALONE, World, world

RESIZED = "resized"  # beside the features: photos decoded before

Sampling = Literal["shuffled", "balanced"]


class StageInputs(Protocol):
    """The training samples of a stage, and the logits it is judged by."""

    @property
    def network(self) -> Callable[[Tensor], Tensor]:
        """From the inputs of a batch to logits (B, K)."""

    @property
    def device(self) -> torch.device:
        """Where its batches are, and the model has to be."""

    @property
    def world(self) -> World:
        """The processes that share each batch."""

    def epoch(
        self, groups: Sequence[Sequence[int]], *, seed: int, epoch: int, first: int
    ) -> Iterator[Batch]:
        """A batch for each group of positions in `train`, from `first` on: this process's part."""

    def logits(self, split: SplitName) -> NDArray[np.float32]:
        """Logits (N, K) of a split through the eval view."""


def make_inputs(
    task: Task,
    store: FeatureStore,
    progress: Progress,
    say: Callable[[str], None],
    views: int = 1,
) -> StageInputs:
    """Features of so many views where the whole backbone is frozen, else photos.

    The model goes to where these are.
    """
    passes = Passes(None, say)
    prefix, suffix = split_frozen(task.model)
    if len(prefix) == 0:
        with world().leader_first():
            resized = _resized(task, store.folder / RESIZED, progress)
        return PhotoInputs(task, resized, world(), passes)
    task.model.cpu()
    return FrozenInputs(task, store, prefix[1:], suffix, progress, passes, views)


def _resized(task: Task, folder: Path, progress: Progress) -> dict[str, Pixels]:
    """Training photos as the recipe has them kept on disk; none unless it does."""
    photos, view = task.part("train"), task.train_view
    most_bytes = int(task.recipe.data.cache * 1e9)
    if not most_bytes:
        return {}
    ids, workers = content_ids(photos, view), machine.cores()
    return resized_photos(
        folder, view, photos, ids, most_bytes=most_bytes, workers=workers, progress=progress
    )


def stage_loss(task: Task, stage: Stage) -> Loss:
    """What a stage lowers, with the weights of the task's classes.

    Raises:
        SettingError: a class weight is given for no class.
    """
    return make_loss(
        stage.label_smoothing,
        stage.class_weights,
        labels=[photo.label for photo in task.part("train")],
        class_names=task.photos.class_names,
    )


def sample_order(
    labels: Sequence[int], *, sampling: Sampling, seed: int, epoch: int
) -> NDArray[np.int64]:
    """An epoch's order of as many samples as there are, decided by (seed, epoch) alone.

    All of them once, or every class equally often where `sampling` is `balanced`.
    """
    if sampling == "balanced":
        return balanced_order(labels, seed=seed, epoch=epoch)
    return epoch_order(len(labels), seed=seed, epoch=epoch)


def drawn_views(photos: Sequence[Photo], views: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Which view of each photo an epoch shows, (N,), decided by (seed, epoch, photo) alone."""
    if views == 1:
        return np.zeros(len(photos), np.int64)
    return np.array([draw(seed, epoch, "view", photo.key) % views for photo in photos])


def training_steps(
    inputs: StageInputs,
    labels: Sequence[int],
    *,
    batch_size: int,
    accumulate: int,
    seed: int,
    sampling: Sampling = "shuffled",
    first: int = 0,
) -> Iterator[list[Batch]]:
    """The batches of each optimiser step, epoch after epoch, without end.

    Each epoch is a fresh `sample_order`. Its last step may be smaller than the others. `first`
    steps are passed over.
    """
    epoch, skipped = divmod(first, -(-len(labels) // (batch_size * accumulate)))
    while True:
        order = sample_order(labels, sampling=sampling, seed=seed, epoch=epoch)
        steps = [batches(step, batch_size) for step in batches(order, batch_size * accumulate)]
        passed_over = sum(map(len, steps[:skipped]))
        loaded = inputs.epoch(list(chain(*steps)), seed=seed, epoch=epoch, first=passed_over)
        for step in steps[skipped:]:
            yield list(islice(loaded, len(step)))
        epoch, skipped = epoch + 1, 0


class PhotoInputs:
    """Photos, read and cropped anew in each epoch; for stages that train the backbone.

    The task's model goes to its device.
    """

    def __init__(
        self,
        task: Task,
        resized: Mapping[str, Pixels] | None = None,
        world: World = ALONE,
        passes: Passes | None = None,
    ) -> None:
        self.world = world
        self._passes = passes
        self._task = task
        self.device = task.device
        self._photos = task.part("train")
        self._resized = resized
        self._mixing = Mixing(task.recipe.augment.mixup, task.recipe.augment.cutmix)
        task.model.to(task.device).to(memory_format=torch.channels_last)

    def network(self, images: Tensor) -> Tensor:
        """Logits (B, K), the backbone in the task's number type over float32 weights."""
        lower = self._task.dtype != torch.float32
        kind = self.device.type
        with torch.autocast(kind, dtype=self._task.dtype, enabled=lower), QuickDepthwise():
            return cast("Tensor", self._task.model(images))

    def epoch(
        self, groups: Sequence[Sequence[int]], *, seed: int, epoch: int, first: int
    ) -> Iterator[Batch]:
        """Batches through the train view; each photo's depends on (seed, epoch, photo).

        Mixing depends on (seed, epoch, number of the batch).
        """
        view, classes = self._task.train_view, len(self._task.photos.class_names)
        loaded = load_batches(
            self._photos,
            view,
            groups,
            seed=seed,
            epoch=epoch,
            workers=machine.cores(),
            first=first,
            resized=self._resized,
            part=self._part,
        )
        for number, batch in enumerate(loaded, start=first):
            images = view.normalize(batch.images.to(self.device), torch.float32)
            labels = batch.labels.to(self.device)
            if self._mixing:
                chance = Chance((seed, epoch, "batch", number))
                images, labels = self._mixing.mix(images, labels, classes, chance)
            own = slice(self._borrowed, None)
            yield Batch(batch.indices[own], images[own], labels[own])

    @property
    def _borrowed(self) -> int:
        """How many photos before its own a process loads: the first of its own is mixed with it."""
        return int(bool(self._mixing) and self.world.size > 1)

    def _part(self, count: int) -> list[int]:
        """Places in a batch of `count` photos that this process loads."""
        own = self.world.part(count)
        return [(own.start - 1) % count] * (self._borrowed * bool(own)) + list(own)

    def logits(self, split: SplitName) -> NDArray[np.float32]:
        """Logits through the eval view and a frozen copy of the backbone as it is now."""
        task = self._task
        return photo_logits(
            task.model, task.eval_view, task.part(split), task.dtype, self.world, self._passes
        )


class FrozenInputs:
    """What the frozen first part of the model gives for each photo, computed once.

    Such a stage takes so little that each of several processes takes all of its steps.
    """

    world = ALONE
    device = torch.device("cpu")

    def __init__(
        self,
        task: Task,
        store: FeatureStore,
        prefix: nn.Sequential,
        suffix: nn.Sequential,
        progress: Progress,
        passes: Passes,
        views: int = 1,
    ) -> None:
        self._passes = passes
        self._task = task
        self._store = store
        self._prefix = prefix  # from the feature map on
        self._suffix = suffix
        self._progress = progress
        self._photos = task.part("train")
        seen = [self._features(self._photos, number) for number in range(views)]
        self._train = seen[0][None] if views == 1 else torch.stack(seen)  # (V, N, ...)
        self._labels = torch.tensor([photo.label for photo in task.part("train")])
        self._val = self._features(task.part("val"))
        self._minitrain = task.split.minitrain_in_train

    @property
    def network(self) -> nn.Sequential:
        """What is left to compute: from features to logits."""
        return self._suffix

    @property
    def train(self) -> tuple[Tensor, Tensor]:
        """Features (V N, ...) of the training photos in each of V views, and labels (V N,)."""
        return self._train.flatten(0, 1), self._labels.repeat(len(self._train))

    def epoch(
        self, groups: Sequence[Sequence[int]], *, seed: int, epoch: int, first: int
    ) -> Iterator[Batch]:
        """Batches of features; seed and epoch say which view of each photo."""
        views = torch.from_numpy(
            drawn_views(self._photos, len(self._train), seed=seed, epoch=epoch)
        )
        for group in groups[first:]:
            indices = torch.as_tensor(group)
            yield Batch(indices, self._train[views[indices], indices], self._labels[indices])

    def logits(self, split: SplitName) -> NDArray[np.float32]:
        """Logits of a split; features of `test` are computed when they are asked for."""
        features = {
            "train": lambda: self._train[0],
            "minitrain": lambda: self._train[0, self._minitrain],
            "val": lambda: self._val,
            "test": lambda: self._features(self._task.part("test")),
        }[split]()
        with evaluating(self._suffix), torch.inference_mode():
            logits = torch.cat([self._suffix(part) for part in torch.split(features, 1024)])
        return cast("NDArray[np.float32]", logits.numpy())

    def _features(self, photos: Sequence[Photo], number: int = 0) -> Tensor:
        networks, progress, passes = [self._prefix], self._progress, self._passes
        return frozen_rows(self._task, self._store, photos, networks, progress, passes, number)[0]

"""What a model says of photos: one path for evaluation in training and for strangers' photos."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from fieldmark import checked_yaml, machine
from fieldmark.build import make_model
from fieldmark.data.dataset import Photo, is_photo, suffixes
from fieldmark.data.lists import is_list, listed_paths
from fieldmark.data.loader import batches, load_batches
from fieldmark.data.transform import View
from fieldmark.data.tree import are_shut, files_below
from fieldmark.errors import DataError, RecordError, TrainingError, WeightsError
from fieldmark.layers.backbone import frozen_copy, make_backbone
from fieldmark.layers.model import Model
from fieldmark.recipe import Recipe
from fieldmark.studies.run import Run
from fieldmark.training.memory import Passes, in_passes
from fieldmark.training.world import ALONE, World

EVAL_BATCH = 32  # photos; more does not make two cores faster and costs memory


def frozen_maps(
    eyes: nn.Module,
    view: View,
    photos: Sequence[Photo],
    positions: Sequence[int],
    dtype: torch.dtype,
    passes: Passes | None = None,
    number: int = 0,
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield (positions in `photos`, feature maps (n, C, H, W) on the processor) through a view.

    Args:
        eyes: a `frozen_copy` of a backbone, on any device.
        view: an eval view, or one whose chance depends on the photo and `number` alone.
        photos: read from disk as they are needed.
        positions: which of them, in the order wanted.
        dtype: what `eyes` computes in.
        passes: how many photos memory has room for at once, where that is not all of a batch.
        number: which of a random view's many.
    """
    passes, device = passes or Passes(), next(eyes.parameters()).device

    def look(part: Tensor) -> list[Tensor]:
        return [eyes(view.normalize(part.to(device), dtype)).cpu()]

    groups = batches(list(positions), EVAL_BATCH)
    loaded = load_batches(photos, view, groups, seed=0, epoch=number, workers=machine.cores())
    for batch in loaded:
        with torch.inference_mode():  # not around the yield: it would reach whoever iterates
            (maps,) = in_passes(look, batch.images, passes)
        yield batch.indices.tolist(), maps


def for_head(model: Model, maps: Tensor) -> Tensor:
    """Feature maps (B, C, H, W) as the pooling wants them: where the head is, in float32."""
    return maps.to(next(model.head.parameters()).device, torch.float32)


def head_logits(model: Model, maps: Tensor) -> Tensor:
    """Logits (B, K) of feature maps (B, C, H, W), in eval mode, where the maps are."""
    return cast("Tensor", model.head(model.pooling(for_head(model, maps)))).to(maps.device)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Inside, all of `module` is in eval mode; after, each part is in its own mode again."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def photo_logits(
    model: Model,
    view: View,
    photos: Sequence[Photo],
    dtype: torch.dtype,
    world: World = ALONE,
    passes: Passes | None = None,
) -> NDArray[np.float32]:
    """Logits (N, K) of photos, computed as frozen features are, in the photos' order.

    Processes take whole batches in turn, so that each photo is seen in the batch it would be seen
    in by one process alone, exactly once.
    """
    turns = world.turns(batches(range(len(photos)), EVAL_BATCH))
    logits = torch.zeros(len(photos), cast("nn.Linear", model.head[-1]).out_features)
    seen = torch.zeros(len(photos))
    with evaluating(model), torch.no_grad():
        eyes = frozen_copy(model.backbone, dtype)
        own = list(chain(*turns))
        for positions, maps in frozen_maps(eyes, view, photos, own, dtype, passes):
            logits[positions] = head_logits(model, maps)
            seen[positions] += 1
    logits, seen = world.sum(logits), world.sum(seen)  # each row is one process's, others add 0
    if not bool((seen == 1).all()):
        raise TrainingError("Defect: evaluation did not see each photo exactly once. Report it.")
    return cast("NDArray[np.float32]", logits.numpy())


@dataclass(frozen=True)
class Prediction:
    """The classes a model holds most likely for one photo, best first."""

    path: Path
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


class Predictor:
    """A finished run, ready to look at photos.

    Raises:
        RecordError: the folder is no finished run, or its weights are missing.
        WeightsError: the weights do not fit the recipe.
    """

    def __init__(self, folder: str | Path) -> None:
        run = finished_run(Path(folder))
        self.recipe = checked_yaml.check_text(run.recipe_text, Recipe, name=str(folder))
        self.class_names: tuple[str, ...] = tuple(run.class_names)
        self.view = View.from_dict(run.manifest["view"])
        self.device = machine.device_of("auto")  # which need not be the one it was trained on
        self.dtype = machine.fast_dtype(self.recipe.precision, self.device.type)
        self.model = self._load(run.weights_path).to(self.device)

    def _load(self, path: Path) -> Model:
        backbone = make_backbone(
            self.recipe.backbone.name,
            weights="none",
            level=self.recipe.backbone.level,
            image_size=self.recipe.data.image_size,
            mean=self.view.mean,
            std=self.view.std,
            interpolation=self.view.interpolation,
        )
        model = make_model(self.recipe, backbone, classes=len(self.class_names))
        state = load_file(path)
        wanted = model.state_dict()
        unfit = sorted(
            key
            for key in wanted.keys() | state.keys()
            if key not in wanted or key not in state or wanted[key].shape != state[key].shape
        )
        if unfit:
            raise WeightsError(
                f"{path} does not fit the recipe beside it: {', '.join(unfit[:5])}"
                f"{' …' if len(unfit) > 5 else ''}. Was one of the two changed by hand?"
            )
        model.load_state_dict(state)
        return model.eval()

    def predict(
        self,
        paths: Sequence[str | Path],
        top: int = 5,
        unreadable: Callable[[DataError], None] | None = None,
    ) -> Iterator[Prediction]:
        """Yield the `top` likeliest classes of each photo, in the order of `paths`.

        A batch at a time, so that any number of photos fits into memory.

        Args:
            paths: the photos' files.
            top: how many classes.
            unreadable: is told of each photo that can't be read, which is then left out.

        Raises:
            DataError: a photo can't be read, and nobody is to be told; names it.
        """
        files = [Path(path) for path in paths]
        for positions, maps in self._maps(files, unreadable):
            with torch.no_grad():
                likely = head_logits(self.model, maps).softmax(dim=1)
            best = likely.topk(min(top, len(self.class_names)), dim=1)
            rows = zip(positions, best.indices.tolist(), best.values.tolist(), strict=True)
            for position, classes, probabilities in rows:
                names = tuple(self.class_names[i] for i in classes)
                yield Prediction(files[position], names, tuple(probabilities))

    def _maps(
        self, paths: Sequence[Path], unreadable: Callable[[DataError], None] | None
    ) -> Iterator[tuple[list[int], Tensor]]:
        """As `frozen_maps`; where a batch can't be loaded, without the photos that are to blame."""
        photos = [Photo(path=path, label=0, key=path.as_posix(), split=None) for path in paths]
        eyes = frozen_copy(self.model.backbone, self.dtype)
        left = list(range(len(photos)))
        while left:
            try:
                for positions, maps in frozen_maps(eyes, self.view, photos, left, self.dtype):
                    yield positions, maps
                    left = left[len(positions) :]
            except DataError:
                refused = self._refused([paths[position] for position in left[:EVAL_BATCH]])
                if unreadable is None or not refused:
                    raise
                for error in refused.values():
                    unreadable(error)
                left = [position for position in left if paths[position] not in refused]

    def _refused(self, paths: Sequence[Path]) -> dict[Path, DataError]:
        """Those that can't be read, and why."""
        refused = {}
        for path in paths:
            try:
                self.view.load(path)
            except DataError as error:
                refused[path] = error
        return refused

    def name(self, photo: bytes, top: int = 5) -> list[tuple[str, float]]:
        """What `predict` says of a photo that is in memory: classes and their probabilities.

        Raises:
            DataError: it can't be read.
        """
        image = self.view.load(photo)  # (3, S, S)
        eyes = frozen_copy(self.model.backbone, self.dtype)
        with torch.inference_mode():
            image = self.view.normalize(image[None].to(self.device), self.dtype)
            maps = eyes(image)  # (1, C, H, W)
            shares = head_logits(self.model, maps)[0].softmax(0)  # (K,)
        best = shares.topk(min(top, len(self.class_names)))
        found = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(self.class_names[index], share) for index, share in found]


def finished_run(folder: Path) -> Run:
    """The run in a folder, which must have come to its end.

    Raises:
        RecordError: the folder is no run, or one that is not finished; says how to finish it.
    """
    run = Run(folder)
    if run.status != "finished":
        why = f" ({run.reason})" if run.reason else ""
        raise RecordError(
            f"`{folder}` is not finished, it is {run.status}{why}. Wait for it, or where nobody is "
            f"at it go on with: fieldmark train --resume {folder}"
        )
    return run


def find_photos(paths: Sequence[Path]) -> list[Path]:
    """Photos among `paths`, with those inside its folders, sorted, and those its lists name.

    As in training, a folder's hidden files and folders and linked folders are passed over.

    Raises:
        DataError: a path does not exist, a folder or list can't be read, or there is no photo.
    """
    found: list[Path] = []
    shut: list[OSError] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"There is no file or folder {path}.")
        if path.is_dir():
            found += sorted(filter(is_photo, files_below(path, shut.append)))
        else:
            found += listed_paths(path) if is_list(path) else [path]
    if shut:
        raise are_shut(shut)
    if not found:
        told = f"No photo in {', '.join(map(str, paths))}; these are read: {suffixes()}."
        raise DataError(f"{told} Hidden files and folders are passed over.")
    return found

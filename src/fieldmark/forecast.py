"""How much memory a stage will take, told before its first step.

The stage's passes are made on torch's meta device, where tensors have shapes and types but no
memory, and it is counted how much would be alive at a time.
"""

import copy
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fieldmark.build import Task
from fieldmark.layers.model import Model, split_frozen
from fieldmark.predict import EVAL_BATCH, evaluating, head_logits
from fieldmark.recipe import Stage
from fieldmark.scratch import most_bytes
from fieldmark.training.features import SHARD_BYTES
from fieldmark.training.optim import parameter_plan
from fieldmark.training.stage import set_trainable

STATES = {"sgd": 1, "nesterov": 1, "adam": 2, "adamw": 2, "rmsprop": 2, "lion": 1}  # a weight
_IN_FLIGHT = 1.75  # photos of a batch as floats, and three batches as bytes
_SCATTERED = 1.1  # what an allocator takes for blocks that come and go
_SHARDS = 3  # the maps being collected, the shard they become, and its bytes


@dataclass(frozen=True)
class Forecast:
    """Bytes a stage takes beside what the process has when the training begins.

    Attributes:
        step: A batch on its way forward and back, and the gradients.
        evaluation: A pass over photos without gradients.
        weights: Copies: the optimiser's state, averages, the best so far, those of evaluation.
        features: Those of a frozen backbone for all photos.
    """

    step: int
    evaluation: int
    weights: int
    features: int

    @property
    def total(self) -> int:
        """At the fullest moment.

        Steps that need less than the evaluation before them live on what it gave back; larger ones
        hardly can, so they come on top.
        """
        passes = self.evaluation + (self.step if self.step > self.evaluation else 0)
        return passes + self.weights + self.features

    def line(self, stage: Stage, available: int | None) -> str:
        """What a person should know, with what to change where memory will not suffice."""
        parts = {
            "features": self.features,
            f"steps of {stage.batch_size}": self.step,
            "evaluation": self.evaluation,
            "weights": self.weights,
        }
        shown = ", ".join(f"{name} {_text(size)}" for name, size in parts.items() if size)
        needs = f"memory: stage {stage.name} takes about {_text(self.total)} ({shown})"
        if available is None:
            return needs
        if self.total <= available:
            return f"{needs} of {_text(available)} available"
        advice = "Lower `data.image_size`."
        if self.step >= max(self.evaluation, self.features) and stage.batch_size > 1:
            half, left = divmod(stage.batch_size, 2)
            advice = (
                f"Set the stage's `batch_size` to {half} and `accumulate` to "
                f"{stage.accumulate * 2}{'' if left else ', which takes the same steps'}, "
                "or lower `data.image_size`."
            )
        elif self.features > max(self.step, self.evaluation):
            advice = "Choose a pooling with a shorter vector, such as a lower `sketch_dim`."
        return f"WARNING, {needs}, but only {_text(available)} are available. {advice}"


def forecast(task: Task, stage: Stage, *, kept: bool = False) -> Forecast | None:
    """Foresee a stage; None where its network can't do without numbers.

    Args:
        task: with the model as the stage begins.
        stage: one of the recipe's.
        kept: whether the frozen backbone's maps are there, so that photos go through it only where
            it is seen where the model looked: in a few of `val`, when all is done.
    """
    plan = parameter_plan(task.model, stage.train)
    model = copy.deepcopy(task.model)
    set_trainable(model, plan, train_batch_norm=stage.batch_norm == "train")
    cast("Any", model.backbone).to(dtype=task.dtype)
    best, eyes = _bytes(task.model), _bytes(model.backbone)
    side, photos = task.recipe.data.image_size, len(task.split.train) + len(task.split.val)
    try:
        look = _look(model.to("meta"), stage.batch_size, side, task.dtype)
    except Exception:  # a forecast must not stop the training it is about
        return None
    rows = photos + (stage.views - 1) * len(task.split.train)
    photo = int(_IN_FLIGHT * 3 * 4 * side**2)
    step = look.step + (0 if look.row else stage.batch_size * photo)
    moved = 4 * sum(group.count for group in plan.trained)
    reads_maps = kept and look.row > 0
    seen = min(EVAL_BATCH, len(task.split.val)) if reads_maps else EVAL_BATCH  # at once
    evaluation = int(_SCATTERED * seen * (look.evaluation / EVAL_BATCH + photo))
    if look.row and not kept:
        evaluation += _SHARDS * min(SHARD_BYTES, look.map * photos)
    return Forecast(
        step=int(_SCATTERED * step),
        evaluation=evaluation,
        weights=best + (eyes if seen else 0) + _copies(stage) * moved,
        features=min(look.row * rows, most_bytes()),  # the others are memory-mapped
    )


def _copies(stage: Stage) -> int:
    return STATES[stage.optimizer] + bool(stage.average)


@dataclass(frozen=True)
class _Look:
    """Bytes: of a photo's features and map, if the backbone is frozen; of passes."""

    row: int
    map: int
    step: int
    evaluation: int


def _look(model: Model, batch: int, side: int, dtype: torch.dtype) -> _Look:
    """What passes of a model on the meta device take."""

    def network(count: int) -> Tensor:
        images = torch.empty(count, 3, side, side, dtype=dtype, device="meta")
        return head_logits(model, model.backbone(images))

    prefix, suffix = split_frozen(model)
    with evaluating(model), torch.inference_mode():
        evaluation = _alive(lambda: network(EVAL_BATCH))
    if len(prefix) == 0:
        step = _alive(lambda: torch.autograd.backward(network(batch).sum()))
        return _Look(0, 0, step, evaluation)
    with torch.no_grad():
        maps = prefix[0](torch.empty(batch, 3, side, side, dtype=dtype, device="meta"))
        rows = prefix[1:](maps.float())
    step = _alive(lambda: torch.autograd.backward(suffix(rows).sum()))
    return _Look(rows[0].nbytes, maps[0].nbytes, step, evaluation)


def _alive(compute: Callable[[], object]) -> int:
    """Bytes alive at the fullest moment of a computation."""
    with _Alive() as alive:
        compute()
    most: int = alive.most
    return most


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that come about inside, until they are gone."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = self._now = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        place = storage._cdata
        if place not in self._sizes:
            self._sizes[place] = storage.nbytes()
            self._now += storage.nbytes()
            self.most = max(self.most, self._now)
            weakref.finalize(storage, self._forget, place)

    def _forget(self, place: int) -> None:
        self._now -= self._sizes.pop(place)


def _bytes(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def _text(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"

"""The faults: how each is planted, and which checks name it. Fixed before any was measured.

Most are keys of the recipe or lists of photos. Two can't be had from Fieldmark as it is, and are
planted by a patch that lasts as long as the training:

- `batch norm on`: a backbone that puts its BatchNorm layers into training mode on each pass, frozen
  or not, as a model with a `train()` of its own does.
- `val through chance`: the eval view is the train view, as where one transform is used for both.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from curves.photos import copied_across, shuffled_labels, without_classes
from curves.settings import Setting
from fieldmark.data.transform import View
from fieldmark.layers.backbone import Backbone
from fieldmark.recipe import Recipe

SHUFFLED, COPIED = 0.4, 0.5
TOO_LARGE_DECAY = 0.1
FAR_TOO_LONG = 20  # times the length


@dataclass(frozen=True)
class Best:
    """What a setting's grid says.

    Attributes:
        lr: the middle, in ratios, of the rates with a cell within a standard error of the best.
        weight_decay: of the best cell.
        top1: of the best cell, on val.
        photos: of val.
    """

    lr: float
    weight_decay: float
    top1: float
    photos: int

    @property
    def floor(self) -> float:
        """Two standard errors below."""
        return self.top1 - 2 * (self.top1 * (1 - self.top1) / self.photos) ** 0.5


Patch = Callable[[], Any]


@dataclass(frozen=True)
class Planted:
    """A training to make.

    Attributes:
        recipe: what to train.
        patch: context that it is trained in.
        alone: whether `train` makes it; else `run_trials`, as in a study.
    """

    recipe: Recipe
    patch: Patch = nullcontext
    alone: bool = True


@dataclass(frozen=True)
class Fault:
    """One kind of fault; `checks` are those whose finding names it."""

    name: str
    checks: tuple[str, ...]
    plant: Callable[[Setting, Best], Planted] = field(repr=False)


def _head(setting: Setting, best: Best, **keys: Any) -> dict[str, Any]:
    return {**setting.head(), "lr": best.lr, "weight_decay": best.weight_decay, **keys}


def _alone(setting: Setting, fault: str) -> bool:
    return bool(setting.rng(fault, "alone").integers(2))


def _changed(fault: str, keys: Callable[[Setting, Best], dict[str, Any]]) -> Any:
    """A fault that is keys of the head's stage."""

    def plant(setting: Setting, best: Best) -> Planted:
        stage = _head(setting, best, **keys(setting, best))
        return Planted(setting.recipe(stage), alone=_alone(setting, fault))

    return plant


def _too_long(setting: Setting, _: Best) -> dict[str, Any]:
    epochs = int(setting.head()["length"].split()[0])
    return {
        "weight_decay": 0.0,
        "schedule": "constant",
        "length": f"{FAR_TOO_LONG * epochs} epochs",
        "eval_every": "2 %",
    }


def _decay(_: Setting, best: Best) -> dict[str, Any]:
    """As large as can be without the steps themselves blowing up."""
    return {"weight_decay": TOO_LARGE_DECAY, "lr": min(best.lr, 1.0)}


def _early(setting: Setting, _: Best) -> dict[str, Any]:
    """Down to a thousandth within the first twentieth, in one of the ways to say so."""
    multistep = {"name": "multistep", "milestones": ["3 %", "4 %"], "gamma": 0.03}
    step = {"name": "step", "every": "2 %", "gamma": 0.05}
    exponential = {"name": "exponential", "every": "1 %", "gamma": 0.2}
    return {"schedule": (multistep, step, exponential)[setting.rng("early").integers(3)]}


def _labels(setting: Setting, best: Best) -> Planted:
    entries = shuffled_labels(setting.entries(), SHUFFLED, setting.rng("labels"))
    recipe = setting.recipe(_head(setting, best), entries=entries, variant="shuffled")
    return Planted(recipe, alone=_alone(setting, "labels"))


def _copies(setting: Setting, best: Best) -> Planted:
    exact = bool(setting.rng("copies").integers(2))
    name = f"{setting.name}-copies"
    entries = copied_across(setting.photos(), name, setting.entries(), COPIED, exact)
    recipe = setting.recipe(_head(setting, best), entries=entries, variant="copies")
    return Planted(recipe, alone=_alone(setting, "copies"))


def _missing(setting: Setting, best: Best) -> Planted:
    rng = setting.rng("missing")
    entries = without_classes(setting.entries(), int(rng.integers(1, 3)), rng)
    recipe = setting.recipe(_head(setting, best), entries=entries, variant="missing")
    return Planted(recipe, alone=_alone(setting, "missing"))


def _normalisation(setting: Setting, best: Best) -> Planted:
    """Photos from 0 to 255, ImageNet's numbers on other weights, or ten times the spread."""
    mean, std = [
        ([0.0] * 3, [1 / 255] * 3),
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ([0.5] * 3, [5.0] * 3),
    ][setting.rng("normalisation").integers(3)]
    backbone = {**setting.base()["backbone"], "mean": mean, "std": std}
    recipe = setting.recipe(_head(setting, best), backbone=backbone)
    return Planted(recipe, alone=_alone(setting, "normalisation"))


def _stages(setting: Setting, best: Best) -> list[dict[str, Any]]:
    return [{**_head(setting, best), "length": "15 epochs"}]


def _collapse(setting: Setting, best: Best) -> Planted:
    rate = float(setting.rng("collapse").choice([0.1, 0.3, 1.0]))
    second = setting.gentle(rate, 0.0) | {"schedule": "constant", "train": "all"}
    return Planted(setting.recipe(*_stages(setting, best), second, small=True))


def _batch_norm(setting: Setting, best: Best) -> Planted:
    """Only the last blocks train; the patch leaves the others' statistics moving."""
    second = setting.gentle(1e-3, 0.0) | {
        "train": {"backbone.body.blocks.4.*": 0.1, "backbone.*": 0, "*": 1},
        "length": "2 epochs",
    }
    return Planted(setting.recipe(*_stages(setting, best), second, small=True), batch_norm_left_on)


def _chance(setting: Setting, best: Best) -> Planted:
    augment = {"crop_area": [0.2, 1.0], "brightness": 0.3, "erase": 0.5}
    second = setting.gentle(1e-3, 0.0)
    recipe = setting.recipe(*_stages(setting, best), second, small=True, augment=augment)
    return Planted(recipe, val_through_chance)


@contextmanager
def batch_norm_left_on() -> Iterator[None]:
    plain = Backbone.forward

    def forward(self: Backbone, images: Tensor) -> Tensor:
        trains = any(parameter.requires_grad for parameter in self.parameters())
        for module in self.modules() if trains and self.training else ():
            if isinstance(module, _BatchNorm):
                module.train()
        return plain(self, images)

    with mock.patch.object(Backbone, "forward", forward):
        yield


@contextmanager
def val_through_chance() -> Iterator[None]:
    with mock.patch.object(View, "eval", lambda self: self):
        yield


DIVERGED = ("diverged_early", "diverged_midway", "loss_spikes", "lr_too_high")
TOO_HIGH = (
    *DIVERGED,
    *("train_loss_rises", "restless_val", "stage_collapses", "worse_than_guessing"),
)
TOO_LONG = (
    *("too_long", "overfitting", "overconfident", "memorised"),
    *("worse_than_guessing", "second_half_idle"),
)

FAULTS: tuple[Fault, ...] = (
    Fault("lr x 100", TOO_HIGH, _changed("x", lambda _, best: {"lr": 100 * best.lr})),
    Fault(
        "lr / 100",
        ("lr_too_low", "underfitting"),
        _changed("/", lambda _, best: {"lr": best.lr / 100}),
    ),
    Fault(
        "far too long",
        TOO_LONG,
        _changed("long", _too_long),
    ),
    Fault("decay too large", ("decay_too_strong", "underfitting"), _changed("decay", _decay)),
    Fault("labels shuffled", ("val_above_train",), _labels),
    Fault("copies across splits", ("copies_across_splits", "val_above_train"), _copies),
    Fault("batch norm on", ("frozen_moved", "handover_differs"), _batch_norm),
    Fault("wrong normalisation", ("wrong_normalisation",), _normalisation),
    Fault("second stage collapses", ("stage_collapses", *DIVERGED), _collapse),
    Fault(
        "too short",
        ("too_short", "underfitting"),
        _changed("short", lambda *_: {"length": "1 epochs", "eval_every": "10 %"}),
    ),
    Fault("decayed too early", ("decayed_too_early",), _changed("early", _early)),
    Fault("class missing", ("class_missing",), _missing),
    Fault("val through chance", ("val_seen_through_chance", "evaluation_differs"), _chance),
)
BATCH_ALONE = "batch size alone"
BATCH_CHECKS = ("batch_changed_alone",)

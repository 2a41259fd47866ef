"""The full description of one training, checked before anything runs.

A recipe is data + backbone + pooling + head + ordered stages + seed, written in YAML:

    data: {folder: photos, image_size: 224}
    stages:
      - {name: head, train: head, lr: 1, length: 60 epochs}
      - {name: all, train: {"backbone.*": 0.1, "*": 1}, lr: 0.02, length: 4 epochs}
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    WrapValidator,
    field_validator,
    model_validator,
)

from fieldmark import checked_yaml
from fieldmark.augmentation import Augment
from fieldmark.checked_yaml import Section
from fieldmark.duration import Duration, DurationField
from fieldmark.errors import RecipeError
from fieldmark.expectation import Expectation
from fieldmark.network import Backbone, Count, Head, Pooling, Positive
from fieldmark.schedule import Schedule
from fieldmark.source import Source, file_hashes

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Rate(Section):
    """How fast parameters move; alone, a number is `lr`."""

    lr: NotNegative = 1.0
    """Multiplier of the stage's `lr`; 0 freezes."""
    decay: NotNegative | None = None
    """Multiplier of `weight_decay`; by default 1 for weights, 0 for biases and norms."""

    @model_validator(mode="before")
    @classmethod
    def _number_alone(cls, value: Any) -> Any:
        return {"lr": value} if isinstance(value, int | float) else value


def _as_levels(value: object) -> object:
    return (
        {"head": {"head.*": 1, "*": 0}, "all": {"*": 1}}.get(value, value)
        if isinstance(value, str)
        else value
    )


Rates = Annotated[dict[str, Rate], BeforeValidator(_as_levels), Field(min_length=1)]


def _plain_name(value: str) -> str:
    if not re.fullmatch(r"[\w-]{1,60}", value):
        raise ValueError(f"use 1 to 60 letters, digits, `-` and `_`, got {value!r}.")
    return value


Name = Annotated[str, AfterValidator(_plain_name)]


class Data(Source):
    """The photos, how they are split and how they become network input."""

    image_size: Annotated[int, Field(ge=16, le=2048)] = 224
    """Side in pixels of what the network sees."""
    resize_size: Annotated[int, Field(ge=16, le=4096)] | None = None
    """Side in pixels a photo is resized to before the crop; `image_size` x 8/7 unless given."""
    resize: Literal["squash", "keep_aspect"] = "squash"
    """Squash the whole photo to a square, or bring its shorter side to `resize_size`."""
    box_margin: NotNegative | None = None
    """Cut photos that have a box to it and this share of its sides more, in evaluation too."""
    mirror: bool = False
    """Whether training flips half of the photos left to right."""
    cache: NotNegative = 0.0
    """Gigabytes of resized photos kept on disk, so that later epochs need not decode them."""

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.resize_size is not None and self.resize_size < self.image_size:
            raise ValueError(
                f"`resize_size` {self.resize_size} is smaller than `image_size` "
                f"{self.image_size}, so no crop fits. Raise it or leave it out."
            )
        return self


STEPS_ONLY = {"lr", "length", "batch_size", "eval_every"}
NOT_EXACT = (
    *("optimizer", "momentum", "l1", "clip_norm", "average", "accumulate", "schedule"),
    *("stop_after", "snapshot_every", "label_smoothing", "class_weights", "sampling"),
)


class Stage(Section):
    """One stretch of training: which parameters move, how fast and for how long."""

    name: Name
    """What it is called on the command line and in pictures."""
    train: Rates
    """`head`, `all`, or name pattern -> multiplier of `lr` (0 = frozen); the first match wins."""
    solver: Literal["steps", "lbfgs"] = "steps"
    """Take steps, or find the exact minimum for a head: no rate, no length, no luck."""
    optimizer: Literal["sgd", "nesterov", "adam", "adamw", "rmsprop", "lion"] = "sgd"
    """How a gradient becomes a step."""
    lr: Positive
    """Learning rate: how far a step goes, at the top of the schedule."""
    length: DurationField
    """How long it trains."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """How much of the last move is kept in the next, for `sgd`, `nesterov` and `rmsprop`."""
    weight_decay: NotNegative = 0.0
    """L2 decay of weights; biases and norms are spared unless a pattern's `decay` says so."""
    l1: NotNegative = 0.0
    """L1 decay of what is decayed: adds l1 sign(w) to the gradient."""
    clip_norm: Positive | None = None
    """Longest gradient a step may take; longer ones are scaled down to it."""
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of a running average of the weights, such as 0.99, which is measured and kept."""
    batch_size: Count = 32
    """Photos that go through the network at once."""
    accumulate: Count = 1
    """Batches summed into one optimiser step."""
    schedule: Schedule = Schedule()
    eval_every: DurationField = Duration(1, "epochs")
    """How often `minitrain` and `val` are measured."""
    stop_after: Count | None = None
    """End the stage after this many evaluations without a lower loss on `val`."""
    snapshot_every: DurationField | None = None
    """How often the weights are kept in `snapshots/`."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each label that is spread over all classes."""
    class_weights: Literal["balanced"] | dict[str, Positive] | None = None
    """`balanced` (inverse to the class's size), or class name -> weight, 1 for those not named."""
    views: Annotated[int, Field(ge=1, le=64)] = 1
    """Of a frozen backbone: the plain view of each photo, and others as `augment` and `mirror` make
    them, computed once; each epoch shows one of them."""
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    """Every training photo once an epoch, or every class equally often."""
    batch_norm: Literal["frozen", "train"] = "frozen"
    """Whether the running statistics of trained BatchNorm layers move; frozen layers' never do."""

    @property
    def samples_per_step(self) -> int:
        """How many one optimiser step is taken on."""
        return self.batch_size * self.accumulate

    def steps_per_epoch(self, samples: int) -> int:
        """How many steps an epoch of so many samples has; the last may be smaller."""
        return -(-samples // self.samples_per_step)

    @model_validator(mode="before")
    @classmethod
    def _without_steps(cls, values: Any) -> Any:
        """With `lbfgs`, what says how steps are taken is forgotten: it makes no other training."""
        if not isinstance(values, dict) or values.get("solver") != "lbfgs":
            return values
        kept = {key: value for key, value in values.items() if key not in STEPS_ONLY}
        return {**kept, "lr": 1.0, "length": "1 epochs"}

    @model_validator(mode="after")
    def _exact_is_possible(self) -> Self:
        if self.solver != "lbfgs":
            return self
        fields = type(self).model_fields
        given = [key for key in NOT_EXACT if getattr(self, key) != fields[key].default]
        if given:
            raise ValueError(
                f"`solver: lbfgs` finds the exact minimum of the plain loss and takes no steps, "
                f"so {', '.join(f'`{key}`' for key in given)} can't be had with it. Leave it out."
            )
        if not self.weight_decay:
            raise ValueError(
                "`solver: lbfgs` needs a `weight_decay` above 0: photos that can be told apart "
                "have no best classifier without. Use 1e-8 for almost none."
            )
        return self

    @field_validator("length")
    @classmethod
    def _length_is_absolute(cls, value: Duration) -> Duration:
        if value.unit == "%":
            raise ValueError(f"a stage's length is given in steps or epochs, got `{value}`.")
        return value


# `stages.NAME: null` leaves a stage out: how one arm of a study does without it.
MaybeStage = Annotated[Stage, WrapValidator(lambda value, check: value and check(value))]


# Counts how often a default changed its value, or a value its meaning: what was run before is no
# result of the same recipe any more. A new key that does nothing by default changes nothing.
DEFAULTS = 1


class Recipe(Section):
    """One training, whole."""

    name: Name = "recipe"
    """Runs lie in `runs/NAME-1`, `-2`, … unless told otherwise."""
    about: str = ""
    """One sentence on what this recipe is for."""
    expected: Expectation | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Decides initial weights, sketch hashes and the order and crops of photos."""
    data: Data
    augment: Augment = Augment()
    backbone: Backbone = Backbone()
    pooling: Pooling = Pooling()
    head: Head = Head()
    stages: tuple[MaybeStage, ...]
    """What is trained, in order; one that is null is left out."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of feature maps; `auto` is bfloat16 where the hardware multiplies it."""
    threads: Count | None = None
    """Threads of tensor arithmetic; all cores unless given."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where photos go through the backbone; `auto` is the GPU where there is one."""

    @field_validator("stages")
    @classmethod
    def _names_differ(cls, given: tuple[Stage | None, ...]) -> tuple[Stage, ...]:
        stages = tuple(stage for stage in given if stage is not None)
        if not stages:
            raise ValueError("give at least one stage.")
        names = [stage.name for stage in stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"each stage needs a name of its own; given twice: {', '.join(twice)}."
            )
        return stages

    @model_validator(mode="after")
    def _exact_heads_stand_on_what_is_fixed(self) -> Self:
        for stage in self.stages:
            if stage.views > 1 and _moves_backbone(stage.train):
                raise ValueError(
                    f"stage {stage.name}: `views` are kept of a frozen backbone, and this stage "
                    "trains it, so each epoch shows new ones anyway. Leave it out."
                )
            if stage.solver == "lbfgs" and (_moves_backbone(stage.train) or self.head.drop_rate):
                what = "`head.drop_rate` makes by chance" if self.head.drop_rate else "move as well"
                raise ValueError(
                    f"stage {stage.name}: `solver: lbfgs` needs features that stand still, and "
                    f"these {what}. Give it `train: head` without dropout."
                )
        return self

    def to_yaml(self) -> str:
        """The whole recipe, defaults included, as YAML that loads to an equal recipe."""
        return checked_yaml.dump(self)

    def until(self, name: str) -> Self:
        """This recipe without the stages after `name`.

        Raises:
            RecipeError: it has no such stage.
        """
        names = [stage.name for stage in self.stages]
        if name not in names:
            raise RecipeError(f"There is no stage {name!r} here; stages: {', '.join(names)}.")
        return self.model_copy(update={"stages": self.stages[: names.index(name) + 1]})

    @property
    def trains_backbone(self) -> bool:
        """Whether any stage moves a parameter of the backbone, as far as its patterns tell."""
        return any(_moves_backbone(stage.train) for stage in self.stages)

    def group_key(self) -> str:
        """Equal for recipes that can share one pass over the photos: a frozen backbone's.

        They agree in everything that features come from: photos, their split and preprocessing,
        backbone, precision, threads and device. A recipe that trains its backbone shares with none.
        """
        if self.trains_backbone:
            return self.hash()
        content = self._what_differs(
            include={"data", "augment", "backbone", "precision", "threads", "device"}
        )
        content["data"].pop("train_fraction", None)  # each photo's features are computed once
        if self.backbone.weights == "none":  # they are drawn from the seed
            content["seed"] = self.seed
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def file_hashes(self) -> dict[str, str]:
        """Content hash of each list, table and weights file it names, by path, if it is there."""
        kind, _, weights = self.backbone.weights.partition(":")
        return file_hashes([*self.data.files, *([weights] if kind == "file" else [])])

    def hash(self) -> str:
        """Content hash, 64 hex digits: equal for recipes (and lists) that ask for one training."""
        content = self._what_differs(exclude={"name", "about", "expected"})
        content["data"].pop("cache", None)  # the same pixels, sooner
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _what_differs(
        self, *, include: set[str] | None = None, exclude: set[str] | None = None
    ) -> dict[str, Any]:
        """What is not as by default, and what the lists say: keys yet to come change no hash."""
        content = self.model_dump(
            mode="json", include=include, exclude=exclude, exclude_defaults=True
        )
        for stage in content.get("stages", ()):  # the first pattern that matches wins
            stage["train"] = list(stage["train"].items())
        return content | self.data.contents() | {"defaults": DEFAULTS}


def _moves_backbone(rates: Mapping[str, Rate]) -> bool:
    """Whether a pattern with a rate may be the first to match a name that begins `backbone.`."""
    for pattern, rate in rates.items():
        literal = re.split(r"[*?[]", pattern, maxsplit=1)[0]
        if rate.lr and (literal.startswith("backbone.") or "backbone.".startswith(literal)):
            return True
        if pattern == f"{literal}*" and "backbone.".startswith(literal):  # the rest is matched
            return False
    return False


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe; `overrides` are `key=value`, as in `stages.1.lr=0.001`.

    Raises:
        RecipeError: lists every mistake with its line and what is allowed.
    """
    return checked_yaml.load_checked(path, Recipe, overrides)

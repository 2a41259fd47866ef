"""The keys of a study file: a question, axes, an objective, seeds, a budget.

name: resolution-by-dim
question: Which matters more, the size of the photos or that of the sketch?
base: cub50-lite0
axes:
  - {key: data.image_size, values: [224, 336, 448]}
  - {key: pooling.sketch_dim, values: [1024, 8192]}
  - {key: stages.head.lr, space: {low: 0.1, high: 10, log: true}, role: nuisance}
search: {sampler: quasi-random, trials: 8}
expect: {axis: image_size, direction: up, size: 0.03}
"""

import json
import math
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from fieldmark.checked_yaml import Section
from fieldmark.network import Count
from fieldmark.recipe import Name

RESERVED = {
    *("cell", "mean", "spread", "seeds", "failed", "status", "seconds", "reason"),
    *("best", "cells"),
}
"""Names of the other columns in a study's tables: of its cells, and of an axis's settings."""
LOWER_IS_BETTER = {"loss", "calibration_error"}
ADAPTIVE = {"tpe", "gp"}


def _plain(value: Any) -> Any:
    """The same value without what YAML's reader hangs on it."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        raise ValueError(f"a value is a number, word, list or mapping, got {value!r}.") from None


Setting = Annotated[Any, AfterValidator(_plain)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Keys = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    Field(min_length=1),
]


class Space(Section):
    """Where a sampler may look: an interval or choices."""

    low: Finite | None = None
    """The interval's lower end."""
    high: Finite | None = None
    """Its upper end."""
    log: bool = False
    """Whether equal ratios count the same, as for a learning rate; else equal differences do."""
    integer: bool = False
    """Whether only whole numbers count."""
    choices: Annotated[tuple[Setting, ...], Field(min_length=2)] | None = None
    """Settings to choose from, in place of an interval."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log or self.integer:
                raise ValueError("give `choices`, or `low` and `high`.")
            return self
        if self.low is None or self.high is None or not self.low < self.high:
            raise ValueError(
                f"needs `low` < `high`, or `choices`; got low {self.low} and high {self.high}."
            )
        if self.integer and any(end != round(end) for end in self.bounds):
            raise ValueError("`low` and `high` must be whole numbers where `integer` is true.")
        if self.log and self.low <= 0:
            raise ValueError(f"`low` must be above 0 where `log` is true, got {self.low}.")
        return self

    def at(self, unit: float) -> Any:
        """The setting at `unit`, 0 to 1: four digits, so that a person can type it again."""
        if self.choices is not None:
            return self.choices[min(int(unit * len(self.choices)), len(self.choices) - 1)]
        low, high = self.bounds
        if self.integer and not self.log:  # whole numbers are equally likely, the ends too
            return self.tidy(math.floor(low + (high - low + 1) * unit))
        return self.tidy(low * (high / low) ** unit if self.log else low + (high - low) * unit)

    def tidy(self, value: float) -> float | int:
        """The nearest number of four digits, or whole one, inside the interval."""
        low, high = self.bounds
        inside = min(max(value if self.integer else float(f"{value:.4g}"), low), high)
        return round(inside) if self.integer else inside

    @property
    def bounds(self) -> tuple[float, float]:
        """`low` and `high`, of what is no list of choices."""
        return self.low or 0.0, self.high or 0.0

    def ends(self) -> list[Any]:
        """The settings most likely to be refused: both ends, or every choice."""
        return list(self.choices) if self.choices is not None else [self.at(0), self.at(1)]


class Axis(Section):
    """What is varied: one setting of a recipe, several to the same value, or named arms."""

    name: Name = ""
    """Its column in the tables; the last part of `key` unless given."""
    key: Keys | None = None
    """Path in the recipe, as in `stages.head.lr`, or several that take the same value."""
    values: Annotated[tuple[Setting, ...], Field(min_length=1)] | None = None
    """The settings that are tried, each with each of the other axes."""
    arms: Annotated[dict[str, dict[str, Setting]], Field(min_length=1)] | None = None
    """Name -> path in the recipe -> value."""
    space: Space | None = None
    role: Literal["scientific", "nuisance", "fixed"] = "scientific"
    """What is asked about, what must be tuned for a fair answer, or what is held."""

    @model_validator(mode="before")
    @classmethod
    def _name_from_key(cls, values: Any) -> Any:
        key = values.get("key") if isinstance(values, dict) else None
        first = key[0] if isinstance(key, list) and key else key
        if isinstance(first, str) and "name" not in values:
            return {"name": first.rpartition(".")[2], **values}
        return values

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        given = [k for k in ("values", "arms", "space") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of `values`, `arms`, `space`; got {given or 'none'}.")
        if (self.key is None) != (self.arms is not None):
            raise ValueError(
                "`values` and `space` need a `key`; `arms` name their keys themselves."
            )
        if not self.name or self.name in RESERVED:
            raise ValueError(f"needs a `name`, other than {', '.join(sorted(RESERVED))}.")
        if self.role == "fixed" and len(self.labels()) != 1:
            raise ValueError("a fixed axis has one value; several make it scientific or nuisance.")
        if "seed" in {key for changes in self.changes() for key in changes}:
            raise ValueError("`seed` is no axis: `seeds` says how many runs a cell has.")
        return self

    def labels(self) -> list[Any]:
        """What its settings are called in tables: values, or names of arms; none of a space."""
        return list(self.arms or self.values or ())

    def changes(self) -> list[dict[str, Any]]:
        """For each label, path in the recipe -> value; of a space, for each end."""
        if self.arms is not None:
            return list(self.arms.values())
        settings = self.space.ends() if self.space else self.values or ()
        return [self.change(value) for value in settings]

    def change(self, value: Any) -> dict[str, Any]:
        """Path in the recipe -> value."""
        return self.arms[value] if self.arms is not None else dict.fromkeys(self.key or (), value)


class Search(Section):
    """How points of the spaces are chosen, for each point of the grid."""

    sampler: Literal["random", "quasi-random", "tpe", "gp"] = "quasi-random"
    """Scrambled Halton points unless given; `tpe` and `gp` (Optuna's) learn from results."""
    trials: Annotated[int, Field(ge=1, le=10_000)] = 16
    """How many points."""
    batch: Count = 5
    """How many `tpe` and `gp` propose at a time, before they see what came of them."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Other seeds, other points."""


class Pruner(Section):
    """Which runs are ended early, compared with earlier ones at the same evaluation on `val`.

    Never in the last stage's warm-up, nor before the last stage. By Optuna; a name alone will do.
    """

    name: Literal["median", "percentile", "successive_halving", "hyperband"]
    """By which rule."""
    startup: Count = 5
    """Runs that are finished before `median` and `percentile` end any."""
    best: Annotated[float, Field(gt=0, lt=100)] = 25.0
    """Per cent of the earlier runs among which `percentile` goes on."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """One in so many goes on at each rung of `successive_halving` and `hyperband`."""
    ahead: Annotated[int, Field(ge=0)] = 0
    """Runs just before it that a run does not wait for, nor is compared with; workers less one."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _options_belong(self) -> Self:
        takes = {"median": {"startup"}, "percentile": {"startup", "best"}}
        allowed = takes.get(self.name, {"reduction"}) | {"name", "ahead"}
        if wrong := sorted(self.model_fields_set - allowed):
            raise ValueError(
                f"`{wrong[0]}` is no option of {self.name}, which takes "
                f"{', '.join(sorted(allowed - {'name'}))}."
            )
        return self


class Objective(Section):
    """What is measured, and on which photos."""

    metric: Literal["top1", "top5", "mean_class_top1", "loss", "calibration_error"] = "top1"
    """What cells are judged by."""
    folds: Annotated[int, Field(ge=2, le=100)] | Literal["auto", "none"] = "auto"
    """Folds of train + val, or `none` for val; `auto` is 5 where every backbone stays frozen."""

    @property
    def lower_is_better(self) -> bool:
        """Whether less of the metric is better."""
        return self.metric in LOWER_IS_BETTER


class Budget(Section):
    """Where a study stops before its end."""

    cells: Count | None = None
    """The first so many run."""
    minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Of trials' time, all sessions together; a group begun before is finished."""


class Expect(Section):
    """What you predict before you look."""

    axis: str
    """The name of the axis it is about."""
    direction: Literal["up", "down", "none"]
    """Where the metric goes from setting `against` to setting `to`."""
    size: Annotated[float, Field(gt=0)] | None = None
    """How far, as a fraction; for `none`, how far it may still go."""
    to: Setting = None
    """The axis's last setting unless given."""
    against: Setting = None
    """The axis's first unless given."""


class StudyFile(Section):
    """A study as it is written down."""

    name: Name
    """It lies in `studies/NAME` unless told otherwise."""
    question: Annotated[str, Field(min_length=1)]
    """In words."""
    base: str
    """The recipe whose settings are varied: a shipped one's name, or a file."""
    axes: Annotated[tuple[Axis, ...], Field(min_length=1)]
    """Later ones overwrite what earlier ones set."""
    search: Search = Search()
    objective: Objective = Objective()
    seeds: Count = 1
    """Runs of each cell: with the base's seed and those after it."""
    budget: Budget = Budget()
    pruner: Pruner | None = None
    expect: Expect | None = None

    @field_validator("axes")
    @classmethod
    def _names_differ(cls, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        names = [axis.name for axis in axes]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each axis needs a name of its own; given twice: {', '.join(twice)}.")
        return axes

    @model_validator(mode="after")
    def _expectation_is_about_an_axis(self) -> Self:
        if self.expect is None:
            return self
        allowed = {axis.name: axis.labels() for axis in self.axes if len(axis.labels()) > 1}
        settings = allowed.get(self.expect.axis)
        if settings is None:
            raise ValueError(
                f"`expect.axis` must be an axis with several values or arms "
                f"({', '.join(allowed) or 'there is none'}), got {self.expect.axis!r}."
            )
        for setting in (self.expect.to, self.expect.against):
            if setting is not None and setting not in settings:
                raise ValueError(
                    f"`expect`: {setting!r} is no setting of {self.expect.axis}; "
                    f"allowed: {', '.join(map(str, settings))}."
                )
        return self

    def with_role(self, *roles: str) -> list[Axis]:
        """The axes that play one of these roles."""
        return [axis for axis in self.axes if axis.role in roles]

"""How the learning rate moves through a stage: the keys, and the formulas behind them."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fieldmark.checked_yaml import Section
from fieldmark.duration import Duration, DurationField

# What each schedule takes besides `warmup`, with its default; None must be given.
OPTIONS: dict[str, dict[str, Any]] = {
    "constant": {},
    "multistep": {"milestones": None, "gamma": 0.1},
    "step": {"every": None, "gamma": 0.1},
    "exponential": {"every": Duration(1, "epochs"), "gamma": 0.95},
    "polynomial": {"power": 1.0},
    "inverse": {"gamma": 1e-4, "power": 0.75},
    "cosine": {},
    "one_cycle": {"warmup": Duration(30, "%")},
    "plateau": {"gamma": 0.1, "patience": 3},
}
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1e-4  # of `lr`; Smith and Topin, arXiv 1708.07120


class Schedule(Section):
    """A multiplier of `lr` for each step; alone, a name stands for its defaults."""

    name: Literal[
        "constant",
        "multistep",
        "step",
        "exponential",
        "polynomial",
        "inverse",
        "cosine",
        "one_cycle",
        "plateau",
    ] = "constant"
    """How the rate moves over the stage."""
    warmup: DurationField | None = None
    """Rise in a straight line to `lr` over this length first."""
    milestones: tuple[DurationField, ...] | None = None
    """Where `multistep` multiplies the rate by `gamma`."""
    every: DurationField | None = None
    """How often `step` and `exponential` multiply the rate by `gamma`."""
    gamma: Annotated[float, Field(gt=0, lt=1)] | None = None
    """0.1 where none is given, but 0.95 for `exponential` and 1e-4 for `inverse`."""
    power: Annotated[float, Field(gt=0)] | None = None
    """`polynomial` is (1 - t)^power; `inverse` is (1 + gamma step)^-power."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Evaluations without a lower loss on `val` before `plateau` multiplies by `gamma`."""

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, values: Any) -> Any:
        if isinstance(values, str):
            values = {"name": values}
        if not isinstance(values, dict):
            return values
        name = values.get("name", "constant")
        return {**OPTIONS.get(name, {}), **values} if isinstance(name, str) else values

    @model_validator(mode="after")
    def _options_belong(self) -> Self:
        takes = OPTIONS[self.name]
        for key in ("milestones", "every", "gamma", "power", "patience"):
            given = getattr(self, key)
            if given is not None and key not in takes:
                allowed = ", ".join(takes) or "only warmup"
                raise ValueError(f"`{key}` is no option of {self.name}, which takes {allowed}.")
            if key in takes and (given is None or given == ()):
                raise ValueError(f"{self.name} needs `{key}`.")
        return self

    def factor(self, step: int, *, total_steps: int, steps_per_epoch: int) -> float:
        """What `lr` is multiplied with at `step`, counted from 0; `plateau` counts as constant.

        `cosine` falls as (1 + cos(pi t)) / 2 with t from 0 to 1 after the warm-up (Loshchilov and
        Hutter, arXiv 1608.03983). `step`, `multistep`, `polynomial` and `inverse` are Caffe's.
        """

        def steps(duration: Duration | None) -> int:
            if duration is None:
                return 0
            return duration.steps(steps_per_epoch=steps_per_epoch, stage_steps=total_steps)

        warmup = min(steps(self.warmup), total_steps)
        if step < warmup:
            start = ONE_CYCLE_START if self.name == "one_cycle" else 0.0
            return start + (1 - start) * (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        gamma, power = self.gamma or 1.0, self.power or 1.0
        fall = (1 + math.cos(math.pi * progress)) / 2
        match self.name:
            case "multistep":
                found = gamma ** sum(step >= steps(place) for place in self.milestones or ())
            case "step":
                found = gamma ** (step // steps(self.every))
            case "exponential":
                found = gamma ** (step / steps(self.every))
            case "polynomial":
                found = (1 - progress) ** power
            case "inverse":
                found = (1 + gamma * step) ** -power
            case "cosine":
                found = fall
            case "one_cycle":
                found = ONE_CYCLE_END + (1 - ONE_CYCLE_END) * fall
            case _:
                found = 1.0
        return float(found)

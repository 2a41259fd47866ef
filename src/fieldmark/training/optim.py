"""Which parameters move, and how fast."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.optim import SGD, Optimizer

from fieldmark.errors import RecipeError


@dataclass(frozen=True)
class Group:
    """Parameters that share a multiplier of the learning rate and are decayed or not."""

    multiplier: float
    decayed: bool
    names: tuple[str, ...]
    count: int
    """How many numbers these parameters hold."""


@dataclass(frozen=True)
class ParameterPlan:
    """What a stage does with every parameter of the model."""

    groups: tuple[Group, ...]

    @property
    def trained(self) -> tuple[Group, ...]:
        """The groups that move."""
        return tuple(group for group in self.groups if group.multiplier > 0)

    def describe(self, lr: float, weight_decay: float) -> list[str]:
        """One line a group, such as `409,600 weights of head: lr 1, weight decay 0`."""
        lines = []
        for group in self.groups:
            rate = "frozen"
            if group.multiplier:
                decay = weight_decay if group.decayed else 0
                rate = f"lr {lr * group.multiplier:g}, weight decay {decay:g}"
            parts = ", ".join(dict.fromkeys(name.partition(".")[0] for name in group.names))
            kind = "weights" if group.decayed else "biases and norms"
            lines.append(f"{group.count:>11,} {kind} of {parts}: {rate}")
        return lines


def parameter_plan(model: nn.Module, multipliers: Mapping[str, float]) -> ParameterPlan:
    """Sort the model's parameters by the first pattern that matches their names.

    Args:
        model: its `named_parameters` are matched.
        multipliers: shell pattern of a name -> multiplier of the learning rate, 0 to freeze.
            Only weights of two or more dimensions are decayed: shrinking a bias or the scale of
            a normalisation layer does not make the function simpler.

    Raises:
        RecipeError: a parameter no pattern matches, or a pattern that decides over none.
    """
    names: dict[tuple[float, bool], list[str]] = {}
    counts: dict[tuple[float, bool], int] = {}
    unused, uncovered = dict.fromkeys(multipliers), []
    for name, parameter in model.named_parameters():
        pattern = next((p for p in multipliers if fnmatchcase(name, p)), None)
        if pattern is None:
            uncovered.append(name)
            continue
        unused.pop(pattern, None)
        key = multipliers[pattern], parameter.ndim >= 2
        names.setdefault(key, []).append(name)
        counts[key] = counts.get(key, 0) + parameter.numel()
    _refuse(uncovered, list(unused), model)
    return ParameterPlan(
        tuple(Group(*key, tuple(members), counts[key]) for key, members in names.items())
    )


def _refuse(uncovered: list[str], unused: list[str], model: nn.Module) -> None:
    mistakes = []
    if uncovered:
        more = f" and {len(uncovered) - 3} more" if len(uncovered) > 3 else ""
        mistakes.append(
            f"`train` says nothing of {', '.join(uncovered[:3])}{more}. "
            'Add a last pattern `"*": 0` to freeze the rest or `"*": 1` to train it.'
        )
    if unused:
        parts = ", ".join(f"{name}.*" for name, _ in model.named_children())
        mistakes.append(
            f"`train` has patterns that decide over no parameter: {', '.join(unused)}. "
            f"The first match wins; names begin with {parts}."
        )
    if mistakes:
        raise RecipeError("\n  ".join(mistakes))


def make_optimizer(
    model: nn.Module, plan: ParameterPlan, *, lr: float, momentum: float, weight_decay: float
) -> Optimizer:
    """SGD over the plan's trained groups; each group keeps its full rate as `base_lr`."""
    parameters = dict(model.named_parameters())
    groups = [
        {
            "params": [parameters[name] for name in group.names],
            "lr": lr * group.multiplier,
            "base_lr": lr * group.multiplier,
            "weight_decay": weight_decay if group.decayed else 0.0,
        }
        for group in plan.trained
    ]
    return SGD(groups, lr=lr, momentum=momentum, fused=True)

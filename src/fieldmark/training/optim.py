"""Which parameters move, and how fast."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from timm.optim._optim_factory import create_optimizer_v2
from torch import Tensor, nn
from torch.optim import Optimizer

from fieldmark.errors import RecipeError
from fieldmark.recipe import Rate, Stage

# timm calls plain SGD with momentum `momentum`, and Nesterov's `sgd`.
TIMM_NAMES = {
    "sgd": "momentum",
    "nesterov": "sgd",
    "adam": "adam",
    "adamw": "adamw",
    "rmsprop": "rmsprop",
    "lion": "lion",
}
FUSED = {"sgd", "nesterov", "adam", "adamw"}


@dataclass(frozen=True)
class Group:
    """Parameters that share a multiplier of the learning rate and of the weight decay."""

    multiplier: float
    decay: float
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
                decay = weight_decay * group.decay
                rate = f"lr {lr * group.multiplier:g}, weight decay {decay:g}"
            parts = ", ".join(dict.fromkeys(name.partition(".")[0] for name in group.names))
            kind = "weights" if group.decay else "biases and norms"
            lines.append(f"{group.count:>11,} {kind} of {parts}: {rate}")
        return lines


def parameter_plan(model: nn.Module, rates: Mapping[str, Rate]) -> ParameterPlan:
    """Sort the model's parameters by the first pattern that matches their names.

    Args:
        model: its `named_parameters` are matched.
        rates: shell pattern of a name -> multipliers of the learning rate, 0 to freeze, and of
            the weight decay. Unless told otherwise only weights of two or more dimensions are
            decayed: shrinking a bias or the scale of a normalisation layer does not make the
            function simpler.

    Raises:
        RecipeError: a parameter no pattern matches, or a pattern that decides over none.
    """
    names: dict[tuple[float, float], list[str]] = {}
    counts: dict[tuple[float, float], int] = {}
    unused, uncovered = dict.fromkeys(rates), []
    for name, parameter in model.named_parameters():
        pattern = next((p for p in rates if fnmatchcase(name, p)), None)
        if pattern is None:
            uncovered.append(name)
            continue
        unused.pop(pattern, None)
        rate = rates[pattern]
        key = rate.lr, float(parameter.ndim >= 2) if rate.decay is None else rate.decay
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


def make_optimizer(model: nn.Module, plan: ParameterPlan, stage: Stage) -> Optimizer:
    """The stage's optimiser over the plan's trained groups, from timm's factory.

    Each group keeps its full rate as `base_lr`, and its share of L1 decay as `l1`.
    """
    parameters = dict(model.named_parameters())
    groups = [
        {
            "params": [parameters[name] for name in group.names],
            "lr": stage.lr * group.multiplier,
            "base_lr": stage.lr * group.multiplier,
            "weight_decay": stage.weight_decay * group.decay,
            "l1": stage.l1 * group.decay,
        }
        for group in plan.trained
    ]
    fused: dict[str, Any] = {"fused": True} if stage.optimizer in FUSED else {}
    return create_optimizer_v2(
        groups,
        opt=TIMM_NAMES[stage.optimizer],
        lr=stage.lr,
        weight_decay=stage.weight_decay,
        momentum=stage.momentum,
        **fused,
    )


@torch.no_grad()
def shape_gradients(optimizer: Optimizer, clip_norm: float | None) -> None:
    """What stands between gradient and step: L1 decay, then clipping to `clip_norm`."""
    for group in optimizer.param_groups:
        if group["l1"]:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.sign(), alpha=group["l1"])
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(trained(optimizer), clip_norm)


def trained(optimizer: Optimizer) -> list[Tensor]:
    """Every parameter the optimiser moves, in the order of its state."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]

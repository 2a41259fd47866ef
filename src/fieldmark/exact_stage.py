"""A stage that takes no steps: the classifier is put where its loss is least."""

from collections.abc import Callable
from typing import cast

import torch

from fieldmark.errors import SettingError, TrainingError
from fieldmark.inputs import FrozenInputs, StageInputs
from fieldmark.layers.model import Model
from fieldmark.ledger import Ledger
from fieldmark.recipe import Stage
from fieldmark.training.exact import ExactHead, decay_path
from fieldmark.training.optim import parameter_plan

WEIGHT, BIAS = "head.classifier.weight", "head.classifier.bias"
TOLERANCE = 1e-5  # nats above the minimum


def exact_decay(model: Model, stage: Stage) -> float:
    """The decay of the classifier's weight.

    Raises:
        SettingError: the stage trains something else, or decays the bias.
    """
    plan = parameter_plan(model, stage.train)
    decays = {name: group.decay for group in plan.trained for name in group.names}
    if decays.keys() != {WEIGHT, BIAS}:
        others = ", ".join(sorted(decays.keys() ^ {WEIGHT, BIAS}))
        raise SettingError(
            f"Stage {stage.name}: `solver: lbfgs` trains the classifier's weight and bias and "
            f"nothing else; {others} would make a difference. Use `train: head`, and a pooling "
            "that has nothing to learn."
        )
    if decays[BIAS] or not decays[WEIGHT]:
        raise SettingError(
            f"Stage {stage.name}: `solver: lbfgs` decays the classifier's weight and not its "
            f"bias, got multipliers {decays[WEIGHT]:g} and {decays[BIAS]:g}. Leave `decay` out."
        )
    return stage.weight_decay * decays[WEIGHT]


def not_converged(found: ExactHead) -> str | None:
    """Why a head can't be used; None where it can."""
    if found.converged:
        return None
    return (
        f"At weight decay {found.decay:g} the search for the minimum ended up to {found.gap:.1g} "
        f"nats above it, where {TOLERANCE:g} and a thousandth of the loss are allowed. Raise "
        "`weight_decay`, or let the stage take steps."
    )


def solve(
    model: Model, stage: Stage, inputs: StageInputs, ledger: Ledger, measure: Callable[[], None]
) -> None:
    """Find the minimum, write it into the classifier and the ledger, and measure.

    Raises:
        TrainingError: the search did not come near enough.
    """
    rows, labels = cast("FrozenInputs", inputs).train
    classes = len(model.get_parameter(BIAS))
    decay = exact_decay(model, stage)
    (found,) = decay_path(rows, labels, [decay], classes=classes, tolerance=TOLERANCE)
    if problem := not_converged(found):
        raise TrainingError(problem)
    with torch.no_grad():
        model.get_parameter(WEIGHT).copy_(found.weight)
        model.get_parameter(BIAS).copy_(found.bias)
    ledger.at.step += 1
    ledger.at.stage_step = 1
    ledger.record({"train/loss": found.loss}, stage)
    measure()
    ledger.hold_best(model)

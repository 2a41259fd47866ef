"""Parameter plans, against values worked out by hand."""

import pytest
import torch
from torch import nn

from fieldmark.errors import RecipeError
from fieldmark.recipe import Rate, Stage
from fieldmark.training.optim import (
    ParameterPlan,
    make_optimizer,
    parameter_plan,
    shape_gradients,
)


def small_model() -> nn.Module:
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model.head = nn.Sequential(nn.Linear(4, 2))
    return model


def plan_of(model: nn.Module, rates: dict[str, float]) -> ParameterPlan:
    return parameter_plan(model, {key: Rate(lr=value) for key, value in rates.items()})


def stage(**settings) -> Stage:
    return Stage(**{"name": "s", "train": "all", "lr": 0.2, "length": "1 epoch"} | settings)


def test_a_plan_sorts_by_first_match_and_by_decay():
    plan = plan_of(small_model(), {"backbone.1.*": 0, "backbone.*": 0.1, "*": 1})
    found = {(g.multiplier, g.decay): (g.names, g.count) for g in plan.groups}
    assert found == {
        (0, False): (("backbone.1.weight", "backbone.1.bias"), 8),
        (0.1, True): (("backbone.0.weight",), 12),
        (0.1, False): (("backbone.0.bias",), 4),
        (1, True): (("head.0.weight",), 8),
        (1, False): (("head.0.bias",), 2),
    }
    assert [g.multiplier for g in plan.trained] == [0.1, 0.1, 1, 1]


def test_a_plan_reads_well():
    plan = plan_of(small_model(), {"backbone.*": 0, "*": 1})
    lines = plan.describe(lr=0.5, weight_decay=1e-4)
    assert lines[0] == "         12 weights of backbone: frozen"
    assert lines[2] == "          8 weights of head: lr 0.5, weight decay 0.0001"
    assert lines[3] == "          2 biases and norms of head: lr 0.5, weight decay 0"


def test_an_uncovered_parameter_and_an_idle_pattern_are_refused_together():
    with pytest.raises(RecipeError, match=r"says nothing of backbone\.0\.weight") as caught:
        plan_of(small_model(), {"head.*": 1, "hed.*": 0})
    assert "decide over no parameter: hed.*" in str(caught.value)
    assert "names begin with backbone.*, head.*" in str(caught.value)


def test_a_pattern_shadowed_by_an_earlier_one_is_refused():
    with pytest.raises(RecipeError, match=r"decide over no parameter: head\.\*"):
        plan_of(small_model(), {"*": 1, "head.*": 10})


def test_the_optimizer_holds_what_the_plan_says():
    model = small_model()
    plan = plan_of(model, {"backbone.*": 0, "*": 0.5})
    optimizer = make_optimizer(model, plan, stage(weight_decay=0.01))
    groups = [(g["base_lr"], g["weight_decay"], g["momentum"]) for g in optimizer.param_groups]
    assert groups == [(0.1, 0.01, 0.9), (0.1, 0.0, 0.9)]
    held = [p for g in optimizer.param_groups for p in g["params"]]
    assert [id(p) for p in held] == [id(p) for p in model.head.parameters()]


def test_decay_can_be_given_by_pattern():
    rates = {"*.bias": Rate(lr=2, decay=0), "head.*": Rate(decay=3), "*": Rate(lr=0.5)}
    plan = parameter_plan(small_model(), rates)
    found = {(g.multiplier, g.decay): g.names for g in plan.groups}
    assert found == {
        (2, 0): ("backbone.0.bias", "backbone.1.bias", "head.0.bias"),
        (0.5, 1): ("backbone.0.weight",),
        (0.5, 0): ("backbone.1.weight",),
        (1, 3): ("head.0.weight",),
    }


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("sgd", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
        ("nesterov", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True)),
        ("adam", lambda p: torch.optim.Adam(p, lr=0.1)),
        ("adamw", lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.0)),
        ("rmsprop", lambda p: torch.optim.RMSprop(p, lr=0.1, alpha=0.9, momentum=0.9)),
    ],
)
def test_each_optimizer_is_torchs(name: str, make):
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    plan = plan_of(ours, {"*": 1})
    optimizers = (
        make_optimizer(ours, plan, stage(optimizer=name, lr=0.1)),
        make(theirs.parameters()),
    )
    for model, optimizer in zip((ours, theirs), optimizers, strict=True):
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)


def test_lion_moves_by_the_sign_of_the_gradient():
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(model, plan_of(model, {"*": 1}), stage(optimizer="lion", lr=0.01))
    model(torch.ones(2, 3)).square().sum().backward()
    expected = before - 0.01 * model.weight.grad.sign()
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), expected)


def test_l1_adds_the_sign_of_decayed_weights_only():
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(model, plan_of(model, {"*": 1}), stage(l1=0.25))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    shape_gradients(optimizer, None)
    assert torch.equal(model.weight.grad, 0.25 * model.weight.detach().sign())
    assert torch.equal(model.bias.grad, torch.zeros(2))


def test_clipping_scales_the_whole_gradient_to_the_norm():
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(model, plan_of(model, {"*": 1}), stage())
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    shape_gradients(optimizer, 1.5)
    total = sum(parameter.grad.square().sum() for parameter in model.parameters()) ** 0.5
    assert total.item() == pytest.approx(1.5, rel=1e-4)

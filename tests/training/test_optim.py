"""Parameter plans, against values worked out by hand."""

import pytest
from torch import nn

from fieldmark.errors import RecipeError
from fieldmark.training.optim import make_optimizer, parameter_plan


def small_model() -> nn.Module:
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model.head = nn.Sequential(nn.Linear(4, 2))
    return model


def test_a_plan_sorts_by_first_match_and_by_decay():
    plan = parameter_plan(small_model(), {"backbone.1.*": 0, "backbone.*": 0.1, "*": 1})
    found = {(g.multiplier, g.decayed): (g.names, g.count) for g in plan.groups}
    assert found == {
        (0, False): (("backbone.1.weight", "backbone.1.bias"), 8),
        (0.1, True): (("backbone.0.weight",), 12),
        (0.1, False): (("backbone.0.bias",), 4),
        (1, True): (("head.0.weight",), 8),
        (1, False): (("head.0.bias",), 2),
    }
    assert [g.multiplier for g in plan.trained] == [0.1, 0.1, 1, 1]


def test_a_plan_reads_well():
    plan = parameter_plan(small_model(), {"backbone.*": 0, "*": 1})
    lines = plan.describe(lr=0.5, weight_decay=1e-4)
    assert lines[0] == "         12 weights of backbone: frozen"
    assert lines[2] == "          8 weights of head: lr 0.5, weight decay 0.0001"
    assert lines[3] == "          2 biases and norms of head: lr 0.5, weight decay 0"


def test_an_uncovered_parameter_and_an_idle_pattern_are_refused_together():
    with pytest.raises(RecipeError, match=r"says nothing of backbone\.0\.weight") as caught:
        parameter_plan(small_model(), {"head.*": 1, "hed.*": 0})
    assert "decide over no parameter: hed.*" in str(caught.value)
    assert "names begin with backbone.*, head.*" in str(caught.value)


def test_a_pattern_shadowed_by_an_earlier_one_is_refused():
    with pytest.raises(RecipeError, match=r"decide over no parameter: head\.\*"):
        parameter_plan(small_model(), {"*": 1, "head.*": 10})


def test_the_optimizer_holds_what_the_plan_says():
    model = small_model()
    plan = parameter_plan(model, {"backbone.*": 0, "*": 0.5})
    optimizer = make_optimizer(model, plan, lr=0.2, momentum=0.9, weight_decay=0.01)
    groups = [(g["base_lr"], g["weight_decay"], g["momentum"]) for g in optimizer.param_groups]
    assert groups == [(0.1, 0.01, 0.9), (0.1, 0.0, 0.9)]
    held = [p for g in optimizer.param_groups for p in g["params"]]
    assert [id(p) for p in held] == [id(p) for p in model.head.parameters()]

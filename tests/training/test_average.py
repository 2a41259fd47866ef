"""The running average of weights, against its recursion written out by hand."""

import pytest
import torch
from torch import nn

from fieldmark.training.average import WeightAverage


def model_with(value: float) -> nn.Linear:
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(value)
        model.bias.fill_(0)
    return model


def test_it_follows_the_recursion():
    model = model_with(1.0)
    average = WeightAverage(model, 0.9)
    expected = 1.0
    for step, value in enumerate((2.0, -3.0, 5.0, 5.0), start=1):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert average.state()["weight"].item() == pytest.approx(expected)
    assert model.weight.item() == 5.0


def test_applied_is_undone_even_after_an_error():
    model = model_with(1.0)
    average = WeightAverage(model, 0.5)
    with torch.no_grad():
        model.weight.fill_(9.0)
    with pytest.raises(ZeroDivisionError, match="division"), average.applied():
        model.weight.item() / (model.weight.item() - 1.0)
    assert model.weight.item() == 9.0
    average.keep()
    assert model.weight.item() == 1.0


def test_frozen_parameters_have_no_average():
    model = model_with(1.0)
    model.bias.requires_grad_(False)
    assert list(WeightAverage(model, 0.5).state()) == ["weight"]

"""Logits that are no numbers are told with the first tensor to blame."""

import numpy as np
import pytest
import torch
from torch import nn

from fieldmark.training.nonfinite import bad_logits


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def test_numbers_are_nothing_to_tell():
    assert bad_logits(model(), np.full((4, 2), 3e38, np.float32), str) is None
    assert bad_logits(model(), np.zeros((0, 2), np.float32), str) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_are_named_and_those_after_four_counted(value: float):
    logits = np.zeros((9, 2), np.float32)
    logits[[0, 2, 3, 4, 7, 8], 1] = value
    told = bad_logits(model(), logits, "abcdefghi".__getitem__)
    assert told is not None
    assert told.startswith(
        "the logits of a, c, d, e and 2 more became infinite or nan. First bad: "
    )
    assert "First bad: the logits, of finite weights. Lower" in told


@pytest.mark.parametrize("name", ["0.weight", "1.running_var", "2.bias"])
def test_the_first_bad_tensor_is_named(name: str):
    blamed = model()
    with torch.no_grad():
        blamed.state_dict()[name].view(-1)[0] = torch.nan
    told = bad_logits(blamed, np.full((1, 2), np.nan, np.float32), str)
    assert f"First bad: {name}." in str(told)

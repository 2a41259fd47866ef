"""The chain from photos to logits, and where it is cut."""

import pytest
import torch

from fieldmark.errors import SettingError
from fieldmark.layers.model import make_head


@pytest.mark.parametrize("classes", [0, 1])
def test_a_head_tells_two_classes_apart_at_least(classes: int):
    with pytest.raises(SettingError, match=rf"needs at least 2 classes, got {classes}\."):
        make_head(8, classes)


def test_a_head_has_the_layers_it_is_asked_for():
    assert list(dict(make_head(8, 3).named_children())) == [
        "signed_sqrt",
        "l2_normalize",
        "classifier",
    ]
    plain = make_head(8, 3, signed_sqrt=False, l2_normalize=False, drop_rate=0.5)
    assert list(dict(plain.named_children())) == ["dropout", "classifier"]


def test_initial_weights_are_those_of_the_seed_within_their_bound():
    first, again, other = (make_head(16, 3, seed=seed)[-1].weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0.2 < first.abs().max() <= 16**-0.5

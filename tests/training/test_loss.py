import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from fieldmark.errors import SettingError
from fieldmark.training.loss import Loss, make_loss

LABELS = [0, 0, 0, 0, 1, 1, 2, 0]
NAMES = ["ani", "tern", "wren"]


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(0))


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    loss = make_loss(0, "balanced", labels=LABELS, class_names=NAMES)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.array(LABELS))
    assert loss.class_weights is not None
    assert loss.class_weights.tolist() == pytest.approx(expected)
    assert loss.weight(torch.tensor(LABELS)) == pytest.approx(8)  # a photo weighs 1 on average


def test_a_class_without_training_photos_weighs_one() -> None:
    loss = make_loss(0, "balanced", labels=[0, 0, 0, 2], class_names=NAMES)
    assert loss.class_weights is not None
    assert loss.class_weights.tolist() == pytest.approx([4 / 6, 1, 2])


def test_weights_by_name() -> None:
    loss = make_loss(0, {"wren": 3.0}, labels=LABELS, class_names=NAMES)
    assert loss.class_weights is not None
    assert loss.class_weights.tolist() == [1, 1, 3]
    with pytest.raises(SettingError, match=r"no class of the photos: robin\. .* ani, tern, wren"):
        make_loss(0, {"robin": 2.0}, labels=LABELS, class_names=NAMES)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, "balanced", {"tern": 2.0}])
def test_it_is_torchs_for_whole_labels(logits, smoothing, weights) -> None:
    loss = make_loss(smoothing, weights, labels=LABELS, class_names=NAMES)
    labels = torch.tensor(LABELS)
    expected = F.cross_entropy(logits, labels, weight=loss.class_weights, label_smoothing=smoothing)
    torch.testing.assert_close(loss.total(logits, labels) / loss.weight(labels), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, "balanced"])
def test_targets_that_are_whole_labels_give_the_same(logits, smoothing, weights) -> None:
    loss = make_loss(smoothing, weights, labels=LABELS, class_names=NAMES)
    labels = torch.tensor(LABELS)
    targets = F.one_hot(labels, 3).float()
    torch.testing.assert_close(loss.total(logits, targets), loss.total(logits, labels))
    assert loss.weight(targets) == pytest.approx(loss.weight(labels))


def test_mixed_targets_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    targets = torch.tensor([[0.75, 0.25, 0.0]])
    plain, weighted = Loss(), Loss(class_weights=torch.tensor([1.0, 2.0, 1.0]))
    assert plain.total(logits, targets).item() == pytest.approx(
        -0.75 * np.log(0.5) - 0.25 * np.log(0.25)
    )
    assert weighted.total(logits, targets).item() == pytest.approx(
        -0.75 * np.log(0.5) - 2 * 0.25 * np.log(0.25)
    )
    assert weighted.weight(targets) == 1.25

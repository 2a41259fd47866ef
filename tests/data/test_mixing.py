from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from fieldmark.data.chance import Chance
from fieldmark.data.mixing import Mixing
from fieldmark.errors import SettingError

CHANCE = Chance((0, 0, "batch", 0))
LABELS = torch.tensor([2, 0])


def constants(*values: float, side: int = 20) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, side, side + 4).clone()


def test_mixup_of_two_constant_images_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Chance, "beta", lambda *_: 0.75)
    images, targets = Mixing(mixup=1.0).mix(constants(4.0, -8.0), LABELS, 3, CHANCE)
    assert images[0].unique().tolist() == [1.0]  # 3/4 of 4, 1/4 of -8
    assert images[1].unique().tolist() == [-5.0]  # 3/4 of -8, 1/4 of 4
    assert targets.tolist() == [[0.25, 0, 0.75], [0.75, 0, 0.25]]


def test_cutmix_labels_are_the_shares_of_the_area() -> None:
    seen = []
    for number in range(60):
        chance = Chance((0, 0, "batch", number))
        images, targets = Mixing(cutmix=1.0).mix(constants(0.0, 1.0), LABELS, 3, chance)
        taken = images[0].mean().item()  # the other photo is 1, this one 0
        assert targets[0].tolist() == pytest.approx([taken, 0, 1 - taken], abs=1e-6)
        assert images[1].mean().item() == pytest.approx(1 - taken, abs=1e-6)
        rows, columns = images[0, 0].nonzero(as_tuple=True)
        if len(rows):  # it is a rectangle
            sides = [int(at.max() - at.min()) + 1 for at in (rows, columns)]
            assert sides[0] * sides[1] == len(rows)
        seen.append(taken)
    assert min(seen) < 0.05
    assert max(seen) > 0.7


@pytest.mark.parametrize(
    ("mixing", "kind"), [(Mixing(mixup=0.4), v2.MixUp), (Mixing(cutmix=1.0), v2.CutMix)]
)
def test_pixels_and_targets_are_torchvisions(mixing: Mixing, kind: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(4, 3, 20, 24, generator=generator)
    labels = torch.tensor([0, 2, 1, 2])
    theirs = kind(num_classes=3)
    share = CHANCE.beta(mixing.cutmix or mixing.mixup, "mix", "share")
    params: dict[str, Any] = {"labels": labels, "batch_size": 4, "lam": share}
    images, targets = mixing.mix(batch, labels, 3, CHANCE)
    if kind is v2.CutMix:
        changed = (images != batch)[0, 0].nonzero()
        (y1, x1), (y2, x2) = changed.amin(0).tolist(), (changed.amax(0) + 1).tolist()
        params |= {"box": (x1, y1, x2, y2)}
        params |= {"lam_adjusted": 1 - (x2 - x1) * (y2 - y1) / (20 * 24)}
    torch.testing.assert_close(images, theirs.transform(batch, params))
    torch.testing.assert_close(targets, theirs.transform(labels, params))


def test_two_ways_take_turns() -> None:
    ways = set()
    for number in range(30):
        chance = Chance((0, 0, "batch", number))
        images, _ = Mixing(1.0, 1.0).mix(constants(0.0, 1.0), LABELS, 3, chance)
        ways.add(set(images.unique().tolist()) <= {0.0, 1.0})
    assert ways == {True, False}


def test_it_leaves_the_callers_batch_alone_and_the_layout_fast() -> None:
    batch = constants(4.0, -8.0)
    for mixing in (Mixing(mixup=1.0), Mixing(cutmix=1.0)):
        images, targets = mixing.mix(batch, LABELS, 3, CHANCE)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(batch, constants(4.0, -8.0))
        torch.testing.assert_close(targets.sum(1), torch.ones(2))


def test_a_photo_alone_is_mixed_with_itself() -> None:
    images, targets = Mixing(mixup=1.0).mix(constants(4.0), torch.tensor([1]), 3, CHANCE)
    torch.testing.assert_close(images, constants(4.0))
    torch.testing.assert_close(targets, torch.tensor([[0.0, 1.0, 0.0]]))


def test_nothing_is_mixed_unless_asked_for() -> None:
    assert not Mixing()
    assert Mixing(cutmix=0.1)
    images, targets = Mixing().mix(constants(4.0, -8.0), LABELS, 3, CHANCE)
    assert torch.equal(images, constants(4.0, -8.0))
    assert targets.tolist() == [[0, 0, 1], [1, 0, 0]]


def test_it_refuses_when_built() -> None:
    with pytest.raises(SettingError, match="`cutmix` must be at least 0, got -1"):
        Mixing(cutmix=-1)

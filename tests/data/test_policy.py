"""Held against torchvision's own classes: their lists, magnitudes and pixels."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from fieldmark.data.chance import Chance
from fieldmark.data.policy import (
    LEVELS,
    OPERATIONS,
    RANDAUGMENT,
    TRIVIALAUGMENT,
    Magnitude,
    randaugment,
    trivialaugment,
)

SPACES = [(RANDAUGMENT, v2.RandAugment()), (TRIVIALAUGMENT, v2.TrivialAugmentWide())]
SIGNED = {*("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")} | {
    *("Brightness", "Color", "Contrast", "Sharpness")
}


@pytest.fixture(scope="module")
def photo() -> Tensor:
    noise = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    smooth = Image.fromarray(noise).resize((48, 40), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(smooth)).permute(2, 0, 1)


@pytest.mark.parametrize(("ours", "theirs"), SPACES)
def test_operations_and_magnitudes_are_torchvisions(
    ours: Mapping[str, Magnitude], theirs: v2.RandAugment
) -> None:
    assert list(ours) == list(theirs._AUGMENTATION_SPACE)
    for name, (bins, signed) in theirs._AUGMENTATION_SPACE.items():
        assert signed == (name in SIGNED)
        expected = bins(LEVELS, 40, 48)
        mine = [ours[name](level / (LEVELS - 1), 40, 48) for level in range(LEVELS)]
        if expected is None:
            assert set(mine) == {0}
        else:
            assert mine == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", list(OPERATIONS))
def test_pixels_are_torchvisions(photo: Tensor, name: str) -> None:
    for space, theirs in SPACES:
        for level in (0, 7, 18, 30):
            for sign in (1, -1) if name in SIGNED else (1,):
                magnitude = sign * space[name](level / (LEVELS - 1), 40, 48)
                expected = theirs._apply_image_or_video_transform(
                    photo, name, magnitude, InterpolationMode.NEAREST, {Tensor: None}
                )
                assert torch.equal(OPERATIONS[name](photo, magnitude), expected)


def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """Operations and magnitudes that come to be applied; pixels stay as they are."""
    calls: list[tuple[str, float]] = []

    def note(name: str):  # type: ignore[no-untyped-def]
        return lambda image, by: calls.append((name, by)) or image

    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, note(name))  # type: ignore[arg-type]
    return calls


def test_randaugment_applies_so_many_at_one_magnitude(
    photo: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = told(monkeypatch)
    for sample in range(300):
        randaugment(photo, Chance((0, 0, sample)), operations=3, magnitude=10)
    assert len(calls) == 900
    assert {name for name, _ in calls} == set(RANDAUGMENT)
    assert {abs(by) for name, by in calls if name == "Rotate"} == {10.0}
    assert {by for name, by in calls if name == "Rotate"} == {10.0, -10.0}
    assert {by for name, by in calls if name == "Posterize"} == {7}


def test_trivialaugment_applies_one_at_any_magnitude(
    photo: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = told(monkeypatch)
    for sample in range(3000):
        trivialaugment(photo, Chance((0, 0, sample)))
    assert len(calls) == 3000
    rotations = [by for name, by in calls if name == "Rotate"]
    assert len(rotations) == pytest.approx(3000 / 14, rel=0.3)
    assert len({abs(round(by, 3)) for by in rotations}) == LEVELS
    assert max(rotations) == 135
    assert min(rotations) == -135

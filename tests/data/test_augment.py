import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from fieldmark.data.augment import Augment
from fieldmark.data.chance import Chance
from fieldmark.errors import SettingError

MEAN = (10, 20, 30)


@pytest.fixture(scope="module")
def photo() -> Tensor:
    noise = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    smooth = Image.fromarray(noise).resize((48, 40), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(smooth)).permute(2, 0, 1)


def chances(count: int) -> list[Chance]:
    return [Chance((0, 0, str(sample))) for sample in range(count)]


def test_nothing_changes_unless_asked_for(photo: Tensor) -> None:
    assert torch.equal(Augment().apply(photo, Chance((0, 0, "a")), MEAN), photo)
    assert Augment().describe() == []


@pytest.mark.parametrize(
    ("name", "change", "middle"),
    [
        ("brightness", F.adjust_brightness, 1.0),
        ("contrast", F.adjust_contrast, 1.0),
        ("saturation", F.adjust_saturation, 1.0),
        ("hue", F.adjust_hue, 0.0),
    ],
)
def test_a_jitter_is_torchvisions_at_the_factor_drawn(
    photo: Tensor, name: str, change: Any, middle: float
) -> None:
    augment = Augment(**{name: 0.4})
    for chance in chances(5):
        factor = chance.uniform(middle - 0.4, middle + 0.4, name)
        assert torch.equal(augment.apply(photo, chance, MEAN), change(photo, factor))


def test_jitters_come_in_any_order(photo: Tensor) -> None:
    chance_first = set()
    for chance in chances(40):
        bright = chance.uniform(0.2, 1.8, "brightness")
        dull = chance.uniform(0.2, 1.8, "contrast")
        both = [
            F.adjust_contrast(F.adjust_brightness(photo, bright), dull),
            F.adjust_brightness(F.adjust_contrast(photo, dull), bright),
        ]
        got = Augment(brightness=0.8, contrast=0.8).apply(photo, chance, MEAN)
        matches = [torch.equal(got, expected) for expected in both]
        assert any(matches)
        chance_first.add(tuple(matches))
    assert {(True, False), (False, True)} <= chance_first


def test_a_factor_is_never_below_zero(photo: Tensor) -> None:
    drawn = [Augment(brightness=3).apply(photo, chance, MEAN).float() for chance in chances(20)]
    assert any(image.mean() > photo.float().mean() for image in drawn)


def test_erasing_paints_one_rectangle_of_the_mean(photo: Tensor) -> None:
    shares, ratios = [], []
    for chance in chances(300):
        changed = Augment(erase=1).apply(photo, chance, MEAN)
        painted = (changed == torch.tensor(MEAN, dtype=torch.uint8).view(3, 1, 1)).all(0)
        rows, columns = painted.nonzero(as_tuple=True)
        h, w = (int(at.max() - at.min()) + 1 for at in (rows, columns))
        assert int(painted.sum()) == h * w
        assert torch.equal(changed[:, ~painted], photo[:, ~painted])
        shares.append(h * w / (40 * 48))
        ratios.append(w / h)
    assert 0.015 < min(shares) < 0.05
    assert 0.28 < max(shares) < 0.35
    assert min(ratios) < 0.5
    assert max(ratios) > 2


def test_a_share_of_photos_is_erased_and_the_callers_is_not(photo: Tensor) -> None:
    before = photo.clone()
    changed = [
        not torch.equal(Augment(erase=0.25).apply(photo, chance, MEAN), photo)
        for chance in chances(400)
    ]
    assert 70 < sum(changed) < 130
    assert torch.equal(photo, before)


def test_crops_have_the_area_and_shape_asked_for() -> None:
    augment = Augment(crop_area=(0.3, 0.6), crop_ratio=(0.8, 1.25))
    areas, ratios, tops = [], [], []
    for chance in chances(2000):
        top, left, height, width = augment.crop(300, 400, chance)
        assert top >= 0
        assert left >= 0
        assert top + height <= 300 + 1e-9
        assert left + width <= 400 + 1e-9
        areas.append(height * width / (300 * 400))
        ratios.append(width / height)
        tops.append(top / max(300 - height, 1e-9))
    assert (min(areas), max(areas)) == pytest.approx((0.3, 0.6), abs=0.01)
    assert (min(ratios), max(ratios)) == pytest.approx((0.8, 1.25), abs=0.02)
    assert np.mean(areas) == pytest.approx(0.45, abs=0.01)  # uniform in area
    assert np.mean(np.log(ratios)) == pytest.approx(0, abs=0.02)  # and in the logarithm of shape
    assert np.mean(tops) == pytest.approx(0.5, abs=0.03)


def test_a_crop_grows_with_the_photo() -> None:
    augment = Augment(crop_area=(0.08, 1.0))
    for chance in chances(50):
        small, large = augment.crop(300, 401, chance), augment.crop(600, 802, chance)
        assert large == pytest.approx([2 * side for side in small])


@pytest.mark.parametrize(("height", "width"), [(10, 200), (200, 10)])
def test_where_no_crop_fits_the_largest_allowed_is_taken_at_the_centre(
    height: int, width: int
) -> None:
    augment = Augment(crop_area=(1.0, 1.0), crop_ratio=(0.5, 2.0))
    top, left, h, w = augment.crop(height, width, Chance((0, 0, "a")))
    assert (h, w) == ((10, 20) if width > height else (20, 10))
    assert (top, left) == ((height - h) / 2, (width - w) / 2)


def test_describe_says_what_is_on() -> None:
    augment = Augment(brightness=0.2, hue=0.05, policy="randaugment", erase=0.25)
    assert augment.describe() == [
        *("brightness ± 0.2", "hue ± 0.05", "randaugment 2 x 9", "25% partly erased")
    ]
    assert Augment(policy="trivialaugment").describe() == ["trivialaugment"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop_area": (0.0, 1.0)}, r"`crop_area` must be two shares.*got \(0\.0, 1\.0\)\. Use"),
        ({"crop_area": (0.9, 0.3)}, "0 < least <= most"),
        ({"crop_ratio": (2.0, 0.5)}, "`crop_ratio` must be two"),
        ({"brightness": -0.1}, r"`brightness` must be at least 0, got -0\.1"),
        ({"contrast": math.inf}, "`contrast` must be at least 0, got inf"),
        ({"hue": 0.6}, r"`hue` must be from 0 to 0\.5, got 0\.6"),
        ({"policy": "autoaugment"}, "`policy` must be none, randaugment, trivialaugment, got 'aut"),
        ({"policy_operations": 0}, "`policy_operations` must be at least 1, got 0"),
        ({"policy_magnitude": 31}, "`policy_magnitude` must be from 0 to 30, got 31"),
        ({"erase": 1.5}, r"`erase` must be a probability, got 1\.5"),
    ],
)
def test_it_refuses_when_built(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Augment(**fields)

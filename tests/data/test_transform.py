from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from fieldmark.data.transform import IMAGENET_MEAN, IMAGENET_STD, View, default_resize_size
from fieldmark.errors import SettingError


def coordinates(side: int) -> Tensor:
    """(3, side, side): each pixel holds its row, its column and 7."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([rows, columns, torch.full_like(rows, 7)]).to(torch.uint8)


def window(image: Tensor) -> tuple[int, int, bool]:
    """Top, left and mirrored, read off a crop of `coordinates`."""
    columns = image[1, 0].tolist()
    return int(image[0, 0, 0]), min(columns), columns[0] > columns[-1]


@pytest.mark.parametrize(
    ("image_size", "resize_size"), [(224, 256), (448, 512), (336, 384), (7, 8)]
)
def test_default_resize_size(image_size: int, resize_size: int) -> None:
    assert default_resize_size(image_size) == resize_size


@pytest.mark.parametrize(("resize_size", "offset"), [(224, 0), (225, 0), (226, 1), (255, 15)])
def test_centre_crop(resize_size: int, offset: int) -> None:
    image = View(224, resize_size, crop="centre").apply(coordinates(resize_size))
    assert image.shape == (3, 224, 224)
    assert window(image) == (offset, offset, False)


def test_random_crops_are_windows_and_mirrors_and_reach_everywhere() -> None:
    view, source = View(60, 64, mirror=True), coordinates(64)
    seen = set()
    for epoch in range(600):
        image = view.apply(source, seed=0, epoch=epoch, sample="a.jpg")
        top, left, mirrored = window(image)
        expected = source[:, top : top + 60, left : left + 60]
        assert torch.equal(image, expected.flip(-1) if mirrored else expected)
        seen.add((top, left, mirrored))
    # 50 kinds, each missed by all 600 draws with probability 5e-6.
    assert seen == {(t, c, m) for t in range(5) for c in range(5) for m in (False, True)}


def test_chance_depends_on_seed_epoch_and_sample_and_nothing_else() -> None:
    view, source = View(40, 64, mirror=True), coordinates(64)

    def shown(seed: int, epoch: int, sample: str) -> tuple[int, int, bool]:
        return window(view.apply(source, seed=seed, epoch=epoch, sample=sample))

    first = shown(0, 0, "a")
    torch.manual_seed(5)
    np.random.seed(5)
    assert shown(0, 0, "a") == first
    assert len({first, shown(1, 0, "a"), shown(0, 1, "a"), shown(0, 0, "b")}) == 4


def test_global_generators_are_left_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    View(40, 64, mirror=True).apply(coordinates(64), seed=3)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # type: ignore[index]


def test_mirror_changes_no_crop() -> None:
    plain, mirrored = View(40, 64), View(40, 64, mirror=True)
    for epoch in range(20):
        images = [view.apply(coordinates(64), epoch=epoch) for view in (plain, mirrored)]
        assert window(images[0])[:2] == window(images[1])[:2]


def test_eval_takes_chance_out() -> None:
    view = View(40, 64, "bicubic", crop="random", mirror=True)
    assert view.eval() == View(40, 64, "bicubic", crop="centre", mirror=False)
    images = [view.eval().apply(coordinates(64), seed=seed, sample=str(seed)) for seed in range(5)]
    assert all(window(image) == (12, 12, False) for image in images)


def test_the_whole_photo_is_squashed() -> None:
    source = torch.zeros(3, 200, 300, dtype=torch.uint8)
    source[:, 100:, 200:] = 255  # a sixth of the photo, at its lower right
    squashed = View(60, 60, crop="centre").apply(source)
    expected = torch.zeros(3, 60, 60, dtype=torch.uint8)
    expected[:, 30:, 40:] = 255
    inside = torch.ones(60, 60, dtype=torch.bool)
    inside[29:31] = inside[:, 39:41] = False  # the edge itself is blurred by the filter
    assert torch.equal(squashed[:, inside], expected[:, inside])


def from_array(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)


def test_a_constant_stays_constant() -> None:
    for interpolation in ("bilinear", "bicubic"):
        view = View(50, 57, interpolation)
        assert view.apply(torch.full((3, 333, 77), 201, dtype=torch.uint8)).unique().tolist() == [
            201
        ]


@pytest.mark.parametrize(("interpolation", "most"), [("bilinear", 1), ("bicubic", 2)])
def test_squash_agrees_with_pillow(interpolation: str, most: int) -> None:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8))
    image = small.resize((500, 370), Image.Resampling.BICUBIC)
    expected = image.resize((256, 256), Image.Resampling[interpolation.upper()])
    squashed = View(256, 256, interpolation, crop="centre").apply(from_array(np.array(image)))
    difference = np.abs(squashed.permute(1, 2, 0).numpy() - np.array(expected, dtype=np.int16))
    assert difference.max() <= most  # grey levels; the two round between their passes differently
    assert difference.mean() < 0.1


def test_apply_never_hands_out_the_callers_memory() -> None:
    source = coordinates(64)
    View(64, 64, crop="centre").apply(source).fill_(0)
    assert torch.equal(source, coordinates(64))


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalize(channels_last: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 9, 8), dtype=torch.uint8, generator=generator)
    view = View(8, 8)
    normalized = view.normalize(images, dtype, channels_last=channels_last)
    expected = v2.functional.normalize(images / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {}
    torch.testing.assert_close(normalized, expected.to(dtype), **tolerance)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert normalized.is_contiguous(memory_format=layout)


def test_normalize_zero_and_one() -> None:
    view = View(1, 1, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    expected = torch.tensor([[-1.0, -1.0, 0.0], [1.0, 3.0, 0.5]])
    torch.testing.assert_close(view.normalize(images)[:, :, 0, 0], expected)


def test_a_view_survives_being_written() -> None:
    view = View(448, 512, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "centre", mirror=True)
    assert View.from_dict(view.to_dict()) == view
    with pytest.raises(SettingError, match=r"missing: \['mirror'\], unknown: \['flip'\]"):
        View.from_dict({**{k: v for k, v in view.to_dict().items() if k != "mirror"}, "flip": True})


def test_describe_says_all_that_changes_pixels() -> None:
    assert View(224, 256, mirror=True).describe() == (
        "squash to 256 x 256 (bilinear, antialiased), random crop 224, mirrored at random, "
        "mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 0}, r"`image_size` must be at least 1, got 0\. Use 224\."),
        ({"resize_size": 223}, r"at least `image_size` \(224\), got 223\. Use 256\."),
        ({"interpolation": "nearest"}, "must be bilinear or bicubic, got 'nearest'"),
        ({"crop": "center"}, "`crop` must be random or centre, got 'center'"),
        ({"std": (0.2, 0.0, 0.2)}, "with `std` above 0, got"),
        ({"mean": (0.5,)}, "three numbers each"),
    ],
)
def test_a_view_refuses_when_built(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        View(**{"image_size": 224, "resize_size": 256, **fields})

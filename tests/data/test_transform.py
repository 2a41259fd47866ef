import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from fieldmark.data import strip, transform
from fieldmark.data.augment import Augment
from fieldmark.data.chance import Chance
from fieldmark.data.decoding import decode
from fieldmark.data.transform import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    View,
    _cut,
    default_resize_size,
)
from fieldmark.errors import DataError, SettingError

ALL = Augment(
    crop_area=(0.2, 0.9),
    brightness=0.4,
    contrast=0.3,
    saturation=0.2,
    hue=0.1,
    policy="randaugment",
    erase=0.5,
)


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
    View(40, 64, mirror=True, augment=ALL).apply(coordinates(64), seed=3)
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
    assert replace(view, augment=ALL).eval() == view.eval()
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_normalize(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 9, 8), dtype=torch.uint8, generator=generator)
    view = View(8, 8)
    normalized = view.normalize(images, dtype)
    expected = v2.functional.normalize(images / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {}
    torch.testing.assert_close(normalized, expected.to(dtype), **tolerance)
    assert normalized.is_contiguous(memory_format=torch.channels_last)


def test_normalize_zero_and_one() -> None:
    view = View(1, 1, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    expected = torch.tensor([[-1.0, -1.0, 0.0], [1.0, 3.0, 0.5]])
    torch.testing.assert_close(view.normalize(images)[:, :, 0, 0], expected)


def test_a_view_survives_being_written() -> None:
    view = View(448, 512, "bicubic", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "centre", mirror=True)
    assert View.from_dict(json.loads(json.dumps(view.to_dict()))) == view
    augment = Augment(crop_area=(0.3, 1.0), policy="randaugment")
    rich = replace(view, resize="keep_aspect", box_margin=0.1, augment=augment)
    assert View.from_dict(json.loads(json.dumps(rich.to_dict()))) == rich
    with pytest.raises(SettingError, match=r"missing: \['mirror'\], unknown: \['flip'\]"):
        View.from_dict({**{k: v for k, v in view.to_dict().items() if k != "mirror"}, "flip": True})


def test_describe_says_all_that_changes_pixels() -> None:
    assert View(224, 256, mirror=True).describe() == (
        "squash to 256 x 256 (bilinear, antialiased), random crop 224, mirrored at random, "
        "mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)"
    )
    assert (
        View(224, 256, resize="keep_aspect", box_margin=0.1)
        .eval()
        .describe()
        .startswith(
            "cut to boxes plus 10%, shorter side to 256 (bilinear, antialiased), centre crop 224, "
        )
    )
    assert (
        View(224, 256, augment=ALL)
        .describe()
        .startswith(
            "random 20% to 90% of the area to 224 (bilinear, antialiased), not mirrored, "
            "brightness ± 0.4, contrast ± 0.3, saturation ± 0.2, hue ± 0.1, randaugment 2 x 9, "
            "50% partly erased, mean"
        )
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
        ({"resize": "pad"}, "must be squash or keep_aspect, got 'pad'"),
        ({"box_margin": -0.1}, r"`box_margin` must be at least 0, got -0\.1"),
    ],
)
def test_a_view_refuses_when_built(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        View(**{"image_size": 224, "resize_size": 256, **fields})


@pytest.mark.parametrize("shape", [(300, 400), (401, 300), (64, 1000), (256, 256), (100, 101)])
def test_sides_that_keep_their_aspect_are_torchvisions(shape: tuple[int, int]) -> None:
    image = torch.zeros(3, *shape, dtype=torch.uint8)
    expected = v2.Resize(256)(image).shape[-2:]
    view = View(224, 256, resize="keep_aspect")
    assert tuple(map(int, view._resized(*map(float, shape)))) == tuple(expected)


def test_keeping_the_aspect_crops_the_longer_side() -> None:
    source = torch.zeros(3, 100, 200, dtype=torch.uint8)
    source[:, :, 50:150] = 255  # the square in the middle
    view = View(100, 100, resize="keep_aspect")
    assert view.eval().apply(source).unique().tolist() == [255]
    lefts = {int((view.apply(source, epoch=epoch)[0, 0] == 0).sum()) for epoch in range(200)}
    assert max(lefts) >= 49  # the window reaches the ends
    assert len(lefts) > 40


@pytest.mark.parametrize("shape", [(20, 600), (900, 13), (331, 6000), (3, 100)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_of_a_strip_the_window_shows_what_it_shows_of_the_whole(
    shape: tuple[int, int], interpolation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the window is: at both ends, and between them."""
    colours = np.random.default_rng(0).integers(0, 256, (*(1 + side // 9 for side in shape), 3))
    smooth = Image.fromarray(colours.astype(np.uint8)).resize(shape[::-1], Image.Resampling.BICUBIC)
    image = torch.from_numpy(np.asarray(smooth).copy()).permute(2, 0, 1)
    view = View(56, 64, interpolation, resize="keep_aspect")
    for epoch in range(12):
        seen = view.apply(image, epoch=epoch)
        with monkeypatch.context() as patched:
            patched.setattr(strip, "LONGEST", math.inf)
            whole = view.apply(image, epoch=epoch)
        assert seen.shape == whole.shape == (3, 56, 56)
        assert (seen.float() - whole.float()).abs().mean() < 3
    ends = [view._corner(64, 6400, Chance((0, epoch, ""))) for epoch in range(12)]
    assert len({left for _, left in ends}) > 6


@pytest.mark.parametrize("long", [0, 6344])
def test_a_strips_ends_are_its_ends(long: int) -> None:
    image = torch.arange(100).repeat(3, 1, 1).to(torch.uint8)  # (3, 1, 100)
    part, size, corner = strip.around_window(image, (64, 6400), (0, long), 56)
    assert size[0] == 64
    assert part.shape[-1] <= 4
    shown = v2.functional.resize(part, list(size))[0, 0, corner[1] : corner[1] + 56]
    assert (shown[0] == 0) if long == 0 else (shown[-1] == 99)
    turned = strip.around_window(image.mT, (6400, 64), (long, 0), 56)
    assert torch.equal(turned[0].mT, part)
    assert (turned[1][::-1], turned[2][::-1]) == (size, corner)


@given(
    short=st.integers(1, 40),
    times=st.floats(17, 400),
    window=st.integers(1, 90),
    room=st.integers(0, 30),
    place=st.floats(0, 1),
)
def test_a_window_lies_in_what_is_resized_of_a_strip(
    short: int, times: float, window: int, room: int, place: float
) -> None:
    resized = window + room, int((window + room) * times)
    image = torch.zeros(1, dtype=torch.uint8).expand(3, short, int(short * times))
    corner = room // 2, round(place * (resized[1] - window))
    part, size, (top, left) = strip.around_window(image, resized, corner, window)
    assert (top, size[0], part.shape[-2]) == (corner[0], resized[0], short)
    assert 0 <= left <= left + window <= size[1]
    assert part.shape[-1] >= 1


@pytest.mark.parametrize("shape", [(100, 1600), (48, 300), (224, 224), (1000, 70)])
def test_what_is_no_strip_is_resized_whole(shape: tuple[int, int]) -> None:
    image = torch.zeros(3, *shape, dtype=torch.uint8)
    size = tuple(int(64 * side / min(shape)) for side in shape)
    assert strip.around_window(image, size, (3, 4), 56) == (image, size, (3, 4))


def test_a_strip_takes_no_more_memory_than_a_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    resize, resized = transform.F.resize, list[int]()

    def measured(image: Tensor, size: list[int], **how: Any) -> Tensor:
        resized.append(math.prod(size))
        return resize(image, size, **how)

    monkeypatch.setattr(transform.F, "resize", measured)
    for shape in ((1, 10_000), (10_000, 1), (2, 90_000), (1000, 1)):
        View(448, 512, resize="keep_aspect").apply(torch.zeros(3, *shape, dtype=torch.uint8))
    assert max(resized) <= strip.LONGEST * 512**2


def boxed(box: tuple[float, float, float, float], margin: float, side: int = 64) -> tuple[int, ...]:
    """Rows and columns seen of `coordinates`, without resizing."""
    part = View(8, 8, box_margin=margin)._part(side, side, box, Chance((0, 0, "bird.jpg")))
    seen = _cut(coordinates(side), part)
    assert seen.shape[-2:] == (len(seen[0].unique()), len(seen[1].unique()))
    top, left = int(seen[0].min()), int(seen[1].min())
    return top, left, int(seen[0].max()) + 1, int(seen[1].max()) + 1


@pytest.mark.parametrize(
    ("box", "margin", "expected"),  # left, top, width, height -> top, left, bottom, right
    [
        ((10, 20, 30, 16), 0.0, (20, 10, 36, 40)),
        ((10, 20, 30, 16), 0.25, (16, 2, 40, 48)),  # 4 above and below, 7.5 left and right
        ((2, 3, 30, 16), 0.5, (0, 0, 27, 47)),  # cut off at the upper left
        ((40, 50, 30, 30), 0.5, (35, 25, 64, 64)),  # and at the lower right
        ((0, 0, 64, 64), 1.0, (0, 0, 64, 64)),
        ((-5, -5, 10, 10), 0.0, (0, 0, 5, 5)),
        ((63.8, 10, 5, 0.2), 0.0, (10, 63, 11, 64)),  # at least one pixel
    ],
)
def test_boxes_and_their_margins_at_the_borders(box: Any, margin: float, expected: Any) -> None:
    assert boxed(box, margin) == expected


def test_a_box_is_looked_at_only_where_asked_for() -> None:
    source = torch.zeros(3, 64, 64, dtype=torch.uint8)
    source[:, 16:32, 16:32] = 255
    box = (16.0, 16.0, 16.0, 16.0)
    assert View(8, 8, box_margin=0).apply(source, box=box).unique().tolist() == [255]
    assert torch.equal(View(8, 8).apply(source, box=box), View(8, 8).apply(source))
    assert torch.equal(View(8, 8, box_margin=0).apply(source), View(8, 8).apply(source))


def test_a_box_outside_its_photo_is_named(tmp_path: Path) -> None:
    view = View(8, 8, box_margin=0.1)
    with pytest.raises(DataError, match=r"box of `bird\.jpg` \(left 90, .* outside its 64 x 64"):
        view.apply(coordinates(64), box=(90, 0, 10, 10), sample="bird.jpg")
    Image.new("RGB", (64, 64)).save(tmp_path / "bird.jpg")
    with pytest.raises(DataError, match=r"^The box of `bird\.jpg`"):
        view.load(tmp_path / "bird.jpg", box=(90, 0, 10, 10), sample="bird.jpg")


def test_random_resized_crops_stay_inside_the_box() -> None:
    source = torch.zeros(3, 64, 64, dtype=torch.uint8)
    source[:, 16:48, 20:52] = 255
    view = View(16, 16, box_margin=0, augment=Augment(crop_area=(0.1, 1.0)))
    for epoch in range(100):
        assert view.apply(source, box=(20, 16, 32, 32), epoch=epoch).unique().tolist() == [255]


def smooth_photo(path: Path, width: int, height: int) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=95)
    return path


@pytest.mark.parametrize(
    ("view", "most"),  # grey levels
    [
        (View(56, 64, crop="centre"), 0.5),
        (View(56, 64, resize="keep_aspect", crop="centre"), 0.5),
        (View(56, 64, box_margin=0.1, crop="centre"), 0.5),
        # Cut to the nearest coarse pixel, which moves the crop by a quarter of its own at most.
        (View(56, 64, augment=Augment(crop_area=(0.3, 1.0))), 1.0),
    ],
)
@pytest.mark.parametrize("box", [None, (200.0, 100.0, 500.0, 400.0)])
def test_less_is_decoded_of_a_large_photo_and_little_is_lost(
    tmp_path: Path, view: View, most: float, box: Any
) -> None:
    path = smooth_photo(tmp_path / "x.jpg", 800, 600)
    reduced = view.load(path, box=box, sample="x")
    whole = view.apply(decode(path), box=box, sample="x")
    assert not torch.equal(reduced, whole)
    assert (reduced.float() - whole.float()).abs().mean() < most


def test_a_grainy_large_photo_differs_from_pillow_by_less_than_half_a_grey_level(
    tmp_path: Path,
) -> None:
    smooth = np.asarray(Image.open(smooth_photo(tmp_path / "s.png", 1600, 1200)), np.float32)
    grain = np.random.default_rng(0).normal(0, 2.5, (1200, 1600, 1))
    photo = Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))
    photo.save(tmp_path / "x.jpg", quality=90)
    square = Image.open(tmp_path / "x.jpg").resize((128, 128), Image.Resampling.BILINEAR)
    ours = View(128, 128, crop="centre").load(tmp_path / "x.jpg").permute(1, 2, 0).numpy()
    assert np.abs(ours.astype(np.int16) - np.asarray(square)).mean() <= 0.5


def test_a_photo_of_less_than_four_times_the_size_is_decoded_whole(tmp_path: Path) -> None:
    path = smooth_photo(tmp_path / "x.jpg", 300, 255)
    view = View(56, 64, mirror=True, augment=ALL)
    for sample in "abc":
        assert torch.equal(view.load(path, sample=sample), view.apply(decode(path), sample=sample))


def test_pixels_are_channels_last_whatever_changed_them() -> None:
    for policy in ("randaugment", "trivialaugment"):
        for sample in range(20):
            view = View(40, 64, mirror=True, augment=replace(ALL, policy=policy))
            image = view.apply(coordinates(64), sample=str(sample))
            assert image.shape == (3, 40, 40)
            assert image.permute(1, 2, 0).is_contiguous()

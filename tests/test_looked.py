"""A class's score splits over positions: by closed forms, and by sketching each position apart."""

import numpy as np
import pytest
import torch
from torch import nn

from fieldmark.layers.model import Model, make_head
from fieldmark.layers.pooling import CompactBilinearPooling, make_pooling
from fieldmark.looked import score_shares

CHANNELS, SIDE, CLASSES, PHOTOS = 6, 4, 5, 3
POOLINGS = {
    "average": {},
    "max": {},
    "gem": {"p": 2.5},
    "bilinear": {},
    "compact_bilinear": {"sketch_dim": 64},
    "maclaurin": {"sketch_dim": 64, "method": "random_maclaurin"},
    "covariance": {},
}


def make(name, *, signed_sqrt=True, l2_normalize=True):
    options = POOLINGS[name]
    kind = "compact_bilinear" if name == "maclaurin" else name
    pooling = make_pooling(kind, CHANNELS, seed=3, **options)
    head = make_head(
        pooling.out_features,
        CLASSES,
        signed_sqrt=signed_sqrt,
        l2_normalize=l2_normalize,
        drop_rate=0.5,
        seed=1,
    )
    return Model(nn.Identity(), pooling, head).double().eval()  # type: ignore[arg-type]


def feature_maps():
    generator = torch.Generator().manual_seed(0)
    shape = PHOTOS, CHANNELS, SIDE, SIDE
    return torch.rand(shape, generator=generator, dtype=torch.float32) + 0.1


def above_mean(model, maps, classes):
    """How far each photo's class is above the mean class, biases left out."""
    with torch.inference_mode():
        seen = model.head[:-1](model.pooling(maps.double()))
        logits = seen @ model.head[-1].weight.T
    return (logits - logits.mean(1, keepdim=True))[torch.arange(len(maps)), classes]


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("signed_sqrt", [True, False])
@pytest.mark.parametrize("l2_normalize", [True, False])
def test_shares_sum_to_the_score(name, signed_sqrt, l2_normalize):
    model, maps = make(name, signed_sqrt=signed_sqrt, l2_normalize=l2_normalize), feature_maps()
    classes = torch.tensor([0, 4, 2])
    model.float()
    shares = score_shares(model, maps, classes)
    assert shares.shape == (PHOTOS, SIDE, SIDE)
    expected = above_mean(model.double(), maps, classes)
    np.testing.assert_allclose(shares.sum((1, 2)), expected, rtol=2e-3, atol=2e-5)


def weights_of(model, maps, classes):
    """w c, entry by entry, from the formulas."""
    y = model.pooling(maps)
    root = y / (y.abs() + 1e-6).sqrt()
    c = 1 / (y.abs() + 1e-6).sqrt() / root.norm(dim=1, keepdim=True)
    w = model.head[-1].weight
    return (w[classes] - w.mean(0)) * c


def test_an_average_is_split_by_what_each_position_adds():
    model, maps = make("average").float(), feature_maps()
    classes = torch.tensor([1, 1, 3])
    with torch.inference_mode():
        weights = weights_of(model, maps, classes)
        expected = torch.einsum("bc,bchw->bhw", weights, maps) / SIDE**2
    np.testing.assert_allclose(score_shares(model, maps, classes), expected, rtol=1e-4, atol=1e-7)


def test_a_bilinear_score_is_a_quadratic_form_at_each_position():
    model, maps = make("bilinear").float(), feature_maps()
    classes = torch.tensor([1, 0, 3])
    with torch.inference_mode():
        form = weights_of(model, maps, classes).view(PHOTOS, CHANNELS, CHANNELS)
        expected = torch.einsum("bcd,bchw,bdhw->bhw", form, maps, maps)
    np.testing.assert_allclose(score_shares(model, maps, classes), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["compact_bilinear", "maclaurin"])
def test_a_sketch_is_split_as_each_position_sketched_by_itself(name):
    model, maps = make(name).float(), feature_maps()
    classes = torch.tensor([2, 0, 4])
    options = POOLINGS[name]
    apart = CompactBilinearPooling(CHANNELS, seed=3, pool=False, **options)
    with torch.inference_mode():
        weights = weights_of(model, maps, classes)
        expected = torch.einsum("bd,bdhw->bhw", weights, apart(maps))
    np.testing.assert_allclose(score_shares(model, maps, classes), expected, rtol=1e-3, atol=1e-5)


def test_a_position_without_features_has_no_share():
    model, maps = make("compact_bilinear").float(), feature_maps()
    maps[:, :, 1, 2] = 0
    shares = score_shares(model, maps, torch.tensor([0, 1, 2]))
    assert (shares[:, 1, 2] == 0).all()
    assert (shares != 0).sum() > 40

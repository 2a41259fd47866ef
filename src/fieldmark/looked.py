"""Where in a photo the model found its class: the class's score, split over positions.

The pooled vector y is a sum over positions, and head and classifier weigh its entries:

    score = w . N(y) = sum_d w_d c_d y_d,   c_d = 1 / (sqrt(|y_d| + eps) |signed_sqrt(y)|)

c is what the signed square root and the L2 norm do to entry d of this photo. Held at its value,
the score is linear in y and still the score itself, so with y = sum_p f(x_p) position p has the
share (w c) . f(x_p), and the shares sum to the score exactly. (The gradient in place of c would
not do: a norm does not change with the length of y, so gradient times y is always 0.)

No f(x_p) need be made: f is homogeneous, of degree 1 for averages and 2 for bilinear poolings,
sketched or not, so by Euler's theorem the share is x_p . d score / d x_p over the degree, one
backward pass for all positions. For max, GeM and covariance pooling, which do not sum over
positions, Euler's split is the same formula, and sums to the score too.

A score means nothing by itself: what is split is how far the named class is above the mean class.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fieldmark import durable
from fieldmark.build import read_data
from fieldmark.data.dataset import Photo
from fieldmark.data.transform import View
from fieldmark.layers.backbone import frozen_copy
from fieldmark.layers.model import Model
from fieldmark.layers.pooling import BilinearPooling, CompactBilinearPooling
from fieldmark.predict import Predictor, evaluating, for_head, frozen_maps
from fieldmark.studies.judged import LOOKED, Judged, judged
from fieldmark.studies.run import Run

Looks = dict[str, NDArray[np.float16]]
"""A photo's key -> the share of each position, (H, W)."""
MapsOf = Callable[[Sequence[Photo]], Iterable[tuple[list[int], Tensor]]]
"""From photos to (positions in them, feature maps (n, C, H, W)), until each came once."""


def score_shares(model: Model, maps: Tensor, classes: Tensor) -> Tensor:
    """Split how far a class is above the mean class over the positions of each map.

    Args:
        model: in eval mode; its head ends in a linear classifier.
        maps: feature maps (B, C, H, W), on any device.
        classes: the class asked about, (B,).

    Returns:
        (B, H, W), where the maps are, which sums to `logit - mean logit` without the biases.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():  # whoever asks may be without
        x = for_head(model, maps.clone()).requires_grad_()  # (B, C, H, W)
        y = model.pooling(x)  # (B, D)
        weights = _weights(model.head, y.detach(), classes.to(x.device))  # (B, D)
        (slope,) = torch.autograd.grad((weights * y).sum(), x)  # (B, C, H, W)
    bilinear = isinstance(model.pooling, (BilinearPooling, CompactBilinearPooling))
    return ((x.detach() * slope).sum(1) / (2 if bilinear else 1)).to(maps.device)


def _weights(head: nn.Sequential, y: Tensor, classes: Tensor) -> Tensor:
    """What each entry of the pooled vectors (B, D) counts for, (B, D): w c."""
    *before, classifier = head
    assert isinstance(classifier, nn.Linear)
    w = classifier.weight.detach()[classes] - classifier.weight.detach().mean(0)
    seen = nn.Sequential(*before)(y)  # (B, D); no entry changes its sign
    return w * torch.where(y == 0, 0, seen / torch.where(y == 0, 1, y))


def looks_of(model: Model, found: Judged, photos: Sequence[Photo], maps_of: MapsOf) -> Looks:
    """Where a model found the classes that it named, in the few photos that are worth it.

    Args:
        model: as it judged the photos.
        found: what was said of them, and perhaps of others.
        photos: those that this model judged.
        maps_of: what its backbone makes of them.
    """
    guesses = {found.paths[i]: int(found.guesses[i]) for i in found.telling()}
    chosen = [photo for photo in photos if photo.key in guesses]
    looks: Looks = {}
    if not chosen:
        return looks
    with evaluating(model):
        for positions, maps in maps_of(chosen):
            keys = [chosen[position].key for position in positions]
            shares = score_shares(model, maps, torch.tensor([guesses[key] for key in keys]))
            looks |= dict(zip(keys, shares.numpy().astype(np.float16), strict=True))
    return looks


def write_looks(run: Run, looks: Looks) -> None:
    """Keep them with the run's predictions."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, paths=np.array(list(looks)), shares=np.stack(list(looks.values())))
    durable.replace(run.folder / "predictions" / LOOKED, buffer.getvalue())


def keep_looks(
    run: Run, model: Model, view: View, photos: Sequence[Photo], dtype: torch.dtype
) -> None:
    """Write down where the model looked in the few photos of `val` that are worth it.

    Args:
        run: with its predictions.
        model: as it made them.
        view: the eval view.
        photos: those of `val`.
        dtype: what the backbone computes in.
    """
    if found := judged(run):
        write_looks(run, looks_of(model, found, photos, _through(model, view, dtype)))


def fold_looks(found: Judged, folds: Sequence[Path]) -> Looks:
    """Where the models of several folds looked, each in the photos it was not trained on.

    Args:
        found: what all of them say, joined.
        folds: their runs, whose photos are where they were.

    Raises:
        FieldmarkError: a run or its photos are gone.
    """
    looks: Looks = {}
    for folder in folds:
        fold = Predictor(folder)
        held = set(Run(folder).predictions("val")["path"])
        photos, _ = read_data(fold.recipe.data)
        left_out = [photo for photo in photos.photos if photo.key in held]
        looks |= looks_of(fold.model, found, left_out, _through(fold.model, fold.view, fold.dtype))
    return looks


def _through(model: Model, view: View, dtype: torch.dtype) -> MapsOf:
    """Maps of photos that are seen anew."""

    def maps_of(photos: Sequence[Photo]) -> Iterable[tuple[list[int], Tensor]]:
        eyes = frozen_copy(model.backbone, dtype)
        return frozen_maps(eyes, view, photos, range(len(photos)), dtype)

    return maps_of

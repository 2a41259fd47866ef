"""From a recipe to photos, views and a model: the one place where they meet."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Literal

import torch

from fieldmark import machine
from fieldmark.data.dataset import Photo, PhotoSet, content_hash
from fieldmark.data.sources import read_photos
from fieldmark.data.split import Split, make_split
from fieldmark.data.transform import PIXELS_VERSION, View, default_resize_size
from fieldmark.layers.backbone import Backbone, make_backbone
from fieldmark.layers.model import Model, make_head
from fieldmark.layers.pooling import make_pooling
from fieldmark.layers.weights import weights_hash
from fieldmark.recipe import Data, Recipe

SplitName = Literal["train", "minitrain", "val", "test"]


def seed_for(seed: int, *purpose: object) -> int:
    """A seed for one purpose, such as (3, "stage", 1), unrelated to those of all others."""
    digest = blake2b(repr((seed, *purpose)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True)
class Task:
    """Everything one training works on."""

    recipe: Recipe
    photos: PhotoSet
    split: Split
    train_view: View
    eval_view: View
    model: Model
    dtype: torch.dtype

    def part(self, name: SplitName) -> list[Photo]:
        """The photos of one split, in the order every record of it has."""
        positions: Sequence[int] = getattr(self.split, name)
        return [self.photos.photos[position] for position in positions]


def build(recipe: Recipe) -> Task:
    """Read the photos' names, cut the splits and build the model; touches no pixel.

    Raises:
        DataError: the folder, its layout or its splits can't be used.
        WeightsError: the pretrained weights are missing or do not fit.
        SettingError: a key's value does not fit the others.
    """
    photos, split = _read_data(recipe.data)
    backbone = _make_backbone(recipe)
    return Task(
        recipe=recipe,
        photos=photos,
        split=split,
        train_view=_view(recipe.data, backbone),
        eval_view=_view(recipe.data, backbone).eval(),
        model=make_model(recipe, backbone, classes=len(photos.class_names)),
        dtype=machine.fast_dtype(recipe.precision),
    )


def make_model(recipe: Recipe, backbone: Backbone, *, classes: int) -> Model:
    """The recipe's pooling and head on a backbone already built."""
    pooling = make_pooling(
        recipe.pooling.name,
        backbone.channels,
        seed=seed_for(recipe.seed, "pooling"),
        **recipe.pooling.options(),
    )
    head = make_head(
        pooling.out_features,
        classes,
        **recipe.head.model_dump(),
        seed=seed_for(recipe.seed, "head"),
    )
    return Model(backbone, pooling, head)


def features_key(task: Task) -> str:
    """Name of the way this task's frozen feature maps come about, 64 hex digits.

    Two tasks share maps only if weights, level, preprocessing, number type, thread count and the
    versions of the code that computes are all equal.
    """
    versions = machine.describe()
    parts = {
        "weights": weights_hash(task.model.backbone),
        "backbone": task.model.backbone.name,
        "level": task.model.backbone.level_name,
        "view": task.eval_view.to_dict(),
        "pixels": PIXELS_VERSION,
        "dtype": str(task.dtype),
        "threads": torch.get_num_threads(),
        **{name: versions[name] for name in ("fieldmark", "torch", "torchvision", "cpu")},
    }
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def content_ids(photos: Sequence[Photo]) -> list[str]:
    """Content hash of each photo's file."""
    return [content_hash(photo.path) for photo in photos]


def _read_data(data: Data) -> tuple[PhotoSet, Split]:
    photos = read_photos(
        Path(data.folder),
        data.layout,
        lists=_paths(data.lists),
        group=data.group,
        group_pattern=data.group_pattern,
        corrections=Path(data.corrections) if data.corrections else None,
    )
    split = make_split(
        photos,
        kind=data.split,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        folds=data.folds,
        fold=data.fold,
        files=_paths(data.split_files),
        seed=data.split_seed,
    )
    return photos, split


def _paths(files: Mapping[str, str]) -> dict[str, Path]:
    return {part: Path(path) for part, path in files.items()}


def _make_backbone(recipe: Recipe) -> Backbone:
    settings = recipe.backbone
    return make_backbone(
        settings.name,
        weights=settings.weights,
        level=settings.level,
        image_size=recipe.data.image_size,
        seed=seed_for(recipe.seed, "backbone"),
        mean=settings.mean,
        std=settings.std,
        interpolation=settings.interpolation,
    )


def _view(data: Data, backbone: Backbone) -> View:
    belongs_to_weights = backbone.preprocess
    return View(
        image_size=data.image_size,
        resize_size=data.resize_size or default_resize_size(data.image_size),
        interpolation=belongs_to_weights.interpolation,
        mean=_rgb(belongs_to_weights.mean),
        std=_rgb(belongs_to_weights.std),
        crop="random",
        mirror=data.mirror,
    )


def _rgb(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue

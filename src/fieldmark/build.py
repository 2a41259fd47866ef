"""From a recipe to photos, views and a model: the one place where they meet."""

import json
import re
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Literal

import torch

from fieldmark import machine
from fieldmark.data.audit import Audit, Finding, check_photos, unchecked
from fieldmark.data.augment import Augment
from fieldmark.data.colour import colour_notes
from fieldmark.data.dataset import Photo, PhotoSet, content_hash, listed, short_hash
from fieldmark.data.decoding import decoders
from fieldmark.data.misspelt import misspelt_notes
from fieldmark.data.sources import read_photos
from fieldmark.data.split import Split, make_split, reduced, without
from fieldmark.data.transform import PIXELS_VERSION, View, default_resize_size
from fieldmark.data.twins import near_twin_notes, twin_notes
from fieldmark.errors import DataError, count_of
from fieldmark.layers.backbone import Backbone, make_backbone
from fieldmark.layers.model import Model, make_head
from fieldmark.layers.pooling import make_pooling
from fieldmark.layers.weights import weights_hash
from fieldmark.recipe import Data, Recipe
from fieldmark.training.world import world

SplitName = Literal["train", "minitrain", "val", "test"]
MOST_SHOWN = 100  # bad files in a message: each is to be mended


def seed_for(seed: int, *purpose: object) -> int:
    """A seed for one purpose, such as (3, "stage", 1), unrelated to those of all others."""
    digest = blake2b(repr((seed, *purpose)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True)
class Task:
    """Everything one training works on.

    Attributes:
        model: On the processor, but while a stage trains its backbone on a GPU.
        dtype: What the backbone computes in.
        device: What it computes on.
        skipped: Training photos left out because they can't be read.
        contents: A `short_hash` of each photo of train and val by key, once files were checked.
        notes: What a person should know of the photos and their split, one line each.
    """

    recipe: Recipe
    photos: PhotoSet
    split: Split
    train_view: View
    eval_view: View
    model: Model
    dtype: torch.dtype
    device: torch.device
    skipped: tuple[Finding, ...] = ()
    contents: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

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
    photos, split = read_data(recipe.data)
    backbone, device = _make_backbone(recipe), machine.device_of(recipe.device)
    return Task(
        recipe=recipe,
        photos=photos,
        split=split,
        train_view=_view(recipe, backbone),
        eval_view=_view(recipe, backbone).eval(),
        model=make_model(recipe, backbone, classes=len(photos.class_names)),
        dtype=machine.fast_dtype(recipe.precision, device.type),
        device=device,
        notes=_notes(photos, split),
    )


def check_files(
    task: Task,
    memory: Path,
    *,
    open_test: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Task:
    """The task without training photos that can't be read, if the recipe lets them be skipped.

    Args:
        task: As `build` gives it.
        memory: Folder where it is remembered which files were decoded before.
        open_test: Look at the test photos too; else not one of them is opened.
        progress: Is told how many of how many photos are done.

    Raises:
        DataError: A photo of val or test can't be read, or one of train where `bad_files` is
            `stop`; lists every such file with its reason. Or photos are to be cut to boxes and
            none has one.
    """
    _check_boxes(task)
    names: tuple[SplitName, ...] = ("train", "val", "test") if open_test else ("train", "val")
    parts: dict[str, list[Photo]] = {name: task.part(name) for name in names}
    everyone = [photo for photos in parts.values() for photo in photos]
    with world().leader_first():  # whose verdicts the others find
        audit = check_photos(
            everyone,
            checked_photos(task, memory),
            workers=machine.cores(),
            progress=progress,
        )
    train = {photo.key for photo in parts["train"]}
    _stop_for(audit, train if task.recipe.data.bad_files == "skip" else set())
    bad = {finding.key for finding in audit.findings}
    photos, split = without(task.photos, task.split, bad, seed=task.recipe.data.split_seed)
    classes = photos.class_names
    notes = [*task.notes, *twin_notes(parts, audit.hashes, classes)]
    notes += near_twin_notes(parts, audit.prints, audit.hashes, classes)
    notes += colour_notes(everyone, audit.modes, classes)
    notes += _growth(audit, parts, classes)
    if bad:
        shown = listed((f"{one.key} ({one.reason})" for one in audit.findings), between="; ")
        notes.append(
            f"skipped, since they can't be read: {count_of(len(bad), 'training photo')}: {shown}"
        )
    seen = (photo.key for name in ("train", "val") for photo in parts[name])
    contents = {key: short_hash(audit.hashes[key]) for key in seen if key in audit.hashes}
    return replace(
        task,
        photos=photos,
        split=split,
        skipped=audit.findings,
        contents=contents,
        notes=tuple(notes),
    )


def checked_photos(task: Task, memory: Path) -> Path:
    """The file in `memory` that remembers which of the task's photos were decoded before."""
    root = sha256(str(task.photos.root.absolute()).encode()).hexdigest()[:16]
    return memory / f"{root}.json"


def changed_photos(task: Task, memory: Path) -> str | None:
    """Says which photos of train and val were written to since `check_files`; None if none was."""
    touched = unchecked([*task.part("train"), *task.part("val")], checked_photos(task, memory))
    keys = [photo.key for photo in touched if task.contents.get(photo.key) != _content(photo)]
    return (
        f"{count_of(len(keys), 'photo')} changed while they were trained on: {listed(keys)}"
        if keys
        else None
    )


def _content(photo: Photo) -> str | None:
    with suppress(OSError):
        return short_hash(content_hash(photo.path))
    return None


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


def features_key(task: Task, number: int = 0) -> str:
    """Name of the way this task's frozen feature maps come about, as `backbone@level@336px@hash`.

    View number 0 is the eval view, those after it are drawn from the train view. Two tasks share
    maps only if weights, level, preprocessing, number type, hardware, thread count and the versions
    of the code that computes are all equal.
    """
    versions = machine.describe()
    parts = {
        "weights": weights_hash(task.model.backbone),
        "backbone": task.model.backbone.name,
        "level": task.model.backbone.level_name,
        "view": task.eval_view.to_dict(),
        "pixels": PIXELS_VERSION[task.eval_view.resize],
        "decoders": decoders(),
        "dtype": str(task.dtype),
        "threads": torch.get_num_threads(),
        **{name: versions[name] for name in ("fieldmark", "torch", "torchvision", "cpu")},
    }
    if task.device.type != "cpu":
        parts["device"] = machine.name_of(task.device)
    if number:
        parts |= {"view": task.train_view.to_dict(), "number": number}
    shown = (parts["backbone"], parts["level"], f"{task.eval_view.image_size}px")
    name = "@".join(re.sub(r"[^\w.-]+", "-", str(part)) for part in shown)
    return f"{name}@{sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]}"


def content_ids(photos: Sequence[Photo], view: View) -> list[str]:
    """What of each photo the view looks at: its file's content hash, and its box if that counts."""
    boxes = [None if view.box_margin is None else photo.box for photo in photos]
    return [
        content_hash(photo.path) + (f" {box}" if box else "")
        for photo, box in zip(photos, boxes, strict=True)
    ]


def read_data(data: Data) -> tuple[PhotoSet, Split]:
    """The photos' names and how they are split; opens no photo."""
    photos = read_photos(
        Path(data.folder),
        data.layout,
        lists={part: Path(path) for part, path in data.lists.items()},
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
        files={part: Path(path) for part, path in data.split_files.items()},
        seed=data.split_seed,
    )
    return photos, reduced(photos, split, data.train_fraction, seed=data.split_seed)


def _check_boxes(task: Task) -> None:
    photos = task.photos.photos
    if task.recipe.data.box_margin is not None and not any(photo.box for photo in photos):
        raise DataError(
            f"`data.box_margin` cuts photos to their boxes, but none of the {len(photos):,} photos "
            f"in `{task.photos.root}` has one. Boxes come with the layout of CUB-200, in "
            "`bounding_boxes.txt`. Add them, or leave `box_margin` out."
        )


def _notes(photos: PhotoSet, split: Split) -> tuple[str, ...]:
    others = photos.ignored
    counted = count_of(len(others), "file is no photo", "files are no photos")
    told = [f"{counted} of a class: {listed(others)}"] if others else []
    return (*photos.notes, *misspelt_notes(photos), *told, *split.notes)


def _stop_for(audit: Audit, may_be_skipped: Set[str]) -> None:
    stopping = [finding for finding in audit.findings if finding.key not in may_be_skipped]
    if not stopping:
        return
    lines = [f"{finding.path}: {finding.reason}" for finding in stopping[:MOST_SHOWN]]
    if len(stopping) > MOST_SHOWN:
        lines.append(f"and {len(stopping) - MOST_SHOWN} more")
    raise DataError(
        "\n  ".join([f"{count_of(len(stopping), 'photo')} can't be read:", *lines])
        + "\nMend or remove them, or exclude them by `data.corrections`; `data.bad_files: skip` "
        "leaves those of train out, never those of val or test."
    )


def _growth(audit: Audit, parts: Mapping[str, list[Photo]], names: Sequence[str]) -> list[str]:
    """What is new since the folder was last looked at."""
    if not (audit.seen and audit.new):
        return []
    photos = [photo for part in parts.values() for photo in part]
    old = {photo.label for photo in photos if photo.key not in audit.new}
    classes = [names[label] for label in sorted({photo.label for photo in photos} - old)]
    told = f"; new classes: {listed(classes)}" if classes else ""
    return [f"{count_of(len(audit.new), 'photo was', 'photos were')} not looked at before{told}"]


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


def _view(recipe: Recipe, backbone: Backbone) -> View:
    data, belongs_to_weights = recipe.data, backbone.preprocess
    return View(
        image_size=data.image_size,
        resize_size=data.resize_size or default_resize_size(data.image_size),
        interpolation=belongs_to_weights.interpolation,
        mean=_rgb(belongs_to_weights.mean),
        std=_rgb(belongs_to_weights.std),
        crop="random",
        mirror=data.mirror,
        resize=data.resize,
        box_margin=data.box_margin,
        augment=Augment(**recipe.augment.model_dump(exclude={"mixup", "cutmix"})),
    )


def _rgb(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue

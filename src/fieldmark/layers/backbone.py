"""Backbones: any timm model, cut at one level, as images -> feature map (B, C, H, W)."""

import copy
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from math import log
from typing import Any, NamedTuple, cast

import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from fieldmark.errors import SettingError, WeightsError
from fieldmark.layers.cut import Cut, find_cut, level_list, levels, sources_of
from fieldmark.layers.weights import Interpolation, Preprocess, load_weights, timm_preprocess


class Backbone(nn.Module):
    """A timm model up to one level; made by `make_backbone`.

    Attributes:
        name: timm's name of the model.
        level_name: path of the module whose output the feature map is.
        channels: C of the feature map.
        reduction: px of the photo to one cell of the feature map (its stride).
        image_size: S the backbone was built for, in px.
        preprocess: how the weights want their photos.
        origin: where the weights come from, in words.
    """

    def __init__(
        self,
        body: nn.Module,
        cut: Cut,
        *,
        name: str,
        channels: int,
        reduction: int,
        image_size: int,
        preprocess: Preprocess,
        origin: str,
    ) -> None:
        super().__init__()
        self.body = body
        self.name = name
        self.level_name = cut.name
        self.channels = channels
        self.reduction = reduction
        self.image_size = image_size
        self.preprocess = preprocess
        self.origin = origin
        self._cut = cut

    def forward(self, images: Tensor) -> Tensor:
        """Feature map (B, C, H, W) of normalised images (B, 3, S, S)."""
        return self._cut.run(self.body, images)


def make_backbone(
    name: str,
    *,
    weights: str = "package",
    level: int | str = -1,
    image_size: int,
    seed: int = 0,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    interpolation: Interpolation | None = None,
) -> Backbone:
    """Build a backbone, load its weights and cut off what lies behind its level.

    The last level passes the model's final norm, if it has one that takes feature maps. Whatever
    can't work is found here, by a dry run without memory or arithmetic (torch's meta device).

    Args:
        name: any model of `timm.list_models()`, with or without timm's `.tag`.
        weights: `package`, `hub`, `none` or `file:PATH.safetensors`; see `load_weights`.
        level: a position among timm's levels of the model (-1 is the last), or the path of a
            module, such as `features.29`: a level's own, or one that images reach by passing
            through whole modules one after the other.
        image_size: side of the images, in px.
        seed: of the initial weights, where `weights` is none.
        mean: of the weights' photos, per channel on 0 to 1; the weights' own by default.
        std: likewise.
        interpolation: likewise.

    Raises:
        SettingError: no such model or level, no feature map there, or a size the model refuses.
        WeightsError: the weights are missing, out of reach or do not fit.
    """
    _check_name(name)
    whole, cut, shape = _dry_run(name, level, image_size)
    found = load_weights(name, weights, mean=mean, std=std, interpolation=interpolation)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        body = cut.apply(_build(name, image_size))
    if found.state is not None:
        _load(body, whole, found.state, f"`weights: {weights}` do not fit {name}")
    strides = {1} | {info["reduction"] for info in levels(whole)}
    return Backbone(
        body,
        cut,
        name=name,
        channels=shape[1],
        # S / H, but where the model pads or trims at the border, H is a little off.
        reduction=min(strides, key=lambda stride: abs(log(stride * shape[2] / image_size))),
        image_size=image_size,
        preprocess=found.preprocess,
        origin=found.origin,
    )


def _check_name(name: str) -> None:
    model, _, tag = name.partition(".")
    if not timm.is_model(model):
        near = get_close_matches(model, timm.list_models(), n=3, cutoff=0.5)
        hint = f"Nearest: {', '.join(near)}." if near else "timm.list_models() lists all."
        raise SettingError(f"`name` must be one of timm's models, got {name!r}. {hint}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{model}.*")]
    if tag and tag not in tags:
        raise SettingError(
            f"{model} has no weights tagged {tag!r}. Use {', '.join(tags) or 'no tag'}."
        )


def _build(name: str, image_size: int) -> nn.Module:
    entry = timm.get_pretrained_cfg(name)
    size: dict[str, Any] = {"img_size": image_size} if entry and entry.fixed_input_size else {}
    return timm.create_model(name, **size)


class _Dry(NamedTuple):
    whole: nn.Module
    cut: Cut
    shape: tuple[int, ...]


def _dry_run(name: str, level: int | str, image_size: int) -> _Dry:
    """The whole model without weights, where to cut it, and the feature map's shape."""
    for device in ("meta", "cpu"):
        try:
            return _try(name, level, image_size, device)
        except SettingError:
            raise
        except Exception as error:  # each architecture has its own way to refuse a size
            problem = error
        if "meta tensor" not in str(problem):  # else the model looks at numbers on its way
            break
    sizes = {image_size // unit * unit + more for unit in (14, 16, 32) for more in (0, unit)}
    nearest = sorted(
        (sizes | {_native(name)}) - {image_size}, key=lambda size: abs(size - image_size)
    )
    accepted = (str(size) for size in nearest if size > 0 and _takes(name, level, size))
    reason = str(problem).partition("\n")[0].rstrip(".") or type(problem).__name__
    raise SettingError(
        f"`image_size` {image_size} does not fit {name} ({reason}). "
        f"Use {' or '.join(islice(accepted, 2)) or 'another model'}."
    ) from problem


def _native(name: str) -> int:
    return timm_preprocess(name).image_size


def _takes(name: str, level: int | str, image_size: int) -> bool:
    try:
        _try(name, level, image_size, "meta")
    except Exception:
        return False
    return True


def _try(name: str, level: int | str, image_size: int, device: str) -> _Dry:
    with torch.device(device), torch.no_grad():
        whole = _build(name, image_size).eval()
        if not hasattr(whole, "forward_intermediates"):
            raise SettingError(f"{name} gives no feature maps. Use another model.")
        # A patch embedding drops the pixels that fill no patch and says nothing; two models of
        # timm were trained that way.
        patch = getattr(getattr(whole, "patch_embed", None), "patch_size", None)
        if isinstance(patch, tuple) and image_size % patch[0] and image_size != _native(name):
            raise ValueError(f"it must be divisible by the patch size {patch[0]}")
        images = torch.zeros(1, 3, image_size, image_size)
        cut = find_cut(name, whole, level, images)
        try:
            shape = cut.run(cut.apply(copy.deepcopy(whole)), images).shape
        except AssertionError:  # a few models have a final norm but none for feature maps
            cut = replace(cut, final_norm=False)
            shape = cut.run(cut.apply(copy.deepcopy(whole)), images).shape
    if len(shape) != 4:
        raise SettingError(
            f"`level` {level!r} of {name} gives {len(shape)} dimensions, not a feature map "
            f"(B, C, H, W). Use one of its levels: {level_list(whole)}."
        )
    return _Dry(whole, cut, tuple(shape))


def _load(body: nn.Module, whole: nn.Module, state: dict[str, Tensor], complaint: str) -> None:
    """Fill the body; the state may hold all of the model, but nothing else.

    Weights of another size or in the authors' own format first pass timm's filter for the model.
    """
    needed = {name: value.shape for name, value in body.state_dict().items()}
    known = whole.state_dict().keys()

    def misfits(state: Mapping[str, Tensor]) -> list[str]:
        counted = {name for name in needed if name.endswith("num_batches_tracked")}
        missing = needed.keys() - state.keys() - counted
        shaped = {n for n in needed.keys() & state.keys() if state[n].shape != needed[n]}
        return [
            f"{len(names)} {what} ({', '.join(sorted(names)[:3])})"
            for what, names in (
                ("missing", missing),
                ("unknown", state.keys() - known),
                ("of another shape", shaped),
            )
            if names
        ]

    problems = misfits(state)
    translate = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
    if problems and translate is not None:
        with suppress(Exception):  # it may trip over a state that is not for this model at all
            state = translate(dict(state), whole)
        problems = misfits(state)
    if problems:
        raise WeightsError(
            f"{complaint}: {'; '.join(problems)}. Check that `name` is the model they are of."
        )
    body.load_state_dict({name: state[name] for name in needed if name in state}, strict=False)


def frozen_copy(backbone: Backbone, dtype: torch.dtype) -> Backbone:
    """A copy for inference only: no gradients, channels last, batch norms folded.

    Each batch norm that directly follows a convolution is folded into it:
    w' = w g / sqrt(var + eps), b' = (b - mean) g / sqrt(var + eps) + beta.
    The fold is kept only if the copy then gives the same feature map in float32.

    Args:
        backbone: is left as it is.
        dtype: of its weights, and of the images it wants; see `machine.fast_dtype`.
    """
    frozen = copy.deepcopy(backbone).eval().requires_grad_(False)
    if any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules()):
        frozen = _fold_batch_norms(frozen)
    cast("Any", frozen).to(dtype=dtype, memory_format=torch.channels_last)
    return frozen


def _fold_batch_norms(frozen: Backbone) -> Backbone:
    size = frozen.image_size
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = images.to(next(frozen.parameters()))
    folded = copy.deepcopy(frozen)
    with torch.no_grad():
        expected = frozen(images)
        for norm_path, conv_path in _foldable(folded, images):
            _fold(folded, norm_path, conv_path)
        difference = (folded(images) - expected).abs().max()
    return folded if difference <= 1e-3 * expected.abs().max() else frozen


def _foldable(backbone: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Paths of each batch norm and of the convolution that feeds it, and nothing else."""
    modules = dict(backbone.named_modules())
    sources = sources_of(backbone, lambda: backbone(images), images)
    takers = Counter(sources.values())
    pairs = []
    for path, source in sources.items():
        norm = modules[path]
        if source is None or takers[source] > 1:
            continue
        while isinstance(modules[source], nn.Sequential):  # it returns what its last layer does
            source = f"{source}.{[*modules[source]._modules][-1]}"  # noqa: PLW2901
        is_norm = type(norm) in (nn.BatchNorm2d, BatchNormAct2d) and norm.running_mean is not None
        # Other kinds of convolution may treat their weights before use.
        if is_norm and type(modules[source]) in (nn.Conv2d, Conv2dSame):
            pairs.append((path, source))
    return pairs


def _fold(backbone: nn.Module, norm_path: str, conv_path: str) -> None:
    conv = cast("nn.Conv2d", backbone.get_submodule(conv_path))
    norm = cast("nn.BatchNorm2d", backbone.get_submodule(norm_path))
    statistics = cast("Tensor", norm.running_mean), cast("Tensor", norm.running_var)
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, *statistics, norm.eps, norm.weight, norm.bias
    )
    act = nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
    parent, _, last = norm_path.rpartition(".")
    setattr(backbone.get_submodule(parent), last, act)

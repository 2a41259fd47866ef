"""The network: sketches, poolings, backbones and the model they make.

Names are loaded when they are first used, as those of `fieldmark` are; see docs/layers.md.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fieldmark.layers.activation import L2Normalize, SignedSqrt, l2_normalize, signed_sqrt
    from fieldmark.layers.backbone import Backbone, frozen_copy, make_backbone
    from fieldmark.layers.model import Model, make_head
    from fieldmark.layers.pooling import (
        AveragePooling,
        BilinearPooling,
        CompactBilinearPooling,
        CovariancePooling,
        GeMPooling,
        MaxPooling,
        Pooling,
        make_pooling,
    )
    from fieldmark.layers.sketch import RandomMaclaurin, TensorSketch

_NAMES = {
    "activation": ("L2Normalize", "SignedSqrt", "l2_normalize", "signed_sqrt"),
    "backbone": ("Backbone", "frozen_copy", "make_backbone"),
    "model": ("Model", "make_head"),
    "pooling": (
        *("AveragePooling", "BilinearPooling", "CompactBilinearPooling", "CovariancePooling"),
        *("GeMPooling", "MaxPooling", "Pooling", "make_pooling"),
    ),
    "sketch": ("RandomMaclaurin", "TensorSketch"),
}
_HOMES = {name: f"fieldmark.layers.{file}" for file, names in _NAMES.items() for name in names}

__all__ = [
    "AveragePooling",
    "Backbone",
    "BilinearPooling",
    "CompactBilinearPooling",
    "CovariancePooling",
    "GeMPooling",
    "L2Normalize",
    "MaxPooling",
    "Model",
    "Pooling",
    "RandomMaclaurin",
    "SignedSqrt",
    "TensorSketch",
    "frozen_copy",
    "l2_normalize",
    "make_backbone",
    "make_head",
    "make_pooling",
    "signed_sqrt",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module `fieldmark.layers` has no name `{name}`")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__

"""Fieldmark tunes image classifiers that must tell look-alikes apart.

Names are loaded when they are first used, so importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fieldmark import layers
    from fieldmark.errors import FieldmarkError
    from fieldmark.layers.activation import L2Normalize, SignedSqrt, l2_normalize, signed_sqrt
    from fieldmark.layers.backbone import Backbone, make_backbone
    from fieldmark.layers.model import Model, make_head
    from fieldmark.layers.pooling import CompactBilinearPooling, make_pooling
    from fieldmark.predict import Prediction, Predictor
    from fieldmark.recipe import Recipe, Stage, load_recipe
    from fieldmark.studies.answers import Answers
    from fieldmark.studies.compare import compare, compare_runs
    from fieldmark.studies.run import Run
    from fieldmark.studies.verdict import Verdict
    from fieldmark.training.features import FeatureStore

__version__ = "0.1.0"

_HOMES = {
    "Answers": "fieldmark.studies.answers",
    "Backbone": "fieldmark.layers.backbone",
    "CompactBilinearPooling": "fieldmark.layers.pooling",
    "FeatureStore": "fieldmark.training.features",
    "FieldmarkError": "fieldmark.errors",
    "L2Normalize": "fieldmark.layers.activation",
    "Model": "fieldmark.layers.model",
    "Prediction": "fieldmark.predict",
    "Predictor": "fieldmark.predict",
    "Recipe": "fieldmark.recipe",
    "Run": "fieldmark.studies.run",
    "SignedSqrt": "fieldmark.layers.activation",
    "Stage": "fieldmark.recipe",
    "Verdict": "fieldmark.studies.verdict",
    "compare": "fieldmark.studies.compare",
    "compare_runs": "fieldmark.studies.compare",
    "l2_normalize": "fieldmark.layers.activation",
    "load_recipe": "fieldmark.recipe",
    "make_backbone": "fieldmark.layers.backbone",
    "make_head": "fieldmark.layers.model",
    "make_pooling": "fieldmark.layers.pooling",
    "signed_sqrt": "fieldmark.layers.activation",
}

__all__ = [
    "Answers",
    "Backbone",
    "CompactBilinearPooling",
    "FeatureStore",
    "FieldmarkError",
    "L2Normalize",
    "Model",
    "Prediction",
    "Predictor",
    "Recipe",
    "Run",
    "SignedSqrt",
    "Stage",
    "Verdict",
    "compare",
    "compare_runs",
    "l2_normalize",
    "layers",
    "load_recipe",
    "make_backbone",
    "make_head",
    "make_pooling",
    "signed_sqrt",
]


def __getattr__(name: str) -> Any:
    if name == "layers":
        return import_module("fieldmark.layers")
    if name not in _HOMES:
        raise AttributeError(f"module `fieldmark` has no name `{name}`")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

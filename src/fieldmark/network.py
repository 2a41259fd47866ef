"""Keys of a recipe: the network, which is a backbone, a pooling and a head."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from fieldmark.checked_yaml import Section
from fieldmark.source import fill_in

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class Backbone(Section):
    """The pretrained network that turns a photo into a feature map."""

    name: str = "tf_efficientnet_lite0"
    """Any timm model that gives feature maps."""
    weights: str = "package"
    """`package` (built in), `hub` (timm's), `file:PATH.safetensors` or `none` (from scratch)."""
    level: int | str = -1
    """Which feature map: a position or path of the model's levels; an unknown one lists them."""
    mean: tuple[float, float, float] | None = None
    """Per-channel mean the weights expect, on 0 to 1; known for `package` and `hub`."""
    std: tuple[Positive, Positive, Positive] | None = None
    """Per-channel spread the weights expect, on 0 to 1."""
    interpolation: Literal["bilinear", "bicubic"] | None = None
    """How the weights' own training resized photos."""

    @field_validator("level", mode="before")
    @classmethod
    def _level_is_looked_up(cls, value: Any) -> Any:
        """What can be no level, as YAML reads `?`: the model lists those it has."""
        is_whole = isinstance(value, float) and value.is_integer()
        if is_whole or (isinstance(value, int | str) and not isinstance(value, bool)):
            return value
        return "?" if value == {None: None} else str(value)

    @field_validator("weights")
    @classmethod
    def _source_is_known(cls, value: str) -> str:
        if value.startswith("file:") and len(value) > len("file:"):
            return f"file:{fill_in(value.removeprefix('file:'), 'backbone.weights=file:PATH')}"
        if value in {"package", "hub", "none"}:
            return value
        raise ValueError(f"must be package, hub, none or file:PATH.safetensors, got {value!r}.")


POOLING_OPTIONS: dict[str, dict[str, Any]] = {
    "average": {},
    "max": {},
    "gem": {"p": 3.0},
    "bilinear": {},
    "compact_bilinear": {"sketch_dim": 8192, "method": "tensor_sketch"},
    "covariance": {"iterations": 5},
}


class Pooling(Section):
    """How a feature map becomes one vector; each option belongs to one `name`."""

    name: Literal["average", "max", "gem", "bilinear", "compact_bilinear", "covariance"] = (
        "compact_bilinear"
    )
    """Which of them; see the vocabulary."""
    sketch_dim: Count | None = None
    """Length of the sketched vector, for `compact_bilinear`."""
    method: Literal["tensor_sketch", "random_maclaurin"] | None = None
    """Which sketch, for `compact_bilinear`."""
    p: Positive | None = None
    """The power at the start of training, for `gem`."""
    iterations: Count | None = None
    """Newton-Schulz steps, for `covariance`."""

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        name = values.get("name", "compact_bilinear")
        return {**POOLING_OPTIONS.get(name, {}), **values} if isinstance(name, str) else values

    @model_validator(mode="after")
    def _options_belong(self) -> Self:
        allowed = POOLING_OPTIONS[self.name]
        for key in ("sketch_dim", "method", "p", "iterations"):
            if getattr(self, key) is not None and key not in allowed:
                takes = ", ".join(allowed) or "no options"
                whole = f"pooling: {{name: {self.name}}}"
                raise ValueError(
                    f"`{key}` is no option of {self.name}, which takes {takes}. To be rid of what "
                    f"stood there before, set all of it: `{whole}`, or on the command line "
                    f"`'{whole.replace(': ', '=', 1)}'`."
                )
        return self

    def options(self) -> dict[str, Any]:
        """The arguments this pooling is built with."""
        return {key: getattr(self, key) for key in POOLING_OPTIONS[self.name]}


class Head(Section):
    """What stands between the pooled vector and the logits."""

    signed_sqrt: bool = True
    """Take sign(x) sqrt|x|, which tames bursts of one feature."""
    l2_normalize: bool = True
    """Scale each vector to length 1."""
    drop_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the vector's entries hidden from the classifier in training."""

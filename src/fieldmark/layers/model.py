"""backbone -> feature map -> pooling -> head -> logits, as one chain that can be cut anywhere."""

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from fieldmark.errors import SettingError
from fieldmark.layers.activation import L2Normalize, SignedSqrt
from fieldmark.layers.backbone import Backbone
from fieldmark.layers.dropout import SampleDropout
from fieldmark.layers.pooling import Pooling


def make_head(
    in_features: int,
    classes: int,
    *,
    signed_sqrt: bool = True,
    l2_normalize: bool = True,
    drop_rate: float = 0.0,
    seed: int = 0,
) -> nn.Sequential:
    """The layers from the pooled vector (B, in_features) to the logits (B, classes).

    Args:
        in_features: length of the pooled vector.
        classes: how many classes there are, at least 2.
        signed_sqrt: take sign(x) sqrt|x| first.
        l2_normalize: then scale each vector to length 1.
        drop_rate: then hide this share of the entries, in training only.
        seed: of the classifier's initial weights, uniform within +-1/sqrt(in_features) as
            torch's own `Linear` has them; the biases start at 0.

    Raises:
        SettingError: fewer than two classes.
    """
    if classes < 2:
        raise SettingError(f"A classifier needs at least 2 classes, got {classes}.")
    classifier = nn.Linear(in_features, classes, device="meta").to_empty(device="cpu")
    bound = 1 / math.sqrt(in_features)
    generator = torch.Generator().manual_seed(seed)
    nn.init.uniform_(classifier.weight, -bound, bound, generator=generator)
    nn.init.zeros_(classifier.bias)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if signed_sqrt:
        layers["signed_sqrt"] = SignedSqrt()
    if l2_normalize:
        layers["l2_normalize"] = L2Normalize()
    if drop_rate:
        layers["dropout"] = SampleDropout(drop_rate)
    layers["classifier"] = classifier
    return nn.Sequential(layers)


class Model(nn.Module):
    """A backbone and what turns its feature map into logits.

    Args:
        backbone: images (B, 3, S, S) to a feature map (B, C, H, W).
        pooling: the feature map to a vector (B, D).
        head: the vector to logits (B, K); see `make_head`.
    """

    def __init__(self, backbone: Backbone, pooling: Pooling, head: nn.Sequential) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) in float32 of normalised images (B, 3, S, S).

        Under autocast only the backbone computes in the lower precision: a sketch sums thousands
        of products, and the gap between two look-alikes is small beside their size.
        """
        features = self.backbone(images)  # (B, C, H, W)
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.head(self.pooling(features.float()))  # (B, K)
        return logits

    def chain(self) -> tuple[nn.Module, ...]:
        """The modules images pass through, in order, from the backbone to the classifier."""
        return (self.backbone, self.pooling, *self.head)


def split_frozen(model: Model) -> tuple[nn.Sequential, nn.Sequential]:
    """Cut the chain before the first module that trains or is random.

    What the first part gives for a photo never changes while the stage lasts, so it need be
    computed only once. The first part is empty where the backbone itself trains.
    """
    chain = model.chain()
    cut = next(
        (
            position
            for position, module in enumerate(chain)
            if isinstance(module, nn.Dropout)
            or any(parameter.requires_grad for parameter in module.parameters())
        ),
        len(chain),
    )
    return nn.Sequential(*chain[:cut]), nn.Sequential(*chain[cut:])

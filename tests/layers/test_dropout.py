import pytest
import torch
from torch import nn

from fieldmark.layers.dropout import SampleDropout, drawn_for
from fieldmark.layers.model import make_head

SAMPLES = torch.tensor([3, 70_000_000_000, 0, 12])


def masks(samples: torch.Tensor, *, seed: int = 5, p: float = 0.3, width: int = 4000):
    """What a batch of ones becomes: 0 where hidden, else 1 / (1 - p)."""
    with drawn_for(seed, samples):
        return SampleDropout(p)(torch.ones(len(samples), width))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_hides_the_share_asked_for_and_scales_the_rest(p):
    seen = masks(SAMPLES, p=p)
    hidden = seen == 0
    assert torch.equal(seen[~hidden], torch.full_like(seen[~hidden], 1 / (1 - p)))
    spread = (p * (1 - p) / hidden.numel()) ** 0.5
    assert abs(hidden.double().mean().item() - p) < 4 * spread


def test_a_mask_is_its_samples_wherever_it_stands():
    whole, order = masks(SAMPLES), torch.tensor([2, 0, 3, 1])
    assert torch.equal(masks(SAMPLES[order]), whole[order])
    assert torch.equal(torch.cat([masks(SAMPLES[:1]), masks(SAMPLES[1:])]), whole)


def test_masks_of_two_samples_or_two_steps_do_not_depend_on_each_other():
    whole, later = masks(SAMPLES), masks(SAMPLES, seed=6)
    for one, other in [(whole[0], whole[1]), (whole[0], whole[2]), (whole[0], later[0])]:
        both = ((one == 0) & (other == 0)).double().mean().item()
        assert abs(both - 0.09) < 4 * (0.09 * 0.91 / 4000) ** 0.5


def test_negative_seeds_and_every_shape_and_dtype():
    x = torch.ones(4, 3, 5, dtype=torch.bfloat16)
    with drawn_for(-1, SAMPLES):
        y = SampleDropout(0.5)(x)
    assert y.dtype == x.dtype
    assert set(y.flatten().tolist()) == {0.0, 2.0}


def test_the_gradient_is_hidden_alike():
    x = torch.randn(4, 50, requires_grad=True)
    with drawn_for(1, SAMPLES):
        y = SampleDropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad * x, y)


def test_in_eval_mode_and_outside_of_a_step_it_is_torchs_own():
    x, layer, theirs = torch.randn(4, 50), SampleDropout(0.5), nn.Dropout(0.5)
    torch.manual_seed(3)
    ours = layer(x)
    torch.manual_seed(3)
    assert torch.equal(ours, theirs(x))
    with drawn_for(1, SAMPLES):
        assert torch.equal(layer.eval()(x), x)


def test_the_head_has_it():
    assert isinstance(make_head(8, 2, drop_rate=0.5).dropout, SampleDropout)

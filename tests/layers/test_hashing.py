import itertools
import math

import pytest
import torch
from torch import Tensor

from fieldmark.layers.hashing import CountSketch, draw_index_hash, draw_sign_hash
from fieldmark.layers.sketch import TensorSketch


def test_draws_are_seeded_and_in_range():
    draw = [draw_index_hash(1000, 7, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draw)
    assert draw[0].unique().tolist() == list(range(7))
    signs = draw_sign_hash(50, 20, generator=torch.Generator().manual_seed(3))
    assert signs.shape == (50, 20)
    assert signs.unique().tolist() == [-1, 1]


def test_count_sketch_is_a_signed_sum_and_transposes():
    index, sign = torch.tensor([2, 0, 2, 4]), torch.tensor([1, -1, -1, 1], dtype=torch.int8)
    sketch = CountSketch.build(index, sign, 5)
    rows = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0], [8.0, 80.0]])
    bins = torch.tensor([[-2.0, -20.0], [0, 0], [-3.0, -30.0], [0, 0], [8.0, 80.0]])
    assert torch.equal(sketch.apply(rows), bins)
    assert sketch.transpose(torch.arange(5.0)).tolist() == [2, 0, -2, 4]
    assert sketch.sketch_dim == 5


def test_second_bins_count_from_0_where_there_are_enough():
    for sketch_dim, enough in ((9, True), (8, True), (7, False)):
        for channels, channels2 in ((8, None), (3, 8), (50, 8)):
            sketch = TensorSketch(channels, sketch_dim, channels2=channels2)
            assert (sketch.index_hash2.tolist() == list(range(8))) is enough
            assert sketch.index_hash2.max() < sketch_dim


def products_under_all_hashes(
    x: Tensor, y: Tensor, sketch_dim: int, second: list[tuple[int, ...]]
) -> Tensor:
    """<sketch x, sketch y> for all signs, all first hashes and the given second ones.

    Channel 0 keeps bin 0 and sign +1: to turn all bins or flip all signs changes no product.
    """
    C = len(x)
    signs = torch.tensor([(1, *rest) for rest in itertools.product((1, -1), repeat=C - 1)])
    sign1, sign2 = signs.repeat(len(signs), 1), signs.repeat_interleave(len(signs), 0)
    plain = torch.ones(C)  # signs are given with the vectors, all of them at once
    sketch = TensorSketch(C, sketch_dim, channels2=C)
    found = []
    for rest, index2 in itertools.product(
        itertools.product(range(sketch_dim), repeat=C - 1), second
    ):
        hashes = torch.tensor((0, *rest)), plain, torch.tensor(index2), plain
        sketch.load_state_dict(dict(zip(sketch.state_dict(), hashes, strict=True)))
        a, b = (sketch((v * sign1)[:, :, None], (v * sign2)[:, :, None]) for v in (x, y))
        found.append((a * b).sum(1))
    return torch.cat(found)


@pytest.mark.parametrize("sketch_dim", [3, 4])
@pytest.mark.parametrize("y", [(3.0, 1.0, 2.0), (-3.0, 1.0, 2.0)])
def test_products_are_right_on_average_and_their_variance_is_known(y, sketch_dim):
    """Exactly, over all hashes that can be drawn, the second one in sequence or drawn too.

    Written out, the square of the error is a sum over two pairs of pairs that share bins. Signs
    leave those terms alone in which each channel comes twice, and the chance of each is 1/D, or 1/D
    times that of twice a difference of bins being 0 (mod D).
    """
    C, D = 3, sketch_dim
    x, y = (torch.tensor(v, dtype=torch.float64) for v in ((1.0, 2.0, 0.5), y))
    u, outer = x * y, torch.outer(x, y)
    truth = u.sum() ** 2
    apart = ~torch.eye(C, dtype=torch.bool)
    a, b = outer.square()[apart].sum(), torch.outer(u, u)[apart].sum()
    mixed = a * torch.outer(u, u) + b * outer.square()
    channel = torch.arange(C)
    opposite = (2 * (channel[:, None] - channel) % D == 0) & apart
    once = truth * (a + b) + a**2 + b**2
    same_row = truth * (a + b)  # of pairs (i, j) and (i, l), that channels in sequence keep apart
    want = {
        "sequence": (once + mixed[opposite].sum()) / D,
        "drawn": (once + same_row + math.gcd(2, D) / D * mixed[apart].sum()) / D,
    }
    drawn = [(0, *rest) for rest in itertools.product(range(D), repeat=C - 1)]
    for kind, second in (("sequence", [(0, 1, 2)]), ("drawn", drawn)):
        found = products_under_all_hashes(x, y, D, second)
        torch.testing.assert_close(found.mean(), truth)
        torch.testing.assert_close(found.var(correction=0), want[kind])
    # Smaller where nothing is negative; with x . y = 0 the larger one.
    assert (want["sequence"] < want["drawn"]) == (y > 0).all()

import pytest
import torch

from fieldmark.layers.hashing import (
    CountSketch,
    draw_index_hash,
    draw_sign_hash,
    fold_symmetric,
    halve,
    signed_bins,
)


def test_draws_are_seeded_and_in_range():
    draw = [draw_index_hash(1000, 7, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draw)
    assert draw[0].unique().tolist() == list(range(7))
    signs = draw_sign_hash(50, 20, generator=torch.Generator().manual_seed(3))
    assert signs.shape == (50, 20)
    assert signs.unique().tolist() == [-1, 1]


def test_signed_bins_by_hand():
    index1, sign1 = torch.tensor([0, 3]), torch.tensor([1, -1], dtype=torch.int8)
    index2, sign2 = torch.tensor([1, 2]), torch.tensor([1, -1], dtype=torch.int8)
    # Bins (0+1, 0+2; 3+1 = 0, 3+2 = 1) mod 4; plus 4 where the signs differ.
    assert signed_bins(index1, sign1, index2, sign2, 4).tolist() == [[1, 6], [4, 1]]


@pytest.mark.parametrize("channels", [1, 5, 64, 128, 130, 320, 512, 1280])
def test_halving_covers_each_pair_once(channels):
    table = torch.arange(channels**2).view(channels, channels)
    folded = fold_symmetric(table)
    *_, diagonal = halve(channels)
    assert diagonal.is_diagonal
    off_diagonal = folded[:, : diagonal.entries.start].flatten()
    covered = torch.cat([off_diagonal, folded[0, diagonal.entries]])
    assert torch.equal(covered.sort().values, table.flatten())
    rows, columns = folded[0] // channels, folded[0] % channels
    assert torch.equal(folded[1], columns * channels + rows)


def test_halving_stops_at_narrow_and_odd_widths():
    assert [(level.pairs, level.width) for level in halve(320)] == [(1, 160), (2, 80), (4, 80)]
    assert [(level.pairs, level.width) for level in halve(129)] == [(1, 129)]


def test_count_sketch_is_a_signed_sum_and_transposes():
    index, sign = torch.tensor([2, 0, 2, 4]), torch.tensor([1, -1, -1, 1], dtype=torch.int8)
    sketch = CountSketch.build(index, sign, 5)
    rows = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0], [8.0, 80.0]])
    bins = torch.tensor([[-2.0, -20.0], [0, 0], [-3.0, -30.0], [0, 0], [8.0, 80.0]])
    assert torch.equal(sketch.apply(rows), bins)
    assert sketch.transpose(torch.arange(5.0)).tolist() == [2, 0, -2, 4]
    assert sketch.sketch_dim == 5

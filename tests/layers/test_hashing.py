import torch

from fieldmark.layers.hashing import CountSketch, draw_index_hash, draw_sign_hash


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

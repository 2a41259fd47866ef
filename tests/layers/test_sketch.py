import copy
import io

import pytest
import torch
from sklearn.kernel_approximation import PolynomialCountSketch

from fieldmark.errors import WeightsError
from fieldmark.layers.gram import add_rows
from fieldmark.layers.sketch import RandomMaclaurin, TensorSketch

ROUTES = ["gram", "spectrum", "bags"]
# channels, sketch_dim, positions: in strips; more channels than bins; odd all over; as many
# bins as channels and one position; larger than a chunk of the spectrum.
SIZES = [(512, 700, 64), (128, 32, 12), (7, 13, 5), (130, 130, 1), (6, 8192, 50)]


def maps(*shape: int, count: int = 1, dtype: torch.dtype = torch.float64, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=generator, dtype=dtype) for _ in range(count))


def brute_force(sketch: TensorSketch, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Add each product of two channels into its bin, at each position: (B, D, P)."""
    out = x.new_zeros(len(x), sketch.sketch_dim, x.shape[2])
    products = (x * sketch.sign_hash1[:, None])[:, :, None] * (y * sketch.sign_hash2[:, None])[
        :, None
    ]
    bins = (sketch.index_hash1[:, None] + sketch.index_hash2) % sketch.sketch_dim
    return out.index_add(1, bins.flatten(), products.flatten(1, 2))


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return ((got - want).norm() / want.norm()).item()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("channels", "sketch_dim", "positions"), SIZES)
def test_pooled_sketch_and_gradient_match_brute_force(route, channels, sketch_dim, positions):
    (x,) = maps(3, channels, positions)
    sketch = TensorSketch(channels, sketch_dim, seed=1, route=route)
    want_x, got_x = x.clone().requires_grad_(), x.clone().requires_grad_()
    want, got = brute_force(sketch, want_x, want_x).sum(2), sketch(got_x)
    (weight,) = maps(3, sketch_dim, seed=1)
    (want * weight).sum().backward()
    (got * weight).sum().backward()
    assert relative_error(got, want) < 1e-12
    assert relative_error(got_x.grad, want_x.grad) < 1e-12

    single = x.float().requires_grad_()
    got = sketch(single)
    (got * weight).sum().backward()
    assert relative_error(got, want) < 1e-5
    assert relative_error(single.grad, want_x.grad) < 1e-5


@pytest.fixture(params=[1, 2], ids="{} threads".format)
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("most_rows", [7, 40, 1000])
@pytest.mark.parametrize("channels", [1, 3, 130, 320])
def test_gram_in_strips_matches_brute_force(channels, most_rows, threads, monkeypatch):
    """Strips of uneven heights, groups of samples, shares of uneven lengths."""
    monkeypatch.setattr("fieldmark.layers.gram._LEAST_STRIP", 1)
    monkeypatch.setattr("fieldmark.layers.gram._MOST_ROWS", most_rows)
    monkeypatch.setattr("fieldmark.layers.gram._STRIPS_BYTES", 100_000)
    monkeypatch.setattr("fieldmark.layers.operators._LEAST_SHARE", 1)
    x = maps(5, channels, 6)[0].requires_grad_()
    sketch = TensorSketch(channels, 320, route="gram")
    want, got = brute_force(sketch, x, x).sum(2), sketch(x)
    (weight,) = maps(5, 320, seed=1)
    gradients = [torch.autograd.grad((s * weight).sum(), x)[0] for s in (want, got)]
    assert relative_error(got, want) < 1e-12
    assert relative_error(gradients[1], gradients[0]) < 1e-12


def test_rows_of_g_are_added_one_after_the_other(threads):
    """Into bins that overlap, all of them the same ones, in slices long enough to be split."""
    n, C, D = 40, 1000, 1001
    block = maps(n, 3, C, dtype=torch.float32)[0].round()
    bins = torch.zeros(n + 1, D + C)[1:]  # not at the start of their storage
    add_rows(block, torch.tensor([5, 6, 5]), bins)
    want = torch.zeros(n, D + C)
    for row, at in enumerate((5, 6, 5)):
        want[:, at : at + C] += block[:, row]
    assert torch.equal(bins, want)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("channels", "channels2"), [(12, 5), (5, 12), (600, 64)])
def test_two_maps_match_brute_force(route, channels, channels2):
    x, y = maps(2, channels, 9)[0], maps(2, channels2, 9, seed=1)[0]
    sketch = TensorSketch(channels, 40, channels2=channels2, route=route)
    given = [m.clone().requires_grad_() for m in (x, y)]
    want, got = brute_force(sketch, *given).sum(2), sketch(*given)
    (weight,) = maps(2, 40, seed=2)
    gradients = [torch.autograd.grad((s * weight).sum(), given) for s in (want, got)]
    assert relative_error(got, want) < 1e-12
    for a, b in zip(*gradients, strict=True):
        assert relative_error(b, a) < 1e-12


@pytest.mark.parametrize("channels2", [None, 9])
@pytest.mark.parametrize("sketch_dim", [16, 17])
def test_each_position_matches_brute_force(sketch_dim, channels2):
    sketch = TensorSketch(6, sketch_dim, channels2=channels2, pool=False)
    (x,) = maps(2, 6, 7)
    (y,) = maps(2, channels2, 7) if channels2 else (x,)
    got = sketch(x) if channels2 is None else sketch(x, y)
    assert relative_error(got, brute_force(sketch, x, y)) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("route", ROUTES)
def test_agrees_with_scikit_learn(route, dtype):
    (x,) = maps(4, 64, 6)
    sketch = TensorSketch(64, 256, seed=5, route=route)
    oracle = PolynomialCountSketch(degree=2, n_components=256).fit(x[0].T.numpy())
    oracle.indexHash_ = torch.stack([sketch.index_hash1, sketch.index_hash2]).numpy()
    oracle.bitHash_ = torch.stack([sketch.sign_hash1, sketch.sign_hash2]).numpy()
    want = torch.from_numpy(oracle.transform(x.transpose(1, 2).flatten(0, 1).numpy()))
    assert relative_error(sketch(x.to(dtype)), want.view(4, 6, 256).sum(1)) < 1e-6


@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("channels2", [None, 3])
@pytest.mark.parametrize(
    "build",
    [
        *(lambda *a, r=route, **k: TensorSketch(*a, route=r, **k) for route in ROUTES),
        RandomMaclaurin,
    ],
    ids=[*ROUTES, "maclaurin"],
)
@pytest.mark.parametrize("positions", [2, 5])  # Maclaurin: position by position; through Gram
def test_gradcheck(build, channels2, pool, positions):
    sketch = build(4, 6, channels2=channels2, pool=pool)
    inputs = maps(2, 4, positions) + (maps(2, 3, positions) if channels2 else ())
    assert torch.autograd.gradcheck(sketch, [m.requires_grad_() for m in inputs])


@pytest.mark.parametrize("positions", [2, 40])
@pytest.mark.parametrize("channels2", [None, 9])
def test_maclaurin_matches_its_definition(positions, channels2):
    sketch = RandomMaclaurin(12, 1500, channels2=channels2)  # more than one block of rows
    (x,) = maps(3, 12, positions)
    (y,) = maps(3, channels2, positions) if channels2 else (x,)
    left = torch.einsum("dc,bcp->bdp", sketch.sign_hash1.double(), x)
    right = torch.einsum("dc,bcp->bdp", sketch.sign_hash2.double(), y)
    want = left * right / 1500**0.5
    got = sketch(x) if channels2 is None else sketch(x, y)
    assert relative_error(got, want.sum(2)) < 1e-12


@pytest.mark.parametrize("kind", [TensorSketch, RandomMaclaurin])
@pytest.mark.parametrize(("channels", "sketch_dim"), [(6, 16), (24, 10)])
def test_dot_products_are_unbiased(kind, channels, sketch_dim):
    # <sketch x, sketch y> estimates (x . y)^2. Over n draws the mean strays by a standard error.
    x, y = maps(1, channels, 1, count=2)
    y = y + x
    n = 1000
    both = torch.cat([x, y])
    estimates = torch.stack(
        [(s := kind(channels, sketch_dim, seed=seed)(both))[0] @ s[1] for seed in range(n)]
    )
    truth = (x * y).sum() ** 2
    standard_error = estimates.std() / n**0.5
    assert abs(estimates.mean() - truth) < 3 * standard_error
    assert standard_error < 0.15 * truth


def test_hashes_are_seeded_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    first, same, other = (TensorSketch(32, 64, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[k], same[k]) for k in first)
    assert not torch.equal(first["index_hash1"], other["index_hash1"])
    assert not torch.equal(first["sign_hash1"], first["sign_hash2"])
    assert first["index_hash2"].tolist() == list(range(32))
    assert torch.equal(before, torch.get_rng_state())


def test_state_is_the_hashes_alone():
    names = ["index_hash1", "sign_hash1", "index_hash2", "sign_hash2"]
    assert list(TensorSketch(8, 16).state_dict()) == names
    assert list(RandomMaclaurin(8, 16).state_dict()) == ["sign_hash1", "sign_hash2"]


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("route", ROUTES)
def test_loaded_hashes_take_effect(route, assign):
    saved, other = TensorSketch(128, 50, seed=1, route=route), TensorSketch(128, 50, route=route)
    (x,) = maps(2, 128, 4)
    assert not torch.allclose(saved(x), other(x))
    other.load_state_dict(saved.state_dict(), assign=assign)
    assert torch.equal(saved(x), other(x))


def test_copies_and_pickles_work():
    sketch = TensorSketch(8, 16)
    (x,) = maps(2, 8, 4)
    stream = io.BytesIO()
    torch.save(sketch, stream)
    stream.seek(0)
    for twin in (copy.deepcopy(sketch), torch.load(stream, weights_only=False)):
        assert torch.equal(twin(x), sketch(x))


@pytest.mark.parametrize("name", ["index_hash1", "index_hash2"])
def test_hashes_of_a_longer_sketch_are_refused(name):
    sketch = TensorSketch(8, 16)
    with pytest.raises(WeightsError, match=rf"`{name}` holds bins 9 to 16, .* has bins 0 to 15"):
        sketch.load_state_dict(sketch.state_dict() | {name: torch.arange(9, 17)})


def test_casting_the_module_leaves_the_hashes_whole():
    sketch = TensorSketch(300, 5000).half().double()
    assert sketch.index_hash1.dtype == torch.int64
    (x,) = maps(1, 300, 3)
    assert relative_error(sketch(x), brute_force(sketch, x, x).sum(2)) < 1e-12


@pytest.mark.parametrize("route", ROUTES)
def test_repeats_to_the_bit(route, threads):
    sketch = TensorSketch(128, 100, route=route)
    x = maps(5, 128, 30, dtype=torch.float32)[0].requires_grad_()
    runs = []
    for _ in range(3):
        out = sketch(x)
        runs.append((out, *torch.autograd.grad(out.square().sum(), x)))
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))


@pytest.mark.parametrize("route", ROUTES)
def test_takes_maps_of_any_layout(route):
    sketch = TensorSketch(128, 100, route=route)
    (x,) = maps(2, 30, 128)
    strided = x.mT.detach().requires_grad_()
    dense = x.mT.contiguous().requires_grad_()
    for given in (strided, dense):
        sketch(given).square().sum().backward()
    torch.testing.assert_close(sketch(strided), sketch(dense))
    torch.testing.assert_close(strided.grad, dense.grad)


@pytest.mark.parametrize(
    ("channels", "sketch_dim", "positions", "route"),
    [
        (512, 8192, 784, "gram"),
        (512, 512, 784, "spectrum"),
        (1280, 1024, 49, "spectrum"),
        (20, 20, 784, "gram"),
        (20, 19, 784, "spectrum"),  # more channels than bins: rows don't lie in a run of bins
    ],
)
def test_route_follows_from_the_sizes(channels, sketch_dim, positions, route):
    sketch = TensorSketch(channels, sketch_dim)
    assert sketch._route_of(torch.empty(1, channels, positions)) == route


@pytest.mark.parametrize("channels2", [None, 24])
def test_hashes_from_elsewhere_are_taken_by_another_route_and_left_again(channels2):
    """Drawn second hashes, as other implementations have and as older weights hold them."""
    sketch = TensorSketch(32, 50, channels2=channels2)
    own = copy.deepcopy(sketch.state_dict())
    assert sketch.takes_gram(torch.empty(1, 32, 9)) == (channels2 is None)
    drawn = torch.randint(50, (channels2 or 32,), generator=torch.Generator().manual_seed(3))
    given = maps(2, 32, 9) + (maps(2, channels2, 9, seed=1) if channels2 else ())
    for second, route in ((drawn, "bags"), (own["index_hash2"], "gram")):
        sketch.load_state_dict(own | {"index_hash2": second})
        assert sketch._route_of(given[0]) == route
        assert not sketch.takes_gram(given[0]) or route == "gram"
        want = brute_force(sketch, given[0], given[-1]).sum(2)
        assert relative_error(sketch(*given), want) < 1e-12


@pytest.mark.parametrize("channels2", [None, 9])
@pytest.mark.parametrize("route", ROUTES)
def test_gradients_of_any_layout(route, channels2):
    """Expanded, as of a sum, and strided, as behind a transposition."""
    sketch = TensorSketch(6, 20, channels2=channels2, route=route)
    given = [m.requires_grad_() for m in maps(3, 6, 4) + (maps(3, 9, 4) if channels2 else ())]
    strided = maps(20, 6)[0][:, ::2].T
    for grad in (torch.ones(1, 1, dtype=torch.float64).expand(3, 20), strided):
        got = torch.autograd.grad(sketch(*given), given, grad)
        want = torch.autograd.grad(brute_force(sketch, given[0], given[-1]).sum(2), given, grad)
        for a, b in zip(got, want, strict=True):
            assert relative_error(a, b) < 1e-12


def test_a_compiled_sketch_sees_that_hashes_were_loaded():
    torch.compiler.reset()
    sketch = TensorSketch(8, 30, route="gram")
    compiled = torch.compile(sketch, fullgraph=True, backend="aot_eager")
    own = copy.deepcopy(sketch.state_dict())
    (x,) = maps(2, 8, 5)
    drawn = torch.randint(30, (8,), generator=torch.Generator().manual_seed(3))
    for state in (own, own | {"index_hash2": drawn}, TensorSketch(8, 30, seed=1).state_dict()):
        sketch.load_state_dict(state)
        assert relative_error(compiled(x), brute_force(sketch, x, x).sum(2)) < 1e-12


def test_torchs_defaults_do_not_reach_a_sketch():
    """A default device that holds nothing, a default type, and nothing left uninitialized."""
    sketch = TensorSketch(8, 30, route="gram")
    (x,) = maps(2, 8, 5)
    x.requires_grad_()
    want = torch.autograd.grad(brute_force(sketch, x, x).sum(2).square().sum(), x)[0]
    torch.use_deterministic_algorithms(True)
    try:
        with torch.device("meta"):
            sketch.load_state_dict(sketch.state_dict())
            got = torch.autograd.grad(sketch(x).square().sum(), x)[0]
    finally:
        torch.use_deterministic_algorithms(False)
    assert relative_error(got, want) < 1e-12


def test_tables_of_routes_that_are_never_taken_are_not_built():
    """A table of pairs of 2,048 channels is 75 MB and a sort."""
    for sketch, tables in (
        (TensorSketch(32, 50), {"_signs"}),
        (TensorSketch(32, 20), set()),  # fewer bins than channels: the spectrum
        (TensorSketch(32, 20, route="gram"), {"_pairs"}),
        (TensorSketch(32, 50, route="bags"), {"_pairs"}),
    ):
        assert {"_signs", "_pairs"} & set(vars(sketch)) == tables

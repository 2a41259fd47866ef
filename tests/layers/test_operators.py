"""Sharing a batch out over threads: every sample once, and nothing of torch's own setting lost."""

import threading

import pytest
import torch

from fieldmark.layers.operators import share_samples
from fieldmark.layers.sketch import TensorSketch

MUCH = 10**9


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def shares_of(samples: int, work: int = MUCH) -> list[tuple[range, str, int]]:
    """What each share covered, on which thread, and how many threads torch gave it."""
    found = []

    def note(share: slice) -> None:
        here = threading.current_thread().name
        found.append((range(samples)[share], here, torch.get_num_threads()))

    share_samples(note, samples, work)
    return sorted(found, key=lambda share: share[0].start)


@pytest.mark.parametrize("samples", [2, 3, 8])
def test_every_sample_is_taken_once_by_threads_of_one_thread_each(samples):
    shares = shares_of(samples)
    assert len(shares) == 2
    assert [i for share, _, _ in shares for i in share] == list(range(samples))
    assert max(len(s) for s, *_ in shares) - min(len(s) for s, *_ in shares) <= 1
    assert [threads for *_, threads in shares] == [1, 1]


@pytest.mark.parametrize(("samples", "work"), [(1, MUCH), (8, 10), (0, MUCH)])
def test_little_work_stays_where_it_is(samples, work):
    here = threading.current_thread().name
    assert shares_of(samples, work) == [(range(samples), here, 2)]


def test_the_caller_and_threads_to_come_keep_their_number():
    shares_of(2)
    seen = []
    fresh = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    fresh.start()
    fresh.join()
    assert [torch.get_num_threads(), *seen] == [2, 2]


def test_a_mistake_in_a_share_reaches_the_caller():
    def fail(_share: slice) -> None:
        raise ZeroDivisionError("in a share")

    with pytest.raises(ZeroDivisionError, match="in a share"):
        share_samples(fail, 2, MUCH)


@pytest.mark.parametrize("route", ["gram", "spectrum"])
@pytest.mark.parametrize("two", [False, True])
def test_shared_out_or_not_the_numbers_agree(route, two, monkeypatch):
    """Five samples, so that shares differ in length; with gradients and in inference mode."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(5, 24, 7, generator=generator).requires_grad_() for _ in range(1 + two)]
    sketch = TensorSketch(24, 50, channels2=24 if two else None, route=route)

    def run() -> list[torch.Tensor]:
        out = sketch(*maps)
        with torch.inference_mode():
            assert torch.equal(sketch(*maps), out)
        return [out.detach(), *torch.autograd.grad(out.square().sum(), maps)]

    alone = run()
    monkeypatch.setattr("fieldmark.layers.operators._LEAST_SHARE", 0)
    for want, got in zip(alone, run(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)

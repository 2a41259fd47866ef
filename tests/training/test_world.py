"""Several processes at one training, here as threads that add what they have."""

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

from fieldmark.errors import TrainingError
from fieldmark.recipe import Rate, Stage
from fieldmark.training.loss import PLAIN, Loss
from fieldmark.training.memory import Passes
from fieldmark.training.optim import make_optimizer, parameter_plan
from fieldmark.training.stage import Batch, set_trainable, train_steps
from fieldmark.training.world import ALONE, World, world


@dataclass
class Hall:
    """Where threads meet and lay down what they have."""

    size: int
    laid: dict[int, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size, timeout=30)

    def exchange(self, rank: int, item: object) -> list:
        self.laid[rank] = item
        self.barrier.wait()
        found = [self.laid[other] for other in range(self.size)]
        self.barrier.wait()
        return found


@dataclass(frozen=True)
class Threaded(World):
    hall: Hall | None = None

    def sum(self, tensor: Tensor) -> Tensor:
        return torch.stack(self.hall.exchange(self.rank, tensor)).sum(0)

    def rows(self, row: Tensor) -> Tensor:
        return torch.stack(self.hall.exchange(self.rank, row))

    def all_said(self, said):
        return self.hall.exchange(self.rank, said)


def in_threads(size: int, work: Callable[[World], object]) -> list:
    """What each of several processes gives, or raises."""
    hall, found = Hall(size), [None] * size

    def run(rank: int) -> None:
        try:
            found[rank] = work(Threaded(rank, size, hall))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


NETWORK = network()  # before there are threads, which share the global generator


def samples(count: int) -> Batch:
    generator = torch.Generator().manual_seed(count)
    inputs = torch.randn(count, 5, generator=generator)
    return Batch(torch.arange(count), inputs, torch.arange(count) % 3)


def fit(here: World, steps: list[list[Batch]], *, loss: Loss = PLAIN, model=None, passes=None):
    """Weights and losses of a process that takes its part of each batch."""
    model = copy.deepcopy(NETWORK if model is None else model)
    plan = parameter_plan(model, {"*": Rate()})
    set_trainable(model, plan, train_batch_norm=False)
    stage = Stage(name="s", train="all", lr=0.1, length="1 epoch", weight_decay=0.01, clip_norm=1)
    own = [
        [Batch(*(part[list(here.part(len(part)))] for part in batch)) for batch in step]
        for step in steps
    ]
    losses = list(
        train_steps(
            model,
            own,
            make_optimizer(model, plan, stage),
            model=model,
            factor=lambda _: 1,
            seed=0,
            loss=loss,
            passes=passes,
            world=here,
        )
    )
    return list(model.state_dict().values()), losses


def test_parts_are_neighbours_that_cover_each_sample_once():
    for count in range(12):
        parts = [World(rank, 5).part(count) for rank in range(5)]
        assert [place for part in parts for place in part] == list(range(count))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_turns_cover_each_item_once():
    turns = [World(rank, 3).turns("abcdefgh") for rank in range(3)]
    assert turns == ["adg", "beh", "cf"]


def test_one_process_is_alone_and_needs_no_launcher(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world.cache_clear()
    assert world() is ALONE
    with ALONE.leader_first():
        assert ALONE.heard("x") == "x"
    assert ALONE.all_said("x") == ["x"]
    assert ALONE.rows(torch.ones(2)).tolist() == [[1, 1]]


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("loss", [PLAIN, Loss(0.1, torch.tensor([1.0, 5.0, 0.2]))])
def test_parts_of_unequal_size_step_as_the_whole(size: int, loss: Loss):
    steps = [[samples(7), samples(4)], [samples(5)], [samples(1)]]  # of the last, some have none
    weights, losses = fit(ALONE, steps, loss=loss)
    found = in_threads(size, lambda here: fit(here, steps, loss=loss))
    for own, said in found:
        assert said == pytest.approx(losses, rel=1e-6)
        for mine, expected, first in zip(own, weights, found[0][0], strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)
            assert torch.equal(mine, first)


def test_a_parameter_without_gradient_in_any_process_stays_without():
    class Unused(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[2](self[1](self[0](x)))

    model = Unused(*network(), nn.Linear(2, 2))
    before = model[3].weight.clone()
    for own, _ in in_threads(2, lambda here: fit(here, [[samples(3)]] * 2, model=model)):
        assert torch.equal(own[4], before)  # decay would have moved it


def test_a_bad_sample_of_one_process_is_named_by_all():
    bad = samples(6)
    bad.inputs[5] = float("nan")  # of the last process
    for error in in_threads(3, lambda here: fit(here, [[samples(6)], [bad]])):
        assert isinstance(error, TrainingError)
        said = "became nan at step 2 of the stage, at lr 0.1, on 5. First bad: the inputs"
        assert said in str(error)


def test_where_one_process_lacks_memory_all_take_smaller_passes():
    told: dict[int, list[str]] = {0: [], 1: []}

    class Small(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 2 and threading.current_thread() in small:
                raise MemoryError("out of memory")
            return super().forward(x)

    small: list[threading.Thread] = []

    def work(here: World):
        if here.rank == 1:
            small.append(threading.current_thread())
        passes = Passes(None, told[here.rank].append)
        return fit(
            here, [[samples(8)]] * 3, model=Small(*copy.deepcopy(NETWORK)), passes=passes
        ), passes.most

    weights, _ = fit(ALONE, [[samples(8)]] * 3)
    for (own, _), most in in_threads(2, work):
        assert most == 2
        for mine, expected in zip(own, weights, strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)
    assert told[1] == ["  out of memory at batch 4: steps are now taken as 2 x 2"]
    assert told[0] == ["  out of memory in one process: none takes more than 2 at a time now"]

"""Steps and freezing, against closed forms and torch's own loop."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fieldmark.errors import TrainingError
from fieldmark.recipe import Rate, Stage
from fieldmark.training.memory import Passes, in_passes
from fieldmark.training.nonfinite import all_finite
from fieldmark.training.optim import ParameterPlan, make_optimizer, parameter_plan
from fieldmark.training.stage import (
    Batch,
    frozen_hash,
    gradient_is_as_good_as_loss,
    set_trainable,
    train_steps,
)


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def samples(count: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 5, generator=generator)
    labels = torch.randint(0, 3, (count,), generator=generator)
    return Batch(torch.arange(count), inputs, labels)


def cut(batch: Batch, sizes: list[int]) -> list[Batch]:
    parts = zip(*(part.split(sizes) for part in batch), strict=True)
    return [Batch(*part) for part in parts]


def plan_of(model: nn.Module, rates: dict[str, float]) -> ParameterPlan:
    return parameter_plan(model, {key: Rate(lr=value) for key, value in rates.items()})


def stage(**settings) -> Stage:
    return Stage(**{"name": "s", "train": "all", "lr": 0.1, "length": "1 epoch"} | settings)


def fit(
    model: nn.Module,
    steps: list[list[Batch]],
    network=None,
    batch_norm=False,
    more=None,
    **settings,
) -> list[float]:
    plan = plan_of(model, {"*": 1})
    set_trainable(model, plan, train_batch_norm=batch_norm)
    optimizer = make_optimizer(model, plan, stage(**settings))
    settings = {"model": model, "factor": lambda step: 1 / (step + 1), "seed": 0} | (more or {})
    return list(train_steps(network or model, steps, optimizer, **settings))


def test_steps_are_those_of_a_loop_written_by_hand():
    ours, theirs = network(), network()
    steps = [[samples(6, seed)] for seed in range(4)]
    losses = fit(ours, steps, weight_decay=0.01)
    decayed = [p for p in theirs.parameters() if p.ndim > 1]
    plain = [p for p in theirs.parameters() if p.ndim == 1]
    theirs.eval()
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 0.01}, {"params": plain}], lr=0.1, momentum=0.9
    )
    for step, [batch] in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (step + 1)
        optimizer.zero_grad()
        loss = F.cross_entropy(theirs(batch.inputs), batch.labels)
        loss.backward()
        optimizer.step()
        assert losses[step] == pytest.approx(loss.item(), rel=1e-6)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_accumulated_batches_step_as_one_whole():
    whole, parts = network(), network()
    batch = samples(10)
    fit(whole, [[batch]] * 3)
    fit(parts, [cut(batch, [4, 4, 2])] * 3)
    for mine, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(mine, other)


def test_dropout_depends_on_seed_and_step_and_leaves_the_global_generator_alone():
    def losses() -> list[float]:
        model = nn.Sequential(nn.Dropout(0.5), network())
        return fit(model, [[samples(6)], [samples(6)]])

    before = torch.random.get_rng_state()
    first = losses()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    assert losses() == first


def test_inputs_that_are_no_numbers_stop_with_step_rate_and_sample():
    good, bad = samples(6), samples(6)
    bad.inputs[2] = float("nan")
    said = r"loss became nan at step 2 of the stage, at lr 0.05, on 2\. First bad: the inputs"
    with pytest.raises(TrainingError, match=said):
        fit(network(), [[good], [bad]])


@pytest.mark.parametrize("name", ["0", "1", "3"])
def test_the_first_bad_tensor_is_named_with_the_parameter_to_blame(name: str):
    model = network()
    with torch.no_grad():
        model.get_parameter(f"{name}.weight").view(-1)[0] = float("inf")
    said = (
        rf"loss became (nan|inf) at step 1 .*on 0, 1, 2, 3 and 2 more\. First bad: the output of "
        rf"{name}, for {name}\.weight is not finite\. Lower the stage's lr"
    )
    with pytest.raises(TrainingError, match=said):
        fit(model, [[samples(6)]])


class Block(nn.Module):
    """The square root of 0 x: always 0, with a slope of 0 times infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.inner(x) * 0).sqrt()


def test_a_bad_gradient_under_a_good_loss_stops_too_and_moves_nothing():
    model = nn.Sequential(nn.Linear(5, 5), Block(), nn.Linear(5, 3))
    before = copy.deepcopy(model.state_dict())
    said = (
        r"gradient became infinite or nan \(loss [\d.]+\) at step 1 .*on 0, 1, 2, 3 and 2 more\. "
        r"First bad: the gradient of 1\.inner\.(weight|bias)\. Lower the stage's lr"
    )
    with pytest.raises(TrainingError, match=said):
        fit(model, [[samples(6)]])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_without_a_look_at_the_gradient_the_next_loss_tells():
    model = nn.Sequential(nn.Linear(5, 5), Block(), nn.Linear(5, 3))
    said = r"loss became nan at step 2 .*First bad: the output of 0, for 0\.weight is not finite"
    with pytest.raises(TrainingError, match=said):
        fit(model, [[samples(6)]] * 2, more={"look": False})


def test_only_a_linear_classifier_needs_no_look_at_its_gradient():
    linear = nn.Linear(5, 3)
    assert gradient_is_as_good_as_loss(nn.Sequential(nn.Dropout(0.5), linear))
    assert not gradient_is_as_good_as_loss(nn.Sequential(Block(), linear))
    assert not gradient_is_as_good_as_loss(linear.forward)


def test_a_large_gradient_whose_sum_overflows_is_none_to_stop_for():
    largest = torch.finfo(torch.float32).max
    assert all_finite([torch.full((4,), largest / 2), torch.zeros(3)])
    assert all_finite([])
    assert not all_finite([torch.zeros(3), torch.tensor([float("inf"), -float("inf")])])


def test_an_overflowing_loss_of_finite_logits_is_named():
    model = nn.Linear(5, 3)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3e38], [-3e38], [0.0]]).expand(3, 5) / 8)
    batch = Batch(torch.arange(9), torch.ones(9, 5), torch.ones(9, dtype=torch.int64))
    with pytest.raises(TrainingError, match=r"loss became inf .*First bad: the loss, of finite"):
        fit(model, [[batch]])


class Small:
    """A computer whose memory holds so many samples at a time."""

    def __init__(self, model: nn.Module, most: int, error: Exception | None = None) -> None:
        self.model, self.most, self.sizes = model, most, []
        self.error = error or RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(inputs))
        logits = self.model(inputs)
        if len(inputs) > self.most:
            raise self.error
        return logits


ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_what_does_not_fit_is_taken_in_passes_bit_for_bit_as_accumulation(
    error: Exception, batch_norm: bool
):
    told: list[str] = []
    ours, theirs = (nn.Sequential(nn.Dropout(0.3), network()) for _ in range(2))
    small = Small(ours, 4, error)
    steps = [samples(16, seed) for seed in range(3)]
    more = {"passes": Passes(None, told.append)}
    losses = fit(ours, [[b] for b in steps], small, batch_norm, more=more)
    assert losses == fit(theirs, [cut(b, [4] * 4) for b in steps], batch_norm=batch_norm)
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key
    assert small.sizes == [16, 8] + [4] * 12
    also = ", and BatchNorm measures each alone" if batch_norm else ""
    assert told == [f"  out of memory at batch 16: steps are now taken as 4 x 4{also}"]


def test_a_pass_without_gradients_is_cut_until_it_fits():
    def run(small: Small, batch: Tensor, passes: Passes) -> Tensor:
        found, twice = in_passes(lambda part: (y := small(part), 2 * y), batch, passes)
        assert torch.equal(twice, 2 * found)
        return found

    told: list[str] = []
    model, passes = network().eval(), Passes(None, told.append)
    small, batch = Small(model, 2), samples(9).inputs
    for _ in range(2):  # the second time it is known
        torch.testing.assert_close(run(small, batch, passes), model(batch))
    assert small.sizes == [9, 5, 3] + 2 * [2, 2, 2, 2, 1]
    assert told == ["  out of memory at 9 photos seen at once: now 2 at a time"]
    with pytest.warns(UserWarning, match="out of memory at 9 photos seen at once: now 2 at a time"):
        run(Small(model, 2), batch, Passes())
    with pytest.raises(TrainingError, match=r"single photo does not fit into memory .*image_size"):
        run(Small(model, 0), batch, Passes())
    with pytest.raises(RuntimeError, match="a defect"):
        run(Small(model, 0, RuntimeError("a defect")), batch, Passes())


@pytest.mark.parametrize("error", [*ERRORS, ValueError("a defect")], ids=repr)
def test_an_optimiser_without_memory_is_told_apart_from_a_batch(
    error: Exception, monkeypatch: pytest.MonkeyPatch
):
    def step(self, closure=None):
        raise error

    monkeypatch.setattr(torch.optim.SGD, "step", step)
    kind, said = TrainingError, r"optimiser's step on 0 MB of weights, whatever the batch\. End"
    if isinstance(error, ValueError):
        kind, said = ValueError, "a defect"
    with pytest.raises(kind, match=said):
        fit(network(), [[samples(4)]])


def test_passes_that_are_not_alike_step_as_the_whole():
    told: list[str] = []
    whole, parts = network(), network()
    fit(whole, [[samples(7)]])
    fit(parts, [[samples(7)]], Small(parts, 4), more={"passes": Passes(None, told.append)})
    for mine, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(mine, other)
    assert told == ["  out of memory at batch 7: steps are now taken as 2 x up to 4"]


def test_passes_known_from_before_need_no_failure():
    model = network()
    small = Small(model, 4)
    fit(model, [[samples(8)]], small, more={"passes": Passes(4)})
    assert small.sizes == [4, 4]


def test_one_sample_that_does_not_fit_is_told():
    model = network()
    said = r"single photo does not fit into memory \(DefaultCPU.*Lower `data.image_size`, freeze"
    with pytest.raises(TrainingError, match=said):
        fit(model, [[samples(4)]], Small(model, 0))


def test_any_other_error_passes_through():
    model = network()
    with pytest.raises(RuntimeError, match="a defect"):
        fit(model, [[samples(4)]], Small(model, 0, RuntimeError("a defect")))


@pytest.mark.parametrize("train_batch_norm", [False, True])
def test_only_what_the_plan_trains_moves(train_batch_norm: bool):
    model = network()
    before = copy.deepcopy(model.state_dict())
    plan = plan_of(model, {"0.*": 0, "*": 1})
    set_trainable(model, plan, train_batch_norm=train_batch_norm)
    frozen = frozen_hash(model)
    optimizer = make_optimizer(model, plan, stage(momentum=0))
    list(
        train_steps(model, [[samples(6)]] * 2, optimizer, model=model, factor=lambda _: 1.0, seed=0)
    )
    moved = {
        key for key, value in model.state_dict().items() if not torch.equal(value, before[key])
    }
    statistics = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    weights = {"1.weight", "1.bias", "3.weight", "3.bias"}
    assert moved == (weights | statistics if train_batch_norm else weights)
    assert frozen_hash(model) == frozen


def test_batch_norm_of_a_frozen_part_stands_still_even_when_others_train():
    model = nn.Sequential(network(), network(1))
    plan = plan_of(model, {"0.*": 0, "*": 1})
    set_trainable(model, plan, train_batch_norm=True)
    assert not any(module.training for module in model[0].modules())
    assert model[1][1].training


def test_the_frozen_hash_sees_a_frozen_batch_norm_that_was_left_on():
    model = network()
    set_trainable(model, plan_of(model, {"3.*": 1, "*": 0}), train_batch_norm=False)
    before = frozen_hash(model)
    model[1].train()
    assert frozen_hash(model) == before
    model(samples(6).inputs)
    assert frozen_hash(model) != before


@pytest.mark.parametrize("key", ["0.weight", "1.running_var", "1.num_batches_tracked"])
def test_the_frozen_hash_sees_the_smallest_change(key: str):
    model = network()
    set_trainable(model, plan_of(model, {"3.*": 1, "*": 0}), train_batch_norm=True)
    before = frozen_hash(model)
    with torch.no_grad():
        tensor = model.state_dict()[key]
        tensor.view(-1)[0] += 1 if key.endswith("tracked") else 1e-6
    assert frozen_hash(model) != before

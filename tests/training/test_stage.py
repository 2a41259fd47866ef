"""Steps and freezing, against closed forms and torch's own loop."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fieldmark.errors import TrainingError
from fieldmark.recipe import Rate, Stage
from fieldmark.training.optim import ParameterPlan, make_optimizer, parameter_plan
from fieldmark.training.stage import Batch, frozen_hash, set_trainable, train_steps


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


def fit(model: nn.Module, steps: list[list[Batch]], multipliers=None, **settings) -> list[float]:
    plan = plan_of(model, multipliers or {"*": 1})
    set_trainable(model, plan, train_batch_norm=False)
    optimizer = make_optimizer(model, plan, stage(**settings))
    return list(train_steps(model, steps, optimizer, factor=lambda step: 1 / (step + 1), seed=0))


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


def test_a_loss_that_is_no_number_stops_with_step_rate_and_samples():
    model = network()
    good, bad = samples(6), samples(6)
    bad.inputs[2] = float("nan")
    with pytest.raises(
        TrainingError,
        match=r"loss became nan at step 2 of the stage, at lr 0.05, on 0, 1, 2, 3 and 2 more",
    ):
        fit(model, [[good], [bad]])


@pytest.mark.parametrize("train_batch_norm", [False, True])
def test_only_what_the_plan_trains_moves(train_batch_norm: bool):
    model = network()
    before = copy.deepcopy(model.state_dict())
    plan = plan_of(model, {"0.*": 0, "*": 1})
    set_trainable(model, plan, train_batch_norm=train_batch_norm)
    frozen = frozen_hash(model)
    optimizer = make_optimizer(model, plan, stage(momentum=0))
    list(train_steps(model, [[samples(6)]] * 2, optimizer, factor=lambda _: 1.0, seed=0))
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


@pytest.mark.parametrize("key", ["0.weight", "1.running_var", "1.num_batches_tracked"])
def test_the_frozen_hash_sees_the_smallest_change(key: str):
    model = network()
    set_trainable(model, plan_of(model, {"3.*": 1, "*": 0}), train_batch_norm=True)
    before = frozen_hash(model)
    with torch.no_grad():
        tensor = model.state_dict()[key]
        tensor.view(-1)[0] += 1 if key.endswith("tracked") else 1e-6
    assert frozen_hash(model) != before

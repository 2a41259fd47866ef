"""Checkpoints give back exactly what was kept, or say that they can't."""

from pathlib import Path

import pytest
import torch
from torch import nn

from fieldmark.errors import RecordError
from fieldmark.training.checkpoint import load_checkpoint, restore, save_checkpoint


def network(width: int = 4) -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))
    generator = torch.Generator().manual_seed(0)
    for parameter in layers.parameters():
        nn.init.normal_(parameter, generator=generator)
    return layers


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    inputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(inputs).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.1),
        lambda p: torch.optim.RMSprop(p, lr=0.1),
    ],
    ids=["momentum", "plain", "adamw", "rmsprop"],
)
def test_going_on_is_bit_for_bit_the_same_as_never_stopping(tmp_path: Path, make):
    model = network()
    optimizer = make(model.parameters())
    for seed in range(3):
        step(model, optimizer, seed)
    save_checkpoint(tmp_path / "last", model, optimizer, {"step": 3, "name": "Ö 鳥"})
    step(model, optimizer, 3)

    other = network()
    second = make(other.parameters())
    kept = load_checkpoint(tmp_path / "last")
    restore(kept, other, second)
    assert kept.position == {"step": 3, "name": "Ö 鳥"}
    step(other, second, 3)
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


def test_a_momentum_comes_back_in_the_memory_format_of_its_parameter(tmp_path: Path):
    def convolution() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.Conv2d(3, 4, 3)
        for parameter in model.parameters():
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
        model.to(memory_format=torch.channels_last)
        return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        images = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(1))
        optimizer.zero_grad()
        model(images.to(memory_format=torch.channels_last)).square().mean().backward()
        optimizer.step()

    model, optimizer = convolution()
    step(model, optimizer)
    save_checkpoint(tmp_path / "last", model, optimizer, {})
    other, second = convolution()
    restore(load_checkpoint(tmp_path / "last"), other, second)
    step(model, optimizer)
    step(other, second)
    assert torch.equal(model.weight, other.weight)


def test_without_an_optimizer_the_weights_come_back(tmp_path: Path):
    model, other = network(), network()
    with torch.no_grad():
        model[0].weight.add_(1)
    save_checkpoint(tmp_path / "last", model, None, {})
    restore(load_checkpoint(tmp_path / "last"), other, None)
    assert torch.equal(model[0].weight, other[0].weight)


def test_every_flipped_byte_is_noticed(tmp_path: Path):
    path = tmp_path / "last"
    save_checkpoint(path, network(), None, {"step": 1})
    content = path.read_bytes()
    for position in range(8, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(RecordError, match=r"last (is damaged|can't be read|has format)"):
            load_checkpoint(path)


def test_a_torn_file_is_noticed(tmp_path: Path):
    path = tmp_path / "last"
    save_checkpoint(path, network(), None, {})
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RecordError, match=r"can't be read.*Remove it to start again"):
        load_checkpoint(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(RecordError, match=r"none can't be read"):
        load_checkpoint(tmp_path / "none")


def test_another_model_is_refused(tmp_path: Path):
    save_checkpoint(tmp_path / "last", network(4), None, {})
    with pytest.raises(RecordError, match="of another model: size mismatch"):
        restore(load_checkpoint(tmp_path / "last"), network(5), None)

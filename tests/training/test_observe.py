"""What is seen of a step, against numbers worked out by hand."""

import time

import pytest
import torch

from fieldmark.training.observe import StepObserver, Stopwatch


def test_gradient_and_move_of_one_step():
    parameter = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    observer = StepObserver(optimizer)
    parameter.grad = torch.tensor([6.0, 8.0])
    observer.arm()
    observer.before_step()
    optimizer.step()
    found = observer.after_step()
    assert found == {
        "train/grad_norm": pytest.approx(10.0),
        "train/update_ratio": pytest.approx(0.1 * 10 / 5),
    }


def test_a_step_not_asked_for_is_not_measured():
    parameter = torch.nn.Parameter(torch.ones(2))
    observer = StepObserver(torch.optim.SGD([parameter], lr=0.1))
    observer.before_step()
    assert observer.after_step() == {}


def test_the_stopwatch_tells_waiting_from_working(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def slow():
        for item in range(3):
            now[0] += 2
            yield item

    watch = Stopwatch(slow())
    for _ in watch:
        now[0] += 5
    assert watch.lap() == {"train/data_seconds": 6.0, "train/compute_seconds": 15.0}
    assert watch.lap() == {"train/data_seconds": 0.0, "train/compute_seconds": 0.0}

"""Samplers: inside their space, better than chance where they learn, and without torch."""

import sys

import pytest

from fieldmark.studies.sampler import drawn, optuna_study, proposed
from fieldmark.studies.space import Search, Space

SPACES = {
    "rate": Space(low=1e-4, high=10, log=True),
    "steps": Space(low=1, high=4, integer=True),
    "kind": Space(choices=("a", ["b"], None)),
}


def is_inside(point):
    return (
        1e-4 <= point["rate"] <= 10
        and point["steps"] in {1, 2, 3, 4}
        and point["kind"] in ("a", ["b"], None)
    )


@pytest.mark.parametrize("sampler", ["random", "quasi-random"])
def test_drawn_points_use_the_whole_space(sampler):
    points = drawn(Search(sampler=sampler, trials=600), SPACES)
    assert all(map(is_inside, points))
    for steps in (1, 2, 3, 4):
        assert 110 < sum(point["steps"] == steps for point in points) < 190
    for kind in ("a", ["b"], None):
        assert 160 < sum(point["kind"] == kind for point in points) < 240
    assert 240 < sum(point["rate"] < 10**-1.5 for point in points) < 360


@pytest.mark.parametrize("lower_is_better", [True, False])
def test_tpe_goes_where_it_is_good(lower_is_better):
    search = Search(sampler="tpe", trials=60)
    space = {"x": Space(low=0, high=1)}
    sign = 1 if lower_is_better else -1
    seen = []
    while len(seen) < 60:
        for point in proposed(search, space, seen, 5, lower_is_better=lower_is_better):
            seen.append((point, sign * (point["x"] - 0.7) ** 2))
    late = [point["x"] for point, _ in seen[30:]]
    assert sum(abs(x - 0.7) < 0.15 for x in late) > 20  # by chance 9
    assert len({point["x"] for point, _ in seen}) > 50


def test_a_failed_point_is_avoided():
    search, space = Search(sampler="tpe"), {"x": Space(low=0, high=1)}
    seen = [({"x": x / 40}, None if x > 20 else 0.5 + x / 1000) for x in range(41)]
    asked = proposed(search, space, seen, 20, lower_is_better=False)
    assert sum(point["x"] < 0.55 for point in asked) > 15


def test_choices_of_any_type_are_proposed_and_understood():
    seen = [({"rate": 1.0, "steps": n, "kind": kind}, n) for n, kind in enumerate(["a", ["b"]], 1)]
    asked = proposed(Search(sampler="tpe"), SPACES, seen, 10, lower_is_better=False)
    assert all(map(is_inside, asked))
    study = optuna_study(SPACES, seen, lower_is_better=False)
    assert [trial.params["kind"] for trial in study.trials] == [0, 1]


@pytest.mark.slow
def test_gp_computes_in_a_process_of_its_own():
    seen = [({"x": n / 10}, -((n / 10 - 0.7) ** 2)) for n in range(11)]
    loaded = "torch" in sys.modules
    space = {"x": Space(low=0, high=1)}
    asked = proposed(Search(sampler="gp"), space, seen, 2, lower_is_better=False)
    assert len(asked) == 2
    assert all(0 <= point["x"] <= 1 for point in asked)
    assert ("torch" in sys.modules) == loaded

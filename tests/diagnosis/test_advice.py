"""What to try next: commands that work, at what cost, most worth first."""

import shlex

import numpy as np
import pytest

from fieldmark.checked_yaml import check_text
from fieldmark.diagnosis.advice import CHANGES, next_experiments
from fieldmark.diagnosis.diagnose import RUN_CHECKS, diagnose_run, firing
from fieldmark.diagnosis.finding import Finding
from fieldmark.recipe import Recipe

TIMES = {"stages": [{"name": "head", "seconds_preparing": 2.0, "seconds_training": 30.0}]}


def finding(check: str, **numbers) -> Finding:
    numbers = {
        "stage": "head",
        "cut": 12.4,
        "clip": 0.731,
        "lower": 0.123,
        "higher": 10.0,
    } | numbers
    return Finding(check, "R0", "fires", "problem", numbers, None, "", "", "", "It is refuted.")


def overrides(command: str) -> list[str]:
    _, _, _, *found = shlex.split(command)
    return found


@pytest.mark.parametrize("check", CHANGES)
def test_every_command_makes_a_recipe_that_is_changed(check, record, well):
    given = {"weight_decay": 1e-3, "schedule": {"name": "step", "every": "4 epochs"}}
    run = record((given, well()), manifest=TIMES)
    (found,) = next_experiments(run, [finding(check)])
    changed = check_text(run.recipe_text, Recipe, overrides(found.command), name="recipe")
    before = check_text(run.recipe_text, Recipe, [], name="recipe")
    assert changed.hash() != before.hash()
    assert check in {one.name for one in RUN_CHECKS}
    assert found.refuted_by == "It is refuted."


def test_an_exact_head_that_underfits_has_no_rate_to_raise(record, well):
    exact = {"solver": "lbfgs", "weight_decay": 1e-3, "schedule": "constant"}
    (found,) = next_experiments(record((exact, well())), [finding("underfitting")])
    assert overrides(found.command) == ["stages.head.weight_decay=0.0001"]


@pytest.mark.parametrize(
    ("check", "expected", "seconds"),
    [
        ("lr_too_low", ["stages.head.lr=10"], 32),
        ("lr_too_high", ["stages.head.lr=0.1"], 32),
        (
            "diverged_early",
            ["stages.head.lr=0.1", "stages.head.schedule={name: cosine, warmup: 10 %}"],
            32,
        ),
        ("diverged_midway", ["stages.head.clip_norm=0.73"], 32),
        ("rate_far_above_range", ["stages.head.lr=0.12"], 32),
        ("too_short", ["stages.head.length=60 epochs"], 62),
        ("too_long", ["stages.head.length=12 epochs"], 14),
        ("decayed_too_early", ["stages.head.schedule=cosine"], 32),
        ("restless_val", ["stages.head.average=0.99"], 32),  # lr falls to 0 already
    ],
)
def test_commands_and_their_cost(check, expected, seconds, record):
    (found,) = next_experiments(record(manifest=TIMES), [finding(check)])
    assert overrides(found.command) == expected
    assert found.seconds == pytest.approx(seconds)


def test_the_first_to_change_a_setting_says_by_how_much(record):
    run = record(manifest=TIMES)
    found = next_experiments(run, [finding("diverged_early"), finding("lr_too_high")])
    assert [one.check for one in found] == ["diverged_early"]


def test_what_was_not_rehearsed_well_is_rehearsed_again(record):
    (found,) = next_experiments(record(), [finding("no_band_of_rates")])
    assert found.command.startswith("fieldmark rehearse ")
    assert found.command.endswith("recipe.yaml --stage head")


def test_most_worth_first_and_nothing_without_times(record, well):
    loss = np.linspace(np.log(10), 0.8 * np.log(10), 31)
    straight = {"minitrain/loss": loss, "val/loss": loss, "val/top1": np.linspace(0.1, 0.8, 31)}
    run = record(({}, well(**straight, **{"train/lr": np.ones(30)})))
    findings = diagnose_run(run)
    assert [f.check for f in firing(findings)][:1] == ["lr_too_low"]
    found = next_experiments(run, findings)
    assert [one.check for one in found][:2] == ["lr_too_low", "too_short"]
    assert found[0].seconds is None  # the record has no times


def test_nothing_fires_and_nothing_is_to_be_tried(record):
    run = record()
    quiet = [f for f in diagnose_run(run) if f.outcome != "fires"]
    assert next_experiments(run, quiet) == []

"""Runs that are ended early: by the rule, in fairness, listed, and the same ones every time."""

import subprocess
import sys

import numpy as np
import pytest

from fieldmark.errors import RecipeError
from fieldmark.studies.executor import LocalExecutor
from fieldmark.studies.pruner import Curve, curves_of, falls_behind
from fieldmark.studies.run import RunWriter
from fieldmark.studies.space import Pruner
from fieldmark.studies.study import Study
from fieldmark.studies.table import cell_table, marginals
from fieldmark.study_report import rows_of, sentences

BASE = """\
name: base
data: {folder: photos}
stages:
  - {name: head, train: head, lr: 1, length: 6 epochs}
  - {name: all, train: all, lr: 0.1, length: 10 epochs}
"""
STUDY = """\
name: rates
question: Which rate?
base: base
axes:
  - {key: stages.all.lr, values: [0.5, 0.6, 0.7, 0.55, 0.8, 0.1, 0.65, 0.9]}
pruner: {name: median, startup: 3}
"""
PRUNERS = [
    Pruner(name="median"),
    Pruner(name="percentile", best=40),
    Pruner(name="successive_halving", reduction=2),
    Pruner(name="hyperband"),
]


def drawn(count, seed, length=8):
    """Rising curves, some of them ended early."""
    draw = np.random.default_rng(seed)
    curves = np.sort(draw.random((count, length)), axis=1)
    ends = [length if full else int(draw.integers(1, length)) for full in draw.random(count) < 0.8]
    return [
        Curve(tuple(curve[:end].tolist()), end == length)
        for curve, end in zip(curves, ends, strict=True)
    ]


def test_a_curve_is_of_a_run_that_was_measured_and_did_not_fail(tmp_path):
    def run(name, *values, end):
        with RunWriter.create(tmp_path / name, "", {"class_names": ["a", "b"]}) as writer:
            for step, value in enumerate(values):
                writer.record({"val/loss": value}, step=step, stage="all")
            end(writer)
        return tmp_path / name

    def pruned(writer):
        writer.fail("fell behind", status="pruned")

    runs = [
        run("whole", 3, 2, 1, end=RunWriter.finish),
        run("ended early", 3, 2.5, end=pruned),
        run("failed", 3, 2, end=lambda writer: writer.fail("no room")),
        run("blew up", 3, float("nan"), end=RunWriter.finish),
        run("only its start", 3, end=RunWriter.finish),
        tmp_path / "moved",
    ]
    assert curves_of(runs, "val/loss") == [Curve((2, 1), True), Curve((2.5,), False)]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("pruner", "share"), [(PRUNERS[0], 50), (PRUNERS[1], 40)])
def test_a_run_ends_below_the_percentile_of_the_finished_ones(pruner, share, seed):
    *earlier, own = drawn(12, seed)
    finished = [curve.values for curve in earlier if curve.finished]
    for number in range(1, len(own.values) + 1):
        there = [values[number - 1] for values in finished]
        behind = max(own.values[:number]) < np.percentile(there, 100 - share)
        answer = falls_behind(pruner, earlier, own.values[:number], 8, lower_is_better=False)
        assert answer == (behind and len(finished) >= 5)


def test_too_few_finished_runs_end_none():
    earlier = [Curve((0.9, 0.9), True)] * 4
    worst = [0.0, 0.0]
    assert not falls_behind(PRUNERS[0], earlier, worst, 2, lower_is_better=False)
    assert falls_behind(PRUNERS[0], [*earlier, earlier[0]], worst, 2, lower_is_better=False)


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner.name)
def test_less_of_a_loss_is_more(pruner):
    for seed in range(10):
        *earlier, own = drawn(10, seed)
        mirrored = [Curve(tuple(-v for v in c.values), c.finished) for c in earlier]
        up = falls_behind(pruner, earlier, own.values, 8, lower_is_better=False)
        down = falls_behind(pruner, mirrored, [-v for v in own.values], 8, lower_is_better=True)
        assert up == down


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner.name)
def test_the_best_so_far_goes_on(pruner):
    for seed in range(10):
        earlier = drawn(10, seed)
        for number in range(1, 9):
            best = [1.0 + step for step in range(number)]
            assert not falls_behind(pruner, earlier, best, 8, lower_is_better=False)


def test_halving_ends_what_is_not_in_the_best_half_at_a_rung():
    earlier = [Curve((value,) * 4, True) for value in (0.5, 0.6, 0.7, 0.8)]
    told = {
        value: falls_behind(PRUNERS[2], earlier, [value], 4, lower_is_better=False)
        for value in (0.4, 0.55, 0.75, 0.9)
    }
    assert told == {0.4: True, 0.55: True, 0.75: False, 0.9: False}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["objective.folds=3"], "this study judges by 3 folds. Set `objective: {folds: none}`"),
        (["stages.all.train=head", "objective.folds=none"], "trained together as one product, so"),
        (
            ["axes.0.key=stages.all.length", "axes.0.values=[5 epochs, 10 epochs]"],
            "differ in their",
        ),
        (["pruner.best=10"], "`best` is no option of median, which takes ahead, startup"),
    ],
)
def test_unfair_pruning_is_refused(design, changes, message):
    with pytest.raises(RecipeError) as error:
        design(STUDY, *changes, base=BASE)
    assert message in str(error.value)
    assert "line 6" in str(error.value) or "command line" in str(error.value)


def test_a_pruner_is_known_by_its_name(design):
    file = design(STUDY, "pruner=hyperband", base=BASE).file
    assert file.pruner == Pruner(name="hyperband", reduction=3)


@pytest.fixture
def asked(design, tmp_path, fake):
    sys.modules.pop(fake, None)
    return lambda name: Study.create(tmp_path / name, design(STUDY, base=BASE))


def pruned_in(study):
    return {
        (cell, seed): result.reason
        for (cell, seed), result in study.results().items()
        if result.status == "pruned"
    }


def test_what_falls_behind_is_listed_and_counts_for_nothing(asked, fake):
    study = asked("a")
    told = list(LocalExecutor(f"{fake}:watched").run(study))
    assert [r.status for r in told] == [
        *("finished",) * 3,  # startup
        "pruned",  # 0.55, under the median of 0.5, 0.6, 0.7
        "finished",
        "pruned",
        "finished",  # 0.65, the very median of 0.5, 0.6, 0.7 and 0.8: not under it
        "finished",
    ]
    first = told[3]
    assert first.reason == (
        "median: val/top1 was 0.055 after 1 of 10 evaluations of the last stage, "
        "beside 3 earlier runs."
    )
    rows = rows_of(study)
    assert [row["status"] for row in rows].count("pruned") == 2
    assert rows[3]["mean"] is None
    assert rows[3]["reason"] == first.reason
    table = cell_table(study)
    assert table["failed"].sum() == 0
    assert marginals(study, table, "lr").filter(lr=0.1)["mean"].to_list() == [None]
    assert sentences(study) == []  # these runs left no predictions
    assert study.plan().is_done
    assert list(LocalExecutor(f"{fake}:watched").run(study)) == []


def test_decisions_can_be_made_again_from_the_folders(asked, fake):
    study = asked("a")
    told = list(LocalExecutor(f"{fake}:watched").run(study))
    for number, result in enumerate(told):
        earlier = curves_of([r.folder for r in told[:number]], "val/top1")
        assert len(earlier) == number
        (own,) = curves_of([result.folder], "val/top1")
        answer = falls_behind(
            study.design.file.pruner, earlier, own.values, 10, lower_is_better=False
        )
        assert answer == (result.status == "pruned")
        assert own.finished == (result.status == "finished")
        assert max(own.values) < 0.91  # the start, and the stage before, do not count


def test_who_is_faster_changes_nothing(design, tmp_path, fake):
    sys.modules.pop(fake, None)
    studies = [
        Study.create(tmp_path / name, design(STUDY, "pruner.ahead=2", base=BASE))
        for name in ("alone", "crowded")
    ]
    for study, workers in zip(studies, (1, 3), strict=True):
        list(LocalExecutor(f"{fake}:watched", workers=workers, lapse=2).run(study))
    assert pruned_in(studies[0]) == pruned_in(studies[1])
    beside = [reason.split("beside ")[1] for reason in pruned_in(studies[0]).values()]
    assert beside == ["3 earlier runs."]  # the sixth: 0.55 comes too early with two ahead


KILLED = """
import sys
from pathlib import Path
from fieldmark.studies.executor import LocalExecutor
from fieldmark.studies.study import Study
list(LocalExecutor("fake_training:watched", lapse=0.1).run(Study.open(Path(sys.argv[1]))))
"""


def test_a_killed_study_ends_the_same_runs(asked, fake, tmp_path, monkeypatch):
    when = 3  # the first that will be ended
    whole, killed = asked("whole"), asked("killed")
    list(LocalExecutor(f"{fake}:watched").run(whole))
    (tmp_path / "trace").write_text(str(when))
    monkeypatch.setenv("TRACE", str(tmp_path / "trace"))
    monkeypatch.setenv("PYTHONPATH", ":".join(map(str, filter(None, sys.path))))
    command = [sys.executable, "-c", KILLED, str(killed.folder)]
    assert subprocess.run(command, check=False, timeout=100).returncode == -9
    assert len(Study.open(killed.folder).results()) == when
    assert subprocess.run(command, check=False, timeout=100).returncode == 0
    assert pruned_in(Study.open(killed.folder)) == pruned_in(whole)

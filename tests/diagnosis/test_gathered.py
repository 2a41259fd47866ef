"""What the runs of a study share is told once, and weighs what it touches."""

import json
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
from tests.diagnosis.conftest import COUNTS, STAGE, _write, healthy
from tests.diagnosis.test_study_checks import LR, Maker

from fieldmark.diagnosis.diagnose import best_run, diagnose_study, firing, rest_of
from fieldmark.diagnosis.finding import check, fires
from fieldmark.diagnosis.gathered import Examined, gather_findings
from fieldmark.diagnosis.study_advice import next_experiments_of_study
from fieldmark.language import Words
from fieldmark.report.diagnosed import advice_of, sorted_findings
from fieldmark.report.render import finding_text
from fieldmark.studies.design import Cell
from fieldmark.studies.run import RunWriter

RATES, DECAYS = (0.1, 1.0, 10.0, 30.0), (0, 1e-4, 1e-3)
TEXTS = {
    "title": "It is ill.",
    "cause": "c",
    "advice": "a",
    "refuted_by": "r",
    "otherwise": "o",
}


def make(name, severity):
    return check(name, "R0", severity, label=f"{name} things", **TEXTS)(lambda _: fires())


ILL, BAD, ODD = make("Ill", "problem"), make("Bad", "warning"), make("Odd", "note")


def study(ill, *, seeds=3, found=(ILL,)):
    """Twelve cells, each with some seeds; `ill` are pairs of a cell's number and a seed."""
    points = [{"lr": lr, "decay": decay} for lr in RATES for decay in DECAYS]
    cells = [Cell(str(n), None, None, (point,)) for n, point in enumerate(points)]
    return cells, [
        Examined(cell, seed, SimpleNamespace(), [c(None) for c in found if (n, seed) in ill])
        for n, cell in enumerate(cells)
        for seed in range(seeds)
    ]


def gathered(ill, best=4, **more):
    cells, examined = study(ill, **more)
    return gather_findings(examined, cells[best], (ILL, BAD, ODD))


def test_most_seeds_of_the_best_cell_make_it_one_of_the_study():
    (found,) = gathered({(4, 0), (4, 2)})
    assert (found.severity, found.outcome) == ("problem", "fires")
    assert found.title == (
        "Ill things in 2 of 36 runs: 1 of 12 cells (learning rate 1; decay 0.0001), the best among "
        "them. One of them, learning rate 1, decay 0.0001, seed 0: It is ill."
    )
    assert (found.cause, found.advice, found.refuted_by) == ("c", "a", "r")


@pytest.mark.parametrize(
    "ill",
    [
        {(4, 1)},  # one seed of the best
        {(n, 0) for n in range(12)},  # one seed of each
        set(),
    ],
)
def test_seeds_that_disagree_are_chance(ill):
    assert gathered(ill) == []


def test_elsewhere_it_is_a_note_on_those_settings():
    (found,) = gathered({(n, seed) for n in (9, 10, 11) for seed in (0, 1)}, found=(BAD,))
    assert found.severity == "note"
    assert found.advice.startswith("Nothing to mend: these settings were not chosen.")
    assert found.title == (
        "Bad things in 6 of 36 runs: 3 of 12 cells (learning rate 30), the best not among them. "
        "One of them, learning rate 30, decay 0, seed 0: It is ill."
    )


@pytest.mark.parametrize(
    ("count", "severity"), [(1, None), (2, "note"), (6, "note"), (7, "problem"), (12, "problem")]
)
def test_of_single_seeds_more_than_half_of_the_cells(count, severity):
    ill = {(n, 0) for n in range(12) if n != 4}
    ill = set(sorted(ill)[:count]) if count < 12 else {(n, 0) for n in range(12)}
    found = gathered(ill, seeds=1)
    assert [one.severity for one in found] == ([severity] if severity else [])
    if count == 12:
        assert found[0].title.startswith("Ill things in 12 of 12 runs: all 12 cells. One of them,")


def test_each_check_is_told_once_and_notes_of_runs_are_not():
    everywhere = {(n, seed) for n in range(12) for seed in range(3)}
    found = gathered(everywhere, found=(ODD, BAD, ILL))
    assert [one.check for one in found] == ["Ill", "Bad"]


def test_where_there_is_no_best_all_of_it_may_be_ill():
    _, examined = study({(n, 0) for n in range(12)}, seeds=1)
    (found,) = gather_findings(examined, None, (ILL,))
    assert (found.severity, found.among.in_best) == ("problem", False)


def test_many_settings_are_told_by_their_ends():
    points = [{"lr": 0.5 * n} for n in range(9)]
    examined = [
        Examined(Cell(str(n), None, None, (p,)), 0, SimpleNamespace(), [ILL(None)] * (n > 2))
        for n, p in enumerate(points)
    ]
    (found,) = gather_findings(examined, None, (ILL,))
    assert found.among.settings == "lr 1.5 to 4"


# -- on disk -----------------------------------------------------------------------------------

SLOW = np.linspace(np.log(10), 0.8 * np.log(10), 31)  # a straight line, hardly falling


class WithCurves(Maker):
    """Makes studies whose runs recorded curves: slow ones where lr is below one."""

    def _run(self, place, recipe, top1, *, shift):
        told = {"class_names": [f"species {n}" for n in range(10)], "counts": COUNTS}
        slow = any(f"\n  lr: {lr}\n" in recipe for lr in (0.1, 0.3, 0.5))
        straight = np.linspace(0.1, 0.8, 31)
        changed = {"minitrain/loss": SLOW, "val/loss": SLOW, "val/top1": straight} if slow else {}
        with RunWriter.create(place, recipe, told) as writer:
            _write(writer, "head", healthy() | changed | {"train/lr": np.ones(30)}, 0)
            writer.finish()


@pytest.fixture
def curves(tmp_path):
    return WithCurves(tmp_path)


def base(monkeypatch, **stage):
    text = json.dumps({"data": {"folder": "photos"}, "stages": [STAGE | stage]})
    monkeypatch.setattr("tests.diagnosis.test_study_checks.BASE", text)


SIZE = {"key": "data.image_size", "values": [192, 224, 256]}


def test_a_slow_rate_of_all_cells_is_one_finding_with_the_study_anew(curves, monkeypatch):
    base(monkeypatch, lr=0.5, schedule="constant")
    made = curves([SIZE], lambda point: point["image_size"] / 400, seeds=2)
    findings = diagnose_study(made)
    (slow,) = [f for f in firing(findings) if f.check == "lr_too_low"]
    assert slow.title.startswith(
        "Learning rate too low in 6 of 6 runs: all 3 cells. One of them, image size 256, seed 0: "
        "In stage head the loss on minitrain falls from 2.30 to only 1.84 nats"
    )
    assert slow.place is not None  # the page shows this run's curves
    (one,) = [e for e in next_experiments_of_study(made, findings) if e.check == "lr_too_low"]
    *_, change, out, folder = shlex.split(one.command)
    assert (change, out, folder) == ("stages.head.lr=5", "--out", f"{made.folder}-again")
    assert one.seconds == pytest.approx(6 * 5.0)


def test_an_axis_that_sets_the_key_gets_the_setting_instead(curves, monkeypatch):
    base(monkeypatch, schedule="constant")
    axis = {"key": "stages.head.lr", "values": [0.1, 0.5]}
    made = curves([axis], lambda point: point["lr"])
    found = next_experiments_of_study(made, diagnose_study(made))
    (one,) = [e for e in found if e.check == "lr_too_low"]
    assert "'axes.0.values=[0.1, 0.5, 5]'" in one.command
    assert one.command.endswith(f"--out {made.folder}")  # what was run is kept
    assert one.seconds == pytest.approx(5.0)


def test_a_rate_that_was_not_chosen_is_a_note_without_a_command(curves, monkeypatch):
    base(monkeypatch, schedule="constant")
    made = curves([LR], lambda point: point["lr"] / 4)  # 3 is the best; 0.1 and 0.3 are slow
    findings = diagnose_study(made)
    (slow,) = [f for f in findings if f.check == "lr_too_low"]
    assert slow.severity == "note"
    assert (
        "in 2 of 4 runs: 2 of 4 cells (learning rate 0.1, 0.3), the best not among them"
        in slow.title
    )
    assert slow.place is None  # no curve of it is shown
    assert not [e for e in next_experiments_of_study(made, findings) if e.check == "lr_too_low"]
    asked = {one.finding.check for one in advice_of(sorted_findings(findings), [])}
    assert "lr_too_low" not in asked  # and nothing of it stands among what to do next
    assert finding_text(slow, "advice", Words("zh")).startswith("不必处理")
    told = rest_of(best_run(made), findings)
    assert "lr_too_low" not in {f.check for f in told}
    assert "overfitting" in {f.check for f in told}


def test_twice_the_length_costs_twice_as_much(curves, monkeypatch):
    base(monkeypatch, lr=0.5, schedule="constant")
    made = curves([SIZE], lambda point: point["image_size"] / 400)
    (one,) = [
        e for e in next_experiments_of_study(made, diagnose_study(made)) if e.check == "too_short"
    ]
    assert "'stages.head.length=60 epochs'" in one.command
    assert one.seconds == pytest.approx(3 * 2 * 5.0)


def test_a_run_that_was_removed_or_ended_early_is_left_out(curves, monkeypatch):
    base(monkeypatch, lr=0.5, schedule="constant")
    made = curves([SIZE], lambda point: point["image_size"] / 400)
    removed, pruned, _ = (made.folder / "cells" / cell.hash for cell in made.cells)
    (removed / "seed-0.1").rename(made.folder / "elsewhere")
    (path,) = pruned.glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"status": "pruned"}))
    (slow,) = [f for f in diagnose_study(made) if f.check == "lr_too_low"]
    assert (slow.among.runs, slow.among.of_runs) == (1, 1)

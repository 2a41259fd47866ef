"""Every benchmark prints a table, one object of figures beside targets, and fails on a miss.

What they measure is put in here, once as good as it should be and once worse; nothing is timed.
"""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from parts.bands import band_shares
from parts.outcome import conclude

BENCH = Path(__file__).parents[1] / "bench"
Patch = dict[str, Any]
Case = Callable[[ModuleType, bool], Patch]


def _backbone(_: ModuleType, good: bool) -> Patch:
    seen = {"accuracy, float32": 0.6, "accuracy, fast": 0.6, "same class": 0.98 if good else 0.9}
    return {
        "make_backbone": lambda *_a, **_k: None,
        "vgg16": lambda _path: None,
        "speeds": lambda _backbones: {"Lite0, 224 px, 1 thread": 200.0},
        "agreement": lambda _folder: seen,
    }


def _bands(_: ModuleType, good: bool) -> Patch:
    row = {"band": (1, 2), "reason": None, "ladder": {}, "lowest": 1, "holds a good rate": good}
    return {"write_toy": lambda *_a, **_k: Path(), "one_setting": lambda *_: row}


def _diagnosis(bench: ModuleType, good: bool) -> Patch:
    known = import_module("curves.bank").Labelled("r", "lr / 100", "fault", 0.5, 0.5, took=False)
    found = {"lr_too_low": "problem"} if good else {}
    judged = import_module("curves.score").Judged(
        known, found, {"UMLAUT": set(), "AutoTrainer": set()}
    )
    return {"judge": lambda *_a, **_k: bench.Score([judged])}


def _forecast(_: ModuleType, good: bool) -> Patch:
    figures = {"seconds": (10.0, 9.0 if good else 20.0)}
    return {"cases": lambda *_a, **_k: [("a study", figures)]}


def _gathered(bench: ModuleType, good: bool) -> Patch:
    found = {"lr_too_low": "problem"} if good else {}
    ill, sound = bench.Judged("lr / 100", None, found, {}), bench.Judged(None, None, {}, {})
    return {"judged": lambda *_: [ill, sound]}


def _interval(_: ModuleType, good: bool) -> Patch:
    row = {"told": 10.0, "low": 8.0, "high": 12.0, "true": 9.0 if good else 20.0}
    return {"measure": lambda *_a, **_k: [row] * 9}


def _labels(bench: ModuleType, good: bool) -> Patch:
    row = bench.Row("toy", 0.0, 600, 0.7, 0.0, 0.0, 0.0, 0.01, not good, 0, *[math.nan] * 5)
    return {"rows": lambda *_: [row]}


def _loading(bench: ModuleType, good: bool) -> Patch:
    figures = {"ours_224": 2000.0, "ours_12_mp_224": 50.0, "cache_copy_448": 6e4}
    figures |= {"difference_224": 0.0, "difference_12_mp_224": 0.0 if good else 9.0}
    return {
        "write_toy": lambda *_a, **_k: None,
        "default_folder": lambda: None,
        "read_photos": lambda _folder: SimpleNamespace(photos=[None]),
        "enlarged": lambda *_: [],
        "measure": lambda *_: figures,
    }


def _pooling(bench: ModuleType, good: bool) -> Patch:
    ratio = 0.7 if good else 3.0
    row = ("28x28", 512, 8192, 1, 1, 1, 1, 1, ratio, ratio, 0.8, 0.95)
    return {
        "compare": lambda *_a, **_k: [bench.Row(*row)],
        "over_transform": lambda: {"forward": 20.0, "both": 17.0},
        "over_autograd": lambda _size: 1.5,
        "memory": lambda: {"sketch 8192": 1.3},
    }


def _rehearsal(bench: ModuleType, good: bool) -> Patch:
    known = import_module("curves.rehearsals").Rehearsed("r", "run", "lr x 10,000")
    found = {"cannot_overfit_few": "problem"} if good else {}
    return {"judge": lambda *_a, **_k: bench.Score([bench.Judged(known, found)])}


def _report(bench: ModuleType, good: bool) -> Patch:
    figures = {"overview, gathered, first time, s": 2.0, "overview, rendered, first time, s": 2.0}
    figures |= {"page of a run, MB": 1.0 if good else 4.0, "torch is loaded": 0.0}
    return {"measure": lambda: figures}


def _serve(bench: ModuleType, good: bool) -> Patch:
    seen = {"first page": 0.2 if good else 2.0, "readers told": 50}
    return {"write_run": lambda *_a, **_k: None, "once": lambda *_a, **_k: seen}


def _study(bench: ModuleType, good: bool) -> Patch:
    figures = {name: 0.9 * most for name, most in bench.MOST.items()}
    figures |= {name: (1.1 if good else 0.9) * least for name, least in bench.LEAST.items()}
    return {"measure": lambda *_: figures}


def _verdicts(bench: ModuleType, good: bool) -> Patch:
    row = bench.Row("crossed", 300, 3, 300, 0.95, 0.04, 3.0, 0.5, 0.1, [] if good else ["covers"])
    return {
        "known_rows": lambda *_a, **_k: [row],
        "grid_figures": lambda *_a, **_k: ({"a figure": 1.0}, []),
        "foretold": lambda _repeats: {},
        "smallest_spreads": lambda _repeats: {},
    }


CASES: dict[str, Case] = {
    "backbone": _backbone,
    "backbone_rates": _bands,
    "diagnosis": _diagnosis,
    "forecast": _forecast,
    "gathered": _gathered,
    "interval": _interval,
    "labels": _labels,
    "learning_rate": _bands,
    "loading": _loading,
    "pooling": _pooling,
    "rehearsal": _rehearsal,
    "report": _report,
    "serve": _serve,
    "study": _study,
    "verdicts": _verdicts,
}
GIVEN = {"backbone": ["--cub", "."], "study": ["--cub", "."]}  # without photos nothing is judged


def test_every_benchmark_is_here():
    assert sorted(CASES) == sorted(path.stem for path in BENCH.glob("*.py"))


@pytest.mark.parametrize("good", [True, False], ids=["met", "missed"])
@pytest.mark.parametrize("name", CASES)
def test_it_tells_its_figures_and_fails_where_a_target_is_missed(
    name: str, good: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    bench = import_module(name)
    for attribute, value in CASES[name](bench, good).items():
        assert hasattr(bench, attribute)
        monkeypatch.setattr(bench, attribute, value)
    monkeypatch.setattr(sys, "argv", [name, *GIVEN.get(name, []), "--json"])
    assert bench.main() == (0 if good else 1)
    *table, last = capsys.readouterr().out.splitlines()
    told = json.loads(last)
    assert bool(told["missed"]) != good
    assert told["targets"]
    assert told.keys() & {"figures", "named", "rows"}
    shown = [line for line in table if re.search(r"missed\b|MISSED|OUTSIDE", line)]
    assert bool(shown) != good
    assert len(table) >= 2


@pytest.mark.parametrize("name", CASES)
def test_its_exit_status_is_what_it_found(name: str):
    """Run as a program its `main` decides, and `make bench` runs it without arguments."""
    text = (BENCH / f"{name}.py").read_text(encoding="utf-8")
    assert re.search(r"def main\(\) -> int:", text)
    assert re.search(r"(sys\.exit|raise SystemExit)\(main\(\)\)", text)
    assert "required=True" not in text


def test_help_tells_of_json():
    done = subprocess.run(
        [sys.executable, str(BENCH / "serve.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "print one JSON object as well" in done.stdout


def test_a_target_is_met_at_its_edge_and_missed_beyond_it_or_unmeasured(capsys):
    figures = {"speed": 10.0, "error": 0.5, "other": 3.0}
    assert conclude(figures, least={"speed": 10}, most={"error": 0.5}, as_json=False) == 0
    assert conclude(figures, least={"speed": 10.1}, as_json=False) == 1
    assert conclude(figures, most={"error": 0.49}, as_json=True, rows=[1]) == 1
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == {
        "figures": figures,
        "targets": {"least": {}, "most": {"error": 0.49}},
        "missed": ["error"],
        "rows": [1],
    }
    assert conclude({"speed": math.nan}, least={"speed": 1}, as_json=False) == 1


def test_bands_are_counted_among_those_there_are():
    rows = [
        {"band": (1, 2), "best": 1.0, "holds a good rate": True, "upper end is good": False},
        {"band": (1, 2), "best": 0.0, "holds a good rate": True, "upper end is good": True},
        {"band": None},
    ]
    shares = {"holds a good rate": 1.0, "upper end is good": 0.5}
    assert band_shares(rows) == {"settings with a band": 2 / 3, **shares}
    assert band_shares([{"band": None}]) == {"settings with a band": 0, "holds a good rate": 0}

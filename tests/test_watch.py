"""`fieldmark watch`: what a terminal shows of runs whose numbers are known."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fieldmark.cli import app
from fieldmark.errors import SettingError
from fieldmark.studies import control
from fieldmark.studies.catalog import Catalog, StudySummary
from fieldmark.studies.run import RunWriter
from fieldmark.watch import frame, lasting, plain, sparkline, watch

RECIPE = "data: {folder: photos}\nstages: [{name: head, train: head, lr: 1, length: 40 steps}]\n"


def _run(folder: Path, tops: list[float]) -> RunWriter:
    manifest = {"class_names": ["a"], "counts": {"train": 32}}
    writer = RunWriter.create(folder, RECIPE, manifest)
    for number, top in enumerate(tops):
        writer.record({"train/loss": 0.1234, "val/top1": top}, step=10 * number, stage="head")
    return writer


def _shown(folder: Path, *, width: int = 120, later: float = 0) -> str:
    catalog = Catalog(folder)
    catalog.look()
    words = [run.progress.last_word for run in catalog.runs.values() if run.progress]
    text = io.StringIO()
    console = Console(file=text, width=width)
    console.print(frame(catalog, max(words, default=0) + later))
    return text.getvalue()


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 8, ""),
        ([0.5], 8, "▁"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([7, 0], 8, "█▁"),
        ([0, 0, 7, 7], 2, "▁█"),
        ([0, 2, 6, 8, 1, 1], 3, "▁█▁"),
    ],
)
def test_a_sparkline_shows_the_means_of_its_shares(values, width, drawn):
    assert sparkline(values, width) == drawn


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(None, "-"), (0, "0 s"), (61, "1 min 01 s"), (601, "10 min"), (3900, "1 h 05 min")],
)
def test_how_long_something_lasts(seconds, told):
    assert lasting(seconds) == told


def test_a_running_run_its_curve_and_its_time_left(tmp_path):
    with _run(tmp_path / "runs" / "toy-1", [0.25, 0.5, 0.75]):
        shown = _shown(tmp_path)
    (line,) = [line for line in shown.splitlines() if "toy-1" in line]
    assert line.split()[:6] == ["runs/toy-1", "head", "50%", "0.123", "▁▅█", "75.0%"]


def test_a_killed_run_is_seen_to_be_silent(tmp_path):
    with _run(tmp_path / "toy-1", [0.25, 0.5, 0.75]):
        assert "silent for 3 min 20 s" in _shown(tmp_path, later=200)
        assert "silent" not in _shown(tmp_path, later=100)


def test_a_run_ended_by_a_pruner_is_shown_as_such(tmp_path):
    _run(tmp_path / "toy-1", [0.25, 0.5]).fail("it had fallen behind", status="pruned")
    line, why = [line for line in _shown(tmp_path).splitlines() if "toy-1" in line]
    assert line.split()[1] == "pruned"
    assert why == "toy-1: it had fallen behind"


def test_a_reason_is_told_whole_on_a_narrow_terminal(tmp_path):
    reason = "The loss became nan at step 12 of stage head, at lr 3. " * 5
    _run(tmp_path / "toy-1", [0.5]).fail(reason.strip())
    lines = _shown(tmp_path, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert f"toy-1: {reason.strip()}" in " ".join(" ".join(lines).split())
    assert not any("…" in line for line in lines)


def test_it_says_who_paused_a_run_and_why_one_failed(tmp_path):
    with _run(tmp_path / "toy-1", [0.5]) as writer:
        control.ask(writer.folder, "pause", "ada@finch")
        _run(tmp_path / "toy-2", [0.5]).fail("The loss became nan.")
        shown = _shown(tmp_path)
    assert "paused by ada@finch" in shown
    assert "The loss became nan." in shown


def test_a_study_shows_how_many_ran(tmp_path):
    states = ["finished"] * 6 + ["failed"] * 2 + ["running"] * 1 + ["waiting"] * 3
    by_slot = {(f"cell {n}", 0): state for n, state in enumerate(states)}
    study = StudySummary("sizes", "Which matters more?", "val/top1", by_slot, 0.5, 90.0, None)
    catalog = Catalog(tmp_path)
    catalog.studies["sizes"] = study
    text = io.StringIO()
    Console(file=text, width=120).print(frame(catalog, 0))
    (line,) = [line for line in text.getvalue().splitlines() if "sizes" in line]
    assert "Which matters more?" in line
    assert "█████████░░░" in line
    assert "8 / 12" in line
    assert "50.0%" in line
    assert "1 min 30 s" in line
    idle = replace(study, states=dict.fromkeys(by_slot, "waiting"))
    catalog.studies["sizes"] = idle
    Console(file=text, width=120).print(frame(catalog, 0))
    assert "nobody is at it" in text.getvalue()


def test_names_can_not_move_the_cursor(tmp_path):
    with _run(tmp_path / "\x1b[2Jgone\u202etxt.exe", [0.5]):
        shown = _shown(tmp_path)
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "·[2Jgone·txt.exe" in shown
    assert plain("Möwe 鳥\n") == "Möwe 鳥·"


def test_it_fits_a_narrow_terminal(tmp_path):
    with _run(tmp_path / ("n" * 200), [0.25, 0.5]):
        lines = _shown(tmp_path, width=80).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert any("50.0%" in line for line in lines)


def test_the_command_prints_one_frame(tmp_path):
    with _run(tmp_path / "toy-1", [0.5]):
        done = CliRunner().invoke(app, ["watch", str(tmp_path), "--once"])
    assert done.exit_code == 0
    assert "toy-1" in done.stdout


def test_an_empty_folder_says_so_and_a_missing_one_is_an_error(tmp_path):
    assert f"There is no run and no study in {tmp_path} yet." in " ".join(
        _shown(tmp_path, width=300).split()
    )
    with pytest.raises(SettingError, match=r"There is no folder .*nowhere"):
        watch(Console(), tmp_path / "nowhere")


def test_it_looks_again_until_interrupted(tmp_path, monkeypatch):
    from fieldmark import watch as module

    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=True)
    with _run(tmp_path / "toy-1", [0.25]) as writer:
        rests = iter([0.5, 0.75])

        def rest(_: float) -> None:
            top = next(rests, None)
            if top is None:
                raise KeyboardInterrupt
            writer.record({"val/top1": top}, step=20, stage="head")

        monkeypatch.setattr(module.time, "sleep", rest)
        with pytest.raises(KeyboardInterrupt):
            watch(console, tmp_path)
    shown = text.getvalue()
    assert shown.index("25.0%") < shown.index("50.0%") < shown.index("75.0%")

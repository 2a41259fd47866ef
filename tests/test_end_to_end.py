"""The main job as a person does it: the demo, from drawings to curves."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from fieldmark.shipped import find_recipe
from fieldmark.studies.run import Run
from fieldmark.studies.study import Study

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    environment = os.environ | {"FIELDMARK_CACHE": str(folder / "cache"), "COLUMNS": "110"}
    done = subprocess.run(
        [sys.executable, "-m", "fieldmark", "demo", str(folder / "demo")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (folder / "told.txt").write_text(done.stdout)
    return folder


def test_both_stages_train_and_the_second_gains(demo: Path):
    """What the toy recipe promises; staged training must be worth its second stage."""
    run = Run(demo / "demo" / "run-1")
    steps, tops = run.series("val/top1")
    first = run.stages[0].last_step
    head = next(top for step, top in zip(steps, tops, strict=True) if step == first)
    assert 0.55 < head < 0.80
    expected = find_recipe("toy").expected
    assert expected is not None
    assert tops[-1] == pytest.approx(expected.value, abs=expected.spread)
    assert tops[-1] > head + 0.05


def test_a_table_is_told_and_curves_are_drawn(demo: Path):
    told = (demo / "told.txt").read_text()
    assert "top-1 at the end of each stage" in told
    assert "hand-over: val top-1" in told
    with Image.open(demo / "demo" / "run-1" / "curves.png") as curves:
        assert curves.width > 1000
        assert len(curves.convert("RGB").getcolors(1 << 20) or []) > 50


def test_two_questions_are_asked_and_answered(demo: Path):
    told = (demo / "told.txt").read_text()
    for name, cells in (("size-by-sketch", 4), ("decay", 4)):
        study = Study.open(demo / "demo" / "studies" / name)
        assert len(study.results()) == 3 * cells
        assert {result.status for result in study.results().values()} == {"finished"}
        assert (demo / "demo" / f"{name}.yaml").is_file()
        assert study.design.file.question in told
    assert "Image size by sketch length" in told
    assert "Real: image size 112 names" in told  # 20 points, whatever the machine
    assert "You were right about the direction." in told
    assert "The best cell (weight decay" in told


def test_a_second_demo_is_a_second_run(demo: Path):
    environment = os.environ | {"FIELDMARK_CACHE": str(demo / "cache")}
    subprocess.run(
        [
            sys.executable,
            "-m",
            "fieldmark",
            "train",
            "toy",
            "--until",
            "head",
            f"data.folder={demo / 'demo' / 'photos'}",
            "--out",
            str(demo / "again"),
        ],
        env=environment,
        capture_output=True,
        check=True,
    )
    ours, theirs = Run(demo / "again"), Run(demo / "demo" / "run-1")
    last = ours.stages[-1].last_step
    steps, losses = theirs.series("train/loss")
    assert list(ours.series("train/loss")[1]) == list(losses[steps <= last])

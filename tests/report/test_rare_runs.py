"""Pages of runs and studies that few have: no val, a test alone, failed cells, infinite scores."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tests.report.conftest import RECIPE, STUDY
from typer.testing import CliRunner

from fieldmark.cli import app
from fieldmark.errors import SettingError
from fieldmark.language import Words
from fieldmark.report.content import run_page, study_page
from fieldmark.report.render import render
from fieldmark.report.runs import curves_section, run_answer
from fieldmark.report.sentences import best_sentence, verdict_sentence
from fieldmark.report.thumbnails import glow
from fieldmark.studies.design import Design
from fieldmark.studies.executor import work
from fieldmark.studies.run import Run, RunWriter
from fieldmark.studies.selection import Best
from fieldmark.studies.study import Study
from fieldmark.studies.trial import Outcome
from fieldmark.studies.verdict import Verdict

EN, ZH = Words("en"), Words("zh")
LEVEL = Verdict("cannot tell", 0.0004, -0.01, 0.01, 0.9, "one seed", 100, (1, 1), 0.01)


def without_val(folder, counts, **ends):
    """A finished run; `ends` are its last metrics, `__` for `/`."""
    manifest = {"class_names": ["a", "b"], "counts": counts, "stages": [], "notes": []}
    with RunWriter.create(folder, RECIPE % folder, manifest) as writer:
        for step in (0, 10):
            writer.record({"minitrain/loss": 1.0, "minitrain/top1": 0.5}, step=step, stage="head")
        writer.record({k.replace("__", "/"): v for k, v in ends.items()}, step=20, stage="head")
        writer.finish()
    return Run(folder)


def test_a_run_without_val_says_so_and_not_that_nothing_came(tmp_path):
    counts = {"train": 40, "minitrain": 8, "val": 0, "test": 9}
    run = without_val(tmp_path / "run", counts, minitrain__top1=0.625, minitrain__loss=0.5)
    (told,) = run_answer(run)
    assert EN(told).startswith("No photo was kept for val, ")
    assert EN(told).endswith("of minitrain, which it was trained on, it names 62.5% rightly.")
    assert "62.5%" in ZH(told)
    captions = [EN(figure.told) for figure in curves_section(run).figures]
    assert captions == [
        "Loss over the steps; there is no val.",
        "Top-1 over the steps; there is no val.",
    ]
    for lang in ("en", "zh"):
        page = render(run_page(run), lang=lang)
        assert "no result yet" not in page
        assert "at step 0" not in page


def test_a_run_without_val_whose_test_was_opened_is_judged_by_that(tmp_path):
    counts = {"train": 40, "minitrain": 8, "val": 0, "test": 10}
    (told,) = run_answer(without_val(tmp_path / "run", counts, test__top1=0.7))
    assert EN(told).startswith("Top-1 on test is 70.0% (95 % interval ")
    assert EN(told).endswith("; 10 photos).")


def test_val_that_was_not_measured_yet_is_no_result(tmp_path):
    counts = {"train": 40, "minitrain": 8, "val": 8, "test": 9}
    (told,) = run_answer(without_val(tmp_path / "run", counts, train__loss=1.0))
    assert EN(told) == "There is no result yet."


def test_failed_runs_of_a_study_are_counted_at_its_head(tmp_path):
    def run_trials(trials):
        for trial in trials:
            big = trial.recipe.data.image_size == 96
            status = "failed" if big else "finished"
            metrics = {} if big else {"out_of_fold/top1": 0.5}
            yield Outcome(
                trial.folder, status, metrics, seconds=1, reason="Too hot." if big else ""
            )

    design = Design.read(STUDY, lambda _: RECIPE % tmp_path, name="study.yaml")
    study = Study.create(tmp_path / "study", design)
    list(work(study, run_trials))
    study.read_again()
    facts = {EN.word(fact.label): EN.word(fact.value) for fact in study_page(study).facts}
    assert (facts["Runs"], facts["Failed"]) == ("24 of 24", "8")  # 4 cells of 2 seeds


def test_where_none_failed_nothing_is_said_of_it(page):
    assert "Failed" not in [EN.word(fact.label) for fact in page.facts]


@pytest.mark.parametrize("difference", [0.0, 0.0004, -0.0004])
def test_no_difference_is_not_told_as_a_lead_of_zero(difference):
    level = replace(LEVEL, difference=difference)
    told = EN(verdict_sentence(level, "A", "B"))
    assert told == level.describe()
    assert told.startswith("Cannot tell: B and A name equally many photos rightly, to 0.1 points (")
    assert "0.0 个百分点" not in ZH(verdict_sentence(level, "甲", "乙"))
    ahead = EN(verdict_sentence(replace(LEVEL, difference=0.0006), "A", "B"))
    assert ahead.startswith("Cannot tell: B names 0.1 points more photos rightly than A (")


def test_no_luck_is_not_told_as_zero_points_of_it():
    best = Best(2, 0.526, 0.0004, 6)
    told = EN(best_sentence(best, {"size": 224}))
    assert told == best.describe("The best cell (size 224)")
    assert told.endswith("measured 52.6 % top-1.")


def test_an_infinite_share_glows_most(recwarn):
    drawn = np.asarray(Image.open(io.BytesIO(glow(np.array([[np.inf, 1.0], [np.nan, -np.inf]])))))
    assert drawn[0, 0, 3] == drawn[..., 3].max() > 100
    assert drawn[..., 3].ravel().tolist()[1:] == [0, 0, 0]
    assert not recwarn.list


def test_a_page_for_a_folder_that_is_not_there_is_refused(run, tmp_path):
    out = tmp_path / "nowhere" / "page.html"
    wrong = CliRunner().invoke(app, ["report", str(run.folder), "--out", str(out)])
    assert isinstance(wrong.exception, SettingError)
    assert f"There is no folder `{out.parent}` for the page; make it" in str(wrong.exception)

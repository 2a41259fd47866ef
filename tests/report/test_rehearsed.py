"""What was tried before training stands on the run's page, and on a page of its own."""

import copy
import json

import pytest
from tests.report.conftest import RECIPE, SCRIPT
from tests.report.test_page import Reader
from tests.report.test_words import CODE, LATIN, chinese_text

from fieldmark.errors import RecordError
from fieldmark.language import LANGUAGES, Words
from fieldmark.rehearsal_report import sentences
from fieldmark.report.content import page_of, run_page
from fieldmark.report.rehearsed import tried
from fieldmark.report.render import render

RANGE = {
    "seeds": [0, 1],
    "lr": [0.01, 0.1, 1.0, 10.0],
    "loss": [[2, 1.5, 1, 9], [2, 1.6, 1.1, 3]],
    "band": [0.05, 0.5],
    "why": None,
    "reason": None,
    "lowest": 1.0,
    "stage_lr": 0.1,
    "batch_size": 16,
    "weight_decay": 1e-4,
    "after": {},
}
RECORD = {
    "recipe": "mine",
    "stage": "head",
    "classes": 6,
    "overfit": {
        "images": 20,
        "steps": 70,
        "top1": 1.0,
        "loss": 0.04,
        "learned": True,
        "trainable": 1500,
        "reason": None,
    },
    "blank": {"images": 60, "steps": 60, "real_top1": 0.8, "blank_top1": 0.2, "reason": None},
    "range": {"head": RANGE},
    "machine": {"cpu": "a toy"},
    "seconds": 12.0,
}
FAILED = RECORD["overfit"] | {"top1": 0.1, "loss": None, "learned": False}
BLIND = RECORD["blank"] | {"real_top1": 0.2}


def with_parts(**parts):
    return copy.deepcopy(RECORD) | parts


def test_a_run_says_what_was_tried_before_it_with_its_own_rate(run):
    (run.folder / "rehearsal.json").write_text(json.dumps(with_parts(**{"from": []})))
    page = run_page(run)
    ids = [section.id for section in page.sections]
    assert ids.index("rehearsed") == ids.index("photos") - 1
    (section,) = (section for section in page.sections if section.id == "rehearsed")
    assert [each.is_well for each in section.tried] == [True, True, False]
    told = [Words("en")(each.told) for each in section.tried]
    assert told[0] == (
        "It can learn: 20 photos named 100% rightly at loss 0.040 after 70 steps of head; "
        "1,500 numbers move."
    )
    assert told[1].startswith("It looks at the photos: 80.0% of 60 val photos named rightly")
    assert "try lr 0.05 to 0.5, the upper end first; its own 1 lies above." in told[2]
    (figure,) = section.figures
    assert (figure.data.used, figure.data.band) == (1.0, (0.05, 0.5))


def test_rates_that_were_tried_one_by_one_are_told_so():
    ladder = RANGE | {"each": True, "steps": 24, "after": {"head": 100}}
    told = Words("en")(tried(with_parts(range={"all": ladder}))[-1].told)
    assert told == (
        "Stage all (begun after 100 steps of head): try lr 0.05 to 0.5; its own 0.1 lies inside. "
        "Trained for 24 steps at each of 4 rates, its loss is lowest at lr 1; 2 seeds agree. This "
        "holds for this stage, batch 16 and weight decay 0.0001 only."
    )


def test_what_is_far_off_is_told_with_its_check():
    off = with_parts(fed={"mean": 118.0, "spread": 64.0}, range={"head": RANGE | {"stage_lr": 60}})
    found = tried(off, fired={"photos_off_scale", "rate_far_above_range"})
    assert (found[0].check, found[-1].check) == ("photos_off_scale", "rate_far_above_range")
    assert Words("en")(found[0].told).startswith("The network is fed numbers of mean 118 and ")
    slow = BLIND | {"loss_lead": 0.05, "loss_lead_error": 0.01, "guess_loss": 1.8}
    told = Words("en")(tried(with_parts(blank=slow))[1].told)
    assert told.startswith("It looks at the photos, but learns slowly: 20.0% of 60 val photos")
    assert told.endswith("; the loss on photos is 0.050 nats lower.")


def test_what_went_wrong_leads_to_the_finding(run):
    bad = RANGE | {"band": None, "why": "flat", "reason": "flat: the loss hardly falls"}
    record = with_parts(overfit=FAILED, blank=BLIND, range={"head": bad})
    (run.folder / "rehearsal.json").write_text(json.dumps(record | {"from": [{"name": SCRIPT}]}))
    page = render(run_page(run))
    for check in ("cannot_overfit_few", "blank_photos_do_as_well", "no_band_of_rates"):
        assert f'href="#finding-{check}"' in page
        assert f'id="finding-{check}"' in page
    assert SCRIPT not in page
    assert SCRIPT in Reader(page).text
    assert "no rate is given: flat: the loss hardly falls (lr 0.01 to 10)" in page
    chinese = render(run_page(run), lang="zh")
    # In the section, the finding and its evidence.
    assert chinese.count("损失几乎没有下降（学习率 0.01 到 10）") == 3
    assert "the loss hardly falls" not in chinese


def test_a_run_that_was_not_rehearsed_or_by_another_fieldmark_has_no_such_section(run):
    assert "rehearsed" not in [section.id for section in run_page(run).sections]
    (run.folder / "rehearsal.json").write_text('{"range": {"head": {"band": null}}}')
    assert "rehearsed" not in [section.id for section in run_page(run).sections]


@pytest.fixture
def rehearsal(tmp_path):
    (tmp_path / "mine-1").mkdir()
    (tmp_path / "mine-1" / "rehearsal.json").write_text(json.dumps(RECORD))
    (tmp_path / "mine-1" / "recipe.yaml").write_text(RECIPE % "photos")
    return tmp_path / "mine-1"


def test_a_rehearsal_has_a_page_of_its_own(rehearsal):
    page = page_of(rehearsal)
    assert (page.kind, page.title, page.state) == ("rehearsal", "mine", "finished")
    assert [section.id for section in page.sections] == ["rehearsed", "origin"]
    assert Words("en")(page.answer[0]) == "Nothing speaks against a first run."
    html = render(page)
    command = f"fieldmark rehearse {rehearsal}/recipe.yaml --stage head"
    assert " ".join(f"<span>{word}</span>" for word in command.split()) in html
    (rehearsal / "rehearsal.json").write_text(json.dumps(with_parts(overfit=FAILED)))
    told = Words("en")(page_of(rehearsal).answer[0])
    assert told.startswith("It does NOT learn a few photos by heart: 20 photos named 10% rightly")
    assert "at loss none after" in told


def test_a_damaged_rehearsal_is_told(rehearsal):
    (rehearsal / "rehearsal.json").write_text('{"range": ')
    with pytest.raises(RecordError, match=r"rehearsal\.json` is damaged or not ours: .* again"):
        page_of(rehearsal)


@pytest.mark.parametrize(
    "why", ["diverges", "rises", "falls", "flat", "plateau", "open", "noisy", "narrow"]
)
def test_every_reason_is_said_in_both_languages(why):
    bad = RANGE | {"band": None, "why": why, "rises": 0.7}
    for lang in LANGUAGES:
        said = Words(lang)(tried(with_parts(range={"head": bad}))[-1].told)
        assert "0.01" in said
        assert "{" not in said


def test_the_terminal_says_the_same():
    assert sentences(RECORD) == [Words("en")(each.told) for each in tried(RECORD)]


def test_in_chinese_no_english_is_left(rehearsal):
    later = RANGE | {"after": {"head": 100}, "stage_lr": 0.01}
    record = with_parts(overfit=FAILED, blank=BLIND, range={"head": RANGE, "all": later})
    (rehearsal / "rehearsal.json").write_text(json.dumps(record))
    names = (*CODE, "mine", "all", "toy", "top", rehearsal.name, "fieldmark", "inspect")
    shown = chinese_text(render(page_of(rehearsal), lang="zh"), *names)
    assert LATIN.findall(shown) == []

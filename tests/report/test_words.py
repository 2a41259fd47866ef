"""Both languages say the same: keys, placeholders, and verdicts as `describe` has them."""

import ast
import dataclasses
import re
from pathlib import Path
from string import Formatter

import numpy as np
import pytest
from tests.report.conftest import NAMES
from tests.report.test_page import Reader

from fieldmark import language
from fieldmark.diagnosis.diagnose import RUN_CHECKS, STUDY_CHECKS
from fieldmark.diagnosis.finding import AMONG, REASONS, Check, Finding, Texts, fires, unknown
from fieldmark.errors import SettingError, count_of
from fieldmark.language import Words, catalogue, duration, isolated, said
from fieldmark.report.content import run_page
from fieldmark.report.render import finding_text, render
from fieldmark.report.sentences import (
    best_sentence,
    cheapest_sentence,
    effect_sentence,
    guess_sentences,
    interaction_sentence,
    verdict_sentence,
)
from fieldmark.studies.answers import Answers
from fieldmark.studies.effects import AnsweredCell, Effect, Interaction
from fieldmark.studies.selection import Best, Cheapest
from fieldmark.studies.table import Guess
from fieldmark.studies.verdict import Needs, Verdict

EN, ZH = Words("en"), Words("zh")
SOURCE = Path(language.__file__).parent
# What may stand in a Chinese page: code, names of classes, packages and of Fieldmark's own words.
LATIN = re.compile(r"[A-Za-z]{2,}")


def placeholders(template):
    return sorted({name for _, name, _, _ in Formatter().parse(template) if name})


def test_chinese_has_every_key_of_english_and_of_the_checks():
    english = dict(catalogue("en"))
    for check in (*RUN_CHECKS, *STUDY_CHECKS):
        texts = {f.name: getattr(check.texts, f.name) for f in dataclasses.fields(Texts)}
        english |= {f"checks.{check.name}.{part}": text for part, text in texts.items()}
    english |= {f"reasons.{name}": text for name, text in REASONS.items()}
    english |= {f"among.{name}": text for name, text in AMONG.items()}
    chinese = catalogue("zh")
    assert english.keys() == chinese.keys()
    for key, template in english.items():
        assert placeholders(template) == placeholders(chinese[key]), key


def test_the_numbers_of_a_finding_have_names_in_both_languages():
    used = {
        name
        for check in (*RUN_CHECKS, *STUDY_CHECKS)
        for part in dataclasses.fields(Texts)
        for name in placeholders(getattr(check.texts, part.name))
    }
    for words in (EN, ZH):
        assert {name for name in used if not words.has(f"evidence.{name}")} == set()


def test_nothing_is_counted_in_brackets():
    """`3 photo(s)` leaves to the reader what the sentence should say."""
    bracketed = re.compile(r"[a-z]\((?:e?s|ies)\)")
    files = [*SOURCE.rglob("*.py"), *SOURCE.rglob("*.html"), *SOURCE.rglob("*.js")]
    found = {f"{path}: {text}" for path in files for text in texts(path) if bracketed.search(text)}
    found |= {text for text in catalogue("en").values() if bracketed.search(text)}
    assert found == set()
    assert [count_of(n, "photo") for n in (0, 1, 1200)] == ["0 photos", "1 photo", "1,200 photos"]
    assert [count_of(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]


def texts(path):
    """What a file may show: of code its strings, as written."""
    if path.suffix != ".py":
        return [path.read_text()]
    nodes = ast.walk(ast.parse(path.read_text()))
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]


def verdicts():
    for answer, difference, needs in [
        ("real", 0.031, None),
        ("real", -0.2, None),
        ("noise", 0.002, None),
        ("cannot tell", -0.012, Needs(3, 1500)),
        ("cannot tell", 0.012, Needs(1, None)),
        ("cannot tell", 0.012, Needs(None, 500)),
        ("cannot tell", 0.0, Needs(None, None)),
        ("cannot tell", 0.1, Needs(2, None)),
    ]:
        for about, seeds, folds, together in [
            ("recipes", (3, 3), 5, 9),
            ("one seed", (1, 1), 0, 1),
            ("models", (2, 4), 0, 1),
        ]:
            yield Verdict(
                answer=answer,
                difference=difference,
                low=0.01 if difference == 0.1 else -0.25,
                high=0.05,
                p=0.04,
                about=about,
                photos=1500,
                seeds=seeds,
                care=0.01,
                folds=folds,
                comparisons=together,
                needs=needs,
            )


@pytest.mark.parametrize("verdict", list(verdicts()))
def test_in_english_a_verdict_says_what_it_describes(verdict):
    assert EN(verdict_sentence(verdict, "A", "B")) == verdict.describe("A", "B")
    effect = Effect("size", 224, 448, 4, verdict, ("dim", "rate"))
    assert EN(effect_sentence(effect)) == effect.describe()
    both = Interaction(("size", "dim"), ((1, 2), (3, 4)), verdict)
    assert EN(interaction_sentence(both)) == both.describe()
    for sentence in (verdict_sentence(verdict, "甲", "乙"), interaction_sentence(both)):
        assert not LATIN.search(
            ZH(sentence).replace("top", "").replace("size", "").replace("dim", "")
        )


@pytest.mark.parametrize("verdict", list(verdicts()))
def test_in_english_the_cheapest_says_what_it_describes(verdict):
    settings = [{"size": 224}, {"size": 448}]
    cells = [AnsweredCell(each, Answers(np.ones(4, dtype=bool))) for each in settings]
    found = Cheapest(0, 2.0, 1, 8.0, verdict)
    (told,) = cheapest_sentence(found, cells)
    assert EN(told) == found.describe("size 224")
    assert not LATIN.search(ZH(told).replace("size", ""))
    for nothing in (Cheapest(1, 8.0, 1, 8.0, None), Cheapest(0, 7.5, 1, 8.0, verdict)):
        assert cheapest_sentence(nothing, cells) == []


def test_in_english_the_best_says_what_it_describes():
    best = Best(2, 0.574, 0.009, 12)
    expected = best.describe("The best cell (size 224, dim 8)")
    assert EN(best_sentence(best, {"size": 224, "dim": 8})) == expected


@pytest.mark.parametrize(
    ("right", "seen", "told"),
    [
        (True, 0.03, "You were right"),
        (False, 0.03, "You were wrong"),
        (None, 0.03, "nobody knows yet"),
        (None, None, "nothing to compare"),
    ],
)
def test_a_guess_is_held_against_what_came(right, seen, told):
    guess = Guess("size", 224, 448, "up", 0.02, seen, 0.01, 0.05, 8, right, 3)
    sentences = [EN(each) for each in guess_sentences(guess, "val/top1")]
    assert (
        sentences[0] == "You expected size 448 to give a higher top-1 on val than 224, by 2 points."
    )
    assert any(told in sentence for sentence in sentences)
    assert ("3 results were there" in sentences[-1]) == (seen is not None)
    assert [ZH(each) for each in guess_sentences(guess, "val/top1")]


def test_a_guess_about_a_loss_is_in_nats():
    guess = Guess("size", 224, 448, "down", 0.02, -0.031, -0.05, -0.01, 8, True, 1)
    assert [EN(each) for each in guess_sentences(guess, "val/loss")] == [
        "You expected size 448 to give a lower loss on val than 224, by 0.02 nats.",
        "What came: -0.031 nats (95 % interval -0.050 nats to -0.010 nats, 8 pairs of runs).",
        "You were right about the direction.",
        "This was written down when 1 result was there already.",
    ]


def test_a_finding_is_said_in_both_languages():
    texts = Texts("label", "{n} is wrong", "cause", "do", "else", "otherwise {n}")
    found = Check("lr_too_low", "R7", "problem", texts, lambda _: fires(n=3))(None)
    assert finding_text(found, "title", EN) == "3 is wrong"
    real = next(check for check in RUN_CHECKS if check.name == "too_long")
    numbers = dict.fromkeys(placeholders(real.texts.title + real.texts.advice), 3.0)
    numbers |= {"stage": "head", "split": "val"}
    finding = Finding(
        check="too_long",
        rule="R17",
        outcome="fires",
        severity="note",
        numbers=numbers,
        place=None,
        title="English",
        cause="English",
        advice="English",
        refuted_by="English",
    )
    assert finding_text(finding, "title", ZH).startswith("阶段 head 用了 3 轮")
    blind = Check("too_long", "R17", "note", real.texts, lambda _: unknown("one_stage", found=1))
    assert finding_text(blind(None), "title", ZH) == "轮数远超所需"
    assert finding_text(blind(None), "why_not", ZH) == "需要两个阶段，只有 1 个"


def chinese_text(page, *names):
    """What a page shows, less code, numbers and names."""
    text = re.sub(r"<(code|pre|samp)[ >].*?</\1>", " ", page, flags=re.DOTALL)
    text = re.sub(r"<(style|script)[ >].*?</\1>", " ", text, flags=re.DOTALL)
    shown = " ".join(Reader(text).text)
    for name in sorted(names, key=len, reverse=True):
        shown = shown.replace(name, " ")
    return shown


CODE = (
    *("Fieldmark", "UTC", "out_of_fold", "top", "minitrain", "train", "val", "test", "Python"),
    *("image_size", "sketch_dim", "lr", "nats", "BatchNorm", "epochs", "BatchNorm", "head"),
    *("recipe.yaml", "study.yaml", "base.yaml", "sizes", "one", "logits", "dropout", "mixup"),
    *("jpg", "png", "Shift", "class", "clip_norm", "warmup", "batch_size", "weight_decay"),
    "/loss",  # of a metric, as val/loss, which may break after its split
)
RECORDED = ("img src=x onerror=alert",)


def test_a_chinese_page_holds_no_english(run, page, text):
    for found in (render(run_page(run), lang="zh"), text["zh"]):
        shown = chinese_text(found, *NAMES, *CODE, *RECORDED, page.title, "script", "alert")
        left = [
            word
            for word in LATIN.findall(shown)
            if not re.fullmatch("R\\d+|a+|gpj|exe|passwd", word)
        ]
        assert left == [], shown[max(0, shown.find(left[0]) - 100) :][:400]


def test_a_language_that_is_not_there_is_refused():
    with pytest.raises(SettingError, match="`lang` must be one of en, zh, got 'fr'"):
        Words("fr")


def test_a_key_or_value_that_is_not_there_is_named():
    with pytest.raises(SettingError, match=r"`no\.key` in `en` has no 'no\.key'"):
        EN("no.key")
    with pytest.raises(SettingError, match=r"`answer\.failed` in `en` has no 'reason'"):
        EN(said("answer.failed"))


def test_a_name_from_right_to_left_is_isolated():
    assert isolated("finch") == "finch"
    assert EN(said("answer.failed", reason="ציפור")) == "It failed: \u2068ציפור\u2069"


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.46, "0.5 s"), (75, "75 s"), (600, "10.0 min"), (9000, "2.5 h")]
)
def test_a_time_has_the_unit_a_person_would_use(seconds, told):
    assert EN(duration(seconds)) == told

"""What every check keeps to, whatever it is given."""

import math
import re
import string
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from fieldmark.diagnosis.diagnose import RUN_CHECKS, STUDY_CHECKS, diagnose_run, firing
from fieldmark.diagnosis.evidence import gather
from fieldmark.diagnosis.finding import REASONS, SEVERITIES, Texts

ALL = (*RUN_CHECKS, *STUDY_CHECKS)
NAMES = [check.name for check in ALL]
OUTCOMES = {"fires", "does not", "cannot tell"}
DOCS = Path(__file__).parents[2] / "docs"


def runs(record, well):
    """Runs as they come, most of them broken in one way."""
    nan = well(**{"train/loss": [2.3, math.nan, math.nan], "val/loss": [2.3, math.inf]})
    yield "healthy", record()
    yield "nothing recorded", record(({}, {}))
    yield "one look", record(({}, {"val/loss": [2.3], "val/top1": [0.1]}))
    yield "two looks", record(({}, well(2)))
    yield "not a number", record(({}, nan))
    only = {key: values for key, values in well().items() if key.startswith("train/")}
    yield "no val", record(({}, only))
    yield "no minitrain", record(({}, {"val/top1": well()["val/top1"]}))
    yield "no counts", record(manifest={"counts": {}})
    yield "failed at once", record(({}, {}), reason="The loss became nan at step 1 of the stage.")
    yield "failed otherwise", record(reason="OSError: no room")
    constant = {key: np.zeros_like(values) for key, values in well().items()}
    yield "all zero", record(({}, constant))
    yield "another recipe", record(recipe={"stages": "none"})
    yield "two stages", record(({}, well()), ({"name": "all", "train": "all"}, well(4)))


def test_names_are_different_and_plain():
    assert len(set(NAMES)) == len(NAMES)
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in NAMES)
    assert {check.severity for check in ALL} <= set(SEVERITIES)


def test_every_rule_of_the_page_has_a_check():
    assert {check.rule for check in ALL} == {f"R{number}" for number in range(1, 34)}


def test_no_check_tells_anything_of_an_empty_record(record):
    evidence = gather(record(({}, {}), manifest={"counts": {}}, recipe={"stages": 1}))
    for check in RUN_CHECKS:
        found = check(evidence)
        assert found.outcome == "cannot tell" or check.name == "copies_across_splits", check.name
        assert found.reason in REASONS or found.outcome == "does not"


def test_every_check_answers_on_every_run(record, well):
    for name, run in runs(record, well):
        for check in RUN_CHECKS:
            found = check(gather(run))
            where = f"{check.name} of {name}: {found}"
            assert found.outcome in OUTCOMES, where
            numbers = [n for n in found.numbers.values() if not isinstance(n, str)]
            assert all(math.isfinite(number) for number in numbers), where
            assert (found.outcome == "fires") == bool(found.advice and found.refuted_by), where
            assert (found.outcome == "fires") == (not found.why_not), where
            assert "{" not in found.title + found.advice + found.why_not, where
            assert found == check(gather(run)), where


def test_findings_come_with_the_worst_first(record, well):
    for _, run in runs(record, well):
        found = diagnose_run(run)
        ranks = [SEVERITIES.index(finding.severity) for finding in firing(found)]
        assert ranks == sorted(ranks)
        assert [f.outcome for f in found] == sorted(
            (f.outcome for f in found), key=["fires", "does not", "cannot tell"].index
        )
        assert {f.check for f in found} == {check.name for check in RUN_CHECKS}


def test_a_healthy_run_has_no_problem(record):
    found = firing(diagnose_run(record()))
    assert [f.check for f in found if f.severity != "note"] == []


@pytest.mark.parametrize("check", ALL, ids=NAMES)
def test_texts_are_sentences(check):
    for name in ("title", "cause", "refuted_by"):
        text = getattr(check.texts, name)
        assert text.endswith((".", "}")), text
    assert not check.texts.label.endswith(".")
    assert not placeholders(check.texts.label)


@pytest.mark.parametrize("check", ALL, ids=NAMES)
def test_terms_stand_in_the_vocabulary(check):
    words = re.findall(r"^\| ([^|]+) \|", (DOCS / "vocabulary.md").read_text(), re.MULTILINE)
    assert check.terms
    assert set(check.terms) <= {word.lower() for word in words}


@pytest.mark.parametrize("check", ALL, ids=NAMES)
def test_every_check_is_seen_to_fire_and_not_to(check):
    told = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for outcome in ("fires", "does not"):
        assert re.search(rf'"{check.name}"[^"]*?"{outcome}"', told), f"no test where it {outcome}"


def placeholders(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def test_placeholders_are_plain_names():
    for check in ALL:
        for each in fields(Texts):
            for name in placeholders(getattr(check.texts, each.name)):
                assert name.isidentifier(), f"{check.name}: {name}"

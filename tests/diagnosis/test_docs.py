"""docs/diagnosis.md says of each check what the code says."""

import re
from pathlib import Path

import pytest

from fieldmark.diagnosis.diagnose import RUN_CHECKS, STUDY_CHECKS

PAGE = (Path(__file__).parents[2] / "docs" / "diagnosis.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (R\d+) \| `(\w+)` \| (\w+) \| ([^|]+) \| ([^|]+) \|", re.MULTILINE)
ROWS = {
    name: (rule, severity, label, when) for rule, name, severity, label, when in ROW.findall(PAGE)
}


@pytest.mark.parametrize("check", [*RUN_CHECKS, *STUDY_CHECKS], ids=lambda check: check.name)
def test_the_page_has_a_row_of_each_check(check):
    rule, severity, label, when = ROWS[check.name]
    assert (rule, severity, label) == (check.rule, check.severity, check.texts.label)
    assert len(when) > 20


def test_the_page_has_no_row_of_others():
    assert ROWS.keys() == {check.name for check in (*RUN_CHECKS, *STUDY_CHECKS)}


def test_runs_and_studies_are_apart():
    runs, studies = PAGE.split("## Studies")
    assert all(f"`{check.name}`" in runs for check in RUN_CHECKS)
    assert all(f"`{check.name}`" in studies for check in STUDY_CHECKS)

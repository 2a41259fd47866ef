"""The rehearsals that checks are measured on plant and count as they say; so does the page."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curves import photos as photos_module
from curves.bank import Best
from curves.page import filled
from curves.rehearsals import FAULTS, Rehearsed, _all_alike, _dealt_anew, _marked
from curves.score import Rate
from curves.settings import Setting
from fieldmark.diagnosis.diagnose import RUN_CHECKS
from gathered import PLANTED, SHUFFLED, asked
from gathered import Judged as JudgedStudy
from rehearsal import NAMED_BY, REHEARSED, Judged, Score


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """One whose drawings are few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photos_module, "PER_CLASS", 6)
        patch.setattr(photos_module, "SIDE", 40)
        made = Setting("tune", 1, tmp_path_factory.mktemp("bank"))
        made.photos()
    return made


@pytest.fixture
def entries(setting: Setting) -> list[photos_module.Entry]:
    root = setting.photos()
    names = sorted(path.name for path in root.iterdir() if (path / "000.jpg").exists())[:3]
    return [
        photos_module.Entry(f"{name}/{n:03d}.jpg", name, "val" if n > 3 else "train")
        for name in names
        for n in range(6)
    ]


def test_labels_dealt_anew_are_the_same_labels_in_another_order(setting, entries):
    found = _dealt_anew(setting, entries)
    pairs = list(zip(entries, found, strict=True))
    assert all(a == b for a, b in pairs if a.split == "val")
    assert all(a.path == b.path for a, b in pairs)
    assert Counter(e.label for e in entries) == Counter(e.label for e in found)
    assert sum(a.label != b.label for a, b in pairs) >= 4  # of twelve; a third stays by chance


def test_photos_all_alike_are_one_photo_in_files_that_differ(setting, entries):
    found = _all_alike(setting, entries)
    assert [(e.label, e.split) for e in found] == [(e.label, e.split) for e in entries]
    files = [(setting.photos() / e.path).read_bytes() for e in found]
    assert len(set(files)) == len(files)
    pixels = [np.asarray(Image.open(setting.photos() / e.path), np.float64) for e in found]
    assert max(np.abs(one - pixels[0]).mean() for one in pixels) < 8  # of 255


def test_a_border_tells_the_class_and_the_drawing_does_not(setting, entries):
    found = _marked(setting, entries)
    drawn = [a.path for a in entries]
    assert [e.label for e in found] == [e.label for e in entries]
    corners: dict[str, list[np.ndarray]] = {}
    for entry in found:
        with Image.open(setting.photos() / entry.path) as image:
            assert image.width == 40 + 2 * 8  # a fifth on each side
            corners.setdefault(entry.label, []).append(np.asarray(image, np.float64)[2, 2])
    means = {label: np.mean(seen, axis=0) for label, seen in corners.items()}
    for label, seen in corners.items():
        assert all(np.abs(one - means[label]).max() < 25 for one in seen)
    apart = [np.abs(a - b).max() for a in means.values() for b in means.values() if a is not b]
    assert min(apart) > 100
    assert all((setting.photos() / path).exists() for path in drawn)  # left alone


def test_each_fault_makes_a_recipe_that_can_be_read(setting, monkeypatch, entries):
    monkeypatch.setattr(Setting, "entries", lambda _: entries)
    for fault in FAULTS:
        recipe = fault.plant(setting, Best(2.0, 0.0, 0.8, 40))
        assert len(recipe.stages) == 1
    rates = {f.name: f.plant(setting, Best(2.0, 0.0, 0.8, 40)).stages[0].lr for f in FAULTS}
    assert (rates["lr x 10,000"], rates["lr / 10,000"]) == (2e4, 2e-4)


def test_the_table_speaks_of_checks_that_there_are():
    assert {name for names in NAMED_BY.values() for name in names} == {c.name for c in REHEARSED}
    assert set(REHEARSED) <= set(RUN_CHECKS)


def test_what_is_named_and_what_is_false():
    def judged(fault: str | None, **found: str) -> Judged:
        return Judged(Rehearsed("r", "run", fault), found)

    score = Score(
        [
            judged("lr x 10,000", cannot_overfit_few="problem"),
            judged("lr x 10,000", no_band_of_rates="note"),  # a note names nothing
            judged("all labels dealt anew", cannot_overfit_few="problem"),  # nor another check
            judged(None, no_band_of_rates="note"),
            judged(None, blank_photos_do_as_well="problem"),
        ]
    )
    assert (score.named, score.false) == (Rate(1, 3), Rate(1, 2))
    counts = {"faults": 2, "named": 1, "healthy": 2, "alarms": 1}
    assert score.by_check()["no_band_of_rates"] == counts
    assert score.missed == [
        "33.3% of faults named, not 90%",
        "50.0% of healthy recipes alarmed, not 5%",
    ]
    assert "lr x 10,000" in "\n".join(score.lines())


def test_rates_go_into_the_rows_of_their_checks_alone():
    page = "| R2 | `a` | note | x | y | | |\n| R3 | `b` | note | x | y | 1/2 | 3/4 |\ntext | |\n"
    rates = {"a": {"named": 9, "faults": 10, "alarms": 0, "healthy": 50}}
    assert filled(page, rates) == page.replace("y | | |", "y | 9/10 | 0/50 |")
    none = {"b": {"named": 0, "faults": 0, "alarms": 0, "healthy": 0}}
    assert filled(page, none) == page.replace("1/2 | 3/4 |", "| |")


def test_the_page_shows_a_rate_of_each_check_that_was_measured():
    page = (Path(__file__).parents[1] / "docs" / "diagnosis.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| R")]
    shown = [Rate(*map(int, row.split("|")[-2].split("/"))) for row in rows]
    assert all(0 <= rate.hits <= rate.count for rate in shown)


def test_a_study_with_a_fault_has_it_whatever_its_axes_set(setting, monkeypatch, entries):
    monkeypatch.setattr(Setting, "entries", lambda _: entries)
    plain, axes = asked(setting, None)
    assert [axis["key"] for axis in axes] == ["stages.head.lr", "stages.head.weight_decay"]
    for fault in PLANTED:
        base, axes = asked(setting, fault)
        assert base.pooling == plain.pooling  # heads that train side by side
        assert base != plain or axes[0]["values"] != [0.1, 1.0, 10.0, 30.0]
    base, axes = asked(setting, "decay too large")
    assert base.stages[0].weight_decay == 0.1
    assert [axis["key"] for axis in axes] == ["stages.head.lr"]
    assert asked(setting, "lr x 100")[1][0]["values"] == [30, 300, 3000, 9000]


def test_a_study_about_labels_has_wrong_ones_in_train_alone(setting, monkeypatch, entries):
    monkeypatch.setattr(Setting, "entries", lambda _: entries)
    plain, axes = asked(setting, None)
    shuffled, axes_then = asked(setting, SHUFFLED)
    assert axes_then == axes
    before, after = (
        list(csv.DictReader(Path(one.data.lists["all"]).read_text().splitlines()))
        for one in (plain, shuffled)
    )
    moved = [a for a, b in zip(before, after, strict=True) if a["label"] != b["label"]]
    assert {row["split"] for row in moved} == {"train"}
    assert len(moved) == round(0.4 * sum(row["split"] == "train" for row in before))
    assert JudgedStudy("labels shuffled", 5, {"wrong_labels": "problem"}, {}).is_named
    assert not JudgedStudy("labels shuffled", 5, {"val_above_train": "problem"}, {}).is_named

"""The bank that diagnosis is measured on labels, plants and counts as it says."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curves import bank as bank_module
from curves.bank import Builder, Labelled, best_of, label
from curves.faults import FAULTS, Best, batch_norm_left_on, val_through_chance
from curves.photos import copied_across, deal, shuffled_labels, without_classes
from curves.published import AUTOTRAINER, NAMES, SETS, UMLAUT, firing
from curves.score import NAMED_BY, Judged, Rate, Score
from curves.settings import SPLITS, Setting, fewer
from fieldmark.data.transform import View
from fieldmark.diagnosis.diagnose import RUN_CHECKS, STUDY_CHECKS
from fieldmark.layers.backbone import make_backbone
from fieldmark.studies.run import Run, RunWriter

# -- labels ------------------------------------------------------------------------------------


def test_a_run_is_healthy_within_two_standard_errors_of_the_best() -> None:
    best = Best(lr=1.0, weight_decay=0.0, top1=0.8, photos=100)  # one standard error is 0.04
    assert best.floor == pytest.approx(0.72)
    kinds = [label("run", top1, best).kind for top1 in (0.85, 0.73, 0.71, None)]
    assert kinds == ["healthy", "healthy", "neither", "neither"]


@pytest.mark.parametrize(("top1", "took"), [(0.8, False), (0.5, True), (None, True)])
def test_a_planted_fault_is_one_whether_it_took_or_not(top1: float | None, took: bool) -> None:
    found = label("run", top1, Best(1.0, 0.0, 0.8, 100), "lr x 100")
    assert (found.kind, found.took) == ("fault", took)


def test_the_rate_of_a_setting_is_the_middle_of_its_good_ones() -> None:
    cells = {(0.1, 0.0): 0.5, (1.0, 0.0): 0.77, (10.0, 0.0): 0.7, (10.0, 1e-4): 0.8}
    found = best_of(cells, photos=100)  # one standard error below the best: 0.76
    assert found.lr == pytest.approx(10**0.5)
    assert (found.weight_decay, found.top1) == (1e-4, 0.8)


# -- what is planted ---------------------------------------------------------------------------


@pytest.fixture
def entries() -> list[Any]:
    return deal(4, 10, 5, np.random.default_rng(0))


def test_photos_are_dealt_evenly_and_to_one_part_each(entries: list[Any]) -> None:
    counts = Counter((entry.label, entry.split) for entry in entries)
    assert sorted(counts.values()) == [5] * 4 + [10] * 4
    assert len({entry.path for entry in entries}) == 60
    small = fewer(deal(12, 20, 5, np.random.default_rng(0)))
    assert Counter(entry.split for entry in small) == {"train": 6 * 16, "val": 6 * 5}


def test_the_splits_share_no_drawings() -> None:
    guides = [{Setting(split, n, Path()).guide for n in range(24)} for split in SPLITS]
    assert not guides[0] & guides[1]


def test_labels_are_shuffled_in_train_alone_and_always_wrong(entries: list[Any]) -> None:
    found = shuffled_labels(entries, 0.4, np.random.default_rng(1))
    changed = [(a, b) for a, b in zip(entries, found, strict=True) if a.label != b.label]
    assert len(changed) == 16  # 0.4 of 40
    assert all(a.split == "train" and a.path == b.path for a, b in changed)


def test_a_class_goes_missing_from_val_alone(entries: list[Any]) -> None:
    found = without_classes(entries, 1, np.random.default_rng(1))
    counts = Counter(entry.split for entry in found)
    assert counts == {"train": 40, "val": 15}


@pytest.mark.parametrize("exact", [True, False])
def test_copies_stand_in_train_under_other_names(
    exact: bool, entries: list[Any], tmp_path: Path
) -> None:
    from PIL import Image

    val = [entry for entry in entries if entry.split == "val"]
    for entry in val:
        (tmp_path / entry.path).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), (90, 120, 30)).save(tmp_path / entry.path)
    added = copied_across(tmp_path, "here", entries, 0.5, exact)[len(entries) :]
    assert len(added) == 10
    assert all(one.split == "train" for one in added)
    assert [one.label for one in added] == [one.label for one in val[::2]]
    same = [
        (tmp_path / a.path).read_bytes() == (tmp_path / b.path).read_bytes()
        for a, b in zip(added, val[::2], strict=True)
    ]
    assert set(same) == {exact}


def test_the_patches_do_what_they_say_and_go_away() -> None:
    backbone = make_backbone("test_resnet", weights="none", level=0, image_size=32)
    photos = torch.randn(4, 3, 32, 32)
    statistics = [b for name, b in backbone.named_buffers() if name.endswith("running_mean")]

    def moved(*, frozen: bool) -> bool:
        backbone.requires_grad_(not frozen).eval()
        backbone.training = True  # as where only a part is frozen
        before = [one.clone() for one in statistics]
        with torch.no_grad():
            backbone(photos)
        return any(not torch.equal(a, b) for a, b in zip(before, statistics, strict=True))

    view = View(32, 36, crop="random")
    with batch_norm_left_on(), val_through_chance():
        assert moved(frozen=False)
        assert not moved(frozen=True)  # a backbone that is all frozen has its features computed
        assert view.eval() is view
    assert not moved(frozen=False)
    assert view.eval().crop == "centre"


# -- who names what ----------------------------------------------------------------------------


def test_the_table_speaks_of_checks_rules_and_faults_that_there_are() -> None:
    checks = {check.name for check in (*RUN_CHECKS, *STUDY_CHECKS)}
    assert {name for names in NAMED_BY.values() for name in names} <= checks
    assert set(NAMES) <= {fault.name for fault in FAULTS}
    rules = UMLAUT.keys() | AUTOTRAINER.keys()
    assert {name for names in NAMES.values() for name in names} <= rules


Curves = Mapping[str, Sequence[float]]

RECIPE = """\
data: {folder: photos}
stages: [{name: head, train: head, lr: %g, length: 4 epochs}]
"""
CALM = {
    "minitrain/top1": [0.2, 0.5, 0.7, 0.8],
    "minitrain/loss": [2.0, 1.5, 1.0, 0.5],
    "val/top1": [0.2, 0.5, 0.7, 0.8],
    "val/loss": [2.0, 1.5, 1.0, 0.6],
}
HALVES = {"mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    def make(
        curves: Curves | None = None, lr: float = 1e-2, view: Any = None, reason: str = ""
    ) -> Run:
        manifest = {"class_names": ["a", "b"], "view": view or HALVES}
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        with RunWriter.create(folder, RECIPE % lr, manifest) as writer:
            for key, values in (CALM | dict(curves or {})).items():
                for step, value in enumerate(values):
                    writer.record({key: value}, step=step, stage="head")
            if reason:
                writer.fail(reason)
            else:
                writer.finish()
        return Run(folder)

    return make


def test_the_published_sets_are_silent_on_a_calm_run(make_run: Callable[..., Run]) -> None:
    assert {name: firing(rules, make_run()) for name, rules in SETS.items()} == {
        "UMLAUT": set(),
        "AutoTrainer": set(),
    }


@pytest.mark.parametrize(
    ("rule", "given"),
    [
        ("learning rate", {"lr": 0.011}),
        ("learning rate", {"lr": 0.9e-7}),
        ("input range", {"view": {"mean": [0.485] * 3, "std": [0.229] * 3}}),
        ("too good", {"curves": {"val/top1": [0.96], "minitrain/top1": [0.3, 0.99]}}),
        ("val leads", {"curves": {"val/top1": [0.86]}}),
        ("overfitting", {"curves": {"val/loss": [2.0, 1.0, 1.01, 0.9]}}),
        ("not finite", {"curves": {"minitrain/loss": [2.0, float("nan")]}}),
        ("not finite", {"reason": "The loss became nan at step 3 of the stage."}),
        ("oscillates", {"curves": {"minitrain/top1": [0.2, 0.7, 0.66, 0.8]}}),
        ("slow", {"curves": {"minitrain/top1": [0.795, 0.8, 0.804, 0.8]}}),
        ("never good", {"curves": {"minitrain/top1": [0.2, 0.6], "val/top1": [0.6]}}),
        ("gap", {"curves": {"val/top1": [0.69]}}),
        ("gap", {"curves": {"minitrain/top1": [0.3, 0.95], "val/top1": [0.87]}}),
    ],
)
def test_a_published_rule_fires_alone_past_its_threshold(
    rule: str, given: dict[str, Any], make_run: Callable[..., Run]
) -> None:
    run = make_run(**given)
    assert {rule} == firing(UMLAUT, run) | firing(AUTOTRAINER, run)


@pytest.mark.parametrize(
    "given",
    [
        {"lr": 0.01},
        {"lr": 1e-7},
        {"curves": {"val/top1": [0.84]}},
        {"curves": {"val/loss": [2.0, 1.5, 1.5, 0.9]}},
        {"curves": {"minitrain/top1": [0.2, 0.7, 0.68, 0.8]}},
        {"curves": {"val/top1": [0.71]}},
        {"curves": {"minitrain/top1": [0.3, 0.95], "val/top1": [0.89]}},
    ],
)
def test_a_published_rule_is_silent_short_of_it(
    given: dict[str, Any], make_run: Callable[..., Run]
) -> None:
    run = make_run(**given)
    assert not firing(UMLAUT, run) | firing(AUTOTRAINER, run)


# -- counting ----------------------------------------------------------------------------------


def _judged(fault: str | None, found: dict[str, str], **others: set[str]) -> Judged:
    known = Labelled("run", fault, "fault" if fault else "healthy", 0.5, 0.5, took=False)
    return Judged(known, found, {"UMLAUT": set(), "AutoTrainer": set()} | others)


def test_a_fault_is_named_by_a_warning_of_the_right_check() -> None:
    right, wrong = {"lr_too_low": "warning"}, {"overfitting": "problem"}
    score = Score(
        [
            _judged("lr / 100", right),
            _judged("lr / 100", wrong, UMLAUT={"learning rate"}),
            _judged("lr / 100", {"lr_too_low": "note"}, UMLAUT={"input range"}),
            _judged(None, wrong),
            _judged(None, right, AutoTrainer={"gap"}),
        ]
    )
    assert (score.named, score.false) == (Rate(1, 3), Rate(1, 2))
    assert [one.is_named_by("UMLAUT") for one in score.faulty()] == [False, True, False]
    (check,) = (check for check in RUN_CHECKS if check.name == "lr_too_low")
    assert score.by_check()["lr_too_low"] == {
        "rule": "R7",
        "severity": check.severity,
        "faults": 3,
        "named": 2,
        "healthy": 2,
        "alarms": 1,
    }
    assert score.missed == [
        "33.3% of faults named, not 90%",
        "50.0% of healthy runs alarmed, not 5%",
    ]


def test_targets_are_met_at_their_edges() -> None:
    named = [_judged("lr / 100", {"lr_too_low": "problem"})] * 9
    calm = [_judged(None, {})] * 19
    at_edge = Score(
        [*named, _judged("lr / 100", {}), *calm, _judged(None, {"overfitting": "problem"})]
    )
    assert not at_edge.missed


def test_a_rate_has_wilsons_interval() -> None:
    assert str(Rate(19, 20)) == "19/20  95% (76%-99%)"
    assert str(Rate(0, 0)) == "-"


# -- the whole ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_very_small_bank_is_built_labelled_and_judged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank_module, "RATES", (1.0, 10.0))
    monkeypatch.setattr(bank_module, "DECAYS", (0.0,))
    monkeypatch.setattr(Setting, "entries", lambda self: deal(4, 6, 10, self.rng("photos")))
    faults = {fault.name: fault for fault in FAULTS}
    chosen = [faults[name] for name in ("lr / 100", "copies across splits", "class missing")]
    builder = Builder(Setting("tune", 1, tmp_path))
    labelled = builder.build(chosen)
    assert {one.fault for one in labelled} == {None, *(fault.name for fault in chosen)}
    batch_norm = builder.faulty(faults["batch norm on"], Best(1.0, 0.0, 0.5, 40))
    score = Score([Judged.of(one, tmp_path) for one in (*labelled, batch_norm)])
    assert len(score.healthy) >= 2
    assert all(one.is_named for one in score.faulty() if one.known.fault != "lr / 100")
    monkeypatch.setattr(bank_module, "train", None)  # nothing is trained again
    assert Builder(Setting("tune", 1, tmp_path)).build(chosen) == labelled

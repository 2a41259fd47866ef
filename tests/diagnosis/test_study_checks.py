"""Checks of a study, on results whose answer is known."""

import dataclasses
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldmark.diagnosis import comparisons
from fieldmark.diagnosis.diagnose import STUDY_CHECKS, diagnose_study, firing
from fieldmark.diagnosis.finding import Finding
from fieldmark.diagnosis.study_advice import next_experiments_of_study, study_command
from fieldmark.diagnosis.study_evidence import StudyEvidence
from fieldmark.language import Words, english
from fieldmark.metrics import wilson_interval
from fieldmark.report.cells import CellsOf, effects_section, study_answer
from fieldmark.report.render import finding_text
from fieldmark.report.sentences import best_sentence
from fieldmark.studies.design import Design
from fieldmark.studies.run import RunWriter
from fieldmark.studies.selection import best_cell
from fieldmark.studies.study import Study
from fieldmark.study_report import rows_of, sentences

PHOTOS = 400
BASE = """\
data: {folder: photos}
pooling: {name: compact_bilinear, sketch_dim: 1024}
stages: [{name: head, train: head, lr: 1, weight_decay: 0, length: 10 epochs, batch_size: 16}]
"""
DIVERGED = "The loss became nan at step 3 of the stage."
Value = Callable[[Mapping[str, Any]], float | None]


class Maker:
    """Makes studies of axes, with what came of each cell; None is a run that diverged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        axes: list[dict[str, Any]],
        value: Value,
        *,
        seconds: Value = lambda _: 5.0,
        **more: Any,
    ) -> Study:
        asked = {
            "name": "asked",
            "question": "Which?",
            "base": "base",
            "axes": axes,
            "objective": {"folds": "none"},
            **more,
        }
        design = Design.read(json.dumps(asked), lambda _: BASE)
        study = Study.create(self.folder / "study", design)
        for number, slot in enumerate(study.slots()):
            top1 = value(slot.cell.points[0])
            place = study.folder / "cells" / slot.cell.hash / f"seed-{slot.seed}.1"
            if top1 is not None:
                self._run(place, slot.recipe.to_yaml(), top1, shift=number)
            record = {
                "status": "failed" if top1 is None else "finished",
                "metrics": {} if top1 is None else {"val/top1": top1},
                "seconds": seconds(slot.cell.points[0]),
                "reason": DIVERGED if top1 is None else None,
                "folder": place.name,
                "time": 0.0,
            }
            place.parent.mkdir(parents=True, exist_ok=True)
            (place.parent / f"{place.name}.json").write_text(json.dumps(record))
        return Study(study.folder)

    def _run(self, place: Path, recipe: str, top1: float, *, shift: int) -> None:
        """Photos named wrongly are others in each run, as of models that know nothing in common."""
        labels = np.arange(PHOTOS) % 80
        wrong = (np.arange(round((1 - top1) * PHOTOS)) + 37 * shift) % PHOTOS
        named = labels.copy()
        named[wrong] = (named[wrong] + 1) % 80
        names = [f"species {n}" for n in range(80)]
        with RunWriter.create(place, recipe, {"class_names": names}) as writer:
            paths = [f"{n}.jpg" for n in range(PHOTOS)]
            writer.predictions("val", paths, labels, np.eye(80)[named])
            writer.finish()


@pytest.fixture
def study(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def look(name: str, study: Study) -> Finding:
    (check,) = [one for one in STUDY_CHECKS if one.name == name]
    return check(StudyEvidence(study))


LR = {"key": "stages.head.lr", "values": [0.1, 0.3, 1, 3]}
DECAY = {"key": "stages.head.weight_decay", "values": [0, 1e-5, 1e-4, 1e-3]}
SIZE = {"key": "data.image_size", "values": [224, 336, 448]}
BATCH = {"key": "stages.head.batch_size", "values": [16, 64]}


def by(axis: str, *values: float | None) -> Value:
    """What comes of an axis's settings, in their order."""
    settings = {a["key"].rpartition(".")[2]: a["values"] for a in (LR, DECAY, SIZE, BATCH)}[axis]
    return lambda point: values[settings.index(point[axis])]


@pytest.mark.parametrize(
    ("name", "outcome", "axis", "values"),
    [
        ("rate_capped_by_divergence", "fires", LR, (0.6, 0.7, 0.8, None)),
        ("rate_capped_by_divergence", "does not", LR, (0.6, 0.8, 0.7, None)),
        ("rate_capped_by_divergence", "cannot tell", SIZE, (0.6, 0.7, 0.8)),
        # 80 % of 400: a difference's se is some 3 points
        ("best_at_the_edge", "fires", LR, (0.5, 0.6, 0.7, 0.8)),
        ("best_at_the_edge", "fires", LR, (0.8, 0.7, 0.6, 0.5)),
        ("best_at_the_edge", "does not", LR, (0.5, 0.6, 0.8, 0.7)),
        ("best_at_the_edge", "does not", LR, (0.5, 0.6, 0.795, 0.80)),  # no better than inside
        ("best_at_the_edge", "cannot tell", BATCH, (0.5, 0.6)),
        ("decay_at_the_edge", "fires", DECAY, (0.5, 0.6, 0.7, 0.8)),
        ("decay_at_the_edge", "does not", DECAY, (0.8, 0.7, 0.6, 0.5)),  # nothing lies below 0
        ("decay_at_the_edge", "does not", DECAY, (0.5, 0.7, 0.6, 0.8)),  # not one way
        ("decay_at_the_edge", "cannot tell", LR, (0.5, 0.6, 0.7, 0.8)),
        ("nuisance_not_tuned", "fires", SIZE, (0.5, 0.6, 0.7)),
        ("nuisance_not_tuned", "cannot tell", LR, (0.5, 0.6, 0.7, 0.8)),
        ("batch_changed_alone", "fires", BATCH, (0.5, 0.6)),
        ("batch_changed_alone", "cannot tell", LR, (0.5, 0.6, 0.7, 0.8)),
        ("best_is_luck", "does not", LR, (0.5, 0.6, 0.9, 0.5)),
        ("best_is_luck", "fires", LR, (0.5, 0.6, 0.8, 0.79)),
    ],
)
def test_one_axis(study, name, outcome, axis, values):
    made = study([axis], by(axis["key"].rpartition(".")[2], *values))
    found = look(name, made)
    assert found.outcome == outcome, found


@pytest.mark.parametrize(
    ("name", "outcome", "failed"),
    [("many_infeasible", "does not", 2), ("many_infeasible", "fires", 3)],
)
def test_a_fifth_of_the_runs_may_fail(study, name, outcome, failed):
    values = [0.5] * (10 - failed) + [None] * failed
    axis = {"key": "stages.head.lr", "values": list(range(1, 11))}
    found = look(name, study([axis], lambda point: values[point["lr"] - 1]))
    assert (found.outcome, found.numbers["failed"]) == (outcome, failed)


def test_a_few_runs_tell_nothing_of_failures(study):
    found = look("many_infeasible", study([LR], by("lr", None, None, 0.5, 0.5)))
    assert found.why_not == "it takes 5 finished cells, there are 4"


@pytest.mark.parametrize(
    ("name", "outcome", "axes"),
    [
        ("nuisance_not_tuned", "does not", [SIZE, LR | {"role": "nuisance"}]),
        ("batch_changed_alone", "does not", [BATCH, LR | {"role": "nuisance"}]),
    ],
)
def test_with_the_rate_as_a_nuisance(study, name, outcome, axes):
    assert look(name, study(axes, lambda _: 0.5)).outcome == outcome


def test_exact_heads_have_no_rate_to_tune(study):
    decay = {"key": "stages.head.weight_decay", "values": [1e-4, 1e-2]}
    exact = {"key": "stages.head.solver", "values": ["lbfgs"], "role": "fixed"}
    found = look("nuisance_not_tuned", study([decay, exact], lambda _: 0.5))
    assert found.why_not == "stage head finds its minimum and takes no steps"


def test_rates_that_go_with_the_batch_are_arms(study):
    arms = {
        "small": {"stages.head.batch_size": 16, "stages.head.lr": 1},
        "large": {"stages.head.batch_size": 64, "stages.head.lr": 4},
    }
    made = study([{"name": "batch", "arms": arms}], lambda _: 0.5)
    assert look("batch_changed_alone", made).outcome == "does not"


SPACES = [
    {"key": "stages.head.lr", "space": {"low": 0.01, "high": 10, "log": True}},
    {"key": "stages.head.weight_decay", "space": {"low": 1e-6, "high": 1e-2, "log": True}},
]


@pytest.mark.parametrize(
    ("name", "outcome", "trials", "dimensions"),
    [
        ("too_few_trials", "fires", 19, 2),
        ("too_few_trials", "does not", 20, 2),
        ("too_few_trials", "does not", 6, 1),
    ],
)
def test_trials_over_spaces(study, name, outcome, trials, dimensions):
    made = study(SPACES[:dimensions], lambda _: 0.5, search={"trials": trials})
    assert look(name, made).outcome == outcome


def test_no_trial_that_ended_is_not_too_few(study):
    made = study(SPACES, lambda _: None, search={"trials": 6})
    assert look("too_few_trials", made).why_not == "it takes 1 finished cells, there are 0"


@pytest.mark.parametrize(
    ("name", "outcome", "best_lr"),
    [
        ("best_at_the_edge", "fires", 0.0),
        ("best_at_the_edge", "fires", 10.0),
        ("best_at_the_edge", "does not", 0.3),
    ],
)
def test_the_best_of_a_space_near_its_end(study, name, outcome, best_lr):
    def near(point: Mapping[str, Any]) -> float:
        return 0.9 - min(0.5, abs(np.log10(point["lr"] + 1e-3) - np.log10(best_lr + 1e-3)) / 10)

    made = study(SPACES[:1], near, search={"trials": 16})
    assert look(name, made).outcome == outcome


@pytest.mark.parametrize(
    ("name", "outcome", "second"),
    [("single_photos_decide", "fires", 0.78), ("single_photos_decide", "does not", None)],
)
def test_classes_of_five_photos(study, name, outcome, second):
    values = (0.8, second or 0.8, 0.5, 0.5)
    made = study([LR], by("lr", *values))
    if second is None:  # the two best are the same model
        cells = [study_cell.hash for study_cell in made.cells[:2]]
        a, b = (made.folder / "cells" / one / "seed-0.1/predictions/val.parquet" for one in cells)
        b.write_bytes(a.read_bytes())
    assert look(name, made).outcome == outcome


def test_nothing_is_told_of_a_study_that_has_not_begun(tmp_path):
    text = json.dumps({"name": "n", "question": "Which?", "base": "b", "axes": [LR, SIZE]})
    made = Study.create(tmp_path / "study", Design.read(text, lambda _: BASE))
    found = diagnose_study(made)
    assert {f.check for f in found} == {check.name for check in STUDY_CHECKS}
    assert firing(found) == []


def test_what_to_try_next_goes_on_with_the_study(study):
    made = study([LR], by("lr", 0.5, 0.6, 0.7, 0.8))
    findings = diagnose_study(made)
    (wider,) = [e for e in next_experiments_of_study(made, findings) if "values" in e.command]
    assert "'axes.0.values=[0.1, 0.3, 1, 3, 9]'" in wider.command
    assert wider.seconds == pytest.approx(5)  # one new cell, at what the others took
    assert wider.refuted_by == "9 is worse."
    assert wider.command.endswith(f"--out {made.folder}")


def test_the_next_decay_is_as_many_times_further_as_the_last_step(study):
    """Among others than 0, from which nothing is so many times further."""
    made = study([DECAY], by("weight_decay", 0.5, 0.6, 0.7, 0.8))
    assert look("decay_at_the_edge", made).numbers["next"] == pytest.approx(1e-2)


def test_a_key_that_was_set_before_is_set_once(tmp_path):
    text = json.dumps({"name": "n", "question": "Which?", "base": "b", "axes": [LR]})
    asked = Design.read(text, lambda _: BASE, ["seeds=2", "data.folder=birds"])
    made = Study.create(tmp_path / "study", asked)
    command = study_command(made, "seeds=4")
    assert shlex.split(command)[4:-2] == [
        "seeds=4",
        "data.folder=birds",
        f"base={made.folder / 'base.yaml'}",
    ]


def test_axes_are_told_in_words_and_kept_by_name(study):
    found = look("best_at_the_edge", study([LR], by("lr", 0.5, 0.6, 0.7, 0.8)))
    assert found.title == "The best learning rate is 3, the highest that was tried."
    assert "Add 9 to learning rate and run again" in found.advice
    assert found.numbers["axis"] == "lr"
    assert finding_text(found, "title", Words("zh")) == "最好的 学习率 是 3，是试过的取值中最大的。"


def test_a_whole_rate_is_written_as_one_whatever_its_type(study):
    axis = {"key": "stages.head.lr", "values": [0.1, 1.0, 3]}
    found = look("best_is_luck", study([axis], lambda point: 0.7 + 0.001 * point["lr"]))
    assert found.title.startswith(
        "The best cell (learning rate 3) leads the second (learning rate 1) by 0.2 points"
    )
    assert found.numbers["second"] == "learning rate 1"


def test_settings_that_want_their_own_rate_are_told_in_words(study):
    found = look("nuisance_not_tuned", study([SIZE, BATCH], lambda _: 0.5))
    assert found.title.startswith("Settings of image size, batch size are compared")
    assert found.numbers["axes"] == "image_size, batch_size"


def test_only_a_failure_says_why_runs_failed(study):
    """A run that was ended early has a reason too."""
    axis = {"key": "stages.head.lr", "values": list(range(1, 11))}
    made = study([axis], lambda point: None if point["lr"] > 7 else 0.5)
    (record,) = (made.folder / "cells" / made.cells[0].hash).glob("*.json")
    ended = json.loads(record.read_text()) | {"status": "pruned", "reason": "median: behind."}
    record.write_text(json.dumps(ended))
    found = look("many_infeasible", Study(made.folder))
    assert found.title == f"3 of 9 runs failed: {DIVERGED}"


def test_an_end_that_no_recipe_goes_beyond_is_no_edge(study):
    """All photos are the most that can be trained on."""
    axis = {"key": "data.train_fraction", "values": [0.25, 0.5, 1.0]}
    made = study([axis], lambda point: 0.5 + 0.3 * point["train_fraction"])
    assert look("best_at_the_edge", made).outcome == "does not"


def test_settings_that_are_mappings_are_no_numbers(study):
    schedules = [{"name": "cosine"}, {"name": "step", "every": "4 epochs"}, {"name": "constant"}]
    axis = {"key": "stages.head.schedule", "values": schedules}
    assert look("best_at_the_edge", study([axis], lambda _: 0.5)).outcome == "cannot tell"


def test_more_trials_cost_so_many_at_each_point_of_the_grid(study):
    made = study([SIZE, *SPACES], lambda _: 0.5, search={"trials": 5}, seeds=2)
    (more,) = [
        each
        for each in next_experiments_of_study(made, [look("too_few_trials", made)])
        if "search.trials=20" in each.command
    ]
    assert more.seconds == pytest.approx(5 * 3 * 15 * 2)


def test_cells_judged_by_other_photos_are_not_compared(study):
    """As where the split itself is varied: then the means stand, and no verdict."""
    made = study([SIZE], by("image_size", 0.5, 0.7, 0.9))
    (folder,) = (made.folder / "cells" / made.cells[0].hash).glob("seed-0.1")
    with RunWriter.open(folder) as writer:
        paths = [f"other-{n}.jpg" for n in range(PHOTOS)]
        labels = np.arange(PHOTOS) % 80
        writer.predictions("val", paths, labels, np.eye(80)[labels])
    found = look("best_is_luck", made)
    assert found.why_not == "the record has no `answers photo by photo`"
    assert sentences(made) == []


def test_a_cheaper_cell_as_good_and_axes_that_interact_are_told(study):
    """In the terminal and on the page: what to take if time counts, and what does not add up."""

    def top1(point: Mapping[str, Any]) -> float:
        good = {336: 0.895, 448: 0.9}
        return good.get(point["image_size"], 0.5) if point["batch_size"] == 64 else 0.5

    made = study([SIZE, BATCH], top1, seconds=lambda point: (point["image_size"] / 112) ** 2)
    cells = CellsOf(made)
    effects = effects_section(cells)
    assert effects
    shown = [*study_answer(cells), *(told for _, told in effects.sentences)]
    for told in (sentences(made), [english(one) for one in shown]):
        (cheap,) = [one for one in told if "cheapest" in one]
        assert cheap.startswith(
            "The cheapest cell not shown to be worse than the best is image size 336, "
            "batch size 64, at 56% of the cost. Cannot tell: it names 0.5 points fewer"
        )
        (both,) = [one for one in told if "top-1 changes by" in one]
        assert both.startswith(
            "Real: from image size 224 to 448 top-1 changes by 40.0 points more at batch size 64 "
            "than at 16 "
        )


def test_a_number_can_be_cited_from_a_row(study):
    made = study([BATCH], by("batch_size", 0.5, 0.6), seeds=2)
    for row, cell, top1 in zip(rows_of(made), made.cells, (0.5, 0.6), strict=True):
        low, high = wilson_interval(top1, PHOTOS)
        told = {"cell": cell.hash, "metric": "val/top1", "mean": top1, "low": low, "high": high}
        assert row.items() >= {**told, "spread": 0.0, "photos": PHOTOS, "seeds": 2}.items()


@pytest.mark.parametrize(
    ("values", "outcome"),
    [([-1, -2, -3], "does not"), ([1, 2, 3], "fires"), ([-4, -3, -2], "fires")],
)
def test_the_first_level_is_not_beyond_the_last(study, values, outcome):
    """Level -1 is the last and 0 the first: between them nothing is missing."""
    axis = {"key": "backbone.level", "values": values}
    found = look("best_at_the_edge", study([axis], lambda point: 0.5 + 0.1 * point["level"]))
    assert found.outcome == outcome
    if outcome == "fires":
        assert found.numbers["next"] == max(values) + 1


def test_fewer_photos_are_no_choice(study):
    """A learning curve is no race; among cells of one amount the best is as lucky as ever."""
    amounts = {"key": "data.train_fraction", "values": [0.25, 0.5, 1.0]}
    made = study([amounts], lambda _: 0.8)
    assert look("best_is_luck", made).outcome == "cannot tell"
    found = look("nuisance_not_tuned", made)
    assert found.why_not == "no axis of the study varies anything but lr and the share of photos"
    assert "学习率和训练照片的份量" in finding_text(found, "why_not", Words("zh"))


@pytest.mark.parametrize(("optimism", "owes"), [(0.00049, False), (0.0006, True)])
def test_luck_that_rounds_to_nothing_is_not_told(study, monkeypatch, optimism, owes):
    """Neither by the finding nor in the sentence below the table, in either language."""

    def best(cells, **spread):
        return dataclasses.replace(best_cell(cells, **spread), optimism=optimism)

    monkeypatch.setattr(comparisons, "best_cell", best)
    made = study([SIZE], by("image_size", 0.5, 0.7, 0.7))
    found = look("best_is_luck", made)
    assert found.outcome == "fires"
    cells = CellsOf(made)
    sentence = best_sentence(best(cells.answered), {"size": 224})
    assert best(cells.answered).describe("The best cell (size 224)") == english(sentence)
    for lang, word, end in (("en", "luck", "."), ("zh", "运气", "。")):
        for text in (finding_text(found, "title", Words(lang)), Words(lang)(sentence)):
            assert (word in text) == owes, text
            assert text.endswith(end)
            assert "expect" not in text or owes
    assert ("owes some 0.1 to luck." in found.title) == owes


def test_the_lead_is_that_over_cells_of_as_many_photos(study):
    amounts = {"key": "data.train_fraction", "values": [0.25, 0.5, 1.0]}
    made = study(
        [amounts, BATCH], lambda p: 0.7 + 0.01 * p["train_fraction"] - p["batch_size"] / 1e5
    )
    rates = look("nuisance_not_tuned", made)
    assert (rates.outcome, rates.numbers["axes"]) == ("fires", "batch_size")
    found = look("best_is_luck", made)
    assert (found.outcome, found.numbers["cells"]) == ("fires", 2)
    assert found.numbers["second"] == "share of the training photos 1, batch size 64"

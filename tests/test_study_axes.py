"""What each axis did, on studies whose every result is known."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fieldmark.studies.answers import Answers
from fieldmark.studies.design import Design
from fieldmark.studies.effects import AnsweredCell, main_effects
from fieldmark.studies.lease import Leases
from fieldmark.studies.study import LEASES, Study
from fieldmark.studies.trial import Outcome
from fieldmark.study_axes import axes_table, guess_sentence, importance_sentence
from fieldmark.study_report import beside_the_best
from fieldmark.terminal import tell

BASE = """\
data: {folder: photos}
stages: [{name: head, train: head, lr: 1, length: 1 epochs}]
"""
STUDY = """\
name: grid
question: Which?
base: base
axes:
  - {key: data.image_size, values: [224, 448]}
  - {key: stages.head.lr, values: [0.1, 1, 3]}
seeds: 2
"""
EXPECT = "expect={axis: image_size, direction: up, size: 0.1}"


def study(folder: Path, *overrides: str, done: bool = True) -> Study:
    """Top-1 is 0.5, a tenth more at 448, lr / 100 more, and 0.6 points more by seed 1."""
    made = Study.create(folder, Design.read(STUDY, lambda _: BASE, overrides))
    for group in made.groups() if done else ():
        with Leases(made.folder / LEASES, "me").take(group.key) as lease:
            for slot in group.slots:
                top1 = 0.5 + 0.1 * (slot.recipe.data.image_size == 448) + 0.006 * slot.seed
                top1 += slot.recipe.stages[0].lr / 100
                folder = made.records.trial(slot, lease).folder
                outcome = Outcome(folder, "finished", {"out_of_fold/top1": top1})
                made.records.record(slot, lease, outcome)
    return made


def shown(found: Study) -> list[list[str]]:
    console = Console(width=120)
    with console.capture() as told:
        console.print(axes_table(found))
    rows = [line.split("│")[1:-1] for line in told.get().splitlines() if "%" in line]
    return [[part.strip() for part in row] for row in rows]


def test_each_setting_has_its_mean_and_its_best(tmp_path: Path):
    rows = shown(study(tmp_path / "study"))
    assert [row[1:4] for row in rows] == [
        ["224", "51.7%", "53.3%"],
        ["448", "61.7%", "63.3%"],
        ["0.1", "55.4%", "60.4%"],
        ["1", "56.3%", "61.3%"],
        ["3", "58.3%", "63.3%"],
    ]
    assert rows[0][0].startswith("image size (9")  # the one that matters most comes first
    assert rows[2][0].startswith("learning rate (")
    assert rows[0][4] == "▏"
    assert rows[1][4] == "█" * 16


def test_importance_is_the_share_of_the_variance(tmp_path: Path):
    # The two image sizes lie 0.05 from their mean, each way.
    (told,) = importance_sentence(study(tmp_path / "study"))
    of_lr = sum((x - 0.041 / 3) ** 2 for x in (0.001, 0.01, 0.03)) / 3
    share = 25e-4 / (25e-4 + of_lr)
    assert f"image size alone makes {share:.0%}, learning rate alone makes {1 - share:.0%}" in told
    assert "; 0% comes of axes together" in told


def test_nothing_is_told_before_there_are_results(tmp_path: Path):
    empty = study(tmp_path / "study", EXPECT, done=False)
    assert axes_table(empty) is None
    assert importance_sentence(empty) == []
    assert guess_sentence(empty)[0].endswith("There is nothing to compare yet.")


@pytest.mark.parametrize(
    ("direction", "answer"),
    [
        ("up", "You were right about the direction."),
        ("down", "You were wrong about the direction."),
    ],
)
def test_a_guess_is_held_against_what_came(tmp_path: Path, direction: str, answer: str):
    (told,) = guess_sentence(study(tmp_path / "study", EXPECT.replace("up", direction)))
    higher = "higher" if direction == "up" else "lower"
    assert told.startswith(
        f"You expected image size 448 to give a {higher} top-1 out of fold than 224, by 10 points. "
        "What came: +10.0 points (95 % interval +10.0 points to +10.0 points, 6 pairs of runs)."
    )
    assert told.endswith(answer)


def test_a_guess_made_late_is_told_so(tmp_path: Path):
    study(tmp_path / "study")
    late = Study.create(tmp_path / "study", Design.read(STUDY, lambda _: BASE, [EXPECT]))
    (told,) = guess_sentence(late)
    assert told.endswith("This was written down when 12 results were there already.")
    assert guess_sentence(study(tmp_path / "another")) == []


def test_sentences_are_wrapped_for_people_alone():
    sentence = "Real: " + "a word or two " * 20
    for terminal, lines in ((True, 4), (False, 1)):
        console = Console(width=80, force_terminal=terminal, no_color=True)
        with console.capture() as told:
            tell(console, sentence)
        assert len(told.get().rstrip("\n").splitlines()) == lines


@pytest.mark.parametrize(("settings", "shown"), [(3, 3), (4, 3), (7, 6)])
def test_of_many_settings_those_beside_the_best_are_told(settings: int, shown: int):
    photos = np.arange(100)
    cells = [
        AnsweredCell({"decay": number}, Answers(photos[None] < 50 + 10 * (number == 1) + number))
        for number in range(settings)
    ]
    told = beside_the_best(main_effects(cells))
    assert len(told) == shown
    assert settings < 4 or all(1 in (effect.a, effect.b) for effect in told)

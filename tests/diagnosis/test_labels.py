"""Wrong labels of a study: when they are told, listed, shown, and written down to be put right."""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from tests.diagnosis.test_study_checks import LR, Maker, by, look
from tests.studies.test_mislabelled import world
from typer.testing import CliRunner

from fieldmark.cli import app
from fieldmark.diagnosis.diagnose import diagnose_study, firing
from fieldmark.diagnosis.labels import suspects_of
from fieldmark.diagnosis.study_advice import next_experiments_of_study
from fieldmark.errors import DataError, SettingError
from fieldmark.report.content import study_page
from fieldmark.report.render import render
from fieldmark.shipped import find_design
from fieldmark.studies.run import RunWriter
from fieldmark.studies.study import Study

CLASSES = [f"species {n}" for n in range(8)]


@pytest.fixture
def labelled(tmp_path: Path):
    """A study whose best cell's three runs have answers, some of their labels wrong."""

    def make(share: float, photos: int = 600, seeds: int = 3) -> tuple[Study, np.ndarray]:
        made = Maker(tmp_path)([LR], by("lr", 0.5, 0.6, 0.8, 0.7), seeds=seeds)
        labels, probabilities, wrong = world(share, photos=photos, seed=3)
        rng = np.random.default_rng(5)
        for slot in made.slots_of(made.cells[2]):
            folder = made.results()[slot.key].folder
            shutil.rmtree(folder)
            # Each seed's own noise, which their mean takes away again.
            noisy = np.log(probabilities) + 0.5 * rng.standard_normal(probabilities.shape)
            with RunWriter.create(
                folder, slot.recipe.to_yaml(), {"class_names": CLASSES}
            ) as writer:
                paths = [f"{n:03}.jpg" for n in range(photos)]
                writer.predictions("val", paths, labels, softmax(noisy, axis=1))
                writer.finish()
        return Study(made.folder), wrong

    return make


@pytest.mark.parametrize(
    ("name", "outcome", "share", "photos"),
    [
        ("wrong_labels", "fires", 0.2, 600),
        ("wrong_labels", "fires", 0.05, 600),
        ("wrong_labels", "does not", 0.0, 600),
        ("wrong_labels", "cannot tell", 0.2, 99),
    ],
)
def test_labels(labelled, name, outcome, share, photos):
    made, wrong = labelled(share, photos)
    found = look(name, made)
    assert found.outcome == outcome, found
    if outcome == "cannot tell":
        assert found.why_not == "it takes 100 photos in val, there are 99"
        return
    assert found.numbers["low"] <= share <= found.numbers["high"]
    names = {f"{n:03}.jpg" for n in np.flatnonzero(wrong)}
    listed = [one.path for one in found.suspects]
    assert len(listed) == (found.numbers["listed"] if outcome == "fires" else 0)
    if listed:
        assert len(names & set(listed)) >= 0.7 * len(listed)


def test_answers_that_are_gone_tell_nothing(labelled):
    made, _ = labelled(0.2)
    slot = made.slots_of(made.cells[2])[0]
    shutil.rmtree(made.results()[slot.key].folder)
    assert look("wrong_labels", made).why_not == "the record has no `answers photo by photo`"


def test_what_to_do_is_a_command(labelled):
    made, _ = labelled(0.2)
    findings = diagnose_study(made)
    (one,) = [e for e in next_experiments_of_study(made, findings) if e.check == "wrong_labels"]
    words = shlex.split(one.command)
    assert words[:4] == ["fieldmark", "diagnose", str(made.folder), "--corrections"]
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, done.output
    assert Path(words[4]).is_file()


def test_a_file_of_corrections_is_written_and_never_over_another(labelled, tmp_path):
    made, _ = labelled(0.2)
    path = tmp_path / "new" / "labels.csv"
    done = CliRunner().invoke(
        app, ["diagnose", str(made.folder), "--corrections", str(path)], catch_exceptions=False
    )
    suspects = suspects_of(firing(diagnose_study(made)))
    last = done.stdout.rstrip().rpartition("\n")[2]
    assert last.startswith(f"{path}: {len(suspects)} labels, most sure first. Look at the photos")
    assert "--corrections" not in done.stdout  # it is done: the next is another
    assert f"and {len(suspects) - 10} more: in the file named below" in " ".join(
        done.stdout.split()
    )
    (command,) = re.findall(r"fieldmark (study run .* data\.corrections=.*) --out ", done.stdout)
    _, _, name, *changes = shlex.split(command)
    design = find_design(name, changes)
    assert {cell.recipe.data.corrections for cell in design.cells(design.points())} == {str(path)}
    with path.open(newline="") as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows == [(one.path, "relabel", one.suggested) for one in suspects]
    again = CliRunner().invoke(app, ["diagnose", str(made.folder), "--corrections", str(path)])
    assert isinstance(again.exception, DataError)
    assert "is there already. Name a new file" in str(again.exception)


def test_nothing_is_written_where_no_label_is_shown_to_be_wrong(labelled, tmp_path):
    made, _ = labelled(0.0)
    path = tmp_path / "labels.csv"
    done = CliRunner().invoke(app, ["diagnose", str(made.folder), "--corrections", str(path)])
    assert "No label is shown to be wrong" in done.stdout
    assert not path.exists()


def test_a_run_has_no_labels_to_correct(labelled, tmp_path):
    made, _ = labelled(0.2)
    run = made.results()[made.slots()[0].key].folder
    done = CliRunner().invoke(app, ["diagnose", str(run), "--corrections", "x.csv"])
    assert isinstance(done.exception, SettingError)
    assert "--corrections is for a study" in str(done.exception)


def test_the_photos_are_listed_for_people_and_programs(labelled):
    made, _ = labelled(0.2)
    suspects = look("wrong_labels", made).suspects
    first = suspects[0]
    said = " ".join(CliRunner().invoke(app, ["diagnose", str(made.folder)]).stdout.split())
    assert (
        f"{first.path}: given {first.given}, likelier {first.suggested} (label wrong with " in said
    )
    assert f"and {len(suspects) - 10} more: --corrections FILE" in said
    done = CliRunner().invoke(app, ["diagnose", str(made.folder), "--format", "json"])
    rows = {row["check"]: row for row in json.loads(done.stdout)}
    photos = json.loads(rows["wrong_labels"]["photos"])
    assert [tuple(photo.values()) for photo in photos] == [tuple(one) for one in suspects]
    assert set(photos[0]) == {"path", "given", "suggested", "probability"}


@pytest.mark.parametrize(
    ("lang", "told"),
    [
        ("en", ("Labels to look at", "labelled", "likelier", "label wrong with 100%")),
        ("zh", ("请核对的标签", "标为", "更像", "标签错误的概率 100%")),
    ],
)
def test_the_page_shows_them(labelled, lang, told):
    made, _ = labelled(0.2)
    page = study_page(made)
    (section,) = [one for one in page.sections if one.id == "labels"]
    suspects = look("wrong_labels", made).suspects
    assert section.count == len(suspects)
    shown = [(one.name, one.truth, one.guess, one.confidence) for one in section.photos]
    assert shown == [tuple(one) for one in suspects[:12]]
    written = render(page, lang=lang)
    written = written[written.index('id="labels"') :]
    assert all(words in written for words in told)


def test_a_sound_study_has_no_such_section(labelled):
    made, _ = labelled(0.0)
    assert "labels" not in [section.id for section in study_page(made).sections]

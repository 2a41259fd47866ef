"""Answers, made by hand and read from run folders."""

import numpy as np
import pytest

from fieldmark.errors import RecordError, SettingError
from fieldmark.studies.answers import Answers, check_same_photos, read_answers
from fieldmark.studies.run import RunWriter

NAMES = ["gull", "tern"]
RECIPE = """
data: {folder: /birds, image_size: 32}
stages: [{name: head, train: head, lr: 1, length: 1 epoch}]
"""


@pytest.fixture
def make_run(tmp_path):
    def make(name, seed, predicted, *, labels=(0, 0, 1), paths="abc", split="val", lr=1, done=True):
        text = RECIPE.replace("lr: 1", f"lr: {lr}") + f"seed: {seed}\n"
        folder = tmp_path / name
        with RunWriter.create(folder, text, {"class_names": NAMES}) as writer:
            writer.predictions(split, list(paths), labels, np.eye(2)[list(predicted)])
            if done:
                writer.finish()
        return folder

    return make


def test_one_row_is_one_model():
    answers = Answers(np.array([True, False, True]))
    assert answers.right.shape == (1, 3)
    assert (answers.seeds, answers.fold_count) == ((0,), 0)
    assert answers.top1 == pytest.approx(2 / 3)


def test_mean_class_top1_counts_rare_classes_as_much():
    answers = Answers([[1, 1, 1, 0]], classes=np.array(["a", "a", "a", "b"]))
    assert answers.mean_class_top1 == pytest.approx(0.5)
    assert Answers([[1, 0]]).mean_class_top1 is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"right": [[0.5, 1]]}, "true or false"),
        ({"right": [[1]]}, r"two photos or more, got shape \(1, 1\)"),
        ({"right": np.zeros((2, 2, 2))}, r"got shape \(2, 2, 2\)"),
        ({"right": [[1, 0], [1, 1]], "seeds": (3, 3)}, r"each once, got \(3, 3\)"),
        ({"right": [[1, 0]], "photos": ("a",)}, "`photos` must be of 2 photos, got 1"),
        ({"right": [[1, 0]], "folds": np.array([0, 1])}, "each of two photos or more"),
        ({"right": [[1, 0]], "folds": np.array([0, 0])}, "two folds or more"),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    with pytest.raises(SettingError, match=message):
        Answers(**given)


def test_folds_are_numbered_whatever_their_names():
    assert Answers([[1, 0, 1, 0]], folds=np.array([7, 3, 7, 3])).folds.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ({}, {"right": [[1, 0, 1]]}, "A has 4 photos, B has 3"),
        (
            {"photos": tuple("abcd")},
            {"photos": tuple("abce")},
            r"2 photos are on one side only, such as d",
        ),
        ({"photos": tuple("abcd")}, {"photos": tuple("abdc")}, "in another order"),
        ({"folds": np.array([0, 0, 1, 1])}, {}, "by the same folds, or both by none"),
        ({"folds": np.array([0, 0, 1, 1])}, {"folds": np.array([0, 1, 0, 1])}, "the same folds"),
    ],
)
def test_other_photos_are_not_compared(a, b, message):
    a, b = (Answers(**{"right": [[1, 0, 1, 0]], **given}) for given in (a, b))
    with pytest.raises(SettingError, match=message):
        check_same_photos(a, b)


def test_runs_are_joined_by_photo_path(make_run):
    one = make_run("one", 5, [0, 1, 1])
    two = make_run("two", 9, [0, 1, 0], paths="cba", labels=(1, 0, 0))
    answers = read_answers([one, two])
    assert answers.right.tolist() == [[1, 0, 1], [1, 0, 0]]
    assert (answers.seeds, answers.photos) == ((5, 9), ("a", "b", "c"))
    assert answers.classes.tolist() == ["gull", "gull", "tern"]
    assert answers.folds is None


def test_any_stored_split_can_be_read(make_run):
    run = make_run("one", 0, [0, 1, 1], split="test")
    assert read_answers([run], "test").top1 == pytest.approx(2 / 3)
    with pytest.raises(RecordError, match="no predictions of `val`, only of: test"):
        read_answers([run])


def test_runs_of_several_recipes_are_refused(make_run):
    runs = [make_run("one", 0, [0, 1, 1]), make_run("two", 1, [0, 1, 1], lr=2)]
    with pytest.raises(SettingError, match=r"one` and `.*two` differ in more than their seed"):
        read_answers(runs)


def test_a_seed_counts_once(make_run):
    runs = [make_run("one", 4, [0, 1, 1]), make_run("two", 4, [0, 1, 1])]
    with pytest.raises(SettingError, match=r"a seed of its own, got \(4, 4\)"):
        read_answers(runs)


def test_runs_on_other_photos_are_refused(make_run):
    runs = [make_run("one", 0, [0, 1, 1]), make_run("two", 1, [0, 1, 1], paths="abd")]
    with pytest.raises(RecordError, match="judged on other photos, labels or folds"):
        read_answers(runs)


def test_an_unfinished_run_is_refused(make_run):
    with pytest.raises(RecordError, match="is running"):
        read_answers([make_run("one", 0, [0, 1, 1], done=False)])


def test_a_photo_predicted_twice_is_refused(make_run):
    with pytest.raises(RecordError, match="predicts a photo of `val` twice"):
        read_answers([make_run("one", 0, [0, 1, 1], paths="aab")])


def test_no_runs_are_refused():
    with pytest.raises(SettingError, match="There is no run to read"):
        read_answers([])


def test_out_of_fold_predictions_must_say_the_fold(make_run):
    run = make_run("one", 0, [0, 1, 1], split="out_of_fold")
    with pytest.raises(RecordError, match="do not say which fold"):
        read_answers([run], "out_of_fold")

"""Two recipes compared: closed forms, known effects, runs read from folders."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from fieldmark.errors import SettingError
from fieldmark.studies.answers import Answers
from fieldmark.studies.compare import (
    ClassChange,
    changed_classes,
    compare,
    compare_runs,
    compare_stages,
)
from fieldmark.studies.run import Run, RunWriter
from fieldmark.studies.spread import SeedSpread
from fieldmark.studies.trial import after_stage
from fieldmark.studies.verdict import score_interval


def pair(only_a, only_b, photos):
    a, b = np.ones(photos), np.ones(photos)
    b[:only_a] = 0
    a[only_a : only_a + only_b] = 0
    return Answers(a), Answers(b)


def drawn(seeds, photos, gain, *, seed=0, folds=None):
    """Recipes that share most of a photo's difficulty, B better by `gain`.

    Of 0.7 u + 0.3 v the share below x grows by 1 / 0.7 from x = 0.3 to 0.7.
    """
    rng = np.random.default_rng(seed)
    hard = 0.7 * rng.random(photos) + 0.3 * rng.random((2, seeds, photos))
    return Answers(hard[0] < 0.5, folds=folds), Answers(hard[1] < 0.5 + 0.7 * gain, folds=folds)


def test_two_models_get_the_exact_test_and_the_score_interval():
    verdict = compare(*pair(3, 15, 300))
    assert (verdict.about, verdict.seeds, verdict.photos) == ("models", (1, 1), 300)
    assert verdict.difference == pytest.approx(12 / 300)
    assert (verdict.low, verdict.high) == pytest.approx(score_interval(3, 15, 300))
    assert verdict.p == pytest.approx(stats.binomtest(3, 18).pvalue)
    assert verdict.answer == "real"


def test_two_models_that_agree_are_noise_only_among_enough_photos():
    assert compare(*pair(0, 0, 300)).answer == "cannot tell"
    assert compare(*pair(0, 0, 1389)).answer == "noise"
    assert compare(*pair(0, 0, 300), care=0.02).answer == "noise"


def test_exchanging_the_sides_turns_the_difference():
    a, b = drawn(3, 200, 0.1)
    one, other = compare(a, b), compare(b, a)
    assert other.difference == pytest.approx(-one.difference)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))
    assert other.p == pytest.approx(one.p)


@pytest.mark.parametrize("folds", [None, np.arange(1000) % 5])
def test_a_large_effect_is_real_and_none_is_not(folds):
    with_effect = compare(*drawn(4, 1000, 0.1, folds=folds))
    assert with_effect.answer == "real"
    assert with_effect.low < 0.1 < with_effect.high
    assert with_effect.about == "recipes"
    assert with_effect.folds == (0 if folds is None else 5)
    assert compare(*drawn(4, 1000, 0, folds=folds)).answer != "real"


def test_many_photos_and_seeds_show_that_there_is_nothing():
    assert compare(*drawn(10, 20_000, 0)).answer == "noise"


def test_a_lucky_seed_is_no_recipe():
    a, b = pair(0, 20, 300)
    right = np.stack([b.right[0], a.right[0], a.right[0]])  # one seed of three
    found = compare(Answers(np.repeat(a.right, 3, 0)), Answers(right))
    assert compare(a, b).answer == "real"
    assert found.answer == "cannot tell"


def test_a_pooled_spread_says_how_much_luck_a_seed_may_have():
    a, b = pair(0, 20, 300)
    loud = compare(a, b, spread=SeedSpread(variance=0.03**2, noise=0.0, df=20))
    calm = compare(a, b, spread=SeedSpread(variance=0.005**2, noise=0.0, df=20))
    assert loud.about == calm.about == "recipes"
    assert (loud.answer, calm.answer) == ("cannot tell", "real")


def test_photos_must_be_the_same():
    with pytest.raises(SettingError, match="A has 20 photos, B has 30"):
        compare(pair(1, 2, 20)[0], pair(1, 2, 30)[1])


def test_care_must_be_a_fraction():
    with pytest.raises(SettingError, match=r"Use 0\.01 for one point"):
        compare(*pair(1, 2, 20), care=1.0)


def test_the_classes_behind_a_difference():
    classes = np.array(["wren", "wren", "owl", "owl", "owl", "rail"])
    a = Answers([[1, 1, 0, 0, 0, 1], [1, 1, 0, 0, 1, 1]], classes=classes)
    b = Answers([[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]], classes=classes)
    assert changed_classes(a, b) == [
        ClassChange("owl", 3, 0.5, 3.0),
        ClassChange("wren", 2, 2.0, 1.5),
    ]
    with pytest.raises(SettingError, match="`classes` of the photos are not known"):
        changed_classes(Answers([[1, 0]]), Answers([[1, 0]]))


def test_runs_are_compared_by_their_folders(tmp_path):
    labels = np.arange(40) % 2
    paths = [f"{number}.jpg" for number in range(40)]

    def run(name, lr, seed, wrong):
        text = (
            "data: {folder: /birds, image_size: 32}\n"
            f"stages: [{{name: head, train: head, lr: {lr}, length: 1 epoch}}]\nseed: {seed}\n"
        )
        said = np.eye(2)[np.where(np.arange(40) < wrong, 1 - labels, labels)]
        with RunWriter.create(tmp_path / name, text, {"class_names": ["a", "b"]}) as writer:
            writer.predictions("val", paths, labels, said)
            writer.finish()
        return tmp_path / name

    a = [run("a0", 1, 0, 20), run("a1", 1, 1, 21)]
    b = [run("b0", 2, 0, 4), run("b1", 2, 1, 5)]
    verdict = compare_runs(a, b)
    assert verdict.difference == pytest.approx(16 / 40)
    assert (verdict.about, verdict.seeds) == ("recipes", (2, 2))
    assert verdict.answer == "real"
    assert compare_runs(a[:1], b[:1]).p == pytest.approx(2 * 0.5**16)


def test_each_stage_is_compared_with_the_one_before(tmp_path):
    names, labels = ("one", "two", "three"), np.arange(40) % 2
    stages = [f"{{name: {name}, train: head, lr: 1, length: 1 epoch}}" for name in names]
    text = f"data: {{folder: /birds, image_size: 32}}\nstages: [{', '.join(stages)}]\n"
    splits = after_stage("one"), after_stage("two"), "val"
    with RunWriter.create(tmp_path / "run", text, {"class_names": ["a", "b"]}) as writer:
        for step, (name, split, wrong) in enumerate(zip(names, splits, (20, 12, 2), strict=True)):
            writer.record({"val/loss": 1.0}, step=step, stage=name, epoch=1.0)
            said = np.eye(2)[np.where(np.arange(40) < wrong, 1 - labels, labels)]
            writer.predictions(split, [f"{number}.jpg" for number in range(40)], labels, said)
        writer.finish()
    found = compare_stages(Run(tmp_path / "run"))
    assert [(*pair, round(40 * verdict.difference)) for *pair, verdict in found] == [
        ("one", "two", 8),
        ("two", "three", 10),
    ]


def test_comparing_loads_no_torch():
    code = (
        "import sys, fieldmark.studies.compare, fieldmark.studies.selection;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

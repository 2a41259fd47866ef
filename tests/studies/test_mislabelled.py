"""Wrong labels, planted where the models' own mistakes are known."""

import numpy as np
import pytest
from scipy.special import softmax

from fieldmark.errors import SettingError
from fieldmark.studies.judged import Judged
from fieldmark.studies.mislabelled import Suspect, judged_together, suspects, wrong_labels
from fieldmark.studies.run import Run, RunWriter


def world(share, *, photos=600, classes=8, sure=2.5, temperature=1.0, seed=0):
    """Photos whose classes are drawn from known probabilities, and a share of labels dealt anew.

    Returns labels, probabilities as a model tells them that is `temperature` times too sure, and
    which labels are wrong.
    """
    rng = np.random.default_rng(seed)
    logits = sure * rng.standard_normal((photos, classes))
    truth = (logits + rng.gumbel(size=logits.shape)).argmax(1)  # one draw from softmax(logits)
    wrong = rng.permutation(photos) < round(share * photos)
    labels = np.where(wrong, (truth + rng.integers(1, classes, photos)) % classes, truth)
    return labels, softmax(temperature * logits, axis=1), wrong


@pytest.mark.parametrize(
    ("share", "temperature"), [(0.0, 0.4), (0.0, 2.5), (0.05, 1.0), (0.2, 2.5), (0.4, 0.4)]
)
def test_the_interval_holds_the_share_that_was_planted(share, temperature):
    found = [wrong_labels(*world(share, temperature=temperature, seed=n)[:2]) for n in range(20)]
    assert sum(one.low <= share <= one.high for one in found) >= 17  # of 20 at 95 %: p = 0.003
    assert np.mean([one.share for one in found]) == pytest.approx(share, abs=0.015)
    assert np.mean([one.temperature for one in found]) == pytest.approx(temperature, rel=0.1)


def test_look_alikes_are_no_wrong_labels():
    # A third is named wrongly, all labels sound. A count of contradictions would list those.
    found = []
    for seed in range(40):
        labels, probabilities, _ = world(0.0, sure=1.7, seed=seed)
        assert (probabilities.argmax(1) != labels).mean() > 0.3
        found.append(wrong_labels(labels, probabilities))
    assert sum(one.low > 0 for one in found) <= 4  # one in 40 is looked for
    assert sum(len(one.listed()) for one in found) <= 40 * 3


def test_those_that_are_listed_are_wrong_as_often_as_is_said():
    listed, said = [], []
    for seed in range(20):
        labels, probabilities, wrong = world(0.2, seed=seed)
        found = wrong_labels(labels, probabilities)
        order = found.listed()
        assert list(found.wrong[order]) == sorted(found.wrong[order], reverse=True)
        listed += wrong[order].tolist()
        said += found.wrong[order].tolist()
    assert len(listed) > 1000
    assert np.mean(listed) == pytest.approx(np.mean(said), abs=0.03)


def test_it_is_the_likeliest_and_bayes_rule():
    labels, probabilities, _ = world(0.1, photos=200, classes=3)
    found = wrong_labels(labels, probabilities)

    def chance(share, temperature):
        q = softmax(np.log(probabilities) / temperature, axis=1)[np.arange(200), labels]
        return (1 - share) * q + share * (1 - q) / 2, share * (1 - q) / 2

    grid = [
        (np.log(chance(e, t)[0]).sum(), e, t)
        for e in np.linspace(0, 0.4, 161)
        for t in np.geomspace(0.5, 2, 161)
    ]
    best, share, temperature = max(grid)
    assert found.share == pytest.approx(share, abs=0.003)
    assert found.temperature == pytest.approx(temperature, rel=0.01)
    inside = [e for value, e, _ in grid if value > best - 1.9207]
    assert (found.low, found.high) == pytest.approx((min(inside), max(inside)), abs=0.004)
    both, by_wrong = chance(found.share, found.temperature)
    assert found.wrong == pytest.approx(by_wrong / both, abs=1e-3)


def test_a_model_that_is_always_certain_shows_nothing():
    labels, probabilities, _ = world(0.3)
    certain = np.eye(8)[probabilities.argmax(1)]
    assert wrong_labels(labels, certain).low == 0


def test_the_suggested_class_is_the_likeliest_other_one():
    labels, probabilities, _ = world(0.3)
    found = wrong_labels(labels, probabilities)
    rest = probabilities.copy()
    rest[np.arange(600), labels] = -1
    assert (found.suggested == rest.argmax(1)).all()
    assert (found.suggested != labels).all()


@pytest.mark.parametrize(
    ("labels", "shape", "message"),
    [
        (3, (3, 1), r"two or more of each, got shape \(3, 1\)"),
        (1, (1, 4), r"two or more of each, got shape \(1, 4\)"),
        (4, (3, 4), r"`labels` must be one for each of 3 photos, got \(4,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(labels, shape, message):
    with pytest.raises(SettingError, match=message):
        wrong_labels(np.zeros(labels, np.int64), np.full(shape, 0.25))


def test_suspects_have_names():
    labels, probabilities, _ = world(0.2, classes=3)
    found = wrong_labels(labels, probabilities)
    names, paths = ("gull", "tern", "auk"), tuple(f"{n}.jpg" for n in range(600))
    judged = Judged("val", names, paths, labels, probabilities.argmax(1), probabilities)
    first, place = suspects(judged, found)[0], found.listed()[0]
    assert first == Suspect(
        f"{place}.jpg",
        names[labels[place]],
        names[found.suggested[place]],
        pytest.approx(found.wrong.max()),
    )


def write(folder, paths, labels, probabilities):
    with RunWriter.create(folder, "stages: []", {"class_names": ["gull", "tern"]}) as writer:
        writer.predictions("out_of_fold", paths, labels, np.array(probabilities), [0, 1])
        writer.finish()
    return Run(folder)


def test_seeds_are_averaged_photo_by_photo(tmp_path):
    a = write(tmp_path / "a", ["1.jpg", "2.jpg"], [0, 1], [[0.9, 0.1], [0.4, 0.6]])
    b = write(tmp_path / "b", ["2.jpg", "1.jpg"], [1, 0], [[0.8, 0.2], [0.5, 0.5]])
    found = judged_together([a, b])
    assert found.paths == ("1.jpg", "2.jpg")
    assert found.probabilities == pytest.approx(np.array([[0.7, 0.3], [0.6, 0.4]]))
    assert found.labels.tolist() == [0, 1]
    assert found.guesses.tolist() == [0, 0]


def test_runs_that_do_not_belong_together_tell_nothing(tmp_path):
    a = write(tmp_path / "a", ["1.jpg", "2.jpg"], [0, 1], [[0.9, 0.1], [0.4, 0.6]])
    relabelled = write(tmp_path / "b", ["1.jpg", "2.jpg"], [1, 1], [[0.9, 0.1], [0.4, 0.6]])
    others = write(tmp_path / "c", ["1.jpg", "3.jpg"], [0, 1], [[0.9, 0.1], [0.4, 0.6]])
    assert judged_together([a, relabelled]) is None
    assert judged_together([a, others]) is None
    assert judged_together([]) is None

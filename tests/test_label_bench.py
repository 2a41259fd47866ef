"""The bench of wrong labels: what it plants, and the method it is held against."""

import numpy as np
import pytest
from tests.studies.test_mislabelled import world

from fieldmark.studies.judged import Judged
from labels import Row, Set, confident_learning, hits, summary


def test_confident_learning_counts_as_the_paper_does():
    # Thresholds, the mean of each label's own: 0.7 for class 0 and 0.6 for class 1.
    labels = np.array([0, 0, 0, 1, 1])
    of_0 = np.array([0.9, 0.9, 0.3, 0.2, 0.6])
    share, counted = confident_learning(labels, np.stack([of_0, 1 - of_0], axis=1))
    # Counted: 0 as 0 twice, 0 as 1 once (0.7), 1 as 1 once (0.8); the last is below both.
    assert counted.tolist() == [False, False, True, False, False]
    assert share == pytest.approx(1 / 5)


def test_precision_and_recall():
    bad, listed = np.array([1, 1, 1, 0], bool), np.array([1, 0, 0, 1], bool)
    assert hits(bad, listed) == pytest.approx((1 / 2, 1 / 3))
    assert np.isnan(hits(bad, np.zeros(4, bool))[0])


def test_labels_are_dealt_among_the_photos_outside_test(tmp_path):
    for n in range(60):
        folder = tmp_path / ("test" if n < 20 else "train") / f"species {n % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{n}.jpg").write_bytes(b"x")
    moved = Set("x", tmp_path, {}, tmp_path).dealt(0.2)
    assert len(moved) == 8
    assert all(path.startswith("train/") and label not in path for path, label in moved.items())


def test_a_sound_set_that_is_called_wrong_is_counted():
    rows = []
    for name, share in (("a", 0.0), ("b", 0.2)):
        labels, probabilities, wrong = world(share)
        paths = tuple(map(str, range(600)))
        found = Judged(
            "val", tuple("abcdefgh"), paths, labels, probabilities.argmax(1), probabilities
        )
        rows.append(Row.of(name, share, found, set(map(str, np.flatnonzero(wrong).tolist()))))
    assert [row.called for row in rows] == [False, True]
    assert (rows[1].precision, rows[1].recall) == pytest.approx((66 / 69, 66 / 120))
    assert rows[0].confident > 0.1  # confident learning calls a sound set wrong
    told = summary(rows)
    assert told[0].startswith("sound sets whose labels are called wrong: 0/1")
    assert "20% planted: called wrong 1/1" in told[3]

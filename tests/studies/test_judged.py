"""Which photos and which pairs of classes are worth a look, from predictions written by hand."""

import numpy as np
import pytest

from fieldmark.studies.judged import Judged, Pair

NAMES = ("finch", "tit", "wren")
# label, guess, probabilities; the guess is the likeliest
SAID = (
    ("tit", "wren", (0.1, 0.3, 0.6)),
    ("finch", "tit", (0.05, 0.9, 0.05)),
    ("wren", "tit", (0.0, 0.8, 0.2)),
    ("wren", "wren", (0.1, 0.2, 0.7)),
    ("wren", "wren", (0.0, 0.05, 0.95)),
    ("tit", "tit", (0.3, 0.36, 0.34)),
)


@pytest.fixture
def judged():
    labels, guesses = (np.array([NAMES.index(each[which]) for each in SAID]) for which in (0, 1))
    paths = tuple(f"{number}.jpg" for number in range(len(SAID)))
    said = np.array([probabilities for *_, probabilities in SAID])
    return Judged("val", NAMES, paths, labels, guesses, said)


def test_classes_taken_for_each_other_most_often_come_first(judged):
    assert judged.pairs() == [Pair("tit", "wren", 1, 1), Pair("finch", "tit", 1, 0)]
    assert judged.of_pair(judged.pairs()[0], 5) == [2, 0]


def test_the_surest_mistakes_and_the_closest_calls_come_first(judged):
    assert judged.worst(2) == [1, 2]
    assert judged.least_sure(2) == [5, 0]
    assert (judged.surest_of("wren"), judged.surest_of("finch")) == (4, None)
    assert judged.telling() == [0, 1, 2, 3, 4, 5]

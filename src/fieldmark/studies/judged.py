"""What a run says of the photos it was judged by: who is taken for whom, and how surely."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fieldmark.errors import RecordError
from fieldmark.studies.run import Run
from fieldmark.studies.trial import OUT_OF_FOLD

PAIRS, MISTAKEN, PHOTOS = 5, 4, 12  # that are shown: pairs, photos of each, photos of a section
LOOKED = "looked.npz"  # among the predictions: paths (N,), shares (N, H, W)
SPLITS = (OUT_OF_FOLD, "val")  # `test` is not for choosing, so it is not for looking at either


@dataclass(frozen=True)
class Pair:
    """Two classes taken for each other: `a_as_b` photos of a were named b, and so on."""

    a: str
    b: str
    a_as_b: int
    b_as_a: int

    @property
    def count(self) -> int:
        """Mistakes both ways."""
        return self.a_as_b + self.b_as_a


@dataclass(frozen=True, eq=False)
class Judged:
    """Predictions of one split.

    Attributes:
        split: Which.
        classes: Names in the order of the logits, K of them.
        paths: Of N photos.
        labels: (N,) class indices.
        guesses: (N,) class indices.
        probabilities: (N, K).
    """

    split: str
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    guesses: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """(N,), whether the guess is the label."""
        return np.asarray(self.labels == self.guesses)

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """(N,), the probability of the guess."""
        return self.probabilities[np.arange(len(self.guesses)), self.guesses]

    @cached_property
    def margin(self) -> NDArray[np.float64]:
        """(N,), how far the likeliest class lies before the next."""
        best = np.sort(self.probabilities, axis=1)
        return np.asarray(best[:, -1] - best[:, -2])

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(K,), photos of each class."""
        return np.bincount(self.labels, minlength=len(self.classes))

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """(K, K): how many photos of the row's class were named the column's."""
        found = np.zeros((len(self.classes),) * 2, np.int64)
        np.add.at(found, (self.labels, self.guesses), 1)
        return found

    def pairs(self) -> list[Pair]:
        """Classes taken for each other, most often first; then by name."""
        wrong = self.confusion * (1 - np.eye(len(self.classes), dtype=np.int64))
        both = np.triu(wrong + wrong.T)
        found = [
            Pair(self.classes[i], self.classes[j], int(wrong[i, j]), int(wrong[j, i]))
            for i, j in np.argwhere(both).tolist()
        ]
        return sorted(found, key=lambda pair: (-pair.count, pair.a, pair.b))

    def worst(self, count: int) -> list[int]:
        """Positions of wrong guesses, the surest first."""
        order = np.argsort(-self.confidence, kind="stable")
        return [int(i) for i in order if not self.right[i]][:count]

    def least_sure(self, count: int) -> list[int]:
        """Positions of the photos with the smallest margin, the smallest first."""
        return [int(i) for i in np.argsort(self.margin, kind="stable")[:count]]

    def of_pair(self, pair: Pair, count: int) -> list[int]:
        """Positions of photos of one class named the other, the surest first."""
        a, b = self.classes.index(pair.a), self.classes.index(pair.b)
        ends = {(a, b), (b, a)}
        wrong = np.argsort(-self.confidence, kind="stable").tolist()
        return [i for i in wrong if (self.labels[i], self.guesses[i]) in ends][:count]

    def telling(self) -> list[int]:
        """Positions of the few photos worth a look: the worst, the least sure, the look-alikes."""
        found = [*self.worst(PHOTOS), *self.least_sure(PHOTOS)]
        for pair in self.pairs()[:PAIRS]:
            right = [self.surest_of(pair.a), self.surest_of(pair.b)]
            found += [*self.of_pair(pair, MISTAKEN), *(i for i in right if i is not None)]
        return sorted(set(found))

    def surest_of(self, name: str) -> int | None:
        """Position of the photo of a class that was named rightly with most confidence."""
        mine = np.flatnonzero(self.right & (self.labels == self.classes.index(name)))
        return int(mine[self.confidence[mine].argmax()]) if len(mine) else None


def judged(run: Run) -> Judged | None:
    """What a run says of the photos it was judged by; None before that is written."""
    for split in SPLITS:
        try:
            table = run.predictions(split)
        except (RecordError, OSError, pl.exceptions.PolarsError):
            continue
        if len(table) and len(run.class_names) > 1:
            return _judged(split, tuple(run.class_names), table)
    return None


def _judged(split: str, classes: tuple[str, ...], table: pl.DataFrame) -> Judged:
    number = {name: n for n, name in enumerate(classes)}
    return Judged(
        split,
        classes,
        tuple(table["path"]),
        np.array([number[name] for name in table["label"]], np.int64),
        np.array([number[name] for name in table["predicted"]], np.int64),
        np.stack(table["probabilities"].to_list()).astype(np.float64),
    )

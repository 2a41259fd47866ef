"""Whether wrong labels are told from a model's own mistakes: planted shares, and sound sets.

Toy sets of look-alikes, drawn anew for each seed, and cub50 where FIELDMARK_CUB names it; labels
are dealt anew by a file of corrections, photos are left alone. One classifier on frozen features
(EfficientNet-Lite0, average pooling), five folds: what `fieldmark diagnose STUDY` reads of a study.
Beside it stands confident learning as its paper defines it (Northcutt et al. 2021, equations 1 to 3
and "prune by confident joint"). A set's labels count as shown to be wrong by the check's own rule.

    python bench/labels.py
    python bench/labels.py --sound 4 --planted 1 --json
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from curves.score import Rate
from diagnosis import bank_folder
from fieldmark.data.corrections import write_relabelled
from fieldmark.data.sources import read_photos
from fieldmark.data.toy import write_toy
from fieldmark.diagnosis.labels import MOST_BY_CHANCE
from fieldmark.recipe import Recipe
from fieldmark.studies.judged import Judged, judged
from fieldmark.studies.mislabelled import wrong_labels
from fieldmark.studies.run import MANIFEST, Run
from fieldmark.studies.trial import Trial
from fieldmark.training.features import FeatureStore
from fieldmark.trials import run_trials
from parts.outcome import conclude

SHARES = (0.05, 0.1, 0.2, 0.4)
FOLDS, PER_CLASS, SIDE = 5, 50, 96
SOUND, PLANTED = 24, 6  # toy sets
KINDS, DIFFICULTIES = (12, 8, 6), (0.0, 0.25)
MOST_FALSE = 0.05  # of sound sets


@dataclass(frozen=True)
class Set:
    """Photos and where what is made of them is kept."""

    name: str
    photos: Path
    data: dict[str, object]
    home: Path

    @classmethod
    def toy(cls, home: Path, seed: int) -> Self:
        """A field guide of its own; the number of species and how alike they are go round."""
        kinds, difficulty = KINDS[seed % 3], DIFFICULTIES[seed // 3 % 2]
        name = f"toy-{seed:02d}"
        folder = home / name / "photos"
        if not folder.exists():
            write_toy(
                folder,
                per_class=PER_CLASS,
                seed=200 + seed,
                size=SIDE,
                difficulty=difficulty,
                species=kinds,
            )
        return cls(name, folder, {"folder": str(folder), "image_size": SIDE}, home / name)

    @classmethod
    def cub(cls, home: Path, folder: str) -> Self:
        data = {"folder": folder, "split": "official", "image_size": 224}
        return cls("cub50", Path(folder), data, home / "cub50")

    def answers(self, share: float, store: FeatureStore) -> tuple[Judged, set[str]]:
        """What models said out of fold, and the photos whose labels were dealt anew."""
        corrections, moved = self.home / f"{share:g}.csv", self.dealt(share)
        if moved and not corrections.exists():
            write_relabelled(corrections, moved)
        data = self.data | ({"corrections": str(corrections)} if moved else {})
        stage = {"name": "head", "train": "head", "lr": 1.0, "length": "40 epochs"}
        recipe = Recipe.model_validate(
            {
                "data": data,
                "pooling": {"name": "average"},
                "precision": "float32",
                "threads": 1,
                "stages": [stage | {"schedule": "cosine"}],
            }
        )
        folder = self.home / f"run-{share:g}"
        if not (folder / MANIFEST).is_file():
            list(run_trials([Trial(recipe, folder, FOLDS)], store=store))
        found = judged(Run(folder))
        if found is None:
            raise SystemExit(f"{folder} has no answers: {Run(folder).reason}")
        return found, set(moved)

    def dealt(self, share: float) -> dict[str, str]:
        """Path to another class, of so many of the photos outside test."""
        found = read_photos(self.photos)
        names, rng = found.class_names, np.random.default_rng(round(1000 * share))
        pool = [photo for photo in found.photos if photo.split != "test"]
        moved = {}
        for place in rng.permutation(len(pool))[: round(share * len(pool))].tolist():
            others = [name for number, name in enumerate(names) if number != pool[place].label]
            moved[pool[place].key] = others[rng.integers(len(others))]
        return moved


@dataclass(frozen=True)
class Row:
    """One set with a share of its labels dealt anew; shares of labels, of the listed, of the wrong.

    Attributes:
        called: whether the labels are shown to be wrong.
        listed, precision, recall: of those more likely wrong than right.
        confident: wrong by confident learning.
    """

    name: str
    dealt: float  # of all photos; of those outside test by chance a little more or less
    photos: int
    top1: float
    planted: float
    share: float
    low: float
    high: float
    called: bool
    listed: int
    precision: float
    recall: float
    confident: float
    confident_precision: float
    confident_recall: float

    @classmethod
    def of(cls, name: str, share: float, found: Judged, dealt: set[str]) -> Self:
        bad = np.array([path in dealt for path in found.paths])
        seen = wrong_labels(found.labels, found.probabilities)
        confident, pruned = confident_learning(found.labels, found.probabilities)
        listed = np.isin(np.arange(len(bad)), seen.listed())
        return cls(
            name,
            share,
            len(bad),
            float(found.right.mean()),
            float(bad.mean()),
            seen.share,
            seen.low,
            seen.high,
            seen.low > MOST_BY_CHANCE and bool(listed.any()),
            int(listed.sum()),
            *hits(bad, listed),
            confident,
            *hits(bad, pruned),
        )

    def line(self) -> str:
        interval = f"{self.share:.1%} ({self.low:.1%}-{self.high:.1%})"
        return (
            f"{self.name:8} {self.photos:6} {self.top1:6.1%} {self.planted:8.1%} {interval:>21} "
            f"{self.called!s:>6} {self.listed:6} {self.precision:6.0%} {self.recall:6.0%} "
            f"{self.confident:10.1%} {self.confident_precision:6.0%} {self.confident_recall:6.0%}"
        )


HEADER = (
    f"{'set':8} {'photos':>6} {'top-1':>6} {'planted':>8} {'found':>21} {'called':>6} "
    f"{'listed':>6} {'right':>6} {'of all':>6} {'confident':>10} {'right':>6} {'of all':>6}"
)


def hits(bad: NDArray[np.bool_], listed: NDArray[np.bool_]) -> tuple[float, float]:
    """Precision and recall; nan where there is nothing to be right of."""
    both = float((bad & listed).sum())
    precision, recall = (both / n if n else np.nan for n in (int(listed.sum()), int(bad.sum())))
    return precision, recall


def confident_learning(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> tuple[float, NDArray[np.bool_]]:
    """The share of labels off the diagonal of the calibrated joint, and those counted there."""
    kinds = probabilities.shape[1]
    mean = [probabilities[labels == kind, kind].mean() for kind in range(kinds)]
    over = np.where(probabilities >= mean, probabilities, -1.0)
    is_counted, truth = over.max(1) >= 0, over.argmax(1)
    joint = np.zeros((kinds, kinds))
    np.add.at(joint, (labels[is_counted], truth[is_counted]), 1)
    joint *= (np.bincount(labels, minlength=kinds) / np.maximum(joint.sum(1), 1))[:, None]
    return 1 - float(np.trace(joint) / joint.sum()), is_counted & (truth != labels)


def rows(home: Path, sound: int, planted: int) -> Iterator[Row]:
    store = FeatureStore(home / "features")
    sets = [(Set.toy(home, n), (0.0, *SHARES) if n < planted else (0.0,)) for n in range(sound)]
    if folder := os.environ.get("FIELDMARK_CUB"):
        sets.append((Set.cub(home, folder), (0.0, *SHARES)))
    for one, shares in sets:
        for share in shares:
            yield Row.of(one.name, share, *one.answers(share, store))


def summary(found: Sequence[Row]) -> list[str]:
    sound = [row for row in found if not row.dealt]
    lines = [f"sound sets whose labels are called wrong: {Rate.of([row.called for row in sound])}"]
    for share in SHARES:
        ill = [row for row in found if row.dealt == share]
        held = Rate.of([row.low <= row.planted <= row.high for row in ill])
        lines.append(
            f"{share:4.0%} planted: called wrong {Rate.of([row.called for row in ill])}, "
            f"interval holds it {held}"
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, default=bank_folder() / "labels")
    parser.add_argument("--sound", type=int, default=SOUND, help="toy sets")
    parser.add_argument("--planted", type=int, default=PLANTED, help="of them with wrong labels")
    parser.add_argument("--json", action="store_true", help="print one JSON object as well")
    options = parser.parse_args()
    print(HEADER)
    found = []
    for row in rows(options.home, options.sound, options.planted):
        found.append(row)
        print(row.line(), flush=True)
    print("\n".join(summary(found)))
    false = Rate.of([row.called for row in found if not row.dealt])
    return conclude(
        {"sound sets called wrong, share": false.share},
        most={"sound sets called wrong, share": MOST_FALSE},
        as_json=options.json,
        rows=[asdict(row) for row in found],
    )


if __name__ == "__main__":
    sys.exit(main())

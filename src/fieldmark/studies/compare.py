"""Is B better than A? Two recipes, or two trained models, compared photo by photo.

With one seed each the claim is about these two trained models: McNemar's exact test, Tango's score
interval. With two or more, or a seed spread pooled over a study, it is about the recipes, and
photos and seeds are both sources of chance; `spread` states the method and its sources.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from fieldmark.errors import RecordError, SettingError
from fieldmark.studies.answers import Answers, check_same_photos, read_answers
from fieldmark.studies.run import Run
from fieldmark.studies.spread import SeedSpread, estimate
from fieldmark.studies.trial import after_stage
from fieldmark.studies.verdict import CARE, Verdict, exact_p, judge, score_interval


def compare(
    a: Answers, b: Answers, *, care: float = CARE, spread: SeedSpread | None = None
) -> Verdict:
    """The difference B - A in top-1, with its interval, and whether it is real.

    Args:
        a: What the first recipe's models said of some photos.
        b: What the second's said of the same.
        care: The least difference worth caring about, as a fraction.
        spread: Between seeds, pooled over a study by `spread.pooled_spread`: with it few seeds go
            far, where the study's recipes have much the same spread.

    Raises:
        SettingError: the photos or folds differ, or `care` is no fraction above 0.
    """
    check_same_photos(a, b)
    found = estimate((-1, 1), (a, b), spread)
    photos = a.right.shape[1]
    seeds = (len(a.seeds), len(b.seeds))
    if found.about != "models" or seeds != (1, 1):
        return judge(found, photos=photos, seeds=seeds, folds=a.fold_count, care=care)
    only_a, only_b = int((a.right > b.right).sum()), int((a.right < b.right).sum())
    interval = score_interval(only_a, only_b, photos)
    p = exact_p(only_a, only_b)
    return judge(found, photos=photos, seeds=seeds, care=care, interval=interval, p=p)


def compare_runs(
    a: Sequence[Run | Path],
    b: Sequence[Run | Path],
    split: str = "val",
    *,
    care: float = CARE,
    spread: SeedSpread | None = None,
) -> Verdict:
    """`compare` two recipes by their runs, one a seed, matched by photo path.

    Raises:
        SettingError: a side's runs are not of one recipe, or the photos differ.
        RecordError: a run is unfinished or holds no predictions of `split`.
    """
    return compare(read_answers(a, split), read_answers(b, split), care=care, spread=spread)


def compare_stages(run: Run) -> list[tuple[str, str, Verdict]]:
    """For each two stages of a run that follow each other: their names, and what the later did.

    The claim is about this run's models. Runs of older versions kept no predictions between stages,
    and have none.
    """
    names = [stage.name for stage in run.stages]
    found = []
    for before, after in pairwise(names):
        at_end = "val" if after == names[-1] else after_stage(after)
        try:
            answers = [read_answers([run], split) for split in (after_stage(before), at_end)]
        except RecordError:
            continue
        found.append((before, after, compare(*answers)))
    return found


@dataclass(frozen=True)
class ClassChange:
    """How many of a class's photos each recipe named rightly, mean over its seeds."""

    name: str
    photos: int
    right_a: float
    right_b: float


def changed_classes(a: Answers, b: Answers) -> list[ClassChange]:
    """The classes behind a difference, the most photos won or lost first.

    No verdicts: among many small classes some always look changed.

    Raises:
        SettingError: the photos differ, or their classes are not known.
    """
    check_same_photos(a, b)
    if a.classes is None:
        raise SettingError("`classes` of the photos are not known. Give them with the answers.")
    names, label = np.unique(a.classes, return_inverse=True)
    counts, right_a, right_b = (
        np.bincount(label, weights) for weights in (None, a.right.mean(0), b.right.mean(0))
    )
    order = np.argsort(-np.abs(right_b - right_a), kind="stable")
    return [
        ClassChange(str(names[i]), int(counts[i]), float(right_a[i]), float(right_b[i]))
        for i in order
        if right_a[i] != right_b[i]
    ]

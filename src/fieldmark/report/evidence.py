"""The sections on photos: doubtful labels, look-alikes, the worst and the most uncertain."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fieldmark.charts.calibration import calibration_data
from fieldmark.charts.confusion import classes_data, matrix_data, pairs_data
from fieldmark.language import said
from fieldmark.report.looks import Looks
from fieldmark.report.page import (
    Figure,
    Labels,
    LookAlike,
    LookAlikes,
    Mistakes,
    Thumbnail,
    Uncertain,
)
from fieldmark.report.thumbnails import MayShow, find_photo, glow, thumbnail
from fieldmark.studies.judged import MISTAKEN, PAIRS, PHOTOS, Judged, Pair
from fieldmark.studies.mislabelled import Suspect


class Album:
    """The photos of a run as thumbnails, with where the model looked.

    Args:
        found: What the run says of them.
        folder: Where the photos are; None: not known.
        view: The run's eval view.
        looks: Where the model looked, as far as it was kept.
        may_show: As for `find_photo`.
    """

    def __init__(
        self,
        found: Judged,
        folder: Path | None,
        view: dict[str, Any],
        looks: Looks,
        may_show: MayShow | None = None,
    ) -> None:
        self.found = found
        self.folder = folder
        self.view = view
        self.looks = looks
        self.may_show = may_show

    def photo(self, position: int) -> Thumbnail:
        """One photo."""
        found = self.found
        name = found.paths[position]
        path = find_photo(self.folder, name, self.may_show) if self.folder else None
        shares = self.looks.of(name)
        # A photo cut to its box is cut elsewhere than its thumbnail is.
        shares = None if self.view.get("box_margin") is not None else shares
        return Thumbnail(
            name,
            found.classes[found.labels[position]],
            found.classes[found.guesses[position]],
            float(found.confidence[position]),
            thumbnail(path, self.view),
            None if shares is None else glow(shares),
        )

    def photos(self, positions: Sequence[int]) -> list[Thumbnail]:
        """Several."""
        return [self.photo(position) for position in positions]

    def doubted(self, suspects: Sequence[Suspect]) -> list[Thumbnail]:
        """Photos whose labels are likely wrong, with the likelier class in place of the guess."""
        places = {name: position for position, name in enumerate(self.found.paths)}
        return [
            replace(
                self.photo(places[one.path]),
                truth=one.given,
                guess=one.suggested,
                confidence=one.probability,
                looked=None,  # what is looked at here is the photo
            )
            for one in suspects
            if one.path in places
        ]

    def look_alike(self, pair: Pair) -> LookAlike:
        """Two classes with photos of both."""
        found = self.found
        right = [found.surest_of(name) for name in (pair.a, pair.b)]
        a, b = (None if position is None else self.photo(position) for position in right)
        counts = [int(found.counts[found.classes.index(name)]) for name in (pair.a, pair.b)]
        return LookAlike(
            pair.a,
            pair.b,
            pair.a_as_b,
            pair.b_as_a,
            counts[0],
            counts[1],
            self.photos(found.of_pair(pair, MISTAKEN)),
            (a, b),
        )


PhotoSection = Labels | LookAlikes | Mistakes | Uncertain


def photo_sections(album: Album, suspects: Sequence[Suspect] = ()) -> list[PhotoSection]:
    """All that the photos show; of a study also whose labels are likely wrong."""
    found = album.found
    pairs = found.pairs()
    sections: list[PhotoSection] = []
    if suspects:
        sections.append(Labels(album.doubted(suspects[:PHOTOS]), len(suspects)))
    if pairs:
        listed = [(pair.a, pair.b, pair.a_as_b, pair.b_as_a) for pair in pairs]
        shown = [album.look_alike(pair) for pair in pairs[:PAIRS]]
        sections.append(LookAlikes(shown, _figures(found, listed)))
        sections.append(Mistakes(album.photos(found.worst(PHOTOS))))
    sections.append(Uncertain(album.photos(found.least_sure(PHOTOS))))
    return sections


def _figures(found: Judged, pairs: Sequence[tuple[str, str, int, int]]) -> list[Figure]:
    top = pairs[0]
    first = said("told.pairs", a=top[0], b=top[1], count=top[2] + top[3], pairs=len(pairs))
    classes = classes_data(found.classes, found.confusion)
    worst = classes.rows.row(0, named=True)
    of_class = said("told.classes", name=worst["name"], right=worst["right"], of=worst["photos"])
    sure = calibration_data(found.confidence, found.right)
    return [
        Figure("pairs", pairs_data(pairs), first),
        Figure("classes", classes, of_class),
        Figure("calibration", sure, said("told.calibration", error=sure.error)),
        Figure("matrix", matrix_data(found.classes, found.confusion), said("told.matrix")),
    ]

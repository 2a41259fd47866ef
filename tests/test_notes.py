"""What is told of photos while they are checked can be said in any language, later."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from fieldmark.build import _growth, _notes
from fieldmark.data.audit import Audit
from fieldmark.data.colour import colour_notes
from fieldmark.data.corrections import corrected
from fieldmark.data.dataset import Photo, PhotoSet, photo_set
from fieldmark.data.misspelt import misspelt_notes
from fieldmark.data.sources import _grouped_by_name
from fieldmark.data.split import Split, _lacking, _torn, make_split
from fieldmark.data.twins import near_twin_notes, twin_notes
from fieldmark.language import Said, Words, catalogue, recognised

NAMES = ("ani", "bunting", "crow")
NO_SPLIT = Split((), (), (), ())


def some(count: int, label: int = 0, **more: object) -> list[Photo]:
    return [Photo(Path(f"{n}"), label, f"{NAMES[label]}/{n}.jpg", **more) for n in range(count)]


def of(photos: list[Photo], names: tuple[str, ...] = NAMES) -> PhotoSet:
    return PhotoSet(Path("birds"), tuple(photos), names)


def twins(count: int) -> list[str]:
    """In two parts, in two classes, and nearly alike."""
    first, second, third = some(count), some(count, 1), some(count, 2)
    parts = {"train": [*first, *second], "val": third}
    same = {p.key: p.path.name for p in (*first, *second)} | {p.key: p.key for p in third}
    found = twin_notes(parts, same, NAMES)
    across = {p.key: p.path.name for p in (*first, *third)} | {p.key: p.key for p in second}
    alike = {"train": first, "val": [replace(p, label=0) for p in third]}
    found += twin_notes(alike, across, NAMES)
    prints = {p.key: "0" * 64 for p in (*first, *third)}
    own = {p.key: p.key for p in (*first, *third)}
    return [*found, *near_twin_notes(alike, prints, own, NAMES)]


def colours(count: int) -> list[str]:
    photos = [photo for label in range(3) for photo in some(5, label)]
    modes = {p.key: ["grey"] if p.label < count else [] for p in photos}
    if count == 2:  # of four classes, so that the usual one is still plain
        photos += [replace(p, label=3, key=f"d{p.key}") for p in some(5)]
        photos += [replace(p, label=4, key=f"e{p.key}") for p in some(5)]
        modes |= {p.key: [] for p in photos[15:]}
    return colour_notes(photos, modes, (*NAMES, "d", "e"))


def splits(count: int) -> list[str]:
    grouped = of([p for n in range(count) for p in some(2, n % 3, group=f"burst {n}")])
    places = range(len(grouped.photos))
    found = _torn(grouped, {"train": [n for n in places if n % 2], "val": list(places[::2])})
    return [
        *found,
        *_lacking(of(some(1, 0)), "val", [0])[:1],
        *_lacking(of(some(1), NAMES[:2]), "val", [0]),
    ]


def files(count: int, tmp_path: Path) -> list[str]:
    found = list(_notes(replace(of(some(1)), ignored=("a.txt",) * count), NO_SPLIT))
    slips = [p for label in range(count) for p in some(1, label)] + some(10, 2)
    found += misspelt_notes(of(slips, ("crowned finsh", "crownd finch", "crowned finch")))
    found += _grouped_by_name(of([*some(count), *some(3, 1)]), r"(bunting)").notes
    everyone = [*some(3), *some(3, 1), *some(3, 2)]
    gone = [p.key for p in everyone if p.label < count][: 3 * count]
    table = tmp_path / f"{count}.csv"
    four = (*NAMES, "dove")
    everyone += [Photo(Path("d"), 3, "dove/0.jpg")]
    table.write_text("\n".join(["path,action,value", *(f"{key},exclude," for key in gone)]))
    return [*found, *corrected(of(everyone, four), table).notes]


def growth(count: int) -> list[str]:
    photos = [*some(3), *some(1, 1), *some(2, 2)]
    new = frozenset(p.key for p in photos if p.label == count)
    old = frozenset(p.key for p in photos[:count])
    told = [Audit((), {}, {}, {}, True, keys) for keys in (new, old)]
    return [note for audit in told for note in _growth(audit, {"train": photos}, NAMES)]


def marked() -> list[str]:
    everyone = of([p for label in range(3) for p in some(30, label, split="train")])
    return [*make_split(everyone, kind="tutorial", seed=0).notes]


def test_every_note_is_recognised_and_said_in_chinese(tmp_path: Path):
    close = photo_set(Path("birds"), [], ["Ani", "ani"]).notes
    told = [*close, *marked()]
    for count in (1, 2):
        told += [*twins(count), *colours(count), *splits(count), *growth(count)]
        told += files(count, tmp_path)
    keys = set()
    for note in told:
        said = recognised(note, "notes")
        assert isinstance(said, Said), note
        keys.add(said.key)
        assert Words("en")(said) == note
        assert re.search("[一-鿿]", Words("zh")(said)), note
    kinds = {key for key in catalogue("en") if key.startswith("notes.")}
    assert kinds - keys == {"notes.skipped.one", "notes.skipped.many"}  # see the test below


@pytest.mark.parametrize("count", [1, 3])
def test_what_was_skipped_is_recognised(count: int):
    names = "; ".join(f"ani/{n}.jpg (it is cut off)" for n in range(count))
    kind = "one" if count == 1 else "many"
    note = f"skipped, since they can't be read: {count} training photo{'s'[: count - 1]}: {names}"
    said = recognised(note, "notes")
    assert isinstance(said, Said)
    assert (said.key, said.values["names"]) == (f"notes.skipped.{kind}", names)


def test_of_a_long_list_the_rest_is_counted_in_the_readers_language():
    said = recognised("class names that differ only in case or spaces: a, A, and 3 more", "notes")
    assert isinstance(said, Said)
    assert Words("zh")(said).endswith("a, A，另有 3 个")


def test_what_an_older_fieldmark_wrote_stays_as_it_is():
    assert (
        recognised("3 photo(s) look nearly like one", "notes") == "3 photo(s) look nearly like one"
    )

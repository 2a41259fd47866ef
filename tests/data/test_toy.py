import io
import json
import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark.data.toy import SPECIES, Species, draw_bird, plate, write_toy
from fieldmark.data.toy_draw import draw_scene, marks_at
from fieldmark.errors import DataError, SettingError

SIZE = 96
MARKS = (
    "wing_bars",
    "eye_ring",
    "crown_stripe",
    "stout_bill",
    "breast_streaks",
    "tail_band",
)


def marks_of(species: Species) -> tuple[int, ...]:
    return tuple(int(getattr(species, mark)) for mark in MARKS)


def pixels(species: Species, seed: int = 0, **settings) -> np.ndarray:
    return np.asarray(draw_bird(species, seed=seed, **({"size": SIZE} | settings)), dtype=int)


def changed(a: np.ndarray, b: np.ndarray, by: int = 12) -> np.ndarray:
    return abs(a - b).max(-1) > by


def twins(a: Species, b: Species, seed: int, difficulty: float, size: int = 160):
    """Two species drawn from one stream: the same bird but for its marks."""
    return [
        np.asarray(draw_scene(kind, np.random.SeedSequence(seed), size, difficulty), dtype=int)
        for kind in (a, b)
    ]


# Species.


def test_there_are_twelve_species_all_distinct():
    assert len(SPECIES) >= 12
    assert len({species.name for species in SPECIES}) == len(SPECIES)
    assert len({species.folder for species in SPECIES}) == len(SPECIES)
    assert len({marks_of(species) for species in SPECIES}) == len(SPECIES)


def test_any_species_is_reached_from_any_other_by_changing_one_mark_at_a_time():
    pairs = [
        (a, b)
        for a, b in combinations(SPECIES, 2)
        if sum(x != y for x, y in zip(marks_of(a), marks_of(b), strict=True)) == 1
    ]
    reached = {SPECIES[0]}
    for _ in SPECIES:
        reached |= {end for pair in pairs if reached & set(pair) for end in pair}
    assert reached == set(SPECIES)


def test_every_mark_alone_tells_some_pair():
    alone = set()
    for a, b in combinations(SPECIES, 2):
        differing = [mark for mark in MARKS if getattr(a, mark) != getattr(b, mark)]
        alone |= set(differing) if len(differing) == 1 else set()
    assert alone == set(MARKS)


def test_a_caption_names_the_marks():
    ring = Species("Any Bird", eye_ring=True, wing_bars=1)
    assert ring.marks == ("eye ring", "one wing bar")
    assert Species("Any Bird").marks == ()
    assert Species("Ash-crowned Warbler").folder == "Ash-crowned_Warbler"


# The same arguments give the same pixels, whatever else goes on.


def test_the_same_arguments_give_the_same_pixels():
    np.testing.assert_array_equal(pixels(SPECIES[5], seed=3), pixels(SPECIES[5], seed=3))


def test_other_seeds_and_species_give_other_birds():
    first = pixels(SPECIES[5], seed=3)
    assert changed(first, pixels(SPECIES[5], seed=4)).mean() > 0.3
    assert changed(first, pixels(SPECIES[6], seed=3)).mean() > 0.3


def test_drawing_neither_reads_nor_moves_the_global_generators():
    before = np.random.get_state()[1].copy(), random.getstate()
    first = pixels(SPECIES[2])
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert random.getstate() == before[1]
    np.random.seed(123)
    random.seed(123)
    pixels(SPECIES[7])
    np.testing.assert_array_equal(pixels(SPECIES[2]), first)


def test_seeds_beyond_64_bits_are_seeds_too():
    assert changed(pixels(SPECIES[0], seed=2**80), pixels(SPECIES[0], seed=0)).any()


@pytest.mark.parametrize("size", [32, 97, 320])
def test_size_is_the_side_in_pixels(size):
    image = draw_bird(SPECIES[0], seed=0, size=size)
    assert image.size == (size, size)
    assert image.mode == "RGB"


# Only the marks tell.


@pytest.mark.parametrize(("a", "b"), list(combinations(SPECIES, 2)), ids=lambda s: s.folder)
def test_two_species_differ_by_their_marks_and_by_nothing_else(a, b):
    first, second = twins(a, b, seed=11, difficulty=0.0)
    share = changed(first, second).mean()
    assert 0.0005 < share < 0.12


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_shows_in_a_clean_drawing_and_in_most_others(mark):
    plain = Species("Any Bird")
    marked = Species("Any Bird", **{mark: 1})
    shown = [changed(*twins(plain, marked, seed, 0.5)).sum() >= 12 for seed in range(12)]
    assert changed(*twins(plain, marked, 0, 0.0)).sum() >= 30
    assert sum(shown) >= 9


def test_a_second_wing_bar_shows_too():
    one, two = Species("Any Bird", wing_bars=1), Species("Any Bird", wing_bars=2)
    assert changed(*twins(one, two, 0, 0.0)).sum() >= 30


def test_all_but_the_marks_has_the_same_distribution_in_every_species():
    """Mean colour can't tell the species: means differ by less than their standard errors say."""
    means = np.array([[pixels(s, seed=i).mean((0, 1)) for i in range(12)] for s in SPECIES[:6]])
    between = means.mean(1).var(0, ddof=1) * 12
    within = means.var(1, ddof=1).mean(0)
    assert (between < 4 * within).all()  # F(5, 66) exceeds 4 once in 300 times


# Difficulty.


def test_marks_shrink_and_fade_as_it_gets_harder():
    levels = [marks_at(difficulty) for difficulty in (0.0, 0.25, 0.5, 0.75, 1.0)]
    sizes, contrasts = [m.size for m in levels], [m.contrast for m in levels]
    assert sizes == sorted(sizes, reverse=True)
    assert contrasts == sorted(contrasts, reverse=True)
    assert len(set(sizes)) == len(set(contrasts)) == 5
    assert sizes[-1] > 0
    assert 0 < contrasts[-1] < contrasts[0] <= 1


def test_marks_cover_fewer_pixels_as_it_gets_harder():
    plain, marked = SPECIES[0], SPECIES[-1]
    shares = [
        np.mean([changed(*twins(plain, marked, seed, difficulty)).mean() for seed in range(8)])
        for difficulty in (0.0, 0.5, 1.0)
    ]
    assert shares[0] > 1.3 * shares[1] > 1.3 * 1.3 * shares[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, r"`seed` must be 0 or more, got -1"),
        ({"size": 31}, r"`size` must be at least 32 pixels, got 31. Try 320"),
        ({"difficulty": 1.5}, r"`difficulty` must lie in 0..1, got 1.5"),
        ({"difficulty": float("nan")}, r"`difficulty` must lie in 0..1, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message, tmp_path):
    with pytest.raises(SettingError, match=message):
        draw_bird(SPECIES[0], **({"seed": 0} | settings))
    with pytest.raises(SettingError, match=message):
        write_toy(tmp_path / "toy", **settings)
    assert not (tmp_path / "toy").exists()


# The folder.


def write(folder: Path, **settings) -> Path:
    return write_toy(folder, **({"per_class": 2, "size": 48, "species": 3} | settings))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_folder_holds_one_folder_a_species_and_the_settings(tmp_path):
    folder = write(tmp_path / "a" / "toy")
    assert folder == tmp_path / "a" / "toy"
    assert set(contents(folder)) == {"toy.json"} | {
        f"{species.folder}/{index:03d}.jpg" for species in SPECIES[:3] for index in range(2)
    }
    settings = json.loads((folder / "toy.json").read_text())
    assert settings["per_class"] == 2
    assert [kind["name"] for kind in settings["species"]] == [s.name for s in SPECIES[:3]]


def test_all_species_are_drawn_unless_told_otherwise(tmp_path):
    folder = write(tmp_path / "toy", per_class=1, size=32, species=None)
    assert sum(path.is_dir() for path in folder.iterdir()) == len(SPECIES)


def test_photos_are_jpegs_near_the_drawing(tmp_path):
    folder = write(tmp_path / "toy", size=160, species=2, per_class=1)
    photo = Image.open(folder / SPECIES[1].folder / "000.jpg")
    assert (photo.format, photo.mode, photo.size) == ("JPEG", "RGB", (160, 160))
    drawing = np.asarray(draw_bird(SPECIES[1], seed=0, size=160), dtype=int)
    assert abs(np.asarray(photo, dtype=int) - drawing).mean() < 5


def test_the_same_settings_give_the_same_bytes(tmp_path):
    assert contents(write(tmp_path / "a")) == contents(write(tmp_path / "b"))


def test_more_drawings_or_species_leave_the_others_as_they_are(tmp_path):
    few = contents(write(tmp_path / "few"))
    many = contents(write(tmp_path / "many", per_class=3, species=4))
    del few["toy.json"]
    assert few.items() <= many.items()


def test_no_photo_comes_twice_under_any_seed(tmp_path):
    photos = [
        content
        for seed in (0, 1)
        for name, content in contents(write(tmp_path / str(seed), seed=seed)).items()
        if name.endswith("jpg")
    ]
    assert len(set(photos)) == len(photos) == 12


def test_a_complete_folder_is_left_alone(tmp_path):
    folder = write(tmp_path / "toy")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_what_is_missing_or_was_emptied_by_a_power_cut_is_drawn_again(tmp_path):
    folder = write(tmp_path / "toy")
    before = contents(folder)
    (folder / SPECIES[0].folder / "001.jpg").unlink()
    (folder / SPECIES[1].folder / "000.jpg").write_bytes(b"")
    assert contents(write(folder)) == before


def test_an_empty_folder_is_as_good_as_a_new_one(tmp_path):
    assert (write(tmp_path) / SPECIES[0].folder / "000.jpg").exists()


def test_progress_counts_up_to_the_whole(tmp_path):
    calls = []
    write(tmp_path / "toy", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 6) for done in range(1, 7)]


def test_a_folder_with_anything_else_in_it_is_refused(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(DataError, match=r"exists and is no toy set.*new or an empty folder"):
        write(tmp_path)
    assert contents(tmp_path) == {"holiday.jpg": b"precious"}


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "toy").write_bytes(b"precious")
    with pytest.raises(DataError, match="exists and is no toy set"):
        write(tmp_path / "toy")


def test_other_settings_for_the_same_folder_are_refused(tmp_path):
    folder = write(tmp_path / "toy")
    before = contents(folder)
    with pytest.raises(DataError, match=r"other `seed`: 0, not 1.*Give another folder"):
        write(folder, seed=1)
    with pytest.raises(DataError, match=r"other `per_class`: 2, not 4; other `size`: 48, not 64"):
        write(folder, per_class=4, size=64)
    assert contents(folder) == before


def test_a_damaged_note_is_refused(tmp_path):
    folder = write(tmp_path / "toy")
    (folder / "toy.json").write_text("{")
    with pytest.raises(DataError, match=r"toy.json.*can't be read.*Give another folder"):
        write(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"species": 1}, r"`species` must lie in 2..12, got 1"),
        ({"species": 13}, r"`species` must lie in 2..12, got 13"),
        ({"per_class": 0}, r"`per_class` must lie in 1..1000, got 0"),
        ({"per_class": 1001}, r"`per_class` must lie in 1..1000, got 1001"),
    ],
)
def test_counts_out_of_range_are_refused(settings, message, tmp_path):
    with pytest.raises(SettingError, match=message):
        write(tmp_path / "toy", **settings)


# The plate.


def test_the_plate_shows_every_species_on_one_page():
    page = plate()
    assert page.mode == "RGB"
    assert page.size == (1660, 1256)
    again = plate()
    assert page.tobytes() == again.tobytes()
    assert page.tobytes() != plate(seed=1).tobytes()
    buffer = io.BytesIO()
    page.save(buffer, "PNG")


def test_the_plate_takes_any_number_of_columns_that_it_can_fill():
    assert plate(columns=6).size == (2460, 896)
    with pytest.raises(SettingError, match=r"`columns` must lie in 1..12, got 13. Try 4"):
        plate(columns=13)

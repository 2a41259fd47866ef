"""Every way photos are listed, on files whose content does not matter: none of it is opened."""

import re
import unicodedata
from pathlib import Path

import polars as pl
import pytest

from fieldmark.data.dataset import PhotoSet
from fieldmark.data.sources import check_class_names, read_photos
from fieldmark.errors import DataError

KEYS = ("ani/1.jpg", "ani/2.jpg", "ani/a b.jpg", "wren/1.jpg", "wren/2.jpg")


def write(root: Path, *keys: str) -> Path:
    for key in keys:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return root


def text(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def said(photos: PhotoSet) -> list[tuple[str, str, str | None, str | None]]:
    return [
        (photo.key, photos.class_names[photo.label], photo.split, photo.group)
        for photo in photos.photos
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "photos", *KEYS)


def test_train_val_and_test_trees_are_an_official_split(tmp_path: Path) -> None:
    write(tmp_path, "train/ani/1.jpg", "train/wren/2.jpg", "Val/wren/3.jpg", "test/ani/4.jpg")
    write(tmp_path, "notes.txt", "test/readme.md", "test/ani/Thumbs.db")
    photos = read_photos(tmp_path)
    assert said(photos) == [
        ("Val/wren/3.jpg", "wren", "val", None),
        ("test/ani/4.jpg", "ani", "test", None),
        ("train/ani/1.jpg", "ani", "train", None),
        ("train/wren/2.jpg", "wren", "train", None),
    ]
    assert len(photos.ignored) == 3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("train/ani/1.jpg", "train/wren/2.jpg", "val/gull/3.jpg"), r"training photos: val/gull\."),
        (("train/ani/1.jpg", "train/wren/x.txt", "val/wren/3.jpg"), r"holds no photos: wren\."),
        (("train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "valid/a/2.jpg"), r"two folders for va"),
        (("train/1.jpg", "val/2.jpg"), r"train` holds no class folders"),
    ],
)
def test_mistakes_of_trees_are_named(tmp_path: Path, keys: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_photos(write(tmp_path, *keys))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("train/ani/1.jpg", "extra/ani/2.jpg"), r"`extra` beside its parts.*one of train, train"),
        (("val/ani/1.jpg", "test/ani/1.jpg"), r"has no folder `train`"),
    ],
)
def test_the_layout_splits_says_what_is_no_part(
    tmp_path: Path, keys: tuple[str, ...], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_photos(write(tmp_path, *keys), "splits")


def test_an_image_list_as_caffe_takes_it(folder: Path, tmp_path: Path) -> None:
    lines = f"ani/1.jpg 0\r\n\r\nani/a b.jpg 0\n{(folder / 'wren/1.jpg').absolute()}\t10\n"
    photos = read_photos(folder, lists={"all": text(tmp_path / "list.txt", lines)})
    assert said(photos) == [
        ("ani/1.jpg", "0", None, None),
        ("ani/a b.jpg", "0", None, None),
        ("wren/1.jpg", "10", None, None),
    ]
    assert all(photo.path == folder / photo.key for photo in photos.photos)


def test_a_list_for_each_part_is_an_official_split(folder: Path, tmp_path: Path) -> None:
    lists = {
        "train": text(tmp_path / "train.txt", "ani/1.jpg ani\nwren/1.jpg wren\n"),
        "test": text(tmp_path / "test.txt", "ani/2.jpg ani\n"),
    }
    assert [row[2] for row in said(read_photos(folder, lists=lists))] == ["train", "test", "train"]


TABLE = """\
label,path,split,bird,weather
ani,ani/1.jpg,train,a1,fair
wren,wren/1.jpg,val,w1,rain
wren,wren/2.jpg,test,,
"""


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_a_table_may_say_split_and_group(folder: Path, tmp_path: Path, kind: str) -> None:
    path = text(tmp_path / f"birds.{kind}", TABLE)
    if kind == "tsv":
        text(path, TABLE.replace(",", "\t"))
    if kind == "parquet":
        table = pl.read_csv(TABLE.encode())
        table.with_columns(pl.col("label").cast(pl.Categorical)).write_parquet(path)
    assert said(read_photos(folder, lists={"all": path}, group="bird")) == [
        ("ani/1.jpg", "ani", "train", "a1"),
        ("wren/1.jpg", "wren", "val", "w1"),
        ("wren/2.jpg", "wren", "test", None),
    ]


@pytest.mark.parametrize("separator", [";", ",", "\t"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_table_may_come_from_a_spreadsheet_on_windows(
    folder: Path, tmp_path: Path, separator: str, suffix: str
) -> None:
    rows = [["label", "path", "Split", "split"], ["ani", r"ani\1.jpg", "1,5", "Training"]]
    rows += [["wren", r".\wren\2.jpg", "28,9", "VALID"], ["wren", "wren/1.jpg", "", ""]]
    quoted = [[f'"{cell}"' if separator in cell else cell for cell in row] for row in rows]
    content = "\ufeff" + "".join(separator.join(row) + "\r\n" for row in quoted)
    path = text(tmp_path / f"t.{suffix}", content)
    assert said(read_photos(folder, lists={"all": path})) == [
        ("ani/1.jpg", "ani", "train", None),
        ("wren/1.jpg", "wren", None, None),
        ("wren/2.jpg", "wren", "val", None),
    ]
    fix = text(
        tmp_path / "fix.csv",
        f"path{separator}action{separator}value\nani\\1.jpg".replace(
            "jpg", f"jpg{separator}relabel{separator}wren"
        ),
    )
    with pytest.raises(DataError, match=r"leave photos of 1 class"):
        read_photos(folder, lists={"all": path}, corrections=fix)


def test_a_backslash_that_is_part_of_a_name_stays(folder: Path, tmp_path: Path) -> None:
    write(folder, "ani\\9.jpg")
    path = text(tmp_path / "t.csv", "path,label\nani\\9.jpg,ani\nwren/1.jpg,wren\n")
    assert [row[0] for row in said(read_photos(folder, lists={"all": path}))] == [
        "ani\\9.jpg",
        "wren/1.jpg",
    ]


def test_mistakes_of_one_kind_do_not_hide_those_of_another(folder: Path, tmp_path: Path) -> None:
    rows = [f"no/{number}.jpg,ani,train\n" for number in range(20)]
    path = text(tmp_path / "t.csv", "path,label,split\n" + "".join(rows) + "wren/1.jpg,wren,dev\n")
    with pytest.raises(
        DataError,
        match=r"(?s)21 mistake.*no/4\.jpg\n  and 15 more of this kind\n  t\.csv row 22: not",
    ):
        read_photos(folder, lists={"all": path})


def test_a_table_that_is_not_utf8_is_told_where_and_how_to_save_it(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("path;label\na.jpg;ani\nb.jpg;D\xfcnens\xe4nger\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"line 3 is not UTF-8\. Save it .* as `CSV UTF-8`"):
        read_photos(tmp_path, lists={"all": path})


def test_a_column_named_group_is_taken_without_asking(folder: Path, tmp_path: Path) -> None:
    path = text(tmp_path / "t.csv", "path,label,group\nani/1.jpg,ani,7\nwren/1.jpg,wren,007\n")
    assert [row[3] for row in said(read_photos(folder, lists={"all": path}))] == ["7", "007"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("ani/1.jpg ani\nwren/1.jpg\n", r"list\.txt line 2: not a path and a label: 'wren/1\.jpg'"),
        ("ani/9.jpg ani\nwren/1.jpg wren\n", r"line 1: no such file: ani/9\.jpg"),
        ("ani/1.jpg ani\n../x.jpg wren\n", r"line 2: not a photo below the folder: \.\./x\.jpg"),
        ("ani/1.jpg ani\n/etc/x.jpg wren\n", r"line 2: not a photo below the folder: /etc/x\.jpg"),
        ("ani/1.jpg ani\nani/1.jpg wren\n", r"line 2: ani/1\.jpg stands at list\.txt line 1 too"),
        ("ani/1.jpg ani\n", r"at least two classes are needed, got 1"),
    ],
)
def test_mistakes_of_a_list_stand_with_their_line(
    folder: Path, tmp_path: Path, content: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_photos(folder, lists={"all": text(tmp_path / "list.txt", content)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,klass\nani/1.jpg,ani\n", r"has no column label; it has: path, klass\."),
        ("path,label,split\nani/1.jpg,a,train\nwren/1.jpg,w,dev\n", r"row 3: not train, val or te"),
        ("path,label\nani/1.jpg,\nwren/1.jpg,w\n", r"t\.csv row 2: not a path and a label"),
        ("", r"t\.csv` can't be read"),
    ],
)
def test_mistakes_of_a_table_stand_with_their_row(
    folder: Path, tmp_path: Path, content: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_photos(folder, lists={"all": text(tmp_path / "t.csv", content)})


@pytest.mark.parametrize(
    ("name", "row"), [("t.csv", 4), ("t.tsv", 4), ("t.parquet", 3), ("t.txt", 2)]
)
def test_a_mistake_stands_where_the_reader_looks_for_it(
    folder: Path, tmp_path: Path, name: str, row: int
) -> None:
    """A spreadsheet counts the line of names and blank ones; a Parquet file has neither."""
    path = tmp_path / name
    rows = [("ani/1.jpg", "ani"), ("", ""), ("gone.jpg", "ani")]
    if name == "t.parquet":
        pl.DataFrame(rows, schema=["path", "label"], orient="row").write_parquet(path)
    elif name == "t.txt":
        text(path, "ani/1.jpg ani\ngone.jpg ani\n")
    else:
        between = "," if name == "t.csv" else "\t"
        text(path, "\n".join(between.join(each) for each in [("path", "label"), *rows]))
    where = "line" if name == "t.txt" else "row"
    with pytest.raises(DataError, match=rf"{re.escape(name)} {where} {row}: no such file: gone"):
        read_photos(folder, lists={"all": path})


def test_a_list_that_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    for name in ("gone.txt", "gone.csv", "gone.parquet"):
        with pytest.raises(DataError, match=rf"{name}` can't be read: No such file"):
            read_photos(folder, lists={"all": tmp_path / name})
    (tmp_path / "latin.txt").write_bytes(b"\xe4.jpg 1\n")
    with pytest.raises(DataError, match=r"latin\.txt` can't be read: it is not UTF-8"):
        read_photos(folder, lists={"all": tmp_path / "latin.txt"})


@pytest.mark.parametrize("action", ["exclude,", "relabel,ani"])
def test_a_class_that_corrections_empty_is_left_out_and_told(tmp_path: Path, action: str) -> None:
    write(tmp_path / "p", "ani/1.jpg", "ani/2.jpg", "rare/1.jpg", "rare/2.jpg", "wren/1.jpg")
    rows = f"path,action,value\nrare/1.jpg,{action}\nrare/2.jpg,{action}\n"
    photos = read_photos(tmp_path / "p", corrections=text(tmp_path / "c.csv", rows))
    assert photos.class_names == ("ani", "wren")
    named = {photo.key: photos.class_names[photo.label] for photo in photos.photos}
    moved = {f"rare/{n}.jpg": "ani" for n in (1, 2)} if action.startswith("relabel") else {}
    assert named == {"ani/1.jpg": "ani", "ani/2.jpg": "ani", "wren/1.jpg": "wren"} | moved
    told = "corrections leave no photo of 1 class, left out therefore: rare"
    assert photos.notes[-1] == told


def test_corrections_leave_two_classes_at_least(tmp_path: Path) -> None:
    write(tmp_path / "p", "ani/1.jpg", "wren/1.jpg")
    rows = text(tmp_path / "c.csv", "path,action,value\nani/1.jpg,exclude,\n")
    with pytest.raises(DataError, match=r"leave photos of 1 class; two at least are needed"):
        read_photos(tmp_path / "p", corrections=rows)


def test_corrections_relabel_exclude_and_group_and_touch_no_file(
    folder: Path, tmp_path: Path
) -> None:
    rows = "path,action,value\nani/1.jpg,relabel,wren\nani/1.jpg,group,w9\nani/2.jpg,exclude,blur\n"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    photos = read_photos(folder, corrections=text(tmp_path / "c.csv", rows))
    assert said(photos) == [
        ("ani/1.jpg", "wren", None, "w9"),
        ("ani/a b.jpg", "ani", None, None),
        ("wren/1.jpg", "wren", None, None),
        ("wren/2.jpg", "wren", None, None),
    ]
    assert photos.class_names == ("ani", "wren")
    assert photos.notes == ("corrections: 1 x relabel, 1 x exclude, 1 x group",)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("ani/1.jpg,rename,x", r"row 2: not relabel, exclude, group: 'rename'"),
        ("anni/1.jpg,exclude,", r"no such photo: 'anni/1\.jpg'\. Did you mean ani/1\.jpg\?"),
        ("ani/1.jpg,relabel,wern", r"row 2: no such class: 'wern'\. Did you mean wren\?"),
        ("ani/1.jpg,group,", r"row 2: the group's name is missing"),
        ("ani/1.jpg,exclude,\nani/1.jpg,exclude,", r"row 3: .* has this action at row 2 too"),
    ],
)
def test_mistakes_of_corrections_stand_with_their_row(
    folder: Path, tmp_path: Path, row: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_photos(folder, corrections=text(tmp_path / "c.csv", f"path,action,value\n{row}\n"))


def test_groups_are_read_off_names(folder: Path) -> None:
    photos = read_photos(folder, group_pattern=r"/(\d)\.jpg")
    assert [row[3] for row in said(photos)] == ["1", "2", None, "1", "2"]
    assert photos.notes == (
        "`group_pattern` leaves 1 photo out, each a group of its own: ani/a b.jpg",
    )


def test_a_pattern_that_fits_nothing_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"'burst-\(\.\*\)' fits no photo .* such as ani/1\.jpg"):
        read_photos(folder, group_pattern="burst-(.*)")


def test_a_group_column_needs_a_table(folder: Path) -> None:
    with pytest.raises(DataError, match=r"`group` 'bird' names a column .* use `group_pattern`"):
        read_photos(folder, group="bird")


def test_classes_that_look_the_same_are_refused(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "Öland") for form in ("NFC", "NFD")]
    write(tmp_path, *(f"{name}/{i}.jpg" for i, name in enumerate(names)))
    with pytest.raises(DataError, match="look the same but are written with other Unicode"):
        read_photos(tmp_path)


def test_classes_that_differ_in_case_are_noted(tmp_path: Path) -> None:
    photos = read_photos(write(tmp_path, "Wren/1.jpg", "wren/2.jpg", "ani/3.jpg"))
    assert photos.notes == ("class names that differ only in case or spaces: Wren, wren",)


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (("gull", "wren"), r"missing: ani; new: gull"),
        (("wren", "ani"), r"the same names in another order"),
    ],
)
def test_weights_meet_only_their_own_classes(now: tuple[str, ...], message: str) -> None:
    check_class_names(("ani", "wren"), PhotoSet(Path("x"), (), ("ani", "wren")))
    with pytest.raises(DataError, match=message):
        check_class_names(("ani", "wren"), PhotoSet(Path("x"), (), now))


def test_a_photo_in_two_lists_is_refused_though_both_have_one_name(folder: Path, tmp_path: Path):
    lines = "ani/1.jpg ani\nwren/1.jpg wren\n"
    lists = {}
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        lists[part] = text(tmp_path / part / "list.txt", lines)
    first = r"val: list\.txt line 1: ani/1\.jpg stands at train: list\.txt line 1 too"
    for given in (lists, dict.fromkeys(lists, lists["val"])):
        with pytest.raises(DataError, match=rf"have 2 mistakes:\n  {first}\n  val: list"):
            read_photos(folder, lists=given)


@pytest.mark.parametrize(
    "content",
    [
        "\ufeffpath,label\r\nani/1.jpg,ani\r\nwren/1.jpg,wren\r\n",
        'path,label\n"ani/1.jpg","ani"\n\n"wren/1.jpg", wren \n,\n\n',
        "label,other,path\nani,,ani/1.jpg\nwren,x,./wren//1.jpg\n",
    ],
)
def test_tables_as_programs_write_them(folder: Path, tmp_path: Path, content: str) -> None:
    photos = read_photos(folder, lists={"all": text(tmp_path / "t.csv", content)})
    assert [row[:2] for row in said(photos)] == [("ani/1.jpg", "ani"), ("wren/1.jpg", "wren")]


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"label": [["ani"], ["wren"]]}, "plain values, and has not: label"),
        ({"label": [{"name": "ani"}, {"name": "wren"}]}, "plain values, and has not: label"),
        ("path,label,label\nani/1.jpg,ani,x\nwren/1.jpg,wren,y\n", "has not: label"),
        ("path,label\nani/1.jpg,ani,x\nwren/1.jpg,wren\n", "can't be read: found more fields"),
        ("path,label\nani/1.jpg\nwren/1.jpg,wren\n", "row 2: not a path and a label: 'ani/1"),
    ],
)
def test_tables_that_can_be_read_in_two_ways_are_refused(
    folder: Path, tmp_path: Path, table: str | dict, told: str
) -> None:
    path = tmp_path / ("t.csv" if isinstance(table, str) else "t.parquet")
    if isinstance(table, str):
        text(path, table)
    else:
        pl.DataFrame({"path": ["ani/1.jpg", "wren/1.jpg"], **table}).write_parquet(path)
    with pytest.raises(DataError, match=told):
        read_photos(folder, lists={"all": path})

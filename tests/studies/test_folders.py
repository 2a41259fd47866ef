"""What is said of a folder that is no run or study."""

from pathlib import Path

import pytest

from fieldmark.errors import RecordError
from fieldmark.studies.folders import MOST_NAMED, from_here
from fieldmark.studies.run import Run
from fieldmark.studies.study import JOURNAL, Study


@pytest.mark.parametrize(
    ("read", "kind", "mark", "command"),
    [(Run, "run", "manifest.json", "train"), (Study, "study", JOURNAL, "study run")],
)
def test_it_says_why_and_what_to_name_instead(tmp_path: Path, read, kind, mark, command):
    def told(folder: Path) -> str:
        with pytest.raises(RecordError) as caught:
            read(folder)
        return str(caught.value)

    made = f"Name a folder that `fieldmark {command}` made."
    assert (
        told(tmp_path / "a") == f"`{tmp_path / 'a'}` is no {kind}: there is no such folder. {made}"
    )
    (tmp_path / "file").touch()
    assert "it is a file" in told(tmp_path / "file")
    assert f"`{mark}`" in told(tmp_path)
    assert told(tmp_path).endswith(made)
    inside = [tmp_path / f"one-{number}" for number in range(MOST_NAMED + 2)]
    for folder in inside:
        folder.mkdir()
        (folder / mark).touch()
    named = ", ".join(map(str, inside[:MOST_NAMED]))
    assert told(tmp_path).endswith(f"Name one of those in it: {named} and 2 more.")


def test_a_folder_is_named_as_one_would_type_it(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert from_here(tmp_path / "runs" / "one") == Path("runs/one")
    assert from_here(tmp_path) == tmp_path  # `.` has no name to put a word behind
    assert from_here(tmp_path.parent / "other") == tmp_path.parent / "other"
    assert from_here(Path("runs/one")) == Path("runs/one")

"""The shipped studies: each is a question that any folder of photos can be asked."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fieldmark.cli import app
from fieldmark.errors import DataError
from fieldmark.shipped import find_design, study_names
from fieldmark.studies.design import Design

TRAINS_THE_BACKBONE = {"transfer": 5, "augmentation": 8}  # and how many cells do
PASSES = {"resolution-by-dim": 4, "level": 6, "crop": 4}  # through a frozen backbone; else one
TINY = [
    *("backbone.name=test_resnet", "backbone.weights=none", "data.image_size=32", "threads=1"),
    *("stages.head.length=1 epochs", "seeds=1"),
]


def _design(name: str, folder: Path) -> Design:
    return find_design(name, [f"data.folder={folder}"])


@pytest.mark.parametrize("name", study_names())
def test_each_makes_different_recipes_of_one_question(name: str, tmp_path: Path) -> None:
    design = _design(name, tmp_path)
    cells = design.cells(design.points())
    assert len(cells) == len(design.points()) >= 4
    assert design.file.question.endswith("?")
    assert design.file.name == name
    assert design.file.base.partition("@")[0] == "my-photos"
    trained = [cell for cell in cells if cell.recipe.trains_backbone]
    assert len(trained) == TRAINS_THE_BACKBONE.get(name, 0)
    assert design.folds == (None if trained else 5)
    frozen = {cell.recipe.group_key() for cell in cells if not cell.recipe.trains_backbone}
    assert len(frozen) == PASSES.get(name, int(len(trained) < len(cells)))


def test_the_course_has_a_lesson_for_each() -> None:
    course = (Path(__file__).parents[1] / "docs" / "course.md").read_text(encoding="utf-8")
    for name in study_names():
        assert f"fieldmark study run {name}" in course


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, draw_squares: Callable[..., Path]) -> Path:
    return draw_squares(tmp_path_factory.mktemp("colours"), ("amber", "olive"), noise=70)


@pytest.mark.slow
@pytest.mark.parametrize("name", study_names())
def test_each_runs(
    name: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))
    stages = [] if _design(name, photos).folds else ["stages.all.length=1 epochs"]
    folds = [] if stages else ["objective.folds=2"]
    keys = [f"data.folder={photos}", *TINY, *stages, *folds]
    out = str(tmp_path / "study")
    told = CliRunner().invoke(app, ["study", "run", name, *keys, "--out", out])
    if name == "crop":
        assert isinstance(told.exception, DataError)
        assert "none of the 40 photos" in str(told.exception)
        assert not Path(out).exists()
        return
    assert told.exit_code == 0, told.output
    shown = CliRunner().invoke(app, ["study", "show", out, "--format", "json"])
    rows = json.loads(shown.stdout)
    failed = [row for row in rows if row["status"] != "finished"]
    assert all(row.get("lr") == 3 for row in failed)  # too fast for some optimisers
    assert all(0 <= row["mean"] <= 1 for row in rows if row not in failed)
    if name == "data-amount":
        assert "Twice the training photos would bring top-1" in told.output

"""What a training records stands in TensorBoard as well, and no dashboard can end a training."""

import math
from pathlib import Path

import pytest
from accelerate import tracking
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from fieldmark.cli import app
from fieldmark.dashboards import Dashboards
from fieldmark.errors import SettingError
from fieldmark.ledger import Silent
from fieldmark.studies.run import Run

RECIPE = """\
name: squares
data: {folder: photos, image_size: 32, resize_size: 36}
backbone: {name: test_resnet, weights: none}
pooling: {name: average}
threads: 1
stages:
  - {name: head, train: head, lr: 1, length: 2 epochs, batch_size: 8}
  - {name: all, train: all, lr: 0.01, length: 1 epoch, batch_size: 8}
"""


class Remembering(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class Failing(tracking.GeneralTracker):
    """A service that cannot be reached after `after` calls."""

    name, requires_logging_directory, tracker = "failing", False, None
    after, calls = 0, 0

    def __init__(self, project: str) -> None:
        assert project == "fieldmark"
        super().__init__()

    def _called(self) -> None:
        type(self).calls += 1
        if type(self).calls > type(self).after:
            raise ConnectionError("no route to host\nand a long trace")

    def start(self) -> None:
        self._called()

    def store_init_configuration(self, values: dict[str, object]) -> None:
        assert values["stages.1.length"] == "1 epoch"
        assert values["data.image_size"] == 32
        self._called()

    def log(self, values: dict[str, float], step: int | None = None, **_: object) -> None:
        assert values
        assert isinstance(step, int)
        self._called()

    def finish(self) -> None:
        self._called()


@pytest.fixture
def home(tmp_path: Path, draw_squares, monkeypatch: pytest.MonkeyPatch) -> Path:
    draw_squares(tmp_path / "photos")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIELDMARK_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard's own imports
def test_tensorboard_holds_each_record_at_its_step(home: Path):
    done = CliRunner().invoke(
        app, ["train", "recipe.yaml", "--out", "run", "--track", "tensorboard"]
    )
    assert done.exit_code == 0, done.output
    run, events = Run(home / "run"), EventAccumulator(str(home / "run" / "tensorboard"))
    events.Reload()
    assert set(run.keys) <= set(events.Tags()["scalars"])
    for key in run.keys:
        steps, values = run.series(key)
        found = events.Scalars(key)
        assert [event.step for event in found] == list(steps), key
        for event, value in zip(found, values, strict=True):
            assert math.isclose(event.value, value, rel_tol=1e-6, abs_tol=1e-9), key
    (told,) = (home / "run" / "tensorboard").rglob("hparams.yml")
    assert "stages.0.lr: 1" in told.read_text()


@pytest.mark.parametrize("after", [0, 1, 4, 10**6])
def test_a_dashboard_that_fails_is_told_once_and_ends_nothing(
    home: Path, after: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "failing", Failing)
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: ["failing"])
    monkeypatch.setattr(Failing, "after", after)
    monkeypatch.setattr(Failing, "calls", 0)
    (home / "run").mkdir()
    (home / "run" / "recipe.yaml").write_text(RECIPE)
    told = Remembering()
    with Dashboards(told, ["failing"], home / "run") as reporter:
        for step in range(8):
            reporter.record({"val/loss": 0.5}, step)
    line = "failing is told no more: no route to host. The run's own records are whole."
    assert told.lines == ([line] if after < 11 else [])
    assert Failing.calls == min(after + 1, 11)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorbord", r"--track must be one of aim, clearml, comet_ml, .*, got 'tensorbord'"),
        ("comet_ml", r"--track comet_ml needs its package: pip install comet-ml"),
    ],
)
def test_what_is_unknown_or_not_installed_is_told_before_anything(
    tmp_path: Path, name: str, message: str
):
    with pytest.raises(SettingError, match=message):
        Dashboards(Silent(), [name], tmp_path)
    assert not list(tmp_path.iterdir())

"""What is done with a finished run: predict, measure again, train anew on more photos."""

import shutil
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from fieldmark import evaluate, predict
from fieldmark.checked_yaml import check_text
from fieldmark.duration import Duration
from fieldmark.errors import DataError, FieldmarkError, RecordError, SettingError, WeightsError
from fieldmark.evaluate import evaluate_run, refit_recipe
from fieldmark.ledger import Silent
from fieldmark.predict import Predictor, find_photos
from fieldmark.recipe import Recipe
from fieldmark.studies.run import Run, RunWriter
from fieldmark.train import train
from fieldmark.training.features import FeatureStore

RECIPE = """\
name: squares
data: {folder: "%s", image_size: 32, resize_size: 36, mirror: true}
backbone: {name: test_resnet, weights: none}
pooling: {name: compact_bilinear, sketch_dim: 64}
threads: 1
stages:
  - {name: head, train: head, lr: 1, length: 1 epoch, batch_size: 8}
  - {name: all, train: {"backbone.*": 0.1, "*": 1}, lr: 0.05, length: 1 epoch, batch_size: 8}
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, draw_squares) -> Path:
    return draw_squares(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    home = tmp_path_factory.mktemp("run")
    recipe = check_text(RECIPE % photos, Recipe)
    return train(recipe, home / "a", store=FeatureStore(home / "features"), reporter=Silent())


def test_predictions_come_a_batch_at_a_time_and_leave_torch_as_it_was(
    finished: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(predict, "EVAL_BATCH", 4)
    paths = sorted(photos.rglob("*.png"))[:6]
    stream = Predictor(finished.folder).predict([*paths, photos / "none.png"], top=1)
    first = [next(stream).path for _ in range(4)]  # the next batch has a photo that is not there
    assert first == paths[:4]
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    with pytest.raises(DataError, match=r"none\.png"):
        list(stream)


@pytest.mark.parametrize("bad", [{0}, {3}, {5}, {1, 2, 4}, set(range(6))])
def test_photos_that_cannot_be_read_are_told_and_left_out(
    finished: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: set[int]
):
    monkeypatch.setattr(predict, "EVAL_BATCH", 2)
    wanted = sorted(photos.rglob("*.png"))[:6]
    given = [tmp_path / f"{n}.jpg" if n in bad else path for n, path in enumerate(wanted)]
    for number in bad:
        given[number].write_text("no photo")
    refused: list[DataError] = []
    predictor = Predictor(str(finished.folder))
    found = list(predictor.predict(list(map(str, given)), top=1, unreadable=refused.append))
    good = [path for number, path in enumerate(wanted) if number not in bad]
    assert [one.path for one in found] == good
    assert [one.classes for one in found] == [one.classes for one in predictor.predict(good, 1)]
    assert len(refused) == len(bad)
    for number, error in zip(sorted(bad), refused, strict=True):
        assert f"{number}.jpg` can't be read as a photo" in str(error)


@pytest.mark.parametrize("kind", [str, Path])
def test_one_photo_may_be_given_by_itself(finished: Run, photos: Path, kind: type):
    path = photos / "teal" / "00.png"
    predictor = Predictor(finished.folder)
    assert list(predictor.predict(kind(path))) == list(predictor.predict([path]))


def test_weights_that_do_not_fit_are_named(finished: Run, tmp_path: Path):
    for path in finished.folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    recipe = (tmp_path / "recipe.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(recipe.replace("sketch_dim: 64", "sketch_dim: 32"))
    with pytest.raises(Exception, match=r"head.classifier.weight.*changed by hand"):
        Predictor(tmp_path)


def test_photos_are_found_in_folders_and_by_name(photos: Path):
    amber = sorted((photos / "amber").iterdir())
    assert find_photos([photos / "amber", photos / "teal" / "00.png"]) == [
        *amber,
        photos / "teal" / "00.png",
    ]


def test_what_is_hidden_is_passed_over_as_in_training(photos: Path, tmp_path: Path):
    photo = (photos / "teal" / "00.png").read_bytes()
    for name in ("a/1.png", "a/._1.png", ".thumbs/2.png", "__MACOSX/3.png", "b/c/4.PNG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(photo)
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert find_photos([tmp_path]) == [tmp_path / "a" / "1.png", tmp_path / "b" / "c" / "4.PNG"]
    assert find_photos([tmp_path / "a" / "._1.png"]) == [tmp_path / "a" / "._1.png"]  # by name


def test_no_photo_and_no_path_are_told(tmp_path: Path):
    with pytest.raises(Exception, match="There is no file or folder"):
        find_photos([tmp_path / "none"])
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(Exception, match=r"No photo in .*these are read: .*\.jpg.*[Hh]idden"):
        find_photos([tmp_path])


def test_evaluating_again_gives_what_training_gave(finished: Run):
    found, again = finished, evaluate_run(finished.folder)
    assert again["loss"] == pytest.approx(found.series("val/loss")[1][-1], rel=1e-4)
    assert again["top1"] == found.series("val/top1")[1][-1]
    assert Run(found.folder).test_openings == 0


def test_the_test_split_is_opened_only_when_told_and_each_time_counted(finished: Run):
    assert finished.test_openings == 0
    with pytest.raises(SettingError, match=r"The test split is shut\. Say --open-test"):
        evaluate_run(finished.folder, "test")
    for openings in (1, 2):
        evaluate_run(finished.folder, "test", open_test=True)
        assert Run(finished.folder).test_openings == openings
    assert len(Run(finished.folder).predictions("test")) == 12


def test_a_run_that_another_writes_to_is_told_before_a_photo_is_read(
    finished: Run, monkeypatch: pytest.MonkeyPatch
):
    def read(*_: object) -> None:
        pytest.fail("a photo was read")

    monkeypatch.setattr(evaluate, "content_hash", read)
    with (
        RunWriter.open(finished.folder),
        pytest.raises(FieldmarkError, match=r"metrics\.jsonl` is being written by another process"),
    ):
        evaluate_run(finished.folder)
    with pytest.raises(pytest.fail.Exception, match="a photo was read"):
        evaluate_run(finished.folder)
    assert Run(finished.folder).status == "finished"


def test_a_refit_trains_on_train_and_val_together(finished: Run, tmp_path: Path):
    recipe = refit_recipe(finished.folder)
    assert recipe.name == "squares-refit"
    store = FeatureStore(tmp_path / "features")
    found = train(recipe, tmp_path / "a", store=store, reporter=Silent())
    assert found.manifest["counts"] == {"train": 48, "minitrain": 10, "val": 0, "test": 12}
    with pytest.raises(DataError, match=r"/a has no val photos\."):
        evaluate_run(found.folder)


def test_only_a_finished_run_is_measured_or_trained_anew(finished: Run, tmp_path: Path):
    begun = RunWriter.create(tmp_path / "a", finished.recipe_text, {"class_names": ["a", "b"]})
    begun.close()
    for ask in (evaluate_run, refit_recipe, Predictor):
        with pytest.raises(
            RecordError, match=r"/a` is not finished, it is running.*fieldmark train --resume .*/a"
        ):
            ask(tmp_path / "a")


def ended_by(val: str, photos: Path, folder: Path) -> Run:
    """A run whose one stage was steered by what it saw on val, at a rate that leads nowhere."""
    stage = f"train: head, lr: 30, length: 12 epochs, batch_size: 8, eval_every: 3 steps, {val}"
    recipe = check_text(
        RECIPE.partition("stages:")[0] % photos + f"stages: [{{name: a, {stage}}}]", Recipe
    )
    return train(recipe, folder, store=FeatureStore(folder.parent / "f"), reporter=Silent())


def test_a_refit_ends_where_stop_after_did(photos: Path, tmp_path: Path):
    run = ended_by("stop_after: 2", photos, tmp_path / "a")
    (stage,) = refit_recipe(run.folder).stages
    epochs = run.measured[-1]["epoch"]
    assert epochs < 12
    assert (stage.stop_after, stage.length) == (None, Duration.parse(f"{epochs:g} epochs"))


def test_a_refit_lowers_its_rate_where_plateau_did(photos: Path, tmp_path: Path):
    run = ended_by("schedule: {name: plateau, patience: 1, gamma: 0.5}", photos, tmp_path / "a")
    rates = run.series("train/lr")[1]
    assert len(set(rates)) > 2
    recipe = refit_recipe(run.folder)
    (stage,) = recipe.stages
    per_epoch = stage.steps_per_epoch(run.manifest["counts"]["train"])
    factor = partial(stage.schedule.factor, total_steps=len(rates), steps_per_epoch=per_epoch)
    assert [30 * factor(step) for step in range(len(rates))] == pytest.approx(rates)
    assert check_text(recipe.to_yaml(), Recipe) == recipe


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "list.txt",
            "teal/00.png\n\namber/01.png label\nodd name.png\n{folder}/teal/02.png teal\n",
        ),
        (
            "t.csv",
            "path,label\nteal/00.png,\namber/01.png,x\nodd name.png,y\n{folder}/teal/02.png,\n",
        ),
        ("t.tsv", "path\nteal/00.png\namber/01.png\nodd name.png\n{folder}/teal/02.png\n"),
    ],
)
def test_photos_are_found_in_lists(photos: Path, tmp_path: Path, name: str, content: str):
    folder = tmp_path / "copy"
    shutil.copytree(photos, folder)
    shutil.copy(folder / "teal" / "00.png", folder / "odd name.png")
    (folder / name).write_text(content.format(folder=folder))
    keys = [one.relative_to(folder).as_posix() for one in find_photos([folder / name])]
    assert keys == ["teal/00.png", "amber/01.png", "odd name.png", "teal/02.png"]
    (folder / name).write_text("path\nteal/00.png\nteal/77.png\nteal/88.png\n")
    with pytest.raises(DataError, match=r"names \d files that are not there: .*teal/77\.png, "):
        find_photos([folder / name])


@pytest.mark.parametrize("absent", ["data.folder", "data.lists.all", "data.corrections"])
def test_photos_that_moved_are_told_and_may_be_said_to_be_elsewhere(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str
):
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(photos, here / "pictures")
    paths = sorted((here / "pictures").rglob("*.png"))
    rows = [f"{path.relative_to(here / 'pictures')},{path.parent.name}" for path in paths]
    (here / "list.csv").write_text("\n".join(["path,label", *rows]))
    (here / "fix.csv").write_text(f"path,action\n{rows[0].split(',')[0]},exclude\n")
    monkeypatch.chdir(here)
    where = ["data.folder=pictures", "data.lists=list.csv", "data.corrections=fix.csv"]
    recipe = check_text(RECIPE % "x", Recipe, where).until("head")
    run = train(recipe, tmp_path / "run", store=FeatureStore(tmp_path / "f"), reporter=Silent())
    (here / Path(dict(one.split("=") for one in where)[absent.removesuffix(".all")])).rename(there)
    for ask in (evaluate_run, refit_recipe):
        with pytest.raises(
            DataError, match=rf"there is no {absent} `[\w.]+`, looked for from `/.*here`"
        ):
            ask(run.folder)
        with pytest.raises(SettingError, match=r"only where its photos .*are .* got seed=1\."):
            ask(run.folder, where=["seed=1"])
    there = there.rename(there.with_suffix(".csv")) if "folder" not in absent else there
    moved = [f"{absent}={there}"]
    assert evaluate_run(run.folder, where=moved)["top1"] == run.series("val/top1")[1][-1]
    if there.is_file():  # a list that says something else is no list that moved
        said = there.read_text()
        there.write_text(f"{said}\n")
        with pytest.raises(DataError, match=r"Changed since .* began: "):
            evaluate_run(run.folder, where=moved)
        there.write_text(said)
    assert getattr(refit_recipe(run.folder, moved).data, absent.split(".")[1])


def test_a_refit_begins_from_the_same_weights_wherever_they_lie(
    finished: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here, there = tmp_path / "here", tmp_path / "there.safetensors"
    here.mkdir()
    save_file(timm.create_model("test_resnet").state_dict(), here / "mine.safetensors")
    monkeypatch.chdir(here)
    recipe = check_text(RECIPE % photos, Recipe, ["backbone.weights=file:mine.safetensors"])
    store = FeatureStore(tmp_path / "features")
    run = train(recipe.until("head"), tmp_path / "run", store=store, reporter=Silent())
    assert refit_recipe(run.folder).backbone.weights == "file:mine.safetensors"
    (here / "mine.safetensors").rename(there)
    with pytest.raises(
        WeightsError, match=r"no file `mine\.safetensors`, looked for from `/.*here`"
    ):
        refit_recipe(run.folder)
    moved = [f"backbone.weights=file:{there}"]
    assert refit_recipe(run.folder, moved).backbone.weights == f"file:{there}"
    with pytest.raises(SettingError, match=r"only where its photos are can be set"):
        evaluate_run(run.folder, where=moved)  # which needs none but the run's own
    with pytest.raises(SettingError, match=r"only where its photos and weights are .*got seed=1\."):
        refit_recipe(run.folder, ["seed=1"])
    with pytest.raises(WeightsError, match=r"began from the weights in `mine\.safetensors`"):
        refit_recipe(run.folder, ["backbone.weights=none"])
    save_file(timm.create_model("test_resnet").state_dict(), there)  # other random weights
    with pytest.raises(WeightsError, match=r"there\.safetensors` does not hold the weights that"):
        refit_recipe(run.folder, moved)
    with pytest.raises(SettingError, match=r"began from `backbone\.weights: none`, got 'file:"):
        refit_recipe(finished.folder, moved)

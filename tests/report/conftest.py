"""A run and a study as training would leave them, with names nobody would wish for."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fieldmark.language import LANGUAGES
from fieldmark.report.content import study_page
from fieldmark.report.page import Page
from fieldmark.report.render import render
from fieldmark.studies.design import Design
from fieldmark.studies.executor import work
from fieldmark.studies.run import Run, RunWriter
from fieldmark.studies.study import Study
from fieldmark.studies.trial import Outcome, Trial

SCRIPT = "<script>alert(1)</script>"
CLIMBS = "../../etc/passwd"
LONG = "a" * 300
RIGHT_TO_LEFT = "ציפור\u202egpj.exe"
NAMES = ["Öhreule", SCRIPT, CLIMBS, LONG, RIGHT_TO_LEFT, "鳥 & \"quoted\" 'n' `ticked`"]
PHOTOS = 60
VIEW = {"image_size": 32, "resize_size": 36, "resize": "squash"}

RECIPE = """\
name: base
data: {folder: "%s", image_size: 32}
pooling: {name: compact_bilinear, sketch_dim: 1024}
stages:
  - {name: head, train: head, lr: 1, length: 60 epochs}
"""
STUDY = """\
name: sizes
question: "Does <b>size</b> matter, & the sketch?"
base: base
axes:
  - {key: data.image_size, values: [32, 64, 96]}
  - {key: pooling.sketch_dim, values: [1024, 2048, 4096, 8192]}
seeds: 2
expect: {axis: image_size, direction: up, size: 0.02}
"""


def keys() -> list[str]:
    """Photos of all classes in turn; the first are on the disk, one leads out of its folder."""
    plain = [f"class-{n % 6}/{n:03}.jpg" for n in range(PHOTOS)]
    return [*plain[:-4], f"{SCRIPT}.jpg", CLIMBS, f"{LONG}.jpg", f"{RIGHT_TO_LEFT}/1.jpg"]


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for n, key in enumerate(keys()[:-4]):
        (folder / key).parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(n).integers(0, 255, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / key)
    return folder


def write_run(folder: Path, recipe: str, split: str, skill: float, seed: int = 0) -> float:
    """A finished run whose model names a photo rightly with probability `skill`; its top-1."""
    labels = np.arange(PHOTOS) % len(NAMES)
    lots = np.random.default_rng([seed, 7]).random(PHOTOS)
    guesses = np.where(lots < skill, labels, (labels + 1 + (lots > 0.95)) % len(NAMES))
    probabilities = np.full((PHOTOS, len(NAMES)), 0.05)
    probabilities[np.arange(PHOTOS), guesses] = 0.5 + lots / 4
    probabilities /= probabilities.sum(1, keepdims=True)
    top1 = float((guesses == labels).mean())
    manifest = {
        "class_names": NAMES,
        "counts": {"train": 120, "minitrain": 60, "val": 60, "test": 30},
        "view": VIEW,
        "notes": [f"class names that differ only in case: {SCRIPT}"],
        "skipped": {f"{SCRIPT}.png": "it is no photo: <img src=x onerror=alert(2)>"},
        "machine": {"cpu": SCRIPT, "cores": 2},
        "stages": [
            {
                "name": "head",
                "seconds_preparing": 1.0,
                "seconds_training": 2.0,
                "last_step": 40,
                "frozen_hash": "x",
                "plan": [],
                "pass_size": None,
            }
        ],
    }
    with RunWriter.create(folder, recipe, manifest) as writer:
        for step in range(0, 50, 10):
            metrics = {"train/loss": 2 - step / 40, "train/lr": 1.0} if step else {}
            seen = {f"{split}/loss": 2.2 - step / 40, f"{split}/top1": top1 * (step + 10) / 50}
            writer.record(metrics | seen, step=step, stage="head", epoch=step / 4)
        folds = [n % 5 for n in range(PHOTOS)] if split == "out_of_fold" else None
        writer.predictions(split, keys(), labels, probabilities, folds)
        writer.finish()
    return top1


@pytest.fixture
def run(tmp_path: Path, photos: Path) -> Run:
    write_run(tmp_path / "runs" / "one", RECIPE % photos, "val", 0.6)
    return Run(tmp_path / "runs" / "one")


def run_trials(trials: Sequence[Trial]) -> Iterator[Outcome]:
    for trial in trials:
        recipe = trial.recipe
        skill = 0.35 + recipe.data.image_size / 200
        top1 = write_run(trial.folder, recipe.to_yaml(), "out_of_fold", skill, recipe.seed)
        yield Outcome(trial.folder, "finished", {"out_of_fold/top1": top1}, seconds=1.5)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Study:
    """Twelve cells of two seeds each, all finished; a run `runs/one` is beside it. Not changed."""
    home = tmp_path_factory.mktemp("home")
    write_run(home / "runs" / "one", RECIPE % photos, "val", 0.6)
    design = Design.read(STUDY, lambda _: RECIPE % photos, name="study.yaml")
    study = Study.create(home / "studies" / "sizes", design)
    list(work(study, run_trials))
    study.read_again()
    return study


@pytest.fixture(scope="session")
def page(study: Study) -> Page:
    """The study's."""
    return study_page(study)


@pytest.fixture(scope="session")
def text(page: Page) -> dict[str, str]:
    """The study's page in each language."""
    return {lang: render(page, lang=lang) for lang in LANGUAGES}

"""Runs recorded by hand: ten steps an epoch, one look an epoch, curves as they are given."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldmark.diagnosis.diagnose import RUN_CHECKS
from fieldmark.diagnosis.evidence import gather
from fieldmark.diagnosis.finding import Finding
from fieldmark.studies.run import Run, RunWriter

CLASSES = 10
EPOCH = 10  # steps: 160 photos at batch 16
COUNTS = {"train": 160, "minitrain": 200, "val": 200}
STAGE = {
    "name": "head",
    "train": "head",
    "lr": 1,
    "length": "30 epochs",
    "batch_size": 16,
    "schedule": "cosine",
}
Curves = Mapping[str, Sequence[float] | np.ndarray]


def approach(start: float, end: float, looks: int = 31, *, speed: float = 4.0) -> np.ndarray:
    """From start to end, fast at first: what a healthy curve does."""
    return end + (start - end) * np.exp(-speed * np.linspace(0, 1, looks) * 3)


def healthy(looks: int = 31) -> dict[str, np.ndarray]:
    """All curves of a training with nothing wrong, of so many looks, the first before step 1."""
    rng = np.random.default_rng(0)
    start = np.log(CLASSES)
    curves = {
        "minitrain/loss": approach(start, 0.3, looks),
        "val/loss": approach(start, 0.8, looks),
        "minitrain/top1": approach(0.1, 0.95, looks),
        "val/top1": approach(0.1, 0.80, looks) + rng.normal(0, 0.004, looks),
        "val/calibration_error": approach(0.02, 0.05, looks),
    }
    steps = (looks - 1) * EPOCH
    rates = 0.5 * (1 + np.cos(np.pi * np.linspace(0, 1, steps)))
    more = {
        "train/loss": approach(start, 0.4, steps) * (1 + rng.normal(0, 0.02, steps)),
        "train/lr": rates,
        "train/grad_norm": np.full(steps, 0.5),
        "train/update_ratio": 1e-3 * rates,
        "train/data_seconds": np.full(steps, 0.001),
        "train/compute_seconds": np.full(steps, 0.01),
    }
    return curves | {key: values[EPOCH - 1 :: EPOCH] for key, values in more.items()}


class Recorder:
    """Writes runs into a folder, each into a new one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0

    def __call__(
        self,
        *stages: tuple[Mapping[str, Any], Curves],
        manifest: Mapping[str, Any] | None = None,
        recipe: Mapping[str, Any] | None = None,
        reason: str | None = None,
        predictions: Mapping[str, tuple[Sequence[int], Sequence[int]]] | None = None,
        rehearsal: Mapping[str, Any] | None = None,
    ) -> Run:
        """A run of some stages, each its part of the recipe and its curves; one healthy if none."""
        stages = stages or (({}, healthy()),)
        settings = [STAGE | dict(given) for given, _ in stages]
        text = json.dumps({"data": {"folder": "photos"}, "stages": settings, **(recipe or {})})
        names = [f"species {number}" for number in range(CLASSES)]
        told = {"class_names": names, "counts": COUNTS, "notes": [], **(manifest or {})}
        self.made += 1
        folder = self.folder / f"run-{self.made}"
        with RunWriter.create(folder, text, told) as writer:
            before = 0
            for stage, (_, curves) in zip(settings, stages, strict=True):
                before = _write(writer, stage["name"], curves, before)
            for split, (labels, named) in (predictions or {}).items():
                paths = [f"{split}/{number}.jpg" for number in range(len(labels))]
                writer.predictions(split, paths, labels, np.eye(CLASSES)[list(named)])
            if reason:
                writer.fail(reason)
            else:
                writer.finish()
        if rehearsal is not None:
            (folder / "rehearsal.json").write_text(json.dumps(rehearsal))
        return Run(folder)


def _write(writer: RunWriter, name: str, curves: Curves, before: int) -> int:
    """A stage's curves; those of steps lack the look before the first. Returns its last step."""
    at: dict[int, dict[str, float]] = {}
    for key, values in curves.items():
        first = 1 if key.startswith("train/") else 0
        for number, value in enumerate(values, start=first):
            at.setdefault(before + EPOCH * number, {})[key] = float(value)
    for step, metrics in sorted(at.items()):
        writer.record(metrics, step=step, stage=name, epoch=step / EPOCH)
    return max(at, default=before)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """These records outlive no power cut."""
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def record(tmp_path: Path) -> Recorder:
    """Writes a run by hand."""
    return Recorder(tmp_path)


@pytest.fixture
def look(record: Recorder) -> Callable[..., Finding]:
    """One check's finding of a run recorded by hand: name, then as `record` takes them."""

    def at(name: str, *stages: Any, **more: Any) -> Finding:
        (check,) = [one for one in RUN_CHECKS if one.name == name]
        return check(gather(record(*stages, **more)))

    return at


@pytest.fixture
def well() -> Callable[..., dict[str, np.ndarray]]:
    """Healthy curves, some of them replaced: `well(**{"val/top1": [...]})`; None leaves one out."""

    def curves(looks: int = 31, **changed: Any) -> dict[str, np.ndarray]:
        found = healthy(looks) | changed
        return {key: values for key, values in found.items() if values is not None}

    return curves

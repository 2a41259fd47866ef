"""A run: one recipe, one seed, one folder, with every number the training told us.

::

    recipe.yaml                    the recipe as it was run
    manifest.json                  versions, hardware, class names, split, plan, times, status
    metrics.jsonl                  journal: metrics as they come, and each opening of the test split
    predictions/<split>.parquet    for each photo: path, label, predicted, probabilities
    weights.safetensors            the weights it ended with
    log.txt                        what the terminal showed
    curves.png                     the training curves

``manifest.json`` is the last file that a new run gets, so a folder without it is no run.
Metric keys are paths such as ``val/top1``, fractions are fractions. Nothing here loads torch.
"""

import io
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl

from fieldmark import durable
from fieldmark.errors import RecordError, SettingError
from fieldmark.studies.folders import no_such

FORMAT = 1
RECIPE = "recipe.yaml"
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
WEIGHTS = "weights.safetensors"
LOG = "log.txt"

METRICS_SCHEMA = {
    "step": pl.Int64,
    "epoch": pl.Float64,
    "stage": pl.String,
    "stage_index": pl.Int64,
    "key": pl.String,
    "value": pl.Float64,
    "time": pl.Float64,
}


@dataclass(frozen=True)
class StageSpan:
    """The steps a training stage was recorded at, both ends included."""

    name: str
    first_step: int
    last_step: int


class Run:
    """Reads a run's folder; what it has read it keeps, so make a new one to look again.

    Raises:
        RecordError: the folder is no run, or one of a newer Fieldmark.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        missing = [f"`{n}`" for n in (RECIPE, METRICS, MANIFEST) if not (self.folder / n).is_file()]
        if missing:
            raise RecordError(no_such(self.folder, "run", missing, MANIFEST, "train"))
        self.manifest = _read_manifest(self.folder)

    @cached_property
    def recipe_text(self) -> str:
        """The recipe as it was run, in YAML."""
        return (self.folder / RECIPE).read_text(encoding="utf-8")

    @property
    def status(self) -> str:
        """``running`` (a killed run too), ``finished``, ``failed``, or ``pruned``: ended early."""
        return str(self.manifest["status"])

    @property
    def reason(self) -> str | None:
        """Why a failed run failed, or a pruned one was ended."""
        return self.manifest.get("reason")

    @property
    def class_names(self) -> list[str]:
        """The classes, in the order of the logits."""
        return list(self.manifest["class_names"])

    @property
    def weights_path(self) -> Path:
        """Where the weights it ended with are, if they were saved."""
        return self.folder / WEIGHTS

    def metrics(self) -> pl.DataFrame:
        """Every recorded number in long form: step, epoch, stage, stage_index, key, value, time."""
        rows: list[tuple[Any, ...]] = []
        stages: dict[str, int] = {}
        for record in self.measured:
            index = stages.setdefault(record["stage"], len(stages))
            head = (record["step"], record["epoch"], record["stage"], index)
            rows += [(*head, *metric, record["time"]) for metric in record["metrics"].items()]
        return pl.DataFrame(rows, schema=METRICS_SCHEMA, orient="row")

    @cached_property
    def keys(self) -> list[str]:
        """The metrics recorded, sorted."""
        return sorted({key for record in self.measured for key in record["metrics"]})

    def series(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """One metric's steps (N,) int64 and values (N,) float64; empty where not recorded."""
        found = [record for record in self.measured if key in record["metrics"]]
        steps = np.array([record["step"] for record in found], dtype=np.int64)
        return steps, np.array([record["metrics"][key] for record in found], dtype=np.float64)

    @cached_property
    def stages(self) -> list[StageSpan]:
        """The training stages in their order, with the steps they were recorded at."""
        steps: dict[str, list[int]] = {}
        for record in self.measured:
            steps.setdefault(record["stage"], []).append(record["step"])
        return [StageSpan(name, min(found), max(found)) for name, found in steps.items()]

    @property
    def test_openings(self) -> int:
        """How often the test split was looked at: each look after the first is worth less."""
        return sum(record.get("event") == "test opened" for record in self._records)

    def predictions(self, split: str) -> pl.DataFrame:
        """For each photo of a split: path, label, predicted (names), probabilities (float32 list).

        Raises:
            RecordError: no predictions of this split are stored.
        """
        path = self.folder / "predictions" / f"{split}.parquet"
        if not path.is_file():
            found = sorted(file.stem for file in path.parent.glob("*.parquet"))
            raise RecordError(
                f"`{self.folder}` holds no predictions of `{split}`, only of: "
                f"{', '.join(found) or 'no split'}. Run `fieldmark eval` on it."
            )
        return pl.read_parquet(io.BytesIO(path.read_bytes()))  # its name may be no Unicode

    @cached_property
    def _records(self) -> list[dict[str, Any]]:
        return durable.read(self.folder / METRICS)

    @cached_property
    def measured(self) -> list[dict[str, Any]]:
        """What was recorded at each step, in order: step, epoch, stage, metrics, time."""
        steps: list[dict[str, Any]] = []
        for record in self._records:
            if record.get("event") == "resumed":
                del steps[record["keep"] :]
            elif "metrics" in record:
                steps.append(record)
        return steps


class RunWriter(AbstractContextManager["RunWriter"]):
    """Writes a run's folder; make it with `create` or `open`, the folder has one writer at a time.

    As a context manager it closes the journal, and an exception fails a run still running.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.manifest = manifest
        self._journal = durable.Journal(self.folder / METRICS)

    @classmethod
    def create(cls, folder: Path, recipe_text: str, manifest: Mapping[str, Any]) -> Self:
        """Begin a run in a new or empty folder.

        Args:
            folder: The run's folder.
            recipe_text: The recipe as it is run, in YAML.
            manifest: What is known before the first step; `class_names` among it.

        Raises:
            SettingError: the folder is not empty, or the manifest lacks `class_names`.
        """
        check_room_for_a_run(folder, recipe_text)
        if "class_names" not in manifest:
            raise SettingError(f"A manifest needs `class_names`, got only {sorted(manifest)}.")
        started = {"format": FORMAT, "status": "running", "started": durable.now(), **manifest}
        content = _to_json(started)
        durable.make_folder(folder)
        writer = cls(folder, started)  # first, for it locks out whoever begins here as well
        with ExitStack() as stack:
            stack.callback(writer.close)  # where what follows can't be written
            check_room_for_a_run(folder, recipe_text)
            durable.replace(folder / RECIPE, recipe_text.encode())
            durable.replace(folder / MANIFEST, content)
            stack.pop_all()
        return writer

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Go on writing to a run: to add predictions, or before `resume`."""
        return cls(folder, Run(folder).manifest)

    def record(
        self, metrics: Mapping[str, float], *, step: int, stage: str, epoch: float | None = None
    ) -> None:
        """Write down what was measured after `step` steps of the whole training.

        Args:
            metrics: Key path to number; a fraction is a fraction, not per cent.
            step: Steps done since the training began, all stages counted.
            stage: The stage's name.
            epoch: Passes over the training split since the training began.

        Raises:
            SettingError: a key is no path, or a fraction is out of 0..1.
        """
        numbers = {key: float(value) for key, value in metrics.items()}
        for key, value in numbers.items():
            split, _, name = key.rpartition("/")
            if not split:
                raise SettingError(f"A metric key is a path such as `val/top1`, got `{key}`.")
            if name.startswith("top") and not (0 <= value <= 1 or math.isnan(value)):
                raise SettingError(f"`{key}` must be a fraction in 0..1, got {value}.")
        self._append({"step": step, "epoch": epoch, "stage": stage, "metrics": numbers})

    def resume(self, *, keep: int) -> None:
        """Write down that the run goes on from a checkpoint that knew `keep` records of metrics.

        Readers pass over those written after it, since their steps are taken again.
        """
        self._append({"event": "resumed", "keep": keep})
        self.update_manifest(status="running", reason=None)

    def count_test_opening(self) -> None:
        """Write down that the test split is being looked at; call it before the look."""
        self._append({"event": "test opened"})

    def log(self, line: str) -> None:
        """Add a line to ``log.txt``."""
        durable.append_text(self.folder / LOG, f"{line}\n")

    def predictions(
        self,
        split: str,
        paths: Sequence[str],
        labels: Sequence[int] | np.ndarray,
        probabilities: np.ndarray,
        folds: Sequence[int] | None = None,
    ) -> None:
        """Store what the model said about each photo of a split, under the classes' names.

        Args:
            split: The split's name.
            paths: N paths, as in the data's folder.
            labels: N class indices.
            probabilities: (N, classes), in the order of `class_names`.
            folds: The fold each photo was left out with, N of them, where it was.

        Raises:
            SettingError: the three do not fit each other or the classes.
        """
        names = self.manifest["class_names"]
        wanted = (len(paths), len(names))
        if probabilities.shape != wanted or len(labels) != len(paths):
            raise SettingError(
                f"Predictions of {len(paths)} photos need as many labels and probabilities of "
                f"shape {wanted}, got {len(labels)} labels and shape {probabilities.shape}."
            )
        columns = {
            "path": pl.Series(paths, dtype=pl.String),
            "label": pl.Series([names[i] for i in labels], dtype=pl.String),
            "predicted": pl.Series([names[i] for i in probabilities.argmax(1)], dtype=pl.String),
            "probabilities": pl.Series(probabilities.astype(np.float32)).cast(pl.List(pl.Float32)),
        }
        if folds is not None:
            columns["fold"] = pl.Series(folds, dtype=pl.Int64)
        buffer = io.BytesIO()
        pl.DataFrame(columns).write_parquet(buffer)
        path = self.folder / "predictions" / f"{split}.parquet"
        durable.make_folder(path.parent)
        durable.replace(path, buffer.getvalue())

    def update_manifest(self, **fields: Any) -> None:
        """Set fields of the manifest, all at once or not at all."""
        changed = {**self.manifest, **fields}
        durable.replace(self.folder / MANIFEST, _to_json(changed))
        self.manifest = changed

    def finish(self) -> None:
        """Mark the run as finished and close it."""
        self.update_manifest(status="finished", ended=durable.now())
        self.close()

    def fail(self, reason: str, status: str = "failed") -> None:
        """Mark the run as failed, or as ended otherwise, say why, and close it."""
        self.update_manifest(status=status, reason=reason, ended=durable.now())
        self.close()

    def close(self) -> None:
        """Let go of the journal; the run's status stays as it is."""
        self._journal.close()

    def __exit__(self, kind: type[BaseException] | None, error: object, _: object) -> None:
        """Close the run; an exception fails it if it was still running, if the disk has room."""
        with closing(self._journal):
            if kind is not None and self.manifest["status"] == "running":
                by_hand = issubclass(kind, KeyboardInterrupt)
                self.fail("interrupted by Ctrl-C" if by_hand else f"{kind.__name__}: {error}")

    def _append(self, record: dict[str, durable.JSON]) -> None:
        self._journal.append({**record, "time": durable.now()})


def _to_json(manifest: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SettingError(
            f"A manifest is made of JSON's types without NaN, got {dict(manifest)}: {error}."
        ) from None
    return f"{text}\n".encode()


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        version = manifest["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"`{folder / MANIFEST}` is damaged or not ours: {error!r}. Restore it from a copy."
        ) from None
    if version > FORMAT:
        raise RecordError(
            f"`{folder}` has format {version}, this Fieldmark reads up to {FORMAT}. Upgrade it."
        )
    return manifest


def check_room_for_a_run(folder: Path, recipe_text: str) -> None:
    """Refuse by a `SettingError` what holds more than a run killed before its manifest leaves."""
    left = {RECIPE: recipe_text.encode(), METRICS: b""}
    there = folder.iterdir() if folder.is_dir() else [folder] if folder.exists() else ()
    others = (path for path in there if not durable.is_temporary(path.name))
    if any(path.name not in left or path.read_bytes() != left[path.name] for path in others):
        raise SettingError(f"`{folder}` is not empty, or a file. Name another, or remove it.")

"""Going on with a run that was interrupted, as if it had never stopped."""

import json
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from fieldmark import checked_yaml, durable, machine
from fieldmark.build import Task
from fieldmark.data.dataset import listed
from fieldmark.data.split import Split
from fieldmark.errors import DataError, RecordError, count_of
from fieldmark.ledger import CHECKPOINT, Ledger, Position, Reporter, Silent
from fieldmark.recipe import Recipe, load_recipe
from fieldmark.studies import control
from fieldmark.studies.onlooker import Onlooker
from fieldmark.studies.run import MANIFEST, RECIPE, Run, RunWriter
from fieldmark.train import CHECKPOINT_SECONDS, SPLIT, Training, prepare, split_text, train
from fieldmark.training.checkpoint import load_checkpoint, restore
from fieldmark.training.features import FeatureStore
from fieldmark.training.world import world


def resume(
    folder: Path,
    *,
    store: FeatureStore,
    reporter: Reporter,
    open_test: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Run:
    """Go on with a run that was interrupted, from its last checkpoint.

    The result is the same, bit for bit, as if it had never stopped, on the same machine with the
    same versions; where these changed, the log says so.

    Raises:
        RecordError: the folder is no run, is finished, or its recipe or checkpoint is damaged.
        DataError: the photos, or what is in them, are no longer those the run began with.
    """
    reporter = reporter if world().leads else Silent()
    if world().heard((folder / RECIPE).is_file() and not (folder / MANIFEST).exists()):
        recipe = load_recipe(folder / RECIPE)  # killed before it was a run: nothing is lost
        return train(
            recipe,
            folder,
            store=store,
            reporter=reporter,
            open_test=open_test,
            checkpoint_seconds=checkpoint_seconds,
        )
    run = Run(folder)
    if run.status == "finished":
        raise RecordError(f"{folder} is finished; there is nothing to resume.")
    if world().leads:
        control.begin(folder)
    recipe = checked_yaml.check_text(run.recipe_text, Recipe, name=str(folder))
    check_lists(run, recipe.file_hashes())
    if run.manifest.get("recipe_hash", recipe.hash()) != recipe.hash():
        raise RecordError(
            f"`{folder / RECIPE}` is not what it was when {folder} began. Put back what was there, "
            "or train anew."
        )
    task = prepare(recipe, store, reporter, open_test=open_test)
    _check_same_photos(folder, task)
    path = folder / CHECKPOINT
    checkpoint = load_checkpoint(path) if path.exists() else None
    at = Position(**checkpoint.position) if checkpoint else Position()
    world().wait()  # until all have read what the first will write over
    with RunWriter.open(folder) if world().leads else Onlooker(folder, run.manifest) as writer:
        writer.resume(keep=at.records)
        ledger = Ledger(writer, reporter, at, checkpoint_seconds=checkpoint_seconds)
        ledger.say(f"resumed at step {at.step}")
        for line in _changes(run, task):
            ledger.say(line)
        if checkpoint:
            restore(checkpoint, task.model, None)
        return Training(task, ledger, store, checkpoint).run(open_test=open_test)


def _changes(run: Run, task: Task) -> list[str]:
    """What is no longer as it was when the run began and may change its numbers."""
    before = {"processes": 1} | run.manifest | run.manifest["machine"]
    now = {"processes": world().size, "device": machine.name_of(task.device)} | machine.describe()
    return [
        f"  {name} was {before.get(name)}, is now {value}: numbers may differ"
        for name, value in now.items()
        if before.get(name) != value
    ]


def check_lists(run: Run, now: Mapping[str, str], of: Container[str] | None = None) -> None:
    """Refuse lists, tables and weights files (those in `of`) that say something else than then.

    Raises:
        DataError: names those whose hash in `now` is not the one the run has written down.
    """
    then = run.manifest.get("files", {})
    known = [path for path in then if of is None or path in of]
    changed = [path for path in known if now.get(path) != then[path]]
    if changed:
        raise DataError(
            f"Changed since {run.folder} began: {', '.join(changed)}. Put back what was there, "
            "or train anew."
        )


def check_contents(folder: Path, written: Mapping[str, Any], now: Mapping[str, str]) -> None:
    """Refuse photos in which something else is now than when the run began.

    Args:
        folder: of the run.
        written: its split.json.
        now: a `short_hash` of each photo that is to be looked at, by key.

    Raises:
        DataError: names them.
    """
    then = written.get("contents", {})
    changed = [key for key, content in now.items() if then.get(key, content) != content]
    if changed:
        raise DataError(
            f"{count_of(len(changed), 'photo')} changed since {folder} began: {listed(changed)}. "
            "Put back what was there, or train anew."
        )


def _check_same_photos(folder: Path, task: Task) -> None:
    """Refuse to go on with other photos: the run's split and what is in its files."""
    path = folder / SPLIT
    if not path.exists():  # stopped before it was written, so before any photo was used
        if world().leads:
            durable.replace(path, split_text(task).encode())
        return
    written = json.loads(path.read_text(encoding="utf-8"))
    if Split.from_json(written, task.photos) != task.split:
        raise DataError(
            f"The photos in {task.photos.root} would be split another way now than when {folder} "
            "began. Put them back as they were, or train anew."
        )
    check_contents(folder, written, task.contents)

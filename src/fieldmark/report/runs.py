"""The sections on a single run: curves, photos, what was checked, cost, how to make it again."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldmark.charts.cost import stages_data
from fieldmark.charts.curves import Mark, curves_data, recorded
from fieldmark.checked_yaml import check_text
from fieldmark.errors import FieldmarkError
from fieldmark.language import Said, duration, recognised, said
from fieldmark.metrics import wilson_interval
from fieldmark.recipe import Recipe
from fieldmark.report.evidence import Album, photo_sections
from fieldmark.report.looks import read_looks
from fieldmark.report.page import Cost, Curves, Fact, Figure, Origin, PhotoCheck, Section
from fieldmark.report.thumbnails import MayShow
from fieldmark.studies.judged import judged
from fieldmark.studies.mislabelled import Suspect
from fieldmark.studies.run import Run
from fieldmark.studies.trial import OUT_OF_FOLD

SHOWN = ("cpu", "cores", "system", "python", "fieldmark", "torch", "torchvision", "timm")


def run_answer(run: Run) -> list[Said]:
    """What the run came to, in one sentence."""
    if run.status == "failed":
        return [said("answer.failed", reason=run.reason or "")]
    for split in (OUT_OF_FOLD, "val", "test"):
        _, values = run.series(f"{split}/top1")
        if len(values):
            break
    else:
        return [_answer_without_val(run)]
    value, photos = float(values[-1]), photos_of(run, split)
    low, high = wilson_interval(value, photos) if photos else (value, value)
    key = "answer.run" if run.status == "finished" else "answer.run_so_far"
    told = [said(key, split=said(f"split.{split}"), value=value, low=low, high=high, photos=photos)]
    return [*told, *_by_stage(run, split)]


def _answer_without_val(run: Run) -> Said:
    _, values = run.series("minitrain/top1")
    if photos_of(run, "val") or not len(values):
        return said("answer.nothing_yet")
    return said("answer.no_val", value=float(values[-1]))


def photos_of(run: Run, split: str) -> int:
    """How many photos a split has, as far as the run says."""
    counts = run.manifest.get("counts", {})
    if split == OUT_OF_FOLD:
        return int(counts.get("train", 0)) + int(counts.get("val", 0))
    return int(counts.get(split, 0))


def _by_stage(run: Run, split: str) -> list[Said]:
    """What the last stage added to the one before."""
    ends: dict[str, float] = {}
    table = run.metrics()
    mine = table.filter(table["key"] == f"{split}/top1")
    for stage, value in zip(mine["stage"], mine["value"], strict=True):
        ends[stage] = value
    if len(ends) < 2:
        return []
    (before, first), (last, second) = list(ends.items())[-2:]
    points = 100 * (second - first)
    key = "answer.stage_added" if points >= 0 else "answer.stage_lost"
    return [said(key, stage=last, before=before, points=abs(points), start=first)]


def curves_section(run: Run, marks: Sequence[Mark] = (), before: str = "") -> Curves | None:
    """Loss and accuracy, with what was found at its place."""
    figures = []
    for metric in recorded(run):
        data = curves_data(run, metric, marks)
        told = said(f"told.{metric}_without_val")
        if data.best:
            told = said(f"told.{metric}", value=data.shown(data.best[2]), step=data.best[1])
        figures.append(Figure(f"{before}{metric}", data, told))
    return Curves(figures) if figures else None


def recipe_of(run: Run) -> Recipe | None:
    """The run's recipe, if this Fieldmark can read it here."""
    try:
        return check_text(run.recipe_text, Recipe, name=str(run.folder))
    except (FieldmarkError, OSError):
        return None  # such as a $NAME that is not set on this machine


def run_photos(
    run: Run, may_show: MayShow | None = None, suspects: Sequence[Suspect] = ()
) -> list[Section]:
    """What the photos show, those first whose labels are likely wrong."""
    found = judged(run)
    if found is None:
        return []
    recipe = recipe_of(run)
    folder = Path(recipe.data.folder) if recipe else None
    view = dict(run.manifest.get("view", {}))
    album = Album(found, folder, view, read_looks(run), may_show)
    return list(photo_sections(album, suspects))


def photo_check(run: Run) -> PhotoCheck:
    """What was found when the photos were checked."""
    counts: dict[str, Any] = run.manifest.get("counts", {})
    facts = [
        Fact(said(f"fact.{split}"), said("counts.photos", count=int(counts[split])))
        for split in ("train", "minitrain", "val", "test")
        if split in counts
    ]
    facts.insert(0, Fact(said("fact.classes"), str(len(run.class_names))))
    if run.test_openings:
        facts.append(Fact(said("fact.test_openings"), str(run.test_openings)))
    notes = [recognised(str(note), "notes") for note in run.manifest.get("notes", [])]
    return PhotoCheck(facts, notes, dict(run.manifest.get("skipped", {})))


def run_cost(run: Run) -> Cost:
    """What the stages took."""
    stages = run.manifest.get("stages", [])
    facts = []
    if seconds := seconds_of(run):
        facts.append(Fact(said("fact.seconds"), duration(seconds)))
    rows = [(s["name"], s["seconds_preparing"], s["seconds_training"]) for s in stages]
    figures = [Figure("stages", stages_data(rows), said("told.stages"))] if rows else []
    return Cost(facts, figures)


def seconds_of(run: Run) -> float | None:
    """From its start to its end, or to its last record."""
    started, ended = run.manifest.get("started"), run.manifest.get("ended")
    return float(ended) - float(started) if started and ended else None


def machine_facts(manifest: Mapping[str, Any]) -> list[Fact]:
    """What the numbers depend on besides the recipe."""
    machine = manifest.get("machine", {})
    facts = [Fact(said(f"machine.{name}"), str(machine[name])) for name in SHOWN if name in machine]
    for name in ("backbone", "precision", "threads", "device", "recipe_hash"):
        if name in manifest:
            facts.append(Fact(said(f"machine.{name}"), str(manifest[name])))
    return facts


def run_origin(run: Run) -> Origin:
    """How to make it again."""
    recipe = str(run.folder / "recipe.yaml")
    command = shlex.join(["fieldmark", "train", recipe, "--out", f"{run.folder}-again"])
    return Origin(command, machine_facts(run.manifest), {"recipe.yaml": run.recipe_text})

"""What was tried before training: a section of a run's page, and a rehearsal's page of its own."""

import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fieldmark import durable
from fieldmark.charts.rates import rates_data
from fieldmark.diagnosis.before_training import (
    is_far_above,
    leads_in_loss,
    leads_in_top1,
    learns,
    lowest_of,
    on_scale,
)
from fieldmark.diagnosis.evidence import REHEARSAL, read_rehearsal
from fieldmark.errors import RecordError
from fieldmark.language import Said, duration, said
from fieldmark.report.page import Fact, Figure, Origin, Page, Rehearsed, Tried
from fieldmark.report.runs import machine_facts
from fieldmark.studies.run import RECIPE

Record = Mapping[str, Any]


def rehearsed_section(
    record: Record, rates: Mapping[str, float], fired: Collection[str] = ()
) -> Rehearsed | None:
    """What a rehearsal found, as sentences and as pictures of its range tests.

    Args:
        record: As `fieldmark rehearse` writes it; what a run's folder holds may lack parts.
        rates: Stage -> lr of the training that is spoken of; the rehearsed one's where missing.
        fired: Names of the checks that fire.
    """
    found = tried(record, rates, fired)
    figures = []
    for stage, test in (record.get("range") or {}).items():
        key = "told.rates" if test["band"] else "told.rates_without"
        data = rates_data(stage, test, rates.get(stage, test["stage_lr"]))
        figures.append(Figure(f"rates-{stage}", data, said(key, stage=stage)))
    facts = [Fact(said("fact.rehearsal"), each["name"]) for each in record.get("from", ())]
    return Rehearsed(found, facts, figures) if found else None


def rehearsal_page(folder: Path) -> Page:
    """The page of a rehearsal.

    Raises:
        RecordError: its record can't be read.
    """
    try:
        return _page(folder, read_rehearsal(folder), (folder / RECIPE).read_text(encoding="utf-8"))
    except (KeyError, TypeError, OSError, UnicodeError) as error:
        raise RecordError(
            f"`{folder / REHEARSAL}` is damaged or not ours: {error!r}. Run `fieldmark rehearse` "
            "again."
        ) from None


def _page(folder: Path, record: Record, recipe: str) -> Page:
    section = rehearsed_section(record, {})
    bad = [each.told for each in section.tried if not each.is_well] if section else []
    stages = list(record["range"])
    only = ["--stage", stages[0]] if len(stages) == 1 else []
    command = shlex.join(["fieldmark", "rehearse", str(folder / RECIPE), *only])
    origin = Origin(command, machine_facts(record), {RECIPE: recipe})
    return Page(
        kind="rehearsal",
        name=folder.resolve().name,
        title=str(record["recipe"]),
        answer=bad[:1] or [said("answer.rehearsed")],
        state="finished",
        progress=(1, 1),
        facts=[
            Fact(said("fact.classes"), str(record["classes"])),
            Fact(said("fact.seconds"), duration(record["seconds"])),
        ],
        sections=[*([section] if section else []), origin],
        made=durable.now(),
    )


def tried(
    record: Record, rates: Mapping[str, float] | None = None, fired: Collection[str] = ()
) -> list[Tried]:
    """A sentence for each experiment, in the order they were made; arguments as above."""
    found = []
    if record.get("fed") and not on_scale(record["fed"]):
        numbers = {name: record["fed"][name] for name in ("mean", "spread")}
        found.append((said("rehearsed.off_scale", **numbers), False, "photos_off_scale"))
    if record.get("overfit"):
        found.append(_by_heart(record["overfit"], record["stage"]))
    if record.get("blank"):
        found.append(_blank(record["blank"]))
    for stage, test in (record.get("range") or {}).items():
        found.append(_rates(stage, test, (rates or {}).get(stage, test["stage_lr"])))
    return [
        Tried(told, is_well, check if check in fired else None) for told, is_well, check in found
    ]


Outcome = tuple[Said, bool, str]


def _by_heart(found: Record, stage: str) -> Outcome:
    loss = said("rehearsed.no_loss") if found["loss"] is None else f"{abs(found['loss']):.3f}"
    numbers = {name: found[name] for name in ("images", "top1", "steps", "trainable")}
    seen = said("rehearsed.by_heart_seen", **numbers, loss=loss, stage=stage)
    if found["learned"]:
        told, is_well = said("rehearsed.by_heart", seen=seen), True
    elif learns(found) and not found["reason"]:
        told, is_well = said("rehearsed.slowly", seen=seen), True
    else:
        why = found["reason"] or said("rehearsed.mend")
        told, is_well = said("rehearsed.not_by_heart", seen=seen, why=why), False
    return told, is_well, "cannot_overfit_few"


def _blank(found: Record) -> Outcome:
    real, blank, photos = found["real_top1"], found["blank_top1"], found["images"]
    steps = found["steps"]
    seen = said("rehearsed.blank_seen", real=real, blank=blank, photos=photos, steps=steps)
    if found["reason"]:
        told, is_well = said("rehearsed.looks_unknown", seen=seen, reason=found["reason"]), False
    elif leads_in_top1(found):
        told, is_well = said("rehearsed.looks", seen=seen), True
    elif leads_in_loss(found):
        lead = found["loss_lead"]
        told, is_well = said("rehearsed.looks_slowly", seen=seen, lead=lead), True
    else:
        told, is_well = said("rehearsed.looks_not", seen=seen), False
    return told, is_well, "blank_photos_do_as_well"


def _rates(stage: str, found: Record, lr: float) -> Outcome:
    after = tuple(
        said("rehearsed.after", steps=steps, stage=before)
        for before, steps in found["after"].items()
    )
    begun = said("rehearsed.begun", after=after) if after else ""
    check = "rate_far_above_range" if is_far_above(found, lr) else "no_band_of_rates"
    if found["band"] is None:
        ends = {"low": found["lr"][0], "high": found["lr"][-1]}
        rises = {"rises": found["rises"]} if found["why"] == "plateau" else {}
        why = said(f"rehearsed.why.{found['why']}", **ends, **rises)
        return said("rehearsed.no_band", stage=stage, begun=begun, why=why), False, check
    low, high = found["band"]
    place = "inside" if low <= lr <= high else "below" if lr < low else "above"
    is_ladder = found.get("each")
    tried = {"steps": found["steps"], "rates": len(found["lr"])} if is_ladder else {}
    told = said(
        "rehearsed.band_each" if is_ladder else "rehearsed.band",
        stage=stage,
        begun=begun,
        low=low,
        high=high,
        own=said(f"rehearsed.{place}", lr=lr),
        lowest=lowest_of(found),
        seeds=len(found["seeds"]),
        batch=found["batch_size"],
        decay=found["weight_decay"],
        **tried,
    )
    return told, place == "inside", check

"""Rehearsals of recipes like those that ship: healthy ones, and ones with faults to be named.

Healthy are recipes whose runs a grid called so before any was rehearsed. What names which fault was
fixed before any was measured. Two are planted that are beyond a rehearsal, as docs/diagnosis.md
says, and counted apart: labels of which only a part is wrong, and a mark that tells the class.
"""

import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from curves.bank import Builder, sooner
from curves.faults import Best
from curves.photos import Entry, shuffled_labels
from curves.settings import Setting
from fieldmark import durable
from fieldmark.checked_yaml import check_text
from fieldmark.ledger import Silent
from fieldmark.recipe import Recipe
from fieldmark.rehearse import rehearse
from fieldmark.rehearsed import RECORD
from fieldmark.studies.run import RECIPE

LEARNS, LOOKS, SCALE = "cannot_overfit_few", "blank_photos_do_as_well", "photos_off_scale"
ABOVE, BAND = "rate_far_above_range", "no_band_of_rates"
PARTLY = 0.4
ABSURD = 1e4
SEEDS = 3
GENTLE = "/gentle/"

Plant = Callable[[Setting, Best], Recipe]


@dataclass(frozen=True)
class Rehearsed:
    """A rehearsal, and what is known of its recipe.

    Attributes:
        folder: below the bank; holds `rehearsal.json`.
        run: one of its setting's grid, below the bank too.
        fault: what was planted; None: nothing.
    """

    folder: str
    run: str
    fault: str | None


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        checks: those whose finding names it.
        beyond: whether a rehearsal is not made for it.
    """

    name: str
    checks: tuple[str, ...]
    plant: Plant = field(repr=False)
    beyond: bool = False


def _head(setting: Setting, best: Best, **keys: Any) -> dict[str, Any]:
    return {**setting.head(), "lr": best.lr, "weight_decay": best.weight_decay, **keys}


def _rate(times: float) -> Plant:
    return lambda setting, best: setting.recipe(_head(setting, best, lr=times * best.lr))


def _bias_alone(setting: Setting, best: Best) -> Recipe:
    """A pattern that was meant to match more."""
    return setting.recipe(_head(setting, best, train={"head.classifier.bias": 1, "*": 0}))


def _normalised(mean: Sequence[float], std: Sequence[float]) -> Plant:
    def plant(setting: Setting, best: Best) -> Recipe:
        backbone = {**setting.base()["backbone"], "mean": list(mean), "std": list(std)}
        return setting.recipe(_head(setting, best), backbone=backbone)

    return plant


def _listed(variant: str, change: Callable[[Setting, list[Entry]], list[Entry]]) -> Plant:
    """A fault that lies in the photos or their labels."""

    def plant(setting: Setting, best: Best) -> Recipe:
        entries = change(setting, setting.entries())
        return setting.recipe(_head(setting, best), entries=entries, variant=variant)

    return plant


def _dealt_anew(setting: Setting, entries: list[Entry]) -> list[Entry]:
    """All labels of train dealt anew, as where two lists are put side by side in other orders."""
    train = [place for place, entry in enumerate(entries) if entry.split == "train"]
    found = list(entries)
    for place, other in zip(train, setting.rng("dealt").permutation(train), strict=True):
        found[place] = entries[place]._replace(label=entries[other].label)
    return found


def _partly_wrong(setting: Setting, entries: list[Entry]) -> list[Entry]:
    return shuffled_labels(entries, PARTLY, setting.rng("labels"))


def _all_alike(setting: Setting, entries: list[Entry]) -> list[Entry]:
    """One photo in place of all, as where a path is put together wrongly."""
    shown = [entry._replace(path=entries[0].path) for entry in entries]
    return _redrawn(setting, "alike", shown, lambda image, _: image)


def _marked(setting: Setting, entries: list[Entry]) -> list[Entry]:
    """The class told by the colour of a border, in train and val, the drawing by chance."""
    names = sorted({entry.label for entry in entries})
    paths = setting.rng("marked").permutation([entry.path for entry in entries])
    colours = [f"hsl({360 * n // len(names)}, 100%, 50%)" for n in range(len(names))]
    labels = [entry.label for entry in entries]

    def marked(image: Image.Image, number: int) -> Image.Image:
        colour = colours[names.index(labels[number])]
        return ImageOps.expand(image, round(0.2 * image.width), colour)

    shown = [e._replace(path=str(path)) for e, path in zip(entries, paths, strict=True)]
    return _redrawn(setting, "marked", shown, marked)


def _redrawn(
    setting: Setting,
    name: str,
    entries: Sequence[Entry],
    change: Callable[[Image.Image, int], Image.Image],
) -> list[Entry]:
    """The entries with each photo changed; the drawings themselves are left alone."""
    root, found = setting.photos(), []
    for number, entry in enumerate(entries):
        path = f"changed/{setting.name}-{name}/{number:04d}.jpg"
        if not (root / path).exists():
            durable.make_folder((root / path).parent)
            with Image.open(root / entry.path) as image:
                buffer = io.BytesIO()
                told = str(number)  # so that no file is another's copy
                change(image, number).save(buffer, "JPEG", quality=90, comment=told)
            durable.replace(root / path, buffer.getvalue(), sync=False)
        found.append(entry._replace(path=path))
    return found


FAULTS: tuple[Fault, ...] = (
    Fault("all labels dealt anew", (LOOKS,), _listed("dealt", _dealt_anew)),
    Fault("photos all alike", (LEARNS, LOOKS), _listed("alike", _all_alike)),
    Fault("photos washed out", (LEARNS, LOOKS, SCALE), _normalised([0.5] * 3, [500.0] * 3)),
    Fault("photos from 0 to 255", (LEARNS, LOOKS, SCALE), _normalised([0.0] * 3, [1 / 255] * 3)),
    Fault("only the bias trains", (LEARNS, LOOKS), _bias_alone),
    Fault("lr x 10,000", (LEARNS, LOOKS, ABOVE, BAND), _rate(ABSURD)),
    Fault("lr / 10,000", (LEARNS, LOOKS, BAND), _rate(1 / ABSURD)),
    Fault("labels partly wrong", (LOOKS,), _listed("partly", _partly_wrong), beyond=True),
    Fault("a border tells the class", (LOOKS,), _listed("marked", _marked), beyond=True),
)


def rehearsals(setting: Setting) -> Iterator[Rehearsed]:
    """The healthy recipes of a setting, and every other fault; what is there already is kept."""
    builder = Builder(setting)
    grid, best = builder.grid()
    healthy = [one for one in builder.sound(grid, best) if one.kind == "healthy"]
    builder.drop_weights()
    slow = [one for one in healthy if GENTLE in one.folder]  # of two stages, a minute each
    run = f"{setting.name}/{next(iter(grid.values()))}"
    for one in healthy:
        if one not in slow[1:]:
            text = (setting.bank / one.folder / RECIPE).read_text(encoding="utf-8")
            name = "healthy/" + one.folder.removeprefix(f"{setting.name}/").replace("/", "-")
            yield _made(builder, name, partial(check_text, text, Recipe), run, None)
    for number, fault in enumerate(FAULTS):
        if (setting.number + number) % 2 == 0:
            name = f"faults/{fault.name.replace(' ', '-').replace('/', 'over')}"
            yield _made(builder, name, partial(fault.plant, setting, best), run, fault.name)


def _made(
    builder: Builder, name: str, recipe: Callable[[], Recipe], run: str, fault: str | None
) -> Rehearsed:
    folder: Path = builder.setting.folder / "rehearsals" / name
    if not (folder / RECORD).is_file():
        shutil.rmtree(folder, ignore_errors=True)  # what an interruption left
        with sooner():
            rehearse(recipe(), folder, store=builder.store, reporter=Silent(), seeds=SEEDS)
    return Rehearsed(f"{builder.setting.name}/rehearsals/{name}", run, fault)


def record_of(one: Rehearsed, bank: Path) -> dict[str, Any]:
    """What a rehearsal found."""
    found: dict[str, Any] = json.loads((bank / one.folder / RECORD).read_bytes())
    return found

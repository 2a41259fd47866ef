"""Settings of the bank: what varies between healthy trainings, and the recipe of each."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from curves.photos import Entry, deal, drawings, write_list
from fieldmark.recipe import Recipe

Split = Literal["tune", "held-back"]
SPLITS: tuple[Split, ...] = ("tune", "held-back")

RATES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # of the head, whose features have length 1
DECAYS = (0.0, 1e-5, 1e-4, 1e-3)
GENTLE_RATES, GENTLE_DECAYS = (3e-4, 1e-3, 3e-3), (0.0, 5e-4)  # of all layers

MOST_CLASSES, MOST_TRAIN = 6, 16  # where the backbone trains

POOLINGS: tuple[dict[str, Any], ...] = (
    {"name": "average"},
    {"name": "gem"},
    {"name": "compact_bilinear", "sketch_dim": 512},
    {"name": "compact_bilinear", "sketch_dim": 2048},
)


@dataclass(frozen=True)
class Setting:
    """What a training is like, apart from its rate and decay; drawn from (split, number).

    Attributes:
        as_shipped: whether the head's stage says `train: head`, as the recipes that ship do: GeM's
            exponent stands still. Else it moves at the head's rate, as it did when the published
            rates of curves were taken. Other poolings train nothing, so there it is the same.
    """

    split: Split
    number: int
    bank: Path
    as_shipped: bool = False

    @property
    def name(self) -> str:
        return f"{'shipped/' if self.as_shipped else ''}{self.split}-{self.number:02d}"

    @property
    def folder(self) -> Path:
        return self.bank / self.name

    def rng(self, *purpose: str | int) -> np.random.Generator:
        """Chance of one purpose, as ("labels", 3), unrelated to that of all others."""
        text = repr((self.split, self.number, *purpose)).encode()
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))

    @property
    def guide(self) -> int:
        """Which drawings: the two splits share not one."""
        return 4 * SPLITS.index(self.split) + self.number % 4

    def photos(self) -> Path:
        return drawings(self.bank, self.guide)

    def entries(self) -> list[Entry]:
        rng = self.rng("photos")
        classes = int(rng.choice([4, 6, 8, 12]))
        train = int(rng.choice([12, 20, 32]))
        return deal(classes, train, 28 if classes == 4 else 20 if classes < 12 else 16, rng)

    def base(self) -> dict[str, Any]:
        """The recipe's keys without photos and stages."""
        rng = self.rng("recipe")
        return {
            "seed": int(rng.integers(1000)),
            "backbone": {"level": int(rng.choice([3, -1]))},
            "pooling": dict(POOLINGS[rng.integers(len(POOLINGS))]),
            "precision": "float32",
            "threads": 1,
        }

    def head(self) -> dict[str, Any]:
        """The keys of a stage that trains the head, without rate and decay."""
        rng = self.rng("head")
        return {
            "name": "head",
            "train": "head" if self.as_shipped else {"backbone.*": 0, "*": 1},
            "length": f"{rng.choice([20, 30, 40])} epochs",
            "batch_size": int(rng.choice([16, 32])),
            "schedule": str(rng.choice(["cosine", "constant", "one_cycle"])),
        }

    def gentle(self, rate: float, decay: float) -> dict[str, Any]:
        """The keys of a stage that trains all layers."""
        return {
            "name": "all",
            "train": {"backbone.*": 0.1, "*": 1},
            "lr": rate,
            "weight_decay": decay,
            "length": "3 epochs",
            "batch_size": 16,
            "schedule": {"name": "cosine", "warmup": "20 %"},
        }

    def recipe(
        self,
        *stages: Mapping[str, Any],
        entries: list[Entry] | None = None,
        variant: str = "as-dealt",
        small: bool = False,
        **keys: Any,
    ) -> Recipe:
        """A recipe of this setting.

        Args:
            stages: their keys, whole.
            entries: the photos, where they are not as dealt.
            variant: what the photos' list is called then.
            small: few photos, small ones, and half a backbone, where that trains.
            keys: of the recipe, in place of the setting's own.
        """
        size = 64 if small else int(self.rng("size").choice([64, 96]))
        variant += "-small" if small else ""
        path = self.folder / "lists" / f"{variant}.csv"
        if not path.is_file():
            chosen = entries or self.entries()
            write_list(path, fewer(chosen) if small else chosen)
        data = {
            "folder": str(self.photos()),
            "lists": str(path),
            "split": "official",
            "image_size": size,
            "mirror": True,
        }
        base = self.base() | ({"backbone": {"level": 3}} if small else {})
        return Recipe.model_validate({"data": data, **base, **keys, "stages": list(stages)})


def fewer(entries: list[Entry]) -> list[Entry]:
    """Of the first few classes only: what a stage that trains the backbone takes in two seconds."""
    names = sorted({entry.label for entry in entries})[:MOST_CLASSES]
    kept, seen = [], Counter[str]()
    for entry in entries:
        seen[entry.label] += entry.split == "train"
        if entry.label in names and (entry.split == "val" or seen[entry.label] <= MOST_TRAIN):
            kept.append(entry)
    return kept

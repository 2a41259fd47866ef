"""Whether verdicts keep their word, on models whose truth is known and on real predictions.

`truth.worlds` draws answers of recipes whose top-1 is known; with --runs real predictions are drawn
from again and again. A share misses its target where it is off by over three standard errors: of
some sixty lines a few are off by two.

    python bench/verdicts.py
    python bench/verdicts.py --quick --json
    python bench/verdicts.py --runs RUNS --split test
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations, product
from pathlib import Path
from typing import Self

import numpy as np

from fieldmark.errors import FieldmarkError, count_of
from fieldmark.recipe import load_recipe
from fieldmark.studies.answers import Answers, read_answers
from fieldmark.studies.compare import compare
from fieldmark.studies.effects import AnsweredCell, interactions, main_effects
from fieldmark.studies.run import RECIPE, Run
from fieldmark.studies.selection import best_cell, cheapest_cell
from fieldmark.studies.spread import SeedSpread, pooled_spread
from fieldmark.studies.verdict import Verdict
from truth.worlds import Laboratory, World

Found = tuple[Verdict, float]  # and what the difference truly is
COVERED = (0.93, 0.97)  # the upper end from five seeds on
MOST_FALSE = 0.05  # real-verdicts where there is no effect
GAIN = 0.03  # the effect whose power is printed
TOP1 = 0.75
PHOTOS = (300, 1389)
SEEDS = (1, 3, 5)


WORLDS = {
    "crossed": World(),
    "loud seeds": World(seed=0.12),
    "shared seeds": World(seed=0.08, shared=0.5),
    "near twins": World(by_recipe=0.05),
    "few errors apart": World(photo=2.5, by_recipe=0.1, noise=0.15, seed=0.01),
    "imbalanced": World(classes=50),
    "five folds": World(fold_model=0.05, fold_photos=0.03),
    "five folds, imbalanced": World(fold_model=0.05, fold_photos=0.03, classes=50),
}


@dataclass
class Row:
    """One line of the table: shares of repeats, the half width in points of the photos."""

    world: str
    photos: int
    seeds: int
    repeats: int
    covered: float
    false_real: float
    half_width: float
    power: float  # real, with an effect
    noise: float  # noise, without one
    missed: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, world: str, photos: int, seeds: int, without: list[Found], having: list[Found]
    ) -> Self:
        """From verdicts and truths, without an effect and with one."""
        none, some = ([verdict for verdict, _ in found] for found in (without, having))
        row = cls(
            world,
            photos,
            seeds,
            len(none),
            share(v.low <= truth <= v.high for v, truth in (*without, *having)),
            share(v.answer == "real" for v in none),
            100 * float(np.mean([(v.high - v.low) / 2 for v in some])),
            share(v.answer == "real" for v in some),
            share(v.answer == "noise" for v in none),
        )
        low, high = COVERED
        if row.covered < low - slack(low, 2 * row.repeats):
            row.missed.append("covers too little")
        if seeds >= 5 and row.covered > high + slack(high, 2 * row.repeats):
            row.missed.append("covers too much")
        if row.false_real > MOST_FALSE + slack(MOST_FALSE, row.repeats):
            row.missed.append("real without effect")
        return row

    def line(self) -> str:
        return (
            f"{self.world:23} {self.photos:6} {self.seeds:5} {self.repeats:7} {self.covered:8.1%} "
            f"{self.false_real:10.1%} {self.half_width:8.1f} {self.power:6.0%} "
            f"{self.noise:6.0%}  {'; '.join(self.missed) or 'ok'}"
        )


def share(hits: Iterable[bool]) -> float:
    return float(np.mean(list(hits)))


def slack(target: float, count: int) -> float:
    return 3 * float(np.sqrt(target * (1 - target) / count))


HEADER = (
    f"{'world':23} {'photos':>6} {'seeds':>5} {'repeats':>7} {'covered':>8} "
    f"{'false real':>10} {'± points':>8} {'power':>6} {'noise':>6}"
)


def repeat(
    world: World, photos: int, seeds: int, gain: float, repeats: int, *, apart: bool, pool: bool
) -> list[Found]:
    """Verdicts and truths of B - A, where B is better by `gain`."""
    laboratory = Laboratory(world, photos, [TOP1, TOP1 + gain], seed=photos + seeds)
    found = []
    for _ in range(repeats):
        (a, b), truths = laboratory.draw(seeds, apart=apart)
        spread = pooled(laboratory) if pool else None  # then the claim is about the recipes
        found.append((compare(a, b, spread=spread), gain if pool else truths[1] - truths[0]))
    return found


def measure(
    name: str,
    world: World,
    photos: int,
    seeds: int,
    repeats: int,
    *,
    apart: bool = False,
    pool: bool = False,
) -> Row:
    """Repeat a comparison without an effect, and one with `GAIN`.

    With one seed the claim is about two models. Those of equal recipes do differ, by their seeds'
    luck, so there is no effect only where seeds do nothing.
    """
    still = replace(world, seed=0.0) if seeds == 1 and not pool else world
    without, having = (
        repeat(each, photos, seeds, gain, repeats, apart=apart, pool=pool)
        for each, gain in ((still, 0.0), (world, GAIN))
    )
    return Row.of(name, photos, seeds, without, having)


def pooled(laboratory: Laboratory) -> SeedSpread:
    """As a study of three other recipes, three seeds each, would give it."""
    return pooled_spread([laboratory.draw(3)[0][0] for _ in range(3)])


def known_rows(repeats: int, *, quick: bool) -> Iterator[Row]:
    for (name, world), photos, seeds in product(WORLDS.items(), PHOTOS, SEEDS):
        if not quick or photos == PHOTOS[0]:
            yield measure(name, world, photos, seeds, repeats)
    plain = WORLDS["crossed"]
    for photos in PHOTOS[: 1 if quick else 2]:
        yield measure("crossed", plain, photos, 2, repeats)
        yield measure("other seeds for B", WORLDS["loud seeds"], photos, 5, repeats, apart=True)
        for seeds in (1, 3):
            yield measure("seed spread pooled", plain, photos, seeds, 2 * repeats, pool=True)


def smallest_spreads(repeats: int) -> dict[str, float]:
    """Real without an effect in the fifth of studies whose pooled spread came out smallest.

    A study's comparisons share its spread, so there they would err together.
    """
    figures = {}
    for photos, seeds in product(PHOTOS, (1, 3)):
        laboratory = Laboratory(World(), photos, [TOP1, TOP1], seed=photos + seeds + 1)
        found = []
        for _ in range(repeats):
            (a, b), _ = laboratory.draw(seeds)
            spread = pooled(laboratory)
            found.append((spread.variance, compare(a, b, spread=spread).answer == "real"))
        each = count_of(seeds, "seed")
        what = f"real in the fifth with the smallest spread, {photos} photos, {each}"
        figures[what] = share(real for _, real in sorted(found)[: repeats // 5])
    return figures


AXES = {"size": (224, 336, 448), "dim": (1024, 2048, 4096, 8192)}


def grids(repeats: int, photos: int, seeds: int, *, flat: bool) -> dict[str, float]:
    """3 x 4 cells, alike or spread over 6 points: false alarms, and the best cell's optimism."""
    settings = [dict(zip(AXES, levels, strict=True)) for levels in product(*AXES.values())]
    tops = np.full(12, TOP1) if flat else TOP1 + np.linspace(-0.03, 0.03, 12)
    world = replace(World(), seed=0.0) if seeds == 1 and flat else World()  # as in `measure`
    laboratory = Laboratory(world, photos, tops.tolist(), seed=2)
    main, crossed, worse, gaps, optimism = [], [], [], [], []
    for _ in range(repeats):
        answers, truths = laboratory.draw(seeds)
        cells = [
            AnsweredCell(s, a, cost=i)
            for i, (s, a) in enumerate(zip(settings, answers, strict=True))
        ]
        best = best_cell(cells)
        gaps.append(best.measured - truths[best.cell])
        optimism.append(best.optimism)
        main.append(any(e.verdict.answer == "real" for e in main_effects(cells)))
        crossed.append(any(i.verdict.answer == "real" for i in interactions(cells)))
        worse.append(cheapest_cell(cells).cell != 0)
    figures = {
        "best cell promises too much by, points": 100 * float(np.mean(gaps)),
        "of it foretold, points": 100 * float(np.mean(optimism)),
    }
    alarms = {
        "any main effect real": main,
        "any interaction real": crossed,
        "cheapest shown worse": worse,
    }
    return figures | {name: float(np.mean(found)) for name, found in alarms.items()}


def grid_figures(repeats: int, *, quick: bool) -> tuple[dict[str, float], list[str]]:
    figures, missed = {}, []
    for photos, seeds in [(300, 1)] if quick else [(300, 1), (1389, 3)]:
        for flat in (True, False):
            where = (
                f"{'alike' if flat else '6 points'}, {photos} photos, {count_of(seeds, 'seed')}: "
            )
            found = grids(repeats, photos, seeds, flat=flat)
            figures |= {where + name: value for name, value in found.items()}
            most = MOST_FALSE + slack(MOST_FALSE, repeats)
            missed += [
                where + name
                for name, value in found.items()
                if flat and "points" not in name and value > most
            ]
    return figures, missed


def foretold(repeats: int) -> dict[str, float]:
    """How often the seeds or photos that `cannot tell` asks for decide: 80 % if it foresees well.

    Asked where the difference seen happens to be the true one.
    """
    world, photos, seeds = WORLDS["crossed"], PHOTOS[0], SEEDS[1]
    having = repeat(world, photos, seeds, GAIN, 2 * repeats, apart=False, pool=False)
    asked = [v.needs for v, _ in having if v.needs and abs(v.difference - GAIN) < 0.005]
    more = {
        kind: int(np.median([getattr(needs, kind) or 10**4 for needs in asked]))
        for kind in ("seeds", "photos")
    }
    figures: dict[str, float] = {
        f"asked for, with {photos} photos and {seeds} seeds: {k}": n for k, n in more.items()
    }
    for kind, counts in (
        ("seeds", (photos, seeds + more["seeds"])),
        ("photos", (photos + more["photos"], seeds)),
    ):
        found = repeat(world, *counts, GAIN, repeats, apart=False, pool=False)
        figures[f"decided with these {kind}"] = share(v.answer != "cannot tell" for v, _ in found)
    return figures


def real_rows(folder: Path, split: str, repeats: int) -> Iterator[Row]:
    """Resample photos, and seeds where there are several, of every two recipes' predictions.

    The table is the population, so the truth is its own difference. Where A's and B's answers to a
    photo are exchanged by lot, for all seeds at once, there is no effect.
    """
    rng = np.random.default_rng(3)
    for (name_a, a), (name_b, b) in combinations(real_answers(folder, split).items(), 2):
        if a.photos != b.photos:
            continue
        most = min(len(a.seeds), len(b.seeds))
        sizes = sorted({min(PHOTOS[0], a.right.shape[1]), a.right.shape[1]})
        for photos, seeds in product(sizes, [seeds for seeds in SEEDS if seeds <= most]):
            yield resample(f"{name_a}:{name_b}"[:23], a, b, photos, seeds, repeats, rng)


def resample(
    name: str,
    a: Answers,
    b: Answers,
    photos: int,
    seeds: int,
    repeats: int,
    rng: np.random.Generator,
) -> Row:
    if seeds == 1:
        a, b = (Answers(each.right[0]) for each in (a, b))
    without, having = [], []
    for _ in range(repeats):
        drawn = rng.integers(a.right.shape[1], size=photos)
        right = [
            each.right[np.ix_(rng.integers(len(each.seeds), size=seeds), drawn)] for each in (a, b)
        ]
        having.append((compare(*map(Answers, right)), b.top1 - a.top1))
        lot = rng.random(photos) < 0.5
        exchanged = [np.where(lot, *pair) for pair in (right, right[::-1])]
        without.append((compare(*map(Answers, exchanged)), 0.0))
    return Row.of(name, photos, seeds, without, having)


def real_answers(folder: Path, split: str) -> dict[str, Answers]:
    """By recipe, what its runs in the folder said."""
    groups: dict[str, dict[int, Run]] = defaultdict(dict)
    for path in sorted(folder.rglob(RECIPE)):
        try:
            run, recipe = Run(path.parent), load_recipe(path)
            run.predictions(split)
        except FieldmarkError:
            continue
        groups[recipe.model_copy(update={"seed": 0}).hash()][recipe.seed] = run
    of_recipes = (list(runs.values()) for runs in groups.values())
    return {runs[0].folder.name: read_answers(runs, split) for runs in of_recipes}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats and sizes")
    parser.add_argument("--json", action="store_true", help="print one JSON object as well")
    parser.add_argument("--runs", type=Path, help="a folder of runs: resample their predictions")
    parser.add_argument("--split", default="val", help="whose predictions, with --runs")
    options = parser.parse_args()
    repeats = 300 if options.quick else 2000
    print(HEADER)
    rows = []
    for row in known_rows(repeats, quick=options.quick):
        rows.append(row)
        print(row.line(), flush=True)
    for row in real_rows(options.runs, options.split, repeats) if options.runs else ():
        rows.append(row)
        print(row.line(), flush=True)
    figures, missed = grid_figures(40 if options.quick else 200, quick=options.quick)
    figures |= foretold(repeats // 2) | smallest_spreads(2 * repeats)
    for name, value in figures.items():
        print(f"{name:72} {value:8.3f} {'MISSED' if name in missed else ''}")
    missed += [
        f"{r.world}, {r.photos} photos, {count_of(r.seeds, 'seed')}: {m}"
        for r in rows
        for m in r.missed
    ]
    print("targets:", "missed: " + " · ".join(missed) if missed else "met")
    if options.json:
        targets = {"covered": COVERED, "false real": MOST_FALSE, "gain": GAIN}
        found = {"rows": [asdict(row) for row in rows], "figures": figures}
        print(json.dumps(found | {"targets": targets, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

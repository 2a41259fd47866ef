"""What `fieldmark diagnose STUDY` makes of a study's runs: how often it names what all of them
share, and how often it calls a sound study ill, beside what the runs by themselves would.

Each study is a grid of four rates and three decays, three seeds each, of heads on frozen features
of toy drawings: 36 runs. Sound ones have nothing planted, though some of their cells are far too
fast or too slow, as a grid's are. In the others every run has the same fault. What names it is
fixed in `curves.faults`. Nothing was tuned on them. Wrong labels are told by answers out of fold:
each setting also has a study with 40 % of its training labels shuffled, and a sound one, by folds.

    python bench/gathered.py
    python bench/gathered.py --split held-back --json
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curves.bank import Builder, sooner
from curves.faults import FAULTS, Best
from curves.score import COUNTS, LEAST_NAMED, MOST_FALSE, NAMED_BY, Rate
from curves.settings import SPLITS, Setting, Split
from diagnosis import bank_folder
from fieldmark.diagnosis.diagnose import diagnose_run, diagnose_study, firing
from fieldmark.diagnosis.finding import Finding
from fieldmark.errors import FieldmarkError
from fieldmark.recipe import Recipe
from fieldmark.studies.design import Design
from fieldmark.studies.executor import work
from fieldmark.studies.run import Run
from fieldmark.studies.study import Study
from fieldmark.trials import run_trials
from parts.outcome import conclude

RATES, DECAYS, SEEDS = (0.1, 1.0, 10.0, 30.0), (0, 1e-4, 1e-3), 3
FOLDS = 5  # of studies about labels
FAR = 300.0  # times, for rates that are too high or too low in every cell
IN_BASE = (
    *("copies across splits", "wrong normalisation", "class missing"),
    *("too short", "decayed too early", "decay too large"),
)
PLANTED = (*IN_BASE, "lr x 100", "lr / 100")
SHUFFLED = "labels shuffled"
NAMED = NAMED_BY | {SHUFFLED: ("wrong_labels",)}  # of a study; no run's curves tell
POOLING = {"name": "compact_bilinear", "sketch_dim": 512}  # whose heads train side by side


@dataclass(frozen=True)
class Judged:
    """A study, and what was said of it.

    Attributes:
        fault: what was planted; None: nothing.
        folds: by how many it was judged; None: by val.
        found: severity of each check of runs that was gathered, and of the labels'.
        alone: what single runs have: check -> severity, of any run.
    """

    fault: str | None
    folds: int | None
    found: dict[str, str]
    alone: dict[str, str]

    @property
    def is_named(self) -> bool:
        return any(self.found.get(check) in COUNTS for check in NAMED[self.fault or ""])


def asked(setting: Setting, fault: str | None) -> tuple[Recipe, list[dict[str, Any]]]:
    """The base recipe of a study, and its axes."""
    best = Best(1.0, 0.0, 1.0, 1)
    base = setting.recipe({**setting.head(), "lr": 1.0}, pooling=POOLING)
    if fault in (*IN_BASE, SHUFFLED):
        (plant,) = [one.plant for one in FAULTS if one.name == fault]
        base = plant(setting, best).recipe.model_copy(update={"pooling": base.pooling})
    times = {"lr x 100": FAR, "lr / 100": 1 / FAR}.get(fault or "", 1.0)
    rates = [float(f"{rate * times:.4g}") for rate in RATES]
    axes: list[dict[str, Any]] = [{"key": "stages.head.lr", "values": rates}]
    if fault != "decay too large":  # which the axis would set anew
        axes.append({"key": "stages.head.weight_decay", "values": list(DECAYS)})
    return base, axes


def build(setting: Setting, fault: str | None, folds: int | None) -> Study:
    """The study, run; what is there already is kept."""
    base, axes = asked(setting, fault)
    text = {
        "name": "gathered",
        "question": "Which?",
        "base": "base",
        "axes": axes,
        "seeds": SEEDS,
        "objective": {"folds": folds or "none"},
    }
    name = (fault or "sound").replace(" ", "-").replace("/", "over")
    name = f"gathered/{name}-folds" if folds else f"gathered/{name}"
    design = Design.read(json.dumps(text), lambda _: base.to_yaml())
    study = Study.create(setting.folder / name, design)
    store = Builder(setting).store
    with sooner():
        for _ in work(study, lambda trials: run_trials(trials, store=store)):
            pass
    return study


def judge(study: Study, fault: str | None, folds: int | None) -> Judged:
    gathered = [one for one in diagnose_study(study) if one.among or one.suspects]
    alone: list[Finding] = []
    for result in study.results().values():
        try:
            alone += firing(diagnose_run(Run(result.folder)))
        except FieldmarkError:
            continue
    order = {"problem": 2, "warning": 1, "note": 0}
    return Judged(
        fault,
        folds,
        {one.check: one.severity for one in gathered},
        {one.check: one.severity for one in sorted(alone, key=lambda f: order[f.severity])},
    )


def judged(bank: Path, split: Split, settings: int) -> Iterator[Judged]:
    """Of each setting one sound study, one with a fault, in turn, and two about labels."""
    started = time.perf_counter()
    for number in range(settings):
        setting = Setting(split, number, bank)
        planted = PLANTED[number % len(PLANTED)]
        for fault, folds in ((None, None), (planted, None), (None, FOLDS), (SHUFFLED, FOLDS)):
            yield judge(build(setting, fault, folds), fault, folds)
        seconds = time.perf_counter() - started
        print(f"{setting.name}: {seconds:.0f} s", file=sys.stderr)


def lines(found: Sequence[Judged]) -> Iterator[str]:
    faulty, sound = ([j for j in found if bool(j.fault) == ill] for ill in (True, False))
    yield f"{'planted in every run':28} {'named':>22}"
    for fault in (*PLANTED, SHUFFLED):
        rate = Rate.of([one.is_named for one in faulty if one.fault == fault])
        yield f"{fault:28} {rate!s:>22}"
    yield f"{'all':28} {Rate.of([one.is_named for one in faulty])!s:>22}\n"
    labels = Rate.of(["wrong_labels" in one.found for one in sound])
    yield f"{'sound, labels called wrong':28} {labels!s:>22}\n"
    sound = [one for one in sound if not one.folds]
    yield f"{'sound studies':28} {'a problem':>22} {'a warning or worse':>22}"
    for name, of in (("gathered", "found"), ("any of their runs", "alone")):
        says = [set(getattr(one, of).values()) for one in sound]
        problem = Rate.of(["problem" in severities for severities in says])
        warned = Rate.of([bool(severities & {*COUNTS}) for severities in says])
        yield f"{name:28} {problem!s:>22} {warned!s:>22}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bank", type=Path, default=bank_folder(), help="where runs are kept")
    parser.add_argument("--split", choices=SPLITS, default="tune")
    parser.add_argument("--settings", type=int, default=16, help="how many of the split")
    parser.add_argument("--json", action="store_true", help="print one JSON object as well")
    options = parser.parse_args()
    found = list(judged(options.bank, options.split, options.settings))
    print("\n".join([f"{options.split}: {len(found)} studies\n", *lines(found)]))
    named, false = "faults that all runs share, named, share", "sound studies with a problem, share"
    ill, sound = ([one for one in found if bool(one.fault) == has] for has in (True, False))
    problems = Rate.of(["problem" in one.found.values() for one in sound])
    return conclude(
        {named: Rate.of([one.is_named for one in ill]).share, false: problems.share},
        least={named: LEAST_NAMED},
        most={false: MOST_FALSE},
        as_json=options.json,
        studies=[asdict(one) for one in found],
    )


if __name__ == "__main__":
    sys.exit(main())

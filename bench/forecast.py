"""Whether `fieldmark study plan` foretells what a study takes: time, memory and disk.

Each study is planned and then run, in processes of their own: a grid of photo sizes and sketches
cold and with its features at hand, a sweep of heads, and a training of the whole backbone. Memory
is what the process has to itself at its fullest moment (RssAnon, looked at every 10 ms; Linux
only). Without CUB photos, toy drawings are used for all of them. On a machine that others use too,
`--cpu` compares seconds of processor time instead; pin it to one core then. Last, the memory that
`fieldmark train` foretells of one head's training.

    python bench/forecast.py --cub CUB_200_2011
    python bench/forecast.py --json
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

MOST = 0.25  # of the truth
UNITS = {"seconds": (1, "s"), "memory": (1e6, "MB"), "disk": (1e6, "MB")}

Figures = dict[str, tuple[float, float]]  # foretold and true

BASE = """\
data: {folder: "%s", split: %s, image_size: 224}
stages:
  - {name: head, train: head, lr: 1, length: 60 epochs, schedule: cosine}
  - {name: all, train: {"backbone.*": 0.1, "*": 1}, lr: 0.02, length: 1 epoch, batch_size: 16}
"""
GRID = """\
name: grid
question: Size or sketch?
base: "%s@head"
axes:
  - {key: data.image_size, values: [224, 336]}
  - {key: pooling.sketch_dim, values: [8192, 2048]}
"""
SWEEP = """\
name: sweep
question: Which decay?
base: "%s@head"
axes:
  - {key: stages.head.weight_decay, values: [0, 1e-5, 1e-4, 1e-3]}
  - {key: stages.head.lr, values: [0.3, 1, 3]}
"""
TRAINED = """\
name: trained
question: Does momentum help?
base: "%s"
axes:
  - {key: stages.all.momentum, values: [0.8, 0.9]}
"""


def plan(study: Path, out: Path, *, cpu: bool) -> dict[str, Any]:
    """Plan a study here: what `fieldmark study plan --format json` prints."""
    import fieldmark.study_cost
    from fieldmark import probe
    from fieldmark.study_plan import plan as plan_study

    assert fieldmark.study_cost  # loaded before the clock starts
    if cpu:
        probe.clock = time.process_time
    printed = io.StringIO()
    plan_study(Console(file=printed, width=10**6), str(study), [], out, "json")
    (row,) = json.loads(printed.getvalue())
    return row


def run(study: Path, out: Path, *, cpu: bool) -> dict[str, Any]:
    """Run a study here; seconds, and bytes at the fullest moment."""
    import fieldmark.trials
    from fieldmark.questions import executor_of
    from fieldmark.questions import run as run_study

    assert fieldmark.trials  # loaded before the clock starts
    executor = executor_of("local", 1, None)
    clock = time.process_time if cpu else time.perf_counter
    with Fullest() as fullest:
        started = clock()
        run_study(Console(file=io.StringIO()), str(study), [], out, executor)
        seconds = clock() - started
    return {"seconds": seconds - cpu * fullest.seconds, "memory": fullest.most}


class Fullest:
    """Watches how much memory this process has to itself; `most` is at the fullest moment.

    The watching itself takes `seconds` of processor time, the more so on a busy machine.
    """

    def __enter__(self) -> "Fullest":
        self.most, self._ended = 0, threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watcher.join()

    def _watch(self) -> None:
        from fieldmark.cost import own_memory

        while not self._ended.wait(0.01):
            self.most = max(self.most, own_memory())
        self.seconds = time.thread_time()


def call(what: str, *paths: Path, cache: Path, cpu: bool) -> dict[str, Any]:
    """The same in a process of its own."""
    arguments = [sys.executable, __file__, what, *map(str, paths), *(["--cpu"] * cpu)]
    environment = os.environ | {"FIELDMARK_CACHE": str(cache)}
    done = subprocess.run(arguments, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def compare(study: Path, out: Path, cache: Path, *, cpu: bool) -> Figures:
    """Foretold and true, of each quantity."""
    cache.mkdir(exist_ok=True)
    started = time.perf_counter()
    told = call("--plan", study, out, cache=cache, cpu=cpu)
    planning = time.perf_counter() - started
    before = bytes_in(cache)
    true = call("--run", study, out, cache=cache, cpu=cpu)
    true["disk"] = bytes_in(out) + bytes_in(cache) - before
    parts = {name: round(seconds, 1) for name, seconds in told["parts"].items()}
    print(f"planned in {planning:.0f} s: {parts}", file=sys.stderr)
    return {name: (float(told[name]), float(true[name])) for name in UNITS}


def stage(base: Path) -> dict[str, Any]:
    """Train a recipe's head here: bytes foretold by the training itself, and true."""
    from fieldmark.cost import own_memory
    from fieldmark.forecast import forecast
    from fieldmark.frozen_rows import are_kept
    from fieldmark.ledger import Silent
    from fieldmark.recipe import load_recipe
    from fieldmark.train import prepare, train
    from fieldmark.training.features import FeatureStore, cache_folder

    recipe = load_recipe(base).until("head")
    store = FeatureStore(cache_folder())
    task = prepare(recipe, store, Silent())
    told = forecast(task, recipe.stages[0], kept=are_kept(task, store))
    assert told is not None
    del task
    before = own_memory()
    with tempfile.TemporaryDirectory() as folder, Fullest() as fullest:
        train(recipe, Path(folder) / "run", store=store, reporter=Silent())
    return {"memory": told.total, "true": fullest.most - before}


def cases(cub: Path | None, folder: Path, *, cpu: bool) -> Iterator[tuple[str, Figures]]:
    """Each case with what was foretold and what came."""
    from fieldmark.data.toy import write_toy

    toy = folder / "toy"
    write_toy(toy)
    bases = {"toy": BASE % (toy, "fractions")}
    bases["birds"] = BASE % (cub, "official") if cub else bases["toy"]
    for name, text in bases.items():
        (folder / f"{name}.yaml").write_text(text)
    studies = {
        "toy, all layers": (TRAINED, "toy", "toy"),
        "toy grid, cold": (GRID, "toy", "toy-grid"),
        "grid, cold": (GRID, "birds", "birds"),
        "grid, warm": (GRID, "birds", "birds"),
        "sweep of heads, warm": (SWEEP, "birds", "birds"),
    }
    for number, (case, (study, base, cache)) in enumerate(studies.items()):
        path = folder / f"study-{number}.yaml"
        path.write_text(study % (folder / f"{base}.yaml"))
        out, kept = folder / f"out-{number}", folder / f"cache-{cache}"
        yield case, compare(path, out, kept, cpu=cpu)
    for case, cache in {"one head, cold": "new", "one head, warm": "birds"}.items():
        found = call("--stage", folder / "birds.yaml", cache=folder / f"cache-{cache}", cpu=cpu)
        yield case, {"memory": (float(found["memory"]), float(found["true"]))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cub", type=Path, default=os.environ.get("FIELDMARK_CUB"))
    parser.add_argument("--json", action="store_true", help="print one JSON object as well")
    parser.add_argument("--cpu", action="store_true", help="compare processor time")
    for child, count in (("--plan", 2), ("--run", 2), ("--stage", 1)):
        parser.add_argument(child, nargs=count, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plan or options.run or options.stage:
        here = plan(*options.plan, cpu=options.cpu) if options.plan else None
        here = here or (run(*options.run, cpu=options.cpu) if options.run else None)
        print(json.dumps(here or stage(*options.stage)))
        return 0
    figures, missed = {}, []
    print(f"{'study':24}{'':9}{'foretold':>10}{'true':>10}{'off by':>8}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for case, found in cases(options.cub, Path(folder), cpu=options.cpu):
            figures[case] = found
            for name, (told, true) in found.items():
                (unit, label), off = UNITS[name], told / true - 1
                sign = "MISSED" if abs(off) > MOST else ""
                missed += [f"{case}: {name}"] if sign else []
                numbers = f"{told / unit:9.4g} {true / unit:9.4g} {label:2}"
                print(f"{case:24}{name:8} {numbers} {off:+6.0%} {sign}", flush=True)
    if options.json:
        print(json.dumps({"figures": figures, "targets": {"most": MOST}, "missed": missed}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

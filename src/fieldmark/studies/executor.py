"""Who runs a study's trials: this process, or several on this machine; for more see `ray_executor`.

All workers are alike and none leads. Each takes a group of runs under a lease, hands it to
`run_trials`, records what comes, and takes the next, until nothing is left; several machines that
share a disk may do so at once. What passes between a worker and its parent is news, not truth.
"""

import contextlib
import importlib
import importlib.util
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol, cast

from fieldmark import machine
from fieldmark.errors import SettingError, TrainingError
from fieldmark.studies import control
from fieldmark.studies.lease import LAPSE, Lease, Leases
from fieldmark.studies.results import Result, Slot
from fieldmark.studies.study import LEASES, Group, Study
from fieldmark.studies.trial import Outcome, RunTrials, Tell, Trial

Part = tuple[str, int, int]  # of the work, as a `Tell` is told of it
PROPOSALS = "proposals"  # the lease of whoever asks the sampler
MOST_LOST = 5  # workers in a row that a group may cost without a result


class Executor(Protocol):
    """What runs a study."""

    def run(self, study: Study) -> Iterator[Result]:
        """Run what has no result yet, and yield each result once it is recorded."""


@dataclass(frozen=True)
class LocalExecutor:
    """Workers on this machine: one in this process, or several in processes of their own.

    Attributes:
        run_trials: Import path `module:function` of a `RunTrials`.
        workers: How many; they share the cores between them.
        lapse: Seconds without a heartbeat after which another's lease is taken over.
        tell: Is told how far the parts of the work are, those of several workers by their numbers.
    """

    run_trials: str
    workers: int = 1
    lapse: float = LAPSE
    tell: Tell | None = None

    def __post_init__(self) -> None:
        """Refuse what can't run.

        Raises:
            SettingError: fewer than one worker, or no such function.
        """
        if self.workers < 1:
            raise SettingError(f"`workers` must be 1 or more, got {self.workers}.")
        check_import_path(self.run_trials)

    def run(self, study: Study) -> Iterator[Result]:
        """See `Executor`."""
        control.begin(study.folder)
        if self.workers == 1:
            yield from work(study, load(self.run_trials, self.tell), self.lapse)
        else:
            yield from _Crew(study, self).run()


def check_import_path(path: str) -> None:
    """Refuse what is no import path of a function.

    Raises:
        SettingError: it is no `module:function`, or there is no such module.
    """
    module, colon, name = path.partition(":")
    if not (module and colon and name) or not is_there(module):
        raise SettingError(
            f"`run_trials` is an import path such as `fieldmark.trials:run_trials`, got {path!r}."
        )


def is_there(module: str) -> bool:
    """Whether a module could be imported; its package is, where it has one."""
    with contextlib.suppress(ModuleNotFoundError):  # its package is not there
        return importlib.util.find_spec(module) is not None
    return False


def load(path: str, tell: Tell | None = None) -> RunTrials:
    """The function at an import path `module:function`, which tells how far it is if asked to."""
    module, _, name = path.partition(":")
    found = getattr(importlib.import_module(module), name)
    return cast("RunTrials", partial(found, tell=tell) if tell else found)


def owner_name() -> str:
    """A name for whoever takes leases, unlike that of any other."""
    return f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}"


def work(study: Study, run_trials: RunTrials, lapse: float = LAPSE) -> Iterator[Result]:
    """Run groups under leases until every slot has a result, or the budget is used up.

    Between results it heeds `studies.control`.

    Yields:
        the results that this worker recorded.
    """
    leases = Leases(study.folder / LEASES, owner_name(), lapse=lapse)
    orders = control.Orders(study.folder)
    while True:
        study.results()  # of others, for the budget
        waits = False
        for group in study.groups():
            if study.is_out_of_time or orders.heed():
                return
            if not study.missing(group):
                continue
            lease = leases.take(group.key) if study.may_begin(group) else None
            if lease is None:
                waits = True
                continue
            with lease:
                for result in run_group(study, group, lease, run_trials):
                    yield result
                    if orders.heed():
                        return
        if not waits:
            study.read_again()
            if study.plan().is_done:
                return
        lease = None if waits else leases.take(PROPOSALS)
        if lease is None:
            time.sleep(min(1.0, lapse / 10))
            continue
        with lease:
            study.extend()


def run_group(study: Study, group: Group, lease: Lease, run_trials: RunTrials) -> Iterator[Result]:
    """Run what a group lacks, and record each outcome, as long as the lease is held."""
    records = study.records
    missing = study.missing(group)
    records.fence_off(missing, lease)
    missing = study.missing(group)  # a lost holder may have been faster
    lost = records.lost_in_a_row(group.slots, lease)
    if lost >= MOST_LOST:
        reason = (
            f"{lost} workers in a row were lost at these trials before any had a result. "
            "Look for what ends a process: memory, most of all."
        )
        outcomes = _all_failed(study, missing, lease, reason)
    else:
        outcomes = _outcomes(study, missing, lease, run_trials)
    for slot, outcome in outcomes:
        result = records.record(slot, lease, outcome)
        if result is None:
            return
        yield result


def _outcomes(
    study: Study, slots: Sequence[Slot], lease: Lease, run_trials: RunTrials, suffix: str = ""
) -> Iterator[tuple[Slot, Outcome]]:
    """One outcome a slot, whatever `run_trials` does: raise, or forget a trial.

    Where it raises, each trial left is tried by itself, so that one can't fail the others.
    """
    trials = [study.trial(slot, lease, suffix) for slot in slots]
    left = {trial.folder: slot for trial, slot in zip(trials, slots, strict=True)}
    given = _ask(run_trials, trials)
    reason = "It was given no outcome."
    while left:
        try:
            outcome = next(given)
        except StopIteration:
            break
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            if len(trials) > 1:
                for slot in left.values():
                    yield from _outcomes(study, [slot], lease, run_trials, ".alone")
                return
            break
        if outcome.folder in left:
            yield left.pop(outcome.folder), outcome
    yield from _all_failed(study, list(left.values()), lease, reason, suffix)


def _ask(run_trials: RunTrials, trials: Sequence[Trial]) -> Iterator[Outcome]:
    yield from run_trials(trials) if trials else ()


def _all_failed(
    study: Study, slots: Sequence[Slot], lease: Lease, reason: str, suffix: str = ""
) -> Iterator[tuple[Slot, Outcome]]:
    for slot in slots:
        folder = study.trial(slot, lease, suffix).folder
        yield slot, Outcome(folder, "failed", reason=reason)


class _Crew:
    """Worker processes and what is heard from them; the dead are replaced."""

    def __init__(self, study: Study, executor: LocalExecutor) -> None:
        self.study = study
        self.executor = executor
        self.working: dict[BaseProcess, Connection] = {}

    def run(self) -> Iterator[Result]:
        told = set(self.study.results())
        try:
            for number in range(self.executor.workers):
                self._start(number)
            for result in self._heard():
                if (result.cell, result.seed) not in told:
                    told.add((result.cell, result.seed))
                    yield result
        finally:
            for process in self.working:
                process.terminate()
            for process in self.working:
                process.join()
        self.study.read_again()
        for key, result in self.study.results().items():
            if key not in told:  # its worker was killed before it could tell
                yield result

    def _heard(self) -> Iterator[Result]:
        """What workers tell, until all of them have ended well."""
        barren = 0
        while self.working:
            ready = wait([*self.working.values(), *(p.sentinel for p in self.working)])
            for process, pipe in list(self.working.items()):
                if pipe in ready:
                    with contextlib.suppress(EOFError, OSError):  # it was killed in mid-sentence
                        for result in self._news(process, pipe.recv()):
                            yield result
                            barren = 0
                        continue
                if process.exitcode is None:
                    continue
                for news in _rest(pipe):
                    yield from self._news(process, news)
                self._end(process)
                if process.exitcode < 0:
                    barren += 1
                    self._check(barren)
                    self._start(int(process.name))

    def _news(self, process: BaseProcess, news: Result | Part) -> Iterator[Result]:
        """A result, if it is one; else how far a part of the work is."""
        if isinstance(news, Result):
            yield news
        elif self.executor.tell:
            part, done, total = news
            self.executor.tell(f"worker {process.name}: {part}", done, total)

    def _check(self, barren: int) -> None:
        """Give up where workers die before they do anything at all."""
        if barren > 2 * (MOST_LOST + 1) * self.executor.workers:
            raise TrainingError(
                f"{barren} worker processes in a row were killed before any had a result. "
                "Look for what ends them: memory, most of all."
            )

    def _start(self, number: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        reader, writer = spawn.Pipe(duplex=False)
        process = spawn.Process(
            target=_worker,
            args=(
                self.study.folder,
                replace(self.executor, tell=None),
                number,
                writer,
                self.executor.tell is not None,
            ),
            name=str(number),
        )
        process.start()
        writer.close()
        self.working[process] = reader

    def _end(self, process: BaseProcess) -> None:
        process.join()
        self.working.pop(process).close()
        if process.exitcode and process.exitcode > 0:
            raise TrainingError(
                f"A worker of `{self.study.folder}` ended with exit code {process.exitcode}; "
                "what it said stands above. Mend it and run the study again."
            )


def _rest(pipe: Connection) -> Iterator[Result | Part]:
    """What a worker that has ended told before."""
    with contextlib.suppress(EOFError, OSError):
        while pipe.poll():
            yield pipe.recv()


def _worker(
    folder: Path, executor: LocalExecutor, number: int, pipe: Connection, tells: bool
) -> None:
    """A worker process: asked to stop, or without a parent, it lets go of its lease and ends."""
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: sys.exit(0))
    _take_share_of_cores(number, executor.workers)
    os.environ[machine.WORKER] = str(number)  # which GPU it takes, where there are some
    parent = multiprocessing.parent_process()

    def send(news: Result | Part) -> None:
        with contextlib.suppress(OSError):
            pipe.send(news)

    run_trials = load(executor.run_trials, (lambda *part: send(part)) if tells else None)
    for result in work(Study.open(folder), run_trials, executor.lapse):
        send(result)
        if parent is None or not parent.is_alive():
            return


def _take_share_of_cores(number: int, workers: int) -> None:
    """Keep to every n-th core, which is what `machine.cores` then counts."""
    if hasattr(os, "sched_setaffinity") and machine.cores() >= workers:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[number::workers])

"""Who runs a study's trials where one machine is not enough: Ray, one task a group.

Ray finds a node for each group and starts a task again whose worker died. What is done, and by
whom, stays in the study's folder, which all nodes share: a task takes the group's lease as any
other worker does (`studies.executor`), and the results that are told are read from the disk.
"""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fieldmark.errors import SettingError, TrainingError
from fieldmark.studies import control
from fieldmark.studies.executor import (
    MOST_LOST,
    PROPOSALS,
    check_import_path,
    is_there,
    load,
    owner_name,
    run_group,
)
from fieldmark.studies.lease import LAPSE, Leases
from fieldmark.studies.results import Result
from fieldmark.studies.study import LEASES, Study

LOOK_EVERY = 0.5  # seconds between two looks at the disk for results
SECONDS_TO_REACH = 10.0


@dataclass(frozen=True)
class RayExecutor:
    """Groups as tasks of a Ray cluster, each on a node's whole CPU.

    Attributes:
        run_trials: Import path `module:function` of a `RunTrials`, on every node.
        address: Of a running cluster, as in `ray.init`; None: `RAY_ADDRESS`, or this machine alone.
        lapse: Seconds without a heartbeat after which another's lease is taken over.
        runtime_env: What workers find, as in `ray.init`: environment variables, packages.
    """

    run_trials: str
    address: str | None = None
    lapse: float = LAPSE
    runtime_env: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what can't run.

        Raises:
            SettingError: Ray is not installed, or there is no such function.
        """
        if not is_there("ray"):
            raise SettingError(
                "The executor `ray` needs Ray, which is not installed. "
                "Install it with: pip install 'fieldmark[ray]'"
            )
        check_import_path(self.run_trials)

    def run(self, study: Study) -> Iterator[Result]:
        """See `Executor`."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it must tell nobody
        import ray  # noqa: PLC0415 - optional, and slow to load

        control.begin(study.folder)
        begun_here = not ray.is_initialized()
        if begun_here:
            _connect(ray, self.address, dict(self.runtime_env))
        try:
            yield from self._run(ray, study)
        finally:
            if begun_here:
                ray.shutdown()

    def _run(self, ray: Any, study: Study) -> Iterator[Result]:
        """Every group that may begin, until nothing is left or the budget is used up.

        It begins none while `studies.control` says to pause or stop; tasks heed it by themselves.
        """
        told = set(study.results())
        leases = Leases(study.folder / LEASES, owner_name(), lapse=self.lapse)
        task = ray.remote(_task).options(
            num_cpus=_cores_of_a_node(ray), max_retries=2 * (MOST_LOST + 1), retry_exceptions=False
        )
        folder = study.folder.absolute()
        under_way: dict[Any, str] = {}  # task -> its group
        orders = control.Orders(study.folder)
        while under_way or not study.is_out_of_time:
            for group in study.groups() if orders.pending() is None else ():
                is_new = group.key not in under_way.values() and study.missing(group)
                if is_new and study.may_begin(group) and not study.is_out_of_time:
                    begun = task.remote(folder, group.key, self.run_trials, self.lapse)
                    under_way[begun] = group.key
            if under_way:
                ended, _ = ray.wait(list(under_way), timeout=LOOK_EVERY)
                yield from _untold(study, told)
                _check(ray, ended, study)
                for each in ended:
                    del under_way[each]
                continue
            if orders.heed():
                return
            study.read_again()
            plan = study.plan()
            if plan.is_done:
                return
            lease = None if plan.groups else leases.take(PROPOSALS)
            if lease is None:
                time.sleep(min(1.0, self.lapse / 10))
                continue
            with lease:
                study.extend()


def _connect(ray: Any, address: str | None, runtime_env: dict[str, Any]) -> None:
    # Without an address Ray would look for a cluster that once ran here.
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    alone = {"include_dashboard": False} if address == "local" else {}
    try:
        _reach(address)
        ray.init(address=address, runtime_env=runtime_env, logging_level="WARNING", **alone)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise SettingError(
            f"There is no Ray cluster at {address}: {error}. "
            "Start one with `ray start --head`, or leave --address out."
        ) from error


def _reach(address: str) -> None:
    """Knock at a `host:port`: Ray itself would go on trying for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), SECONDS_TO_REACH).close()


def _cores_of_a_node(ray: Any) -> float:
    """Of the smallest node that computes at all: so much a task takes, and uses."""
    found = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    computing = [float(cores) for cores in found if cores]
    if not computing:
        raise SettingError(
            "No node of this Ray cluster has a CPU. Wait until its workers have joined."
        )
    return min(computing)


def _untold(study: Study, told: set[tuple[str, int]]) -> Iterator[Result]:
    for key, result in study.results().items():
        if key not in told:
            told.add(key)
            yield result


def _check(ray: Any, ended: list[Any], study: Study) -> None:
    """Raise what a task could not survive; a trial that fails is a result and no such thing."""
    for task in ended:
        try:
            ray.get(task)
        except ray.exceptions.RayError as error:
            last = str(error).strip().splitlines()[-1]
            raise TrainingError(
                f"A task of `{study.folder}` ended badly: {last}. Does every node find the folder "
                "and the code? Mend it and run the study again."
            ) from error


def _task(folder: Path, key: str, run_trials: str, lapse: float) -> None:
    """Run what a group lacks, once nobody else works on it; on whatever node this is."""
    study, run = Study.open(folder), load(run_trials)
    leases = Leases(folder / LEASES, owner_name(), lapse=lapse)
    orders = control.Orders(folder)
    (group,) = (group for group in study.groups() if group.key == key)
    while study.missing(group):
        study.results()  # of others, for the budget
        if study.is_out_of_time or orders.heed():
            return
        lease = leases.take(key)
        if lease is None:
            time.sleep(min(1.0, lapse / 10))
            continue
        with lease:
            for _ in run_group(study, group, lease, run):
                if orders.heed():
                    return

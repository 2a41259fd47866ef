"""How long a folder of 1,000 runs takes to its first page, and what 50 open pages cost.

    python bench/serve.py --json

A server of its own process shows 1,000 finished runs of 200 records and 20 evaluations each, as 60
epochs leave them. Told are seconds from the start of the process until it answers, from asking to
the last byte of the first page, of the page of one run, and from a new record until each of 50
listeners has been told and has the page that shows it. "CPU" is what the server computed meanwhile,
which a busy machine does not stretch.
"""

import argparse
import http.client
import math
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest.mock import patch

from fieldmark import durable
from fieldmark.studies.run import RunWriter
from parts.outcome import conclude

RUNS, RECORDS, EVALUATIONS, READERS, REPEATS = 1000, 200, 20, 50, 3
FIRST_PAGE, TOLD = "first page", "readers told"
MOST, LEAST = {FIRST_PAGE: 1}, {TOLD: READERS}  # seconds; nothing is lost
RECIPE = """\
seed: %d
data: {folder: photos}
stages: [{name: head, train: head, lr: 1, length: 60 epochs}]
"""
MANIFEST = {
    "class_names": [f"species {number}" for number in range(50)],
    "counts": {"train": 1200, "minitrain": 300, "val": 300, "test": 0},
    "stages": [],
}
MEASURED = ("loss", "top1", "top5", "mean_class_top1", "calibration_error")


class Quick(durable._Disk):
    """What is written here need not outlive a power cut."""

    def fsync(self, file: int) -> None:
        pass

    def fsync_path(self, path: Path) -> None:
        pass


def write_run(folder: Path, seed: int, *, finish: bool = True) -> RunWriter:
    writer = RunWriter.create(folder, RECIPE % seed, MANIFEST)
    for step in range(10, 10 * RECORDS + 10, 10):
        running = {"loss": 30 / step, "lr": 1.0, "grad_norm": 0.5, "update_ratio": 0.001}
        running |= {"data_seconds": 0.1, "compute_seconds": 0.2}
        found = {f"train/{key}": value for key, value in running.items()}
        writer.record(found, step=step, stage="head", epoch=step / 38)
        if step % (10 * RECORDS // EVALUATIONS) == 0:
            found = {f"{split}/{key}": 0.5 for split in ("minitrain", "val") for key in MEASURED}
            writer.record(found, step=step, stage="head", epoch=step / 38)
    if finish:
        writer.finish()
    return writer


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


def get(port: int, path: str) -> tuple[float, bytes]:
    """Seconds until the last byte, and the page."""
    started = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    assert answer.status == 200, content
    return time.perf_counter() - started, content


def wait_until_it_answers(port: int) -> None:
    while True:
        try:
            get(port, "/assets/live.css")
        except OSError:
            time.sleep(0.01)
        else:
            return


def listeners_behind(port: int, writer: RunWriter) -> list[float]:
    """Seconds from a record to the page that shows it, for each of the listeners."""
    behind = [float("nan")] * READERS
    ready, written = threading.Barrier(READERS + 1), [0.0]

    def listen(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/events")
        answer = connection.getresponse()
        ready.wait()
        while b"step 5,000 of" not in get(port, "/page/runs/live")[1]:
            while not (answer.fp.readline()).startswith(b"data"):
                pass
        behind[number] = time.perf_counter() - written[0]
        connection.close()

    threads = [threading.Thread(target=listen, args=(number,)) for number in range(READERS)]
    for thread in threads:
        thread.start()
    ready.wait()
    time.sleep(2)
    written[0] = time.perf_counter()
    writer.record({"train/loss": 0.1}, step=5000, stage="head", epoch=60.0)
    for thread in threads:
        thread.join()
    return behind


def computed(process: "subprocess.Popen[bytes]") -> float:
    """Seconds of CPU a process has used so far; by Linux's account, to 10 ms."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def once(folder: Path, *, listen: bool) -> dict[str, float]:
    port = free_port()
    command = [sys.executable, "-m", "fieldmark", "serve", str(folder), "--port", str(port)]
    started = time.perf_counter()
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    found: dict[str, float] = {}

    def measure(name: str, path: str) -> bytes:
        before = computed(server)
        found[name], page = get(port, path)
        found[f"{name}, CPU"] = computed(server) - before
        return page

    try:
        wait_until_it_answers(port)
        found["until it answers"] = time.perf_counter() - started
        found["until it answers, CPU"] = computed(server)
        page = measure(FIRST_PAGE, "/")
        assert len(re.findall(rb'href="/page/runs/', page)) >= RUNS
        measure("same page again", "/")
        measure("page of a run", "/page/runs/toy-7")
        measure("page of another run", "/page/runs/toy-8")
        if listen:
            with write_run(folder / "runs" / "live", 0, finish=False) as writer:
                behind = listeners_behind(port, writer)
            found |= {"50 readers, median": statistics.median(behind)}
            found |= {"50 readers, last": max(behind)}
            found[TOLD] = sum(math.isfinite(seconds) for seconds in behind)
        return found
    finally:
        server.terminate()
        server.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, patch.object(durable, "_disk", Quick()):
        folder = Path(home)
        for number in range(RUNS):
            write_run(folder / "runs" / f"toy-{number}", number)
        once(folder, listen=False)  # which makes the charts' script, once a machine
        rounds = [once(folder, listen=number == 0) for number in range(REPEATS)]
    told = {key: [round(found[key], 3) for found in rounds if key in found] for key in rounds[0]}
    figures = {key: statistics.median(seconds) for key, seconds in told.items()}
    return conclude(figures, least=LEAST, most=MOST, as_json=options.json, rounds=told)


if __name__ == "__main__":
    sys.exit(main())

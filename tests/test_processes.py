"""Whether a process is surely gone, told from what the system says of real ones."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fieldmark import processes
from fieldmark.processes import is_alive, is_another, is_surely_dead, mark

linux = pytest.mark.skipif(sys.platform != "linux", reason="no /proc")
TELL = """
import sys
from fieldmark.processes import mark
print(mark(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other():
    """A process of ours, and its mark."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", TELL], **pipes) as process:
        yield process, process.stdout.readline().strip()
        process.kill()


@linux
def test_one_that_runs_or_is_stopped_is_not_dead(other):
    process, told = other
    assert not is_surely_dead(told)
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert not is_surely_dead(told)


@linux
def test_one_that_was_killed_is_dead_before_and_after_its_parent_looked(other):
    process, told = other
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert is_surely_dead(told)
    process.wait()
    assert is_surely_dead(told)


@linux
def test_another_process_of_the_same_number_is_not_it(other):
    _, told = other
    *before, began = told.split()
    assert is_surely_dead(" ".join([*before, str(int(began) - 1)]))


@linux
@pytest.mark.parametrize("part", [0, 1])
def test_of_other_boots_and_containers_nothing_is_known(other, part: int):
    process, told = other
    process.kill()
    process.wait()
    words = told.split()
    words[part] = "another"
    assert not is_surely_dead(" ".join(words))


@pytest.mark.parametrize("told", [None, "", "a b", "a b c d e"])
def test_what_is_no_mark_is_nobody(told):
    assert not is_surely_dead(told)


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    told = mark()
    monkeypatch.setattr(processes, "PROC", tmp_path)
    assert mark() is None
    assert not is_surely_dead(told)


def test_numbers(other):
    process, _ = other
    assert is_alive(os.getpid())
    assert not is_another(os.getpid())
    assert is_another(process.pid)
    process.kill()
    process.wait()
    assert not is_alive(process.pid)
    assert not is_alive(2**70)

"""What computer this is: memory read from files as Linux writes them, cores, number types."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from fieldmark import cli, machine
from fieldmark.errors import SettingError
from fieldmark.machine import available_memory

GIB = 1 << 30


def write(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


MEMINFO = (
    "MemTotal:  16777216 kB\nMemFree:  1024 kB\nMemAvailable:    8388608 kB\nHugePages_Free: 0"
)


def test_without_a_limit_it_is_what_the_system_has(tmp_path: Path):
    root = write(tmp_path, {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/"})
    assert available_memory(root) == 8 * GIB


@pytest.mark.parametrize("where", ["", "/mine/inner", "/mine"])
def test_a_limit_on_any_group_above_counts_less_what_is_used(tmp_path: Path, where: str):
    files = {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/mine/inner"}
    for folder in ("", "/mine", "/mine/inner"):
        home = f"sys/fs/cgroup{folder}"
        limit = 3 * GIB if folder == where else "max"
        files |= {
            f"{home}/memory.max": limit,
            f"{home}/memory.current": 2 * GIB,
            f"{home}/memory.stat": f"anon {GIB}\ninactive_file {GIB // 2}",
        }
    assert available_memory(write(tmp_path, files)) == 1.5 * GIB


def test_a_container_sees_its_limit_at_the_root_though_its_path_is_not_there(tmp_path: Path):
    home = "sys/fs/cgroup/memory"
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "9:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n0::/",
        f"{home}/memory.limit_in_bytes": 4 * GIB,
        f"{home}/memory.usage_in_bytes": 3 * GIB,
        f"{home}/memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB}",
    }
    assert available_memory(write(tmp_path, files)) == 2 * GIB


def test_version_1_says_no_limit_by_a_huge_one(tmp_path: Path):
    home = "sys/fs/cgroup/memory"
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "4:memory:/",
        f"{home}/memory.limit_in_bytes": 9223372036854771712,
        f"{home}/memory.usage_in_bytes": 3 * GIB,
        f"{home}/memory.stat": "total_inactive_file 0",
    }
    assert available_memory(write(tmp_path, files)) == 8 * GIB


@pytest.mark.parametrize("meminfo", ["", "MemTotal: 5 kB", "MemAvailable: many kB"])
def test_where_nothing_is_known_nothing_is_said(tmp_path: Path, meminfo: str):
    assert available_memory(tmp_path) is None
    assert available_memory(write(tmp_path, {"proc/meminfo": meminfo})) is None


def test_what_is_overdrawn_is_nothing(tmp_path: Path):
    files = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": 5}
    files |= {"sys/fs/cgroup/memory.current": 9, "sys/fs/cgroup/memory.stat": "inactive_file 0"}
    assert available_memory(write(tmp_path, files)) == 0


def test_a_precision_that_is_none_is_told():
    with pytest.raises(SettingError, match=r"must be auto, float32 or bfloat16, got 'half'\."):
        machine.fast_dtype("half")


FREED_AND_TAKEN_AGAIN = """
import resource
from fieldmark import machine

tuned = TUNE and machine.tune_allocator()


def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(64 << 20)  # written to once, and freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


faults()  # the first time its pages are fetched in any case
print(tuned, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is tuned")
@pytest.mark.parametrize("tune", [True, False])
def test_memory_that_was_freed_is_kept_for_the_next_feature_map(tune: bool):
    """By the pages that the kernel has to hand out again; without tuning it does."""
    code = FREED_AND_TAKEN_AGAIN.replace("TUNE", str(tune))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tuned, faults = done.stdout.split()
    assert tuned == str(tune)
    assert int(faults) < 8 if tune else int(faults) >= 16  # 32 even where pages are of 2 MiB


def test_processes_of_one_training_share_the_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = machine.cores()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert machine.cores() == max(1, alone // 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000000")
    assert machine.cores() == 1


def test_waits_are_shortened_before_torch_is_there_unless_the_user_chose(
    monkeypatch: pytest.MonkeyPatch,
):
    seen = []
    monkeypatch.setattr(cli, "app", lambda: seen.append(os.environ["GOMP_SPINCOUNT"]))
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    cli.main()
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    cli.main()
    assert seen == ["30000", "7"]

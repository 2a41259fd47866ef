"""Whether a process of this machine is still there, which its number alone does not tell."""

import os
import sys
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def is_alive(pid: int) -> bool:
    """Whether a process has this number now."""
    if sys.platform == "win32":  # where os.kill(pid, 0) ends the process
        return True
    try:
        os.kill(pid, 0)
    except (OSError, OverflowError) as error:
        return isinstance(error, PermissionError)
    return True


def is_another(pid: int) -> bool:
    """Whether a process other than this has it."""
    return pid != os.getpid() and is_alive(pid)


def mark() -> str | None:
    """What tells this process from all others: boot, process space, number, when it began.

    Numbers come again, after a while and in every container; the four together do not. None where
    the system does not tell.
    """
    with suppress(OSError, ValueError, IndexError):
        return " ".join([_place(), str(os.getpid()), _stat(os.getpid())[1]])
    return None


def is_surely_dead(marked: str | None) -> bool:
    """Whether a process of this mark ran here and is gone; False wherever one can't know.

    One that was stopped, or sleeps, is not dead.
    """
    try:
        boot, space, pid, began = (marked or "").split(" ")
        if f"{boot} {space}" != _place():
            return False  # another machine, another boot of it, or another container
        if not is_alive(int(pid)):
            return True
        state, now = _stat(int(pid))
    except (OSError, ValueError, IndexError):
        return False
    return state in "ZX" or now != began


def _place() -> str:
    boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {(PROC / 'self/ns/pid').readlink()}"


def _stat(pid: int) -> tuple[str, str]:
    """State, and when it began in ticks after the boot; the name before them may hold anything."""
    text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]

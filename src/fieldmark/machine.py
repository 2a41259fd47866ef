"""What computer this is, and how to get the most out of it: allocator, precision, threads."""

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fieldmark.errors import SettingError

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]
WORKER = "FIELDMARK_WORKER"  # the number of a process among those of a study

# <malloc.h> of glibc.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MIB = 1 << 20


@cache
def tune_allocator() -> bool:
    """Keep freed feature maps inside the process instead of handing them back to the kernel.

    A convolution's output is tens of megabytes. By default glibc maps such a block afresh and
    unmaps it when it is freed, so each forward pass pays a page fault for every 4 KiB. Returns
    whether the settings took; False where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = {
        _M_MMAP_THRESHOLD: 1024 * _MIB,
        _M_TRIM_THRESHOLD: 2048 * _MIB - 1,
        _M_TOP_PAD: 256 * _MIB,
    }
    taken = [mallopt(option, value) == 1 for option, value in settings.items()]
    return all(taken)


def shorten_waits() -> None:
    """Have threads that wait for work sleep after a tenth of a millisecond, not after several.

    Torch's own threads (GNU OpenMP) otherwise keep a core busy long after an operation, which the
    threads of `layers.operators.share_samples` and of loaders then lack. Gaps between operations
    are shorter still. To be called before torch is loaded; what the user has set stays.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")


@cache
def _cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    flags = (line for line in lines if line.startswith(("flags", "Features")))
    return frozenset(next(flags, "").partition(":")[2].split())


def has_native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; without, it is slower than float32."""
    return bool(_cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


def device_of(name: Device = "auto") -> "torch.device":
    """Where photos go through the backbone; several processes take turns at the GPUs.

    Where that is a GPU, torch is set, for the whole process, to give the same numbers each time.

    Args:
        name: `auto` is the GPU where there is one, else the processor.

    Raises:
        SettingError: a GPU is asked for where torch finds none, or `name` is none of the three.
    """
    import torch  # noqa: PLC0415 - as below

    if name not in {"auto", "cpu", "cuda"}:
        raise SettingError(f"`device` must be auto, cpu or cuda, got {name!r}.")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise SettingError(
            "`device: cuda` asks for a GPU and torch finds none on this machine. Use `device: cpu` "
            "or a torch that fits the GPU's driver."
        )
    _make_gpus_repeatable()
    number = int(os.environ.get("LOCAL_RANK") or os.environ.get(WORKER) or 0)
    return torch.device("cuda", number % torch.cuda.device_count())


def name_of(device: "torch.device") -> str:
    """What numbers computed on a device depend on: `cpu`, or the model of the GPU."""
    import torch  # noqa: PLC0415 - as above

    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


def _make_gpus_repeatable() -> None:
    """Have GPUs give the same numbers each time, and float32 where float32 is said.

    No algorithm is chosen by the clock, and of sums that race the ordered form is taken. Of the few
    that have none, such as the gradient of adaptive average pooling, torch warns.
    """
    import torch  # noqa: PLC0415 - as above

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    cudnn = torch.backends.cudnn
    cudnn.benchmark, cudnn.deterministic = False, True
    # Torch lets convolutions cut float32 to 10 bits of mantissa (TF32); some containers, products.
    cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")


def fast_dtype(precision: Precision = "auto", device: str = "cpu") -> "torch.dtype":
    """The floating-point type feature maps are computed in.

    Args:
        precision: `auto` is bfloat16 where the hardware has it, float32 elsewhere.
        device: the kind of hardware, `cpu` or `cuda`.

    Raises:
        SettingError: `precision` is none of the three.
    """
    import torch  # noqa: PLC0415 - reading results must not load torch

    if precision == "auto":
        gpu = device == "cuda"
        if gpu:  # before Ampere it is emulated, slower than float32
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            native = has_native_bfloat16()
        return torch.bfloat16 if native else torch.float32
    if precision not in {"float32", "bfloat16"}:
        raise SettingError(f"`precision` must be auto, float32 or bfloat16, got {precision!r}.")
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def cores() -> int:
    """How many cores this process may use, beside others of the same training."""
    affinity = getattr(os, "sched_getaffinity", None)
    found = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, found // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def available_memory(root: Path = Path("/")) -> int | None:
    """Bytes this process may still take before the system or its cgroup says no; None if unknown.

    Args:
        root: where `proc` and `sys` are.
    """
    rooms = [*_system_room(root / "proc/meminfo"), *_cgroup_rooms(root)]
    return max(0, min(rooms)) if rooms else None


def _system_room(meminfo: Path) -> Iterator[int]:
    with suppress(OSError, KeyError, ValueError):
        lines = (line.split() for line in meminfo.read_text(encoding="utf-8").splitlines())
        yield {name: int(number) for name, number, *_ in lines}["MemAvailable:"] * 1024


def _cgroup_rooms(root: Path) -> Iterator[int]:
    """What each cgroup above this process leaves, of version 2 or 1."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            home = root / "sys/fs/cgroup"
            names = ("memory.max", "memory.current", "inactive_file")
            if "memory" in controllers.split(","):
                home /= "memory"
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            elif controllers:
                continue
            own = home / path.lstrip("/")
            for folder in (own, *own.parents):
                if folder.is_relative_to(home):
                    yield from _cgroup_room(folder, *names)


def _cgroup_room(folder: Path, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    """Limit less usage; pages of files that were not used lately make room when they must."""
    with suppress(OSError, KeyError, ValueError):  # ValueError: the limit is `max`
        most, used = (int((folder / name).read_text()) for name in (limit, usage))
        lines = (folder / "memory.stat").read_text().splitlines()
        yield most - used + int(dict(line.split() for line in lines)[reclaimable])


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def cache_home() -> Path:
    """Where what can be made again is kept: $FIELDMARK_CACHE, or the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FIELDMARK_CACHE") or Path(base) / "fieldmark")


def gigabytes(name: str, most: float, what: str) -> int:
    """How many bytes an environment variable allows, told in GB.

    Args:
        name: Of the variable.
        most: GB where it is not set.
        what: What it bounds, to follow "how many GB".

    Raises:
        SettingError: it is no size.
    """
    told = os.environ.get(name, "")
    with suppress(ValueError):
        if not told or float(told) >= 0:
            return int(1e9 * (float(told) if told else most))
    raise SettingError(f"${name} is how many GB {what}, such as {most:g}, got {told!r}.")


def describe() -> dict[str, str | int | bool]:
    """The hardware and the versions a run's numbers depend on, for its manifest."""
    packages = ("fieldmark", "torch", "torchvision", "timm")
    return {
        "cpu": _cpu_name(),
        "cores": cores(),
        "bfloat16": has_native_bfloat16(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }

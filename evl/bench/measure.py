"""Time and memory of one call, on CPU and CUDA."""

from __future__ import annotations

import ctypes
import gc
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch


def time_together(calls: dict[str, Callable[[], object]], device: torch.device, repeats: int) -> dict[str, float]:
    """Median seconds of each, in turns, so that what else the machine does falls on all of them.

    Each is called once untimed before, every turn: what another one did to caches and freed memory is not its time.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            call()
            _wait(device)
            started = time.perf_counter()
            call()
            _wait(device)
            seconds[name].append(time.perf_counter() - started)
    return {name: median(values) for name, values in seconds.items()}


def peak_bytes(call: Callable[[], object], device: torch.device) -> int | None:
    """The most memory that a call holds beyond what was held before it; None where it cannot be told.

    On the CPU it is the process's resident memory (Linux), after memory that is free was given back.
    """
    gc.collect()
    if device.type == "cuda":
        _wait(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        _wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = _status("VmRSS")
        call()
        return max(0, _status("VmHWM") - before)
    except (OSError, AttributeError, KeyError):
        return None


def matmul_peak(device: torch.device, dtype: torch.dtype, *, size: int, repeats: int) -> float:
    """Operations a second (two a multiply-add) of the best matrix product found: of square ones, by PyTorch as it is
    and as evl calls it."""
    from evl.runtime.onednn import matmul

    best = 0.0
    for n in (size // 2, size):
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        seconds = time_together({"torch": lambda a=a, b=b: a @ b, "evl": lambda a=a, b=b: matmul(a, b)},
                                device, repeats)  # fmt: skip
        best = max(best, 2 * n**3 / min(seconds.values()))
    return best


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """What a result must be read with."""
    import timm

    from evl._version import __version__
    from evl.runtime.onednn import available

    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{_cpu_name()}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    return {
        "device": name,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "evl": __version__,
        "onednn_products": int(device.type == "cpu" and available()),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "CPU"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _status(name: str) -> int:
    """Bytes of a line of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)

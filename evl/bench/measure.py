"""Measures time and memory of a call, on CPU and CUDA."""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from evl.runtime.cpu import return_freed_memory


def time_together(calls: dict[str, Callable[[], object]], device: torch.device, repeats: int) -> dict[str, float]:
    """Returns the median seconds of each call. The calls take turns, so other work of the machine slows all of them.

    In each turn a call first runs once untimed, because the call before it changed the caches and freed memory.
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
    """Returns the most memory that a call uses, beyond the memory in use before it; None if it cannot be measured.

    On the CPU it is the resident memory of the process (Linux only), after free memory was returned to the system.
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
        return_freed_memory()
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = _status("VmRSS")
        call()
        return max(0, _status("VmHWM") - before)
    except (OSError, AttributeError, KeyError):
        return None


def matmul_peak(device: torch.device, dtype: torch.dtype, *, size: int, repeats: int) -> float:
    """Returns the operations per second of the fastest square matrix product, by PyTorch or by evl's ``matmul``.

    A multiply-add counts as two operations.
    """
    from evl.runtime.cpu import matmul

    best = 0.0
    for n in (size // 2, size):
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        seconds = time_together({"torch": lambda a=a, b=b: a @ b, "evl": lambda a=a, b=b: matmul(a, b)},
                                device, repeats)  # fmt: skip
        best = max(best, 2 * n**3 / min(seconds.values()))
    return best


def describe_machine(device: torch.device) -> dict[str, str | int]:
    """Returns the device, the system and the versions that a result depends on."""
    import timm

    from evl._version import __version__
    from evl.runtime.cpu import available, cpu_info

    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        cpu = cpu_info("model name") or platform.processor() or "CPU"
        name = f"{cpu}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    return {
        "device": name,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "evl": __version__,
        "onednn_products": int(device.type == "cpu" and available()),
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)

"""A profile of the device summed up: how long kernels and copies ran, what overlapped, how long it idled."""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

Interval = tuple[float, float]
COPIES = ("gpu_memcpy", "gpu_memset")
# names of kernels that multiply matrices or attend; the others are bound by memory
MATRIX = re.compile(r"gemm|gemv|cutlass|cublas|nvjet|xmma|wgmma|matmul|flash|fmha|attention|conv|_mm_|splitk", re.I)


def profiled(call: Callable[[], object], device: torch.device) -> list[dict]:
    """The events of one call, after one that is not recorded, as Chrome's trace format has them; times in µs."""
    from torch.profiler import ProfilerActivity, profile

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    call()
    wait()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities) as found:
        call()
        wait()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        found.export_chrome_trace(str(path))
        return json.loads(path.read_text())["traceEvents"]


def summed(events: Iterable[dict]) -> dict[str, object]:
    """Shares of the time from the device's first event to its last.

    ``kernels`` and ``copies``: at least one ran; ``idle``: neither; ``copies_overlapped``: of the copies' time, while a
    kernel ran; ``not_pinned``: of the copies between host and device, by bytes. ``matrix`` and ``memory_bound``: of the
    kernels' own time, by their names. Without events of a device only ``wall_ms`` is there, and is 0.
    """
    kernels, copies = [], []
    by_name: dict[str, float] = defaultdict(float)
    bytes_of = {"pinned": 0, "pageable": 0}
    for event in events:
        category = event.get("cat")
        if event.get("ph") != "X" or category not in ("kernel", *COPIES):
            continue
        span = (float(event["ts"]), float(event["ts"]) + float(event["dur"]))
        if category == "kernel":
            kernels.append(span)
            by_name[event["name"]] += float(event["dur"])
        else:
            copies.append(span)
            for kind in bytes_of:
                if kind in event["name"].lower():
                    bytes_of[kind] += int(event.get("args", {}).get("bytes", 0))
    if not kernels and not copies:
        return {"wall_ms": 0.0}
    everything = merged(kernels + copies)
    wall = everything[-1][1] - everything[0][0]
    busy_kernels, busy_copies = merged(kernels), merged(copies)
    in_kernels, in_copies = length(busy_kernels), length(busy_copies)
    matrix = sum(spent for name, spent in by_name.items() if MATRIX.search(name))
    spent = sum(by_name.values())
    moved = sum(bytes_of.values())
    longest = sorted(by_name.items(), key=lambda one: -one[1])[:5]
    return {
        "wall_ms": wall / 1e3,
        "kernels": in_kernels / wall,
        "copies": in_copies / wall,
        "idle": 1 - length(everything) / wall,
        "copies_overlapped": length(overlap(busy_kernels, busy_copies)) / in_copies if in_copies else None,
        "not_pinned": bytes_of["pageable"] / moved if moved else None,
        "matrix": matrix / spent if spent else None,
        "memory_bound": 1 - matrix / spent if spent else None,
        "num_kernels": len(kernels),
        "longest": "; ".join(f"{name[:60]} {100 * part / spent:.0f} %" for name, part in longest),
    }


def merged(spans: Iterable[Interval]) -> list[Interval]:
    """Their union, in order."""
    union: list[Interval] = []
    for start, end in sorted(spans):
        if union and start <= union[-1][1]:
            union[-1] = (union[-1][0], max(end, union[-1][1]))
        else:
            union.append((start, end))
    return union


def overlap(one: list[Interval], other: list[Interval]) -> list[Interval]:
    """What two unions share."""
    shared, i, j = [], 0, 0
    while i < len(one) and j < len(other):
        start, end = max(one[i][0], other[j][0]), min(one[i][1], other[j][1])
        if start < end:
            shared.append((start, end))
        if one[i][1] < other[j][1]:
            i += 1
        else:
            j += 1
    return shared


def length(spans: Iterable[Interval]) -> float:
    return sum(end - start for start, end in spans)

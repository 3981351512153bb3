"""What this device can do at most, measured: matrix products, and copies of memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from settings import Row, Settings, exact_float32

from evl.bench.measure import matmul_peak, time_together

TYPES = (("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16))


def run(settings: Settings) -> Iterator[Row]:
    device = settings.device
    size = 256 if settings.dry else 8192 if settings.is_cuda else 2048
    repeats = 2 if settings.dry else 10
    exact_float32()
    for name, dtype in TYPES:
        if name == "tf32" and not settings.is_cuda:
            continue
        torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
        rate = matmul_peak(device, dtype, size=size, repeats=repeats)
        yield {"what": f"products in {name}, {size // 2} and {size} wide", "tflops": rate / 1e12}
    exact_float32()
    count = 1 << (20 if settings.dry else 30)  # bytes
    here = torch.empty(count, dtype=torch.uint8, device=device).random_(256)
    there = torch.empty_like(here)
    copies = {"on the device (read and written)": (2 * count, partial(there.copy_, here))}
    if settings.is_cuda:
        pageable = torch.empty(count, dtype=torch.uint8).random_(256)
        pinned = pageable.pin_memory()
        copies |= {
            "to the device, pinned": (count, partial(there.copy_, pinned, non_blocking=True)),
            "to the device, not pinned": (count, partial(there.copy_, pageable)),
            "from the device, pinned": (count, partial(pinned.copy_, here, non_blocking=True)),
            "from the device, not pinned": (count, partial(pageable.copy_, here)),
        }
    seconds = time_together({name: call for name, (_, call) in copies.items()}, device, 3)
    for name, (moved, _) in copies.items():
        yield {"what": f"copy {name}", "gb_a_second": moved / seconds[name] / 1e9}

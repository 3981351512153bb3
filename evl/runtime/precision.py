"""In which type numbers are computed: float32, or autocast to 16 bits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

# asked once, here: torch 2.11 cannot compile the question
_AUTOCAST_TYPES = frozenset(filter(torch.amp.is_autocast_available, ("cpu", "cuda", "mps", "xpu", "hpu", "xla")))


def resolve_precision(precision: str, device: torch.device) -> str:
    """``auto`` → on CUDA bf16, or fp16 where bf16 would be emulated (before Ampere); fp32 elsewhere."""
    if precision != "auto" or device.type != "cuda":
        return "fp32" if precision == "auto" else precision
    native = torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8
    return "bf16" if native else "fp16"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Autocast for ``fp32`` (off), ``bf16`` or ``fp16``, or ``auto``."""
    precision = resolve_precision(precision, device)
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def without_autocast(device: torch.device) -> AbstractContextManager:
    """For code that keeps to its input's own type; also on devices that know no autocast."""
    if device.type not in _AUTOCAST_TYPES:
        return nullcontext()
    return torch.autocast(device.type, enabled=False)

"""The precision of computations: float32, or autocast to 16 bits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

# computed once, at import, because torch 2.11 cannot compile this call
_AUTOCAST_TYPES = frozenset(filter(torch.amp.is_autocast_available, ("cpu", "cuda", "mps", "xpu", "hpu", "xla")))


def resolve_precision(precision: str, device: torch.device) -> str:
    """Replaces ``auto``: on CUDA by bf16, or by fp16 if bf16 would be emulated (before Ampere); elsewhere by fp32."""
    if precision != "auto" or device.type != "cuda":
        return "fp32" if precision == "auto" else precision
    native = torch.version.hip is not None or torch.cuda.get_device_capability(device)[0] >= 8
    return "bf16" if native else "fp16"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The autocast context for ``fp32`` (off), ``bf16``, ``fp16`` or ``auto``."""
    precision = resolve_precision(precision, device)
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def without_autocast(device: torch.device) -> AbstractContextManager:
    """A context without autocast, for code that follows its input's dtype; works on devices without autocast, too.

    torch.export records such a context in the program, so there is none where autocast is off anyway.
    """
    if device.type not in _AUTOCAST_TYPES:
        return nullcontext()
    if torch.compiler.is_exporting() and not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def without_gradients() -> AbstractContextManager:
    """``torch.no_grad()`` for a frozen part. torch.export would record it as a part of the program, so there is none
    then: frozen parameters take no gradients anyway."""
    return nullcontext() if torch.compiler.is_exporting() else torch.no_grad()

"""Speed on CPUs: matrix products in float32 by oneDNN where PyTorch's default is slower, and freed memory that is kept.

PyTorch computes float32 products with MKL, which uses only AVX2 on processors that Intel did not make. oneDNN, which is
in the same build, uses their AVX-512 units and is about twice as fast (docs/performance.md). On other CPUs these
functions call PyTorch's own. The choice depends on the machine and the dtype only, so each machine always gives the
same numbers.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of <malloc.h>
_LARGEST = 2**31 - 1


@cache
def available() -> bool:
    """Whether oneDNN should compute float32 products on this CPU. ``EVL_ONEDNN=0`` turns it off."""
    if os.environ.get("EVL_ONEDNN") == "0" or "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return False
    return cpu_info("vendor_id") not in ("GenuineIntel", None) and works()


@cache
def works() -> bool:
    """Whether oneDNN's product exists and gives the right numbers, on any CPU.

    torch.compile uses this operator for its CPU code. It is not public, so a small product is computed to check it.
    """
    try:
        x, weight = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3)
        return torch.backends.mkldnn.is_available() and torch.equal(_product(x, weight), x @ weight.T)
    except (AttributeError, RuntimeError, TypeError):
        return False


def takes_onednn(*tensors: Tensor) -> bool:
    """Whether oneDNN computes a product of these tensors: float32, on a CPU where oneDNN is faster."""
    if torch.compiler.is_compiling() or not all(x.dtype == torch.float32 and x.device.type == "cpu" for x in tensors):
        return False
    return available() and not torch.is_autocast_enabled("cpu")


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """(M,K) · (K,N) -> (M,N); not differentiable where oneDNN computes it."""
    return _product(a, b.mT) if takes_onednn(a, b) and a.numel() else a @ b


def bmm(a: Tensor, b: Tensor) -> Tensor:
    """(B,M,K) · (B,K,N) -> (B,M,N); not differentiable where oneDNN computes it."""
    if not takes_onednn(a, b) or not len(a):
        return torch.bmm(a, b)
    return torch.stack([_product(one, other.mT) for one, other in zip(a, b, strict=True)])


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear``: x (…,K), weight (N,K), bias (N) -> (…,N)."""
    if not takes_onednn(x, weight) or x.numel() == 0:
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        return _Linear.apply(x, weight, bias)
    return _product(x, weight, bias)


class Linear(nn.Linear):
    """``torch.nn.Linear``, computed by ``linear``."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        return (
            _product(grad, weight.T) if ctx.needs_input_grad[0] else None,
            _product(rows.T, x.reshape(-1, x.shape[-1]).T) if ctx.needs_input_grad[1] else None,
            rows.sum(0) if ctx.needs_input_grad[2] else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def head_scores(query: Tensor, key: Tensor) -> Tensor:
    """(P,N,K) and (N,P',K) -> (P,N,P'): query·key of each head, as a grouped 1×1 convolution that oneDNN computes."""
    p, n, k = query.shape
    pixels = query.reshape(1, 1, p, n * k).permute(0, 3, 1, 2)  # channels last
    return F.conv2d(pixels, key.reshape(-1, k, 1, 1), groups=n)[0, :, 0].T.view(p, n, -1)


def cpu_info(name: str) -> str | None:
    """The first value of a field in Linux's /proc/cpuinfo, such as ``vendor_id``; None on other systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), None)


def keep_freed_memory() -> bool:
    """Makes glibc keep large freed blocks instead of returning them to the system; False if there is no glibc.

    A training step on the CPU frees and needs hundreds of megabytes. If they were returned, they would come back as new
    pages that the system fills with zeros: 8 % of a decoder's step and more (docs/performance.md).
    The setting holds for the whole process, so only commands that compute for long call this.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))


def return_freed_memory() -> bool:
    """Makes glibc return what it holds of freed memory to the system, now; False if there is no glibc.

    Long loops of large and small blocks leave holes that are never quite reused, so a process would grow for hours.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        return ctypes.CDLL(None).malloc_trim(0) >= 0
    except (OSError, AttributeError):
        return False

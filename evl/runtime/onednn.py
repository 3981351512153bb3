"""Matrix products in float32 by oneDNN, where PyTorch's default on this CPU is slower.

PyTorch sends float32 products to MKL, which keeps to AVX2 on processors that are not Intel's; oneDNN, which is in the
same build, uses their AVX-512 units: about twice as fast (docs/performance.md). Elsewhere these functions are
PyTorch's own. Which one is taken depends on the machine and the type only, so a machine always gives the same numbers.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@cache
def available() -> bool:
    """Whether float32 products should go to oneDNN here. ``EVL_ONEDNN=0`` says no."""
    if os.environ.get("EVL_ONEDNN") == "0" or "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return False
    return _vendor() not in ("GenuineIntel", None) and works()


@cache
def works() -> bool:
    """Whether oneDNN's product is there and right, on any CPU.

    It is the operator torch.compile uses for its own CPU code; not public, so it is tried before it is trusted.
    """
    try:
        x, weight = torch.arange(6.0).view(2, 3), torch.arange(12.0).view(4, 3)
        return torch.backends.mkldnn.is_available() and torch.equal(_product(x, weight), x @ weight.T)
    except (AttributeError, RuntimeError, TypeError):
        return False


def takes_onednn(*tensors: Tensor) -> bool:
    """Whether a product of these goes to oneDNN: float32, on a CPU where it is the faster one."""
    if torch.compiler.is_compiling() or not all(x.dtype == torch.float32 and x.device.type == "cpu" for x in tensors):
        return False
    return available() and not torch.is_autocast_enabled("cpu")


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """(M,K) · (K,N) -> (M,N), without autograd where oneDNN is taken."""
    return _product(a, b.mT) if takes_onednn(a, b) else a @ b


def bmm(a: Tensor, b: Tensor) -> Tensor:
    """(B,M,K) · (B,K,N) -> (B,M,N), without autograd where oneDNN is taken."""
    if not takes_onednn(a, b):
        return torch.bmm(a, b)
    return torch.stack([_product(one, other.mT) for one, other in zip(a, b, strict=True)])


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear``: x (…,K), weight (N,K), bias (N) -> (…,N)."""
    if x.numel() == 0 or not takes_onednn(x, weight):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        return _Linear.apply(x, weight, bias)
    return _product(x, weight, bias)


class Linear(nn.Linear):
    """``torch.nn.Linear``, by ``linear``."""

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
    """(P,N,K) and (N,P',K) -> (P,N,P'): query·key a head, as a grouped 1×1 convolution, which is oneDNN's."""
    p, n, k = query.shape
    pixels = query.reshape(1, 1, p, n * k).permute(0, 3, 1, 2)  # channels last
    return F.conv2d(pixels, key.reshape(-1, k, 1, 1), groups=n)[0, :, 0].T.view(p, n, -1)


def _vendor() -> str | None:
    """Who made this CPU, as Linux tells; None elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("vendor_id")), None)

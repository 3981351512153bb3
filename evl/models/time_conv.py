"""Depthwise convolutions over time of token maps (B,T,P,D), computed as scaled additions of whole frames.

Offset o of a kernel's element reads frame t + o. Frames before the first and after the last one are zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CACHED_NUMBERS = 1 << 16  # of a part of a token map that is used several times on the CPU
AROUND = (-1, 0, 1)  # the frame before, the frame itself, the frame after
PAST = (-2, -1, 0)  # the frame itself and the two before it


def over_time(x: Tensor, weight: Tensor, bias: Tensor, offsets: Sequence[int]) -> Tensor:
    """Returns Σ_k weight_k · x(t + offsets_k) + bias, in the shape and dtype of x (B,T,P,D).

    weight (D,1,3) and bias (D), as those of a depthwise ``torch.nn.Conv1d``.
    """
    if torch.compiler.is_exporting():  # the hand-written gradient is not part of an exported program
        return convolved(x, weight[:, 0].T, offsets, bias.to(x.dtype))
    return _OverTime.apply(x, weight, bias, tuple(offsets))


class _OverTime(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, offsets: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.offsets, ctx.bias_dtype = offsets, bias.dtype
        return convolved(x, weight[:, 0].T, offsets, bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = convolved(grad, weight[:, 0].T, [-offset for offset in ctx.offsets])
        grad_bias = grad.flatten(0, -2).sum(0, dtype=torch.promote_types(grad.dtype, torch.float32))
        return grad_x, kernel_gradient(grad, x, ctx.offsets).to(weight.dtype), grad_bias.to(ctx.bias_dtype), None


def convolved(x: Tensor, kernel: Tensor, offsets: Sequence[int], constants: Tensor | None = None) -> Tensor:
    """Returns Σ_k kernel_k · x(t + offsets_k) + constants, a new map like x (B,T,P,D); not differentiable.

    kernel (3,D). ``constants``, in the dtype of x, broadcast over it. One of the offsets is 0.
    """
    parts = dict(zip(offsets, kernel.contiguous().to(x.dtype), strict=True))  # contiguous, or each read is a gather
    here = parts.pop(0)
    result = x * here if constants is None else torch.addcmul(constants, x, here)
    for offset, factor in parts.items():
        these, others = overlap(x.shape[1], offset)
        result[:, these].addcmul_(x[:, others], factor)
    return result


def kernel_gradient(grad: Tensor, x: Tensor, offsets: Sequence[int]) -> Tensor:
    """Returns Σ grad(t) · x(t + offsets_k) over clips, frames and token positions: (D,1,3), in float32 at least."""
    wide = torch.promote_types(grad.dtype, torch.float32)
    places = [overlap(x.shape[1], offset) for offset in offsets]
    total = x.new_zeros(x.shape[-1], len(places), dtype=wide)
    for g, one in zip(*(_cached_clips(part) for part in (grad, x)), strict=True):
        pairs = [(g[:, these], one[:, others]) for these, others in places]
        total = total + torch.stack([(a * b).sum((0, 1, 2), dtype=wide) for a, b in pairs], -1)
    return total[:, None]


def overlap(num_frames: int, offset: int) -> tuple[slice, slice]:
    """Returns (the frames t for which t + offset is a frame too, these frames t + offset)."""
    first = min(max(0, -offset), num_frames)
    last = max(first, min(num_frames, num_frames - offset))
    return slice(first, last), slice(first + offset if last > first else 0, last + offset if last > first else 0)


def _cached_clips(tokens: Tensor) -> tuple[Tensor, ...]:
    """Splits into single clips on the CPU, or some small ones: they stay in the cache, so memory is read only once."""
    if tokens.device.type != "cpu" or not tokens.numel():
        return (tokens,)
    return tokens.split(max(1, CACHED_NUMBERS // tokens[0].numel()))

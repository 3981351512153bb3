"""The norms of the side network: all keep the shape (B,T,P,d), and differ in the tokens that they take statistics of.

| name      | mean and deviation over                        | looks ahead in time | needs a batch |
|-----------|------------------------------------------------|---------------------|---------------|
| `batch`   | all tokens of all clips of a batch, per channel | no (in evaluation)  | in training   |
| `layer`   | the channels of a token                        | no                  | no            |
| `rms`     | the channels of a token; no mean               | no                  | no            |
| `clip`    | all tokens and channels of a clip              | yes                 | no            |
| `channel` | all tokens of a clip, per channel              | yes                 | no            |
| `scale`   | nothing: only the learned scale and shift      | no                  | no            |
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

EPS = 1e-5
MOMENTUM = 0.1


def make_norm(kind: str, width: int) -> nn.Module:
    """Returns a norm of the table above. Raises ValueError for another name."""
    if kind == "batch":
        return BatchNorm(width)
    if kind in _NORMED:
        return TokenNorm(kind, width)
    raise ValueError(f"side_norm {kind!r}: expected batch, {', '.join(_NORMED)}")


def _rms(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=EPS)


def _per_channel(x: Tensor) -> Tensor:
    """Each channel of a clip with mean 0 and deviation 1 over the clip's own tokens; statistics in float32 at least."""
    centered = _wide(x) - x.mean((1, 2), keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
    variance = centered.square().mean((1, 2), keepdim=True)
    return (centered * torch.rsqrt(variance + EPS)).to(x.dtype)


_NORMED = {
    "layer": lambda x: F.layer_norm(x, x.shape[-1:], eps=EPS),
    "rms": _rms,
    "clip": lambda x: F.layer_norm(x, x.shape[1:], eps=EPS),
    "channel": _per_channel,
    "scale": lambda x: x,
}


class TokenNorm(nn.Module):
    """A norm that needs no other clips, with a learned scale and shift per channel (``rms``: no shift)."""

    def __init__(self, kind: str, width: int):
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = None if kind == "rms" else nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)
        if self.kind == "layer":  # in one kernel
            return F.layer_norm(x, x.shape[-1:], weight, self.bias.to(x.dtype), EPS)
        if self.kind == "channel" and not torch.compiler.is_exporting():  # a hand-written gradient is not exported
            return _ChannelNormed.apply(x, self.weight, self.bias)
        y = _NORMED[self.kind](x) * weight
        return y if self.bias is None else y + self.bias.to(x.dtype)


class _ChannelNormed(torch.autograd.Function):
    """``_per_channel`` with scale and shift: x (B,T,P,d), weight (d), bias (d) -> y, in a third of autograd's passes.

    Only x and small tensors are kept for the backward pass.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        mean = x.mean((1, 2), keepdim=True, dtype=torch.promote_types(x.dtype, torch.float32))
        y = x - mean  # in the dtype of the mean
        inverse = torch.rsqrt(y.square().mean((1, 2), keepdim=True) + EPS)
        ctx.save_for_backward(x, weight, mean, inverse)
        return y.mul_(weight * inverse).add_(bias).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight, mean, inverse = ctx.saved_tensors
        g, normed = _wide(grad), (x - mean).mul_(inverse)
        total, along = g.sum((1, 2), keepdim=True), (normed * g).sum((1, 2), keepdim=True)
        grads = along.sum((0, 1, 2)).to(weight.dtype), total.sum((0, 1, 2)).to(weight.dtype)
        if not ctx.needs_input_grad[0]:
            return None, *grads
        # w·r·(g − mean(g) − x̂·mean(g·x̂))
        count = x.shape[1] * x.shape[2]
        grad_x = normed.mul_(-along / count).add_(g).sub_(total / count).mul_(weight * inverse)
        return grad_x.to(x.dtype), *grads


class BatchNorm(nn.Module):
    """Batch norm of the last dimension, over all others: x (…,d) -> the same shape and dtype.

    In training the statistics are those of all clips in this call, in all processes of torchrun; so two processes
    compute what one does. A clip that could not be read is not among them. In evaluation they are running means over
    the training: the mean of the first 10 calls, then the last ones with weight 0.1. Statistics are float32 at least.
    """

    together = True  # in training, all processes must call it equally often; a process without clips gives none

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))
        self.register_buffer("num_batches", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            scale = self.weight * torch.rsqrt(self.running_var + EPS)
            return torch.addcmul(self.bias - self.running_mean * scale, x, scale).to(x.dtype)
        y, mean, variance, count = _BatchNormed.apply(x, self.weight, self.bias)
        self._note(mean, variance, count)
        return y

    @torch.no_grad()
    def _note(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Moves the running statistics, unless no process had a clip. They use the variance without bias."""
        has_clips = count > 0
        self.num_batches += has_clips
        share = has_clips / self.num_batches.clamp(1, round(1 / MOMENTUM))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share.to(self.running_mean.dtype))
        unbiased = variance * (count / (count - 1).clamp_min(1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share.to(self.running_var.dtype))


class _BatchNormed(torch.autograd.Function):
    """x (…,d), weight, bias -> y, mean, variance, count. Only x and small tensors are kept for the backward pass."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor):
        rows = _wide(x.flatten(0, -2))
        count = torch.full((), len(rows), dtype=rows.dtype, device=x.device)
        if len(rows):
            variance, mean = torch.var_mean(rows, 0, correction=0)
        else:
            variance = mean = rows.new_zeros(rows.shape[-1])
        mean, variance, count = _joined(mean, variance, count)
        inverse = torch.rsqrt(variance + EPS)
        scale = weight * inverse
        y = torch.addcmul(bias - mean * scale, x, scale).to(x.dtype)
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return y, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, *_):
        x, weight, mean, inverse, count = ctx.saved_tensors
        rows, g = x.flatten(0, -2), _wide(grad.flatten(0, -2))
        total = g.sum(0)
        along = ((rows - mean) * g).sum(0) * inverse  # Σ g·x̂
        grads = along.to(weight.dtype), total.to(weight.dtype)  # of this process; gradients are summed later
        if not ctx.needs_input_grad[0]:
            return None, *grads
        sums = torch.stack([total, along])
        if _num_processes() > 1:
            dist.all_reduce(sums)
        total, along = sums / count.clamp_min(1)
        # w·r·(g − mean(g) − x̂·mean(g·x̂)), with x̂ = (x − μ)·r
        scale, slope = weight * inverse, weight * inverse * inverse * along
        grad_x = g * scale - (rows - mean) * slope - total * scale
        return grad_x.to(x.dtype).view_as(x), *grads


def _joined(mean: Tensor, variance: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and number of the rows of all processes, from those of this one."""
    size = _num_processes()
    if size == 1:
        return mean, variance, count
    own = torch.cat([mean, variance, count[None]])
    all_ = own.new_empty(size, len(own))
    dist.all_gather(list(all_.unbind()), own)
    means, variances, counts = all_.split([len(mean), len(mean), 1], 1)
    count = counts.sum()
    shares = counts / count.clamp_min(1)
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean) ** 2)).sum(0), count


def _num_processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))

"""The plain twin of the attentive probe: its equations term by term for every token, with autograd."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from evl.bench.twin import plain_attend, plain_attention, plain_linear
from evl.models import AttentiveProbe
from evl.types import LayerFeatures


def plain_probe(probe: AttentiveProbe, features: Sequence[LayerFeatures]) -> Tensor:
    """M × LayerFeatures, of which the last is read -> (B,D), with the parameters of ``probe``."""
    y = features[-1].tokens  # (B,T,L,D)
    _, num_frames, num_tokens, width = y.shape
    if probe.positions is not None or probe.blocks:
        variance, mean = torch.var_mean(y, -1, correction=0, keepdim=True)
        y = (y - mean) / (variance + 1e-5).sqrt()
    if probe.positions is not None:
        y = y + plain_positions(num_frames, num_tokens, probe.positions.grid, width).to(y)
    y = y.flatten(1, 2)
    for block in probe.blocks:
        z = plain_linear(block.qkv_proj, block.norm_attention(y)).unflatten(-1, (3, block.num_heads, -1))
        gathered = plain_attend(*z.unbind(-3))
        y = y + plain_linear(block.out_proj, gathered.flatten(-2))
        y = y + plain_gelu_mlp(block.mlp, block.norm_mlp(y))
    x = probe.query_token.expand(len(y), -1, -1)  # (B,1,D)
    x = x + plain_attention(probe.attention, x, probe.norm_tokens(y))
    return (x + plain_gelu_mlp(probe.mlp, probe.norm_mlp(x)))[:, 0]


def plain_positions(num_frames: int, num_tokens: int, grid: tuple[int, int], width: int) -> Tensor:
    """Returns positions (T,L,D), computed channel by channel in double precision."""
    (h, w), n = grid, width // 6
    positions = torch.zeros(num_frames, num_tokens, width, dtype=torch.float64, device="cpu")
    num_prefix = num_tokens - h * w
    for i in range(n):
        frequency = 10000 ** (-i / n)
        for t in range(num_frames):
            phase = (t + 0.5) * 16 / num_frames * frequency
            positions[t, :, i], positions[t, :, n + i] = math.sin(phase), math.cos(phase)
        for patch in range(h * w):
            for first, place, count in ((2 * n, patch // w, h), (4 * n, patch % w, w)):
                phase = (place + 0.5) * 16 / count * frequency
                positions[:, num_prefix + patch, first + i] = math.sin(phase)
                positions[:, num_prefix + patch, first + n + i] = math.cos(phase)
    return positions


def plain_gelu_mlp(mlp: nn.Module, x: Tensor) -> Tensor:
    hidden = plain_linear(mlp.fc1, x)
    return plain_linear(mlp.fc2, mlp.dropout(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2))

"""Probes: baseline decoders on the same features, which a larger decoder must beat."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evl.config import ModelConfig
from evl.models.attention import CrossAttention, attention_sizes
from evl.models.mlp import MLP, linear_like_input
from evl.models.patch_mean import PatchMean
from evl.runtime.cpu import Linear
from evl.runtime.precision import without_autocast
from evl.types import BackboneSpec, LayerFeatures

AXIS_LENGTH = 16  # the length of the time, row and column axes, in the units of positions


class MeanPool(nn.Module):
    """The mean of all patch tokens of the deepest block, over space and time: (B,T,L,D) -> (B,D).

    Together with the classifier's head this is a mean-pooled linear probe. It has no parameters.
    """

    def __init__(self, width: int, num_prefix_tokens: int):
        super().__init__()
        self.width = width
        self.num_prefix_tokens = num_prefix_tokens
        self.mean = PatchMean()

    @classmethod
    def from_config(cls, config: ModelConfig, spec: BackboneSpec, num_frames: int, num_layers: int) -> MeanPool:
        """Returns the decoder of ``model.decoder=linear``."""
        return cls(spec.width, spec.num_prefix_tokens)

    def forward(self, features: Sequence[LayerFeatures]) -> Tensor:
        return self.mean(features[-1].tokens[:, :, self.num_prefix_tokens :])


class AttentiveProbe(nn.Module):
    """V-JEPA 2's attentive probe: self-attention blocks over all tokens of all frames, read by one learned query.

        y = LN(tokens), without parameters; y = y + positions; y flattened to (B, T·L, D)
        y = y + MHA(LN1 y);  y = y + MLP(LN2 y)           num_blocks − 1 times
        x = x + MHA(q = x, k = v = LN1 y)                 x starts as the query token; no projection of the output
        x = x + MLP(LN2 x)

    MLP: Linear → GELU → Dropout → Linear. It reads the deepest tapped block, prefix tokens included. Source: Assran et
    al., "V-JEPA 2", arXiv:2506.09985, and ``VJEPA2AttentivePooler`` in Hugging Face transformers. A test compares all
    but the first line with the latter. The first line is ours: V-JEPA's encoder ends in a norm, a tapped block does
    not, and positions need tokens of a known size. With one block and no positions it is left out, because the norm
    of the readout has the same effect.

    Args:
        width: D of the features.
        num_blocks: 1 is the readout alone; V-JEPA 2 has 4.
        num_heads: by default, attention heads are 64 wide.
        num_frames, grid: T and (h, w) of the patches; only needed with ``positions``.
        positions: whether to add positions in space and time to the tokens, see ``SpaceTimePositions``.
    """

    def __init__(
        self,
        width: int,
        *,
        num_blocks: int = 4,
        num_heads: int | None = None,
        num_frames: int | None = None,
        grid: tuple[int, int] | None = None,
        positions: bool = True,
        mlp_ratio: float = 4.0,
        mlp_dropout: float = 0.0,
    ):
        super().__init__()
        if num_blocks < 1:
            raise ValueError(f"num_blocks {num_blocks}: a probe has at least one, the readout")
        if positions and (num_frames is None or grid is None):
            raise ValueError("positions need num_frames and the patch grid (h, w)")
        num_heads = num_heads or max(1, width // 64)
        if width % num_heads:
            raise ValueError(f"width {width} is not a multiple of num_heads {num_heads}")
        hidden = round(width * mlp_ratio)
        self.width = width
        self.positions = SpaceTimePositions(width, num_frames, grid) if positions else None
        self.blocks = nn.ModuleList(
            SelfAttentionBlock(width, num_heads, hidden, mlp_dropout) for _ in range(num_blocks - 1)
        )
        self.query_token = nn.Parameter(torch.empty(1, width))
        self.norm_tokens = nn.LayerNorm(width, eps=1e-5)
        self.attention = CrossAttention(width, width, num_heads, output=False)
        self.norm_mlp = nn.LayerNorm(width, eps=1e-5)
        self.mlp = MLP(width, hidden, mlp_dropout, nn.GELU())
        self.reset_parameters()

    @classmethod
    def from_config(cls, config: ModelConfig, spec: BackboneSpec, num_frames: int, num_layers: int) -> AttentiveProbe:
        """Returns the decoder of ``model.decoder=attentive``. Raises ConfigError if sizes do not fit."""
        _, num_heads = attention_sizes(config, spec)
        return cls(
            spec.width,
            num_blocks=config.probe_blocks or 4,
            num_heads=num_heads,
            num_frames=num_frames,
            grid=spec.grid,
            positions=config.probe_positions is not False,
            mlp_ratio=config.mlp_ratio,
            mlp_dropout=config.mlp_dropout,
        )

    def reset_parameters(self) -> None:
        """Initializes as V-JEPA does: normal with std 0.02, biases zero, residual branches divided by √(2·depth)."""
        nn.init.normal_(self.query_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.mlp.fc2.weight.div_(math.sqrt(2))
            for number, block in enumerate(self.blocks, 1):
                for last in (block.out_proj, block.mlp.fc2):
                    last.weight.div_(math.sqrt(2 * (number + 1)))

    def forward(self, features: Sequence[LayerFeatures]) -> Tensor:
        """Features with tokens (B,T,L,D), of which the last is read -> (B,D).

        Features may have a narrower dtype than the parameters; tensors as large as the features then keep it. Autocast
        has no effect.
        """
        tokens = features[-1].tokens
        with without_autocast(tokens.device):
            if self.positions is not None or self.blocks:
                tokens = F.layer_norm(tokens, tokens.shape[-1:])
            if self.positions is not None:
                tokens = self.positions(tokens)
            return self.pool(tokens.flatten(1, 2))

    def pool(self, y: Tensor) -> Tensor:
        """The part that V-JEPA 2 has too: y (B,S,D), normalized, any tokens in any order -> (B,D)."""
        for block in self.blocks:
            y = block(y)
        query = self.query_token.expand(y.shape[0], -1, -1)  # (B,1,D)
        x = query + self.attention(query, y, self.norm_tokens)
        return (x + self.mlp(self.norm_mlp(x))).squeeze(1)


class SelfAttentionBlock(nn.Module):
    """Self-attention over all tokens: y + MHA(LN y), then y + MLP(LN y), for y (B,S,D) in the dtype of y."""

    def __init__(self, width: int, num_heads: int, hidden: int, dropout: float):
        super().__init__()
        self.num_heads = num_heads
        self.norm_attention = nn.LayerNorm(width, eps=1e-5)
        self.qkv_proj = Linear(width, 3 * width)
        self.out_proj = Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width, eps=1e-5)
        self.mlp = MLP(width, hidden, dropout, nn.GELU())

    def forward(self, y: Tensor) -> Tensor:
        qkv = linear_like_input(self.qkv_proj, _norm(self.norm_attention, y)).unflatten(-1, (3, self.num_heads, -1))
        gathered = F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4))  # (B,N,S,K)
        y = y + linear_like_input(self.out_proj, gathered.transpose(1, 2).flatten(-2))
        return y + self.mlp(_norm(self.norm_mlp, y))


class SpaceTimePositions(nn.Module):
    """Adds positions in time and space: tokens (B,T,L,D), prefix tokens first -> the same shape and dtype.

    Positions are fixed sines and cosines. Sine and cosine of time, row and column have a sixth of the channels each, at
    frequencies 10000^(−i/n), i = 0 … n−1, n = ⌊D/6⌋. The remaining channels get no position, and prefix tokens only
    that in time. Each axis is 16 units long for every number of frames, rows or columns: element i of m is at
    16·(i + ½)/m. So more of them divide the same clip more finely.
    """

    def __init__(self, width: int, num_frames: int, grid: tuple[int, int]):
        super().__init__()
        if width < 6:
            raise ValueError(f"width {width} has no room for positions in space and time: at least 6 channels")
        h, w = self.grid = tuple(grid)
        n = width // 6
        frequencies = 10000 ** (-torch.arange(n, dtype=torch.float64) / n)
        time = torch.zeros(num_frames, 1, width)
        space = torch.zeros(h * w, width)
        time[:, 0, : 2 * n] = _waves(num_frames, frequencies)
        space[:, 2 * n : 4 * n] = _waves(h, frequencies).repeat_interleave(w, 0)
        space[:, 4 * n : 6 * n] = _waves(w, frequencies).repeat(h, 1)
        self.register_buffer("time", time, persistent=False)  # (T,1,D)
        self.register_buffer("space", space, persistent=False)  # (h·w,D)

    def forward(self, tokens: Tensor) -> Tensor:
        num_frames, num_tokens = tokens.shape[1:3]
        num_prefix = num_tokens - len(self.space)
        if num_frames != len(self.time):
            raise ValueError(f"clips of {num_frames} frames, but this probe was made for {len(self.time)}")
        if num_prefix < 0:
            raise ValueError(f"{num_tokens} tokens per frame, but a grid of {self.grid} has {len(self.space)} patches")
        space = F.pad(self.space, (0, 0, num_prefix, 0)).to(tokens.dtype)
        return tokens + self.time.to(tokens.dtype) + space


def _waves(count: int, frequencies: Tensor) -> Tensor:
    """Returns the sines, then the cosines, of ``count`` places along an axis: (count, 2n)."""
    phases = (torch.arange(count, dtype=torch.float64) + 0.5)[:, None] * (AXIS_LENGTH / count) * frequencies
    return torch.cat([phases.sin(), phases.cos()], -1)


def _norm(module: nn.LayerNorm, x: Tensor) -> Tensor:
    return F.layer_norm(x, module.normalized_shape, module.weight.to(x.dtype), module.bias.to(x.dtype), module.eps)

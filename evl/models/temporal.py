"""The local temporal module: what changes between neighbouring frames (METHOD.md sections 3 and 4), plainly.

Three parts, each of which can be off: a depthwise convolution over time, a table of temporal positions, and
cross-frame attention, which reads the frozen backbone's own queries and keys.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evl.types import LayerFeatures


class TemporalConv(nn.Module):
    """Depthwise convolution over T, kernel 3, zero padding: every token position alike. (B,T,L,D) -> same."""

    def __init__(self, width: int):
        super().__init__()
        self.conv = nn.Conv1d(width, width, kernel_size=3, padding=1, groups=width)

    def forward(self, tokens: Tensor) -> Tensor:
        b, t, num_tokens, d = tokens.shape
        over_time = tokens.permute(0, 2, 3, 1).reshape(b * num_tokens, d, t)
        return self.conv(over_time).reshape(b, num_tokens, d, t).permute(0, 3, 1, 2)


class CrossFrameAttention(nn.Module):
    """Where each patch went, from the attention maps between neighbouring frames, through relative positions.

    ``query``, ``key`` (B,T,L,N,K) of the backbone's block, prefix tokens first -> (B,T,L,D), zero at prefix
    tokens. Holds two tables (h,w: the patch grid), of the frame before and the frame after. METHOD.md section 4:

        S[t→s] = mean over heads of softmax_p'(query_t[p] · key_s[p'] / √K),   s = t−1, t+1
        out(t)[p] = Σ_p' S[t→t−1][p,p'] · before[r(p,p')] + Σ_p' S[t→t+1][p,p'] · after[r(p,p')]
    """

    def __init__(self, width: int, grid: tuple[int, int]):
        super().__init__()
        h, w = self.grid = grid
        self.before = nn.Parameter(torch.zeros((2 * h - 1) * (2 * w - 1), width))
        self.after = nn.Parameter(torch.zeros((2 * h - 1) * (2 * w - 1), width))
        rows, columns = torch.arange(h).repeat_interleave(w), torch.arange(w).repeat(h)
        offset = (rows[:, None] - rows + h - 1) * (2 * w - 1) + (columns[:, None] - columns + w - 1)
        self.register_buffer("relative_index", offset, persistent=False)  # (h·w, h·w): r(p,p')

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        num_patches = self.grid[0] * self.grid[1]
        num_prefix = query.shape[2] - num_patches
        if num_prefix < 0:
            raise ValueError(f"{query.shape[2]} tokens a frame, but a grid of {self.grid} has {num_patches} patches")
        # out(t) has a term of frame t−1 for t ≥ 1 and of frame t+1 for t ≤ T−2; a missing neighbour gives 0
        maps = {"before": (query[:, 1:], key[:, :-1]), "after": (query[:, :-1], key[:, 1:])}
        padding = {"before": (1, 0), "after": (0, 1)}  # frames put in front, behind
        out = 0
        for name, (q, k) in maps.items():
            with torch.no_grad():  # frozen: a map has no parameters
                attention = _mean_attention(q[:, :, num_prefix:], k[:, :, num_prefix:])  # (B,T−1,h·w,h·w)
            # embedding: its gradient is the same in every run, that of plain indexing is not
            table = nn.functional.embedding(self.relative_index, getattr(self, name))  # (h·w, h·w, D)
            moved = torch.einsum("btpr,prd->btpd", attention.to(table.dtype), table)
            out = out + nn.functional.pad(moved, (0, 0, num_prefix, 0, *padding[name]))
        return out


def _mean_attention(query: Tensor, key: Tensor) -> Tensor:
    """(B,T,P,N,K) twice -> (B,T,P,P): softmax over the keys, averaged over heads."""
    scores = torch.einsum("btpnk,btrnk->btnpr", query, key) / query.shape[-1] ** 0.5
    return scores.softmax(dim=-1).mean(dim=2)


class LocalTemporalModule(nn.Module):
    """LayerFeatures (B,T,L,D) -> tokens (B,T,L,D) with what changes over time added.

    A = tokens + TemporalConv(tokens); A += position[t]; A += CrossFrame(query, key)
    """

    def __init__(
        self,
        width: int,
        *,
        num_frames: int | None,
        grid: tuple[int, int] | None,
        conv: bool = True,
        position: bool = True,
        cross_frame: bool = True,
    ):
        super().__init__()
        if position and num_frames is None:
            raise ValueError("temporal position needs num_frames")
        if cross_frame and grid is None:
            raise ValueError("cross-frame attention needs the patch grid (h, w)")
        self.conv = TemporalConv(width) if conv else None
        self.position = nn.Parameter(torch.zeros(num_frames, width)) if position else None  # (T,D)
        self.cross_frame = CrossFrameAttention(width, grid) if cross_frame else None

    def forward(self, features: LayerFeatures) -> Tensor:
        a = features.tokens
        if self.conv is not None:
            a = a + self.conv(features.tokens)
        if self.position is not None:
            if a.shape[1] != len(self.position):
                raise ValueError(f"clips of {a.shape[1]} frames, but this decoder was made for {len(self.position)}")
            a = a + self.position[:, None]
        if self.cross_frame is not None:
            a = a + self.cross_frame(features.query, features.key)
        return a

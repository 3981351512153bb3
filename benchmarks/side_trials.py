"""The side network with parts left out or added, for benchmarks/motions_decoders.py; docs/side.md has the results.

``model.decoder=side_trials:TrialSide`` with taps that start with 0, and ``model.options``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evl.models.side import SideDecoder
from evl.models.side_norm import make_norm
from evl.models.temporal import LocalTemporalModule
from evl.types import BackboneSpec, LayerFeatures, MappedFeatures

PARTS = ("time", "attention", "class row", "mlp", "start", "position", "difference", "read-out norm")


class TrialSide(SideDecoder):
    """``evl.models.SideDecoder`` without the ``PARTS`` named in ``without``, or with one of these:

    Args:
        gate: the difference gate of TDS-CLIP (arXiv:2408.10688), from its equations, after the convolution.
        time_positions: a learned vector for each frame, added to the start.
        attention_norm: this norm in front of the attention.
        similarity: the cosines of every patch with those around it in five frames (MOSS, arXiv:2604.20760), of this
            tapped block, encoded by two linear layers and added to the start. MOSS has convolutions between them.
        cross_frame: EVL's cross-frame attention (docs/method.md section 4), added to the state in front of each layer;
            ``CrossedTrialSide`` has it.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        *,
        num_frames: int,
        num_layers: int,
        side_width: int = 32,
        without: Sequence[str] = (),
        gate: bool = False,
        time_positions: bool = False,
        attention_norm: str | None = None,
        similarity: int | None = None,
        cross_frame: bool = False,
    ):
        super().__init__(spec.width, num_layers - 1, grid=spec.grid, side_width=side_width)
        assert set(without) <= set(PARTS), without
        d = side_width
        for layer in self.layers:
            if "time" in without:
                layer.time = NoTime()
            if "attention" in without:
                layer.attention = Zero()
            if "class row" in without:
                layer.attention = NoClassRow(layer.attention)
            if "mlp" in without:
                layer.mlp = Zero()
            if "difference" in without:
                layer.time.conv.reset_parameters()
            if gate:
                layer.time = Gated(layer.time, d)
            if attention_norm is not None:
                layer.attention = Normed(layer.attention, make_norm(attention_norm, d))
        if "start" in without:
            self.start = ZeroStart(d)
        if "position" in without:
            del self.position
            self.register_buffer("position", torch.zeros(spec.grid[0] * spec.grid[1], d))
        if "read-out norm" in without:
            self.norm = nn.LayerNorm(d)
        self.time_positions = nn.Parameter(torch.zeros(num_frames, 1, d)) if time_positions else None
        self.similarity = Similarity(spec.grid, d) if similarity is not None else None
        self.similar_tap = similarity
        parts = dict(num_frames=None, grid=spec.grid, conv=False, position=False, cross_frame=True)
        self.crossed = nn.ModuleList(LocalTemporalModule(d, **parts) for _ in self.layers) if cross_frame else None

    def forward(self, features: Sequence[LayerFeatures | MappedFeatures]) -> Tensor:
        num_patches = self.grid[0] * self.grid[1]
        s = self.start(features[0].tokens[:, :, -num_patches:])
        if self.time_positions is not None:
            s = s + self.time_positions
        if self.similarity is not None:
            s = s + self.similarity(features[self.similar_tap].tokens[:, :, -num_patches:])
        for place, (layer, one) in enumerate(zip(self.layers, features[1:], strict=True)):
            if self.crossed is not None:
                padded = F.pad(s, (0, 0, one.tokens.shape[2] - num_patches, 0))
                s = self.crossed[place](one._replace(tokens=padded))[:, :, -num_patches:]
            s, _ = layer(s, layer.tap(one.tokens), self.position)
        return self.norm(s.mean((1, 2)))


class CrossedTrialSide(TrialSide):
    """``TrialSide`` with ``cross_frame``."""

    reads_maps = True

    def __init__(self, spec: BackboneSpec, **options):
        super().__init__(spec, cross_frame=True, **options)


class NoTime(nn.Module):
    def forward(self, s: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(s), s


class Zero(nn.Module):
    def forward(self, s: Tensor, *_) -> Tensor:
        return torch.zeros_like(s)


class ZeroStart(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.new_zeros(*tokens.shape[:-1], self.width)


class NoClassRow(nn.Module):
    def __init__(self, attention: nn.Module):
        super().__init__()
        self.attention = attention

    def forward(self, patches: Tensor, class_rows: Tensor | None) -> Tensor:
        return self.attention(patches, None)


class Normed(nn.Module):
    def __init__(self, attention: nn.Module, norm: nn.Module):
        super().__init__()
        self.attention, self.norm = attention, norm

    def forward(self, patches: Tensor, class_rows: Tensor | None) -> Tensor:
        return self.attention(self.norm(patches), class_rows)


class Gated(nn.Module):
    """s + time(s), times 1 + g: g = sigmoid(W(u − maxpool(u), averaged with its mean over channels)) − ½."""

    def __init__(self, time: nn.Module, width: int):
        super().__init__()
        self.time = time
        self.down, self.norm = nn.Linear(width, max(4, width // 16)), nn.LayerNorm(max(4, width // 16))
        self.up = nn.Linear(max(4, width // 16), width)

    def forward(self, s: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mixed, moved = self.time(s, past)
        s_new = s + mixed
        u = self.norm(self.down(s_new))  # (B,T,P,r)
        highest = F.max_pool1d(u.permute(0, 2, 3, 1).flatten(0, 2)[:, None], 3, 1, 1)
        u = u - highest.view(*u.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)
        gate = torch.sigmoid(self.up(0.5 * u + 0.5 * u.mean(-1, keepdim=True))) - 0.5
        return mixed + s_new * gate, moved


class Similarity(nn.Module):
    """Tokens of patches (B,T,P,D) -> (B,T,P,d): encoded cosines with the 9×9 patches around, in frames t−2 … t+2."""

    def __init__(self, grid: tuple[int, int], width: int, reach: int = 4):
        super().__init__()
        h, w = grid
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        steps = torch.arange(-reach, reach + 1)
        r, c = rows.flatten()[:, None, None] + steps[:, None], columns.flatten()[:, None, None] + steps
        inside = ((r >= 0) & (r < h) & (c >= 0) & (c < w)).flatten(1)  # (P,81)
        index = (r.clamp(0, h - 1) * w + c.clamp(0, w - 1)).flatten(1)
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("inside", inside.float(), persistent=False)
        self.encode = nn.ModuleList(nn.Linear(index.shape[1], 16) for _ in range(5))
        self.join = nn.Linear(5 * 16, width)

    def forward(self, tokens: Tensor) -> Tensor:
        with torch.no_grad():
            tokens = F.normalize(tokens - tokens.mean((1, 2), keepdim=True), dim=-1)
            t = tokens.shape[1]
            padded = F.pad(tokens, (0, 0, 0, 0, 2, 2))
            cosines = [
                (tokens @ padded[:, k : k + t].transpose(2, 3)).gather(3, self.index.expand(*tokens.shape[:2], -1, -1))
                * self.inside
                for k in range(5)
            ]
        parts = [encode(one) for encode, one in zip(self.encode, cosines, strict=True)]
        return self.join(F.gelu(torch.cat(parts, -1)))

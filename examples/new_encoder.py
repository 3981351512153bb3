"""An encoder of your own, in one file: a small video transformer that makes one token map of every two frames.

Its weights are random, but the same every time. Yours would be read in ``__init__`` from ``weights``, a file's path.

    export PYTHONPATH=examples
    evl train --data DATA --out RUN --set backbone.name=new_encoder:TubeletEncoder model.taps="last 2" clip.num_frames=8
    evl predict RUN VIDEO

docs/adding-an-encoder.md says what evl asks of an encoder.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evl.backbones import FrozenBackbone
from evl.types import BackboneSpec, LayerFeatures, Preprocessing

WIDTH, DEPTH, NUM_HEADS, PATCH, FRAMES_PER_MAP = 48, 3, 3, 8, 2


class Block(nn.Module):
    """Pre-norm self-attention over all tokens of all frames, and an MLP."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B,S,D) -> the block's output (B,S,D), and its queries and keys (B,S,N,K)."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, NUM_HEADS, -1)).unbind(2)
        read = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v))).transpose(1, 2)
        x = x + self.out(read.flatten(2))
        return x + self.mlp(self.norm2(x)), q, k


class TubeletEncoder(FrozenBackbone):
    """Clips (B,T,3,H,W) -> features of its tapped blocks, with tokens (B,T/2,h·w,D)."""

    def __init__(self, taps, *, weights=None, pretrained=True, image_size=None):
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size or (32, 32)
        spec = BackboneSpec(
            name="new_encoder:TubeletEncoder", width=WIDTH, depth=DEPTH, num_heads=NUM_HEADS,
            head_width=WIDTH // NUM_HEADS, grid=(height // PATCH, width // PATCH), num_prefix_tokens=0,
            image_size=(height, width), patch_size=(PATCH, PATCH),
        )  # fmt: skip
        pixels = Preprocessing((height, width), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), antialias=True)
        super().__init__(spec, pixels, taps, frames_per_map=FRAMES_PER_MAP)
        tubelet = (FRAMES_PER_MAP, PATCH, PATCH)
        self.embed = nn.Conv3d(3, WIDTH, tubelet, stride=tubelet)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                std = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.02
                parameter.normal_(std=std, generator=generator)

    def tap_clips(self, clips: Tensor, before: dict[int, Tensor] | None = None) -> list[LayerFeatures]:
        x = self.embed(clips.to(self.embed.weight.dtype).transpose(1, 2)).flatten(3)  # (B,D,T/2,h·w)
        x = x.permute(0, 2, 3, 1)
        num_maps, found = x.shape[1], []
        x = x.flatten(1, 2)
        for number, block in enumerate(self.blocks[: self.taps[-1]], 1):
            x, q, k = block(x)
            if number in self.taps:
                found.append(LayerFeatures(*(part.unflatten(1, (num_maps, -1)) for part in (x, q, k))))
        return found

"""Counts the multiply-adds of backbone and decoder from their sizes; docs/performance.md derives the numbers.

The table in docs/method.md calls a multiply-add a FLOP. A machine's peak counts it as two operations.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from evl.backbones.base import FrozenBackbone
from evl.backbones.timm_vit import frame_macs
from evl.bench.twin import plain_decoder
from evl.models import EVLDecoder
from evl.models.crossframe import block_sizes
from evl.types import BackboneSpec


def backbone_macs(backbone: FrozenBackbone) -> int:
    """Returns the multiply-adds for one frame."""
    return frame_macs(backbone.vit, backbone.spec)


def decoder_macs(decoder: EVLDecoder, spec: BackboneSpec, num_frames: int) -> dict[str, dict[str, int]]:
    """Returns the multiply-adds for one clip: part → {plain, fast, fast backward}, over all layers."""
    layer = decoder.layers[0]
    width, qkv_width = layer.attention.k_proj.in_features, layer.attention.k_proj.out_features
    hidden, queries = layer.mlp.fc1.out_features, len(decoder.query_token)
    readings = queries * layer.attention.num_heads
    tokens = num_frames * spec.num_tokens
    patches = spec.grid[0] * spec.grid[1]
    pairs = 2 * (num_frames - 1)
    small = 2 * queries * width * qkv_width + 2 * queries * width * hidden  # q_proj, out_proj, MLP
    if queries >= layer.attention.projects_tokens_from:
        project = 2 * tokens * width * qkv_width
        attend = 2 * queries * tokens * qkv_width
        attention = {
            "keys and values": (project, project, 2 * project),
            "attention": (attend, attend, 2 * attend),
            "query, output, MLP": (small, small, 2 * small),
        }
    else:
        folded = 2 * queries * width * qkv_width  # W_kᵀ q, and W_v after the sum
        attention = {
            "keys and values": (2 * tokens * width * qkv_width, 0, 0),
            # backward: grad·x, the gradient of the query, and that of the tokens from 2R vectors
            "attention": (2 * queries * tokens * qkv_width, 2 * readings * tokens * width,
                          4 * readings * tokens * width),
            "query, output, MLP": (small, small + folded, 2 * (small + folded)),
        }  # fmt: skip
    parts = dict(attention)
    if layer.temporal.conv is not None:
        conv = 3 * tokens * width
        parts["temporal convolution"] = (conv, conv, conv)
    if layer.temporal.cross_frame is not None:
        h, w = spec.grid
        maps = pairs * patches**2 * spec.num_heads * spec.head_width
        skewed = num_frames * h * sum(c * h * 2 * (w + c - 1) for c in block_sizes(w)) * width
        parts["attention maps"] = (maps, maps, 0)
        parts["relative tables"] = (pairs * patches**2 * width, skewed, skewed)
    names = ("plain", "fast", "fast backward")
    return {part: dict(zip(names, (len(decoder.layers) * n for n in counts), strict=True))
            for part, counts in parts.items()}  # fmt: skip


def total_macs(parts: dict[str, dict[str, int]], name: str) -> int:
    """Returns the sum over all parts of one column, such as ``fast``."""
    return sum(part[name] for part in parts.values())


def counted_by_torch(backbone: FrozenBackbone, decoder: nn.Module, num_frames: int, twin=plain_decoder) -> int:
    """Returns torch's own count of the plain twin's multiply-adds for one view, on the meta device."""
    spec = backbone.spec
    with torch.device("meta"):
        backbone, decoder = copy.deepcopy(backbone).to("meta"), copy.deepcopy(decoder).to("meta")
        clip = torch.empty(1, num_frames, 3, *spec.image_size)
        counter = FlopCounterMode(display=False)
        with counter:
            twin(decoder, backbone(clip))
    return counter.get_total_flops() // 2

"""Counts the multiply-adds of backbone, decoder and probes from their sizes; docs/performance.md derives the numbers.

The table in docs/method.md calls a multiply-add a FLOP. A machine's peak counts it as two operations.
"""

from __future__ import annotations

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from evl.backbones import create_backbone
from evl.backbones.base import FrozenBackbone
from evl.backbones.timm_vit import frame_macs
from evl.bench.twin import plain_decoder
from evl.config import BackboneConfig, ModelConfig
from evl.models import AttentiveProbe, EVLDecoder
from evl.models.crossframe import block_sizes
from evl.models.registry import build_decoder
from evl.runtime.text import table
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


def probe_macs(probe: AttentiveProbe, spec: BackboneSpec, num_frames: int) -> dict[str, dict[str, int]]:
    """Returns the multiply-adds for one clip, forward: part → {plain, fast}."""
    tokens, width, hidden = num_frames * spec.num_tokens, spec.width, probe.mlp.fc1.out_features
    heads, blocks = probe.attention.num_heads, len(probe.blocks)
    small = width**2 + 2 * width * hidden  # q_proj, MLP
    counts = {
        "blocks: linear layers": 2 * (blocks * tokens * (4 * width**2 + 2 * width * hidden),),
        "blocks: attention": 2 * (blocks * 2 * tokens**2 * width,),
        "keys and values": (2 * tokens * width**2, 0),
        "attention": (2 * tokens * width, 2 * heads * tokens * width),
        "query, MLP": (small, small + 2 * width**2),  # W_kᵀ q, and W_v after the sum
    }
    return {part: dict(zip(("plain", "fast"), pair, strict=True)) for part, pair in counts.items()}


COUNTED = {"evl": decoder_macs, "attentive": probe_macs}


def cost_table(backbone_name: str, num_frames: int) -> list[str]:
    """Returns a Markdown table, line by line: parameters and forward multiply-adds per clip of the decoders."""
    decoders = {
        "EVL, 4 layers": ModelConfig(),
        "linear": ModelConfig(decoder="linear"),
        "attentive, 1 block": ModelConfig(decoder="attentive", probe_blocks=1),
        "attentive, 4 blocks": ModelConfig(decoder="attentive", probe_blocks=4),
    }
    rows = []
    with torch.device("meta"):
        backbone = create_backbone(BackboneConfig(name=backbone_name, pretrained=False), 4)
        for name, config in decoders.items():
            decoder = build_decoder(config, backbone.spec, 4, num_frames)
            count = COUNTED.get(config.decoder)
            counts = count(decoder, backbone.spec, num_frames) if count else {}  # the linear probe only averages
            plain, fast = (total_macs(counts, form) / 1e9 for form in ("plain", "fast"))
            share = 100 * fast * 1e9 / (num_frames * backbone_macs(backbone))
            parameters = sum(p.numel() for p in decoder.parameters()) / 1e6
            rows.append((name, f"{parameters:.1f} M", f"{plain:.2f}", f"{fast:.2f}", f"{share:.2f} %"))
    return table(("decoder", "parameters", "GFLOPs, plainly", "as evl does it", "of the backbone"), rows)


def total_macs(parts: dict[str, dict[str, int]], name: str) -> int:
    """Returns the sum over all parts of one column, such as ``fast``."""
    return sum(part[name] for part in parts.values())


def counted_by_torch(backbone: FrozenBackbone, decoder: EVLDecoder, num_frames: int) -> int:
    """Returns torch's own count of the plain twin's multiply-adds for one view, on the meta device."""
    spec = backbone.spec
    with torch.device("meta"):
        backbone, decoder = copy.deepcopy(backbone).to("meta"), copy.deepcopy(decoder).to("meta")
        clip = torch.empty(1, num_frames, 3, *spec.image_size)
        counter = FlopCounterMode(display=False)
        with counter:
            plain_decoder(decoder, backbone(clip))
    return counter.get_total_flops() // 2

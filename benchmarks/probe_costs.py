"""What decoders cost beside each other, as a table: python benchmarks/probe_costs.py

Trainable parameters without the head, and multiply-adds of a clip, forward, counted from sizes. ViT-B/16 at 224 px,
8 frames. Nothing is downloaded or run.
"""

import torch

from evl.backbones import create_backbone
from evl.bench.counts import backbone_macs, decoder_macs, total_macs
from evl.config import BackboneConfig, ModelConfig
from evl.models import AttentiveProbe
from evl.models.registry import build_decoder
from evl.runtime.text import table
from evl.types import BackboneSpec


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
        "EVL, 4 layers": ModelConfig("evl"),
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


if __name__ == "__main__":
    print("\n".join(cost_table("vit_base_patch16_clip_224", num_frames=8)))

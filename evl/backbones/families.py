"""Finds the family of a timm model, such as DINOv3, from its architecture and tag."""

from __future__ import annotations

import re

# the first pattern that matches "architecture.tag" counts; a listing has this order
_FAMILIES = (
    (r"vit_.*_clip_", "CLIP"),
    (r".*_siglip_.*\.v2_|vit_giantopt_.*_siglip_", "SigLIP 2"),
    (r".*_siglip_.*\.pali", "SigLIP (PaliGemma)"),
    (r".*_siglip_", "SigLIP"),
    (r"eva02_.*_clip_", "EVA-02-CLIP"),
    (r"eva_.*_clip_", "EVA-CLIP"),
    (r"vit_pe_", "Perception Encoder"),
    (r".*_dinov3(?!.*\.eupe)", "DINOv3"),
    (r".*_dinov2", "DINOv2"),
    (r".*\.dino$", "DINO"),
    (r"aimv2_", "AIMv2"),
    (r"eva02_", "EVA-02"),
    (r"eva_", "EVA"),
    (r".*\.mae", "MAE"),
    (r".*ijepa", "I-JEPA"),
    (r".*_dinov3.*\.eupe", "EUPE"),
    (r".*_tipsv2", "TIPSv2"),
    (r".*_radio_", "C-RADIO"),
    (r"vit_intern", "InternViT"),
    (r".*_lingbot", "LingBot-Vision"),
    (r".*_sapiens2", "Sapiens2"),
    (r"beit3_", "BEiT-3"),
    (r"flexivit_", "FlexiViT"),
    (r"deit3_", "DeiT III"),
    (r"deit_", "DeiT"),
    (r".*_rope_.*\.naver", "RoPE-ViT"),
    (r".*\..*bamboo", "ViT (Bamboo)"),
    (r".*\..*in2[12]k", "ViT (ImageNet-21k)"),
    (r".*\..*in12k", "ViT (ImageNet-12k)"),
    (r".*\..*in1k", "ViT (ImageNet-1k)"),
    (r"evl_", "evl"),
    (r".*", "ViT"),
)
ORDER = tuple(family for _, family in _FAMILIES)


def family_of(name: str) -> str:
    """Returns the family of a name: ``vit_base_patch16_dinov3.lvd1689m`` -> ``DINOv3``."""
    return next(family for pattern, family in _FAMILIES if re.match(pattern, name))


def plain(word: str) -> str:
    """Returns ``word`` in lower case, letters and digits only, so that ``SigLIP 2`` equals ``siglip2``."""
    return re.sub(r"[^a-z0-9]", "", word.lower())

"""One row a family: timm's own entry point, so that the family's flags are what is tested, at a tiny size."""

from __future__ import annotations

import copy
from functools import cache

import timm
import torch
from safetensors.torch import save_file

TINY = {"embed_dim": 48, "depth": 3, "num_heads": 3}  # heads 16 wide, rotary needs a multiple of four

# row: timm's architecture, prefix tokens, and what it needs beyond TINY
FAMILIES = {
    "CLIP, QuickGELU": ("vit_base_patch16_clip_quickgelu_224", 1, {}),
    "CLIP, GELU": ("vit_large_patch14_clip_224", 1, {}),
    "SigLIP": ("vit_base_patch16_siglip_224", 0, {}),
    "SigLIP without pooling": ("vit_so400m_patch14_siglip_gap_378", 0, {}),
    "SigLIP 2": ("vit_giantopt_patch16_siglip_256", 0, {}),
    "EVA": ("eva_giant_patch14_224", 1, {}),
    "EVA-CLIP": ("eva_giant_patch14_clip_224", 1, {}),
    "EVA-02": ("eva02_large_patch14_448", 1, {}),
    "EVA-02, fused": ("eva02_small_patch14_224", 1, {}),
    "EVA-02-CLIP": ("eva02_large_patch14_clip_336", 1, {}),
    "EVA-02-CLIP, norm after": ("eva02_enormous_patch14_clip_224", 1, {}),
    "DINO": ("vit_small_patch8_224", 1, {}),
    "DINOv2": ("vit_small_patch14_dinov2", 1, {}),
    "DINOv2 giant, SwiGLU": ("vit_giant_patch14_dinov2", 1, {}),
    "DINOv2, registers": ("vit_base_patch14_reg4_dinov2", 5, {}),
    "DINOv3, no bias": ("vit_base_patch16_dinov3", 5, {}),
    "DINOv3, q and v bias": ("vit_base_patch16_dinov3_qkvb", 5, {}),
    "DINOv3 huge, SwiGLU": ("vit_huge_plus_patch16_dinov3_qkvb", 5, {}),
    "DINOv3 7B": ("vit_7b_patch16_dinov3", 5, {}),
    "Perception Encoder, core": ("vit_pe_core_base_patch16_224", 1, {"attn_pool_num_heads": 3}),
    "Perception Encoder, lang": ("vit_pe_lang_large_patch14_448", 1, {}),
    "Perception Encoder, lang giant": ("vit_pe_lang_gigantic_patch14_448", 0, {}),
    "Perception Encoder, spatial": ("vit_pe_spatial_base_patch16_512", 1, {}),
    "AIMv2": ("aimv2_large_patch14_224", 0, {}),
    "MAE": ("vit_huge_patch14_224", 1, {}),
    "I-JEPA": ("vit_huge_patch14_gap_224", 0, {}),
    "ViT, ImageNet-21k": ("vit_base_patch16_224", 1, {}),
    "ViT, norm after": ("vit_base_patch16_rpn_224", 0, {}),
    "ViT, SBB with registers": ("vit_mediumd_patch16_reg4_gap_256", 4, {}),
    "ViT, SBB rotary": ("vit_betwixt_patch16_rope_reg4_gap_256", 4, {}),
    "RoPE-ViT": ("vit_base_patch16_rope_ape_224", 1, {}),
    "RoPE-ViT, mixed": ("vit_base_patch16_rope_mixed_224", 1, {}),
    "DeiT, distilled": ("deit_small_distilled_patch16_224", 2, {}),
    "DeiT III": ("deit3_small_patch16_224", 1, {}),
    "FlexiViT": ("flexivit_small", 1, {}),
    "BEiT-3": ("beit3_base_patch16_224", 1, {}),
    "TIPSv2": ("vit_base_patch14_reg1_tipsv2", 2, {}),
    "C-RADIO": ("vit_base_patch16_radio_v3", 8, {}),
    "InternViT": ("vit_intern300m_patch14_448", 1, {}),
    "LingBot-Vision": ("vit_base_patch16_lingbot", 5, {}),
    "Sapiens2, shared keys": ("vit_giant_patch16_sapiens2", 9, {"num_kv_heads": (3, 1, 1)}),
}


def tiny(row):
    """The row's model at its tiny size, all parameters random, also those that start at 0 or 1."""
    return copy.deepcopy(_tiny(row))


@cache
def _tiny(row):
    architecture, _, needs = FAMILIES[row]
    torch.manual_seed(list(FAMILIES).index(row))
    return randomised(timm.create_model(architecture, num_classes=0, **TINY, **needs))


@torch.no_grad()
def randomised(model):
    for name, parameter in model.named_parameters():
        around = 1.0 if parameter.ndim < 2 and name.endswith("weight") else 0.0  # norms
        scale = 0.3 if parameter.ndim < 2 else 1.5 * parameter[0].numel() ** -0.5
        if name.endswith("_token") or name in ("pos_embed", "rope.freqs"):
            scale = 0.5
        parameter.copy_(around + scale * torch.randn_like(parameter))
    return model.eval()


def registered(row, depth=TINY["depth"]):
    """The name of the tiny model in timm's registry: a name like any other, at the family's own image size."""
    architecture, _, needs = FAMILIES[row]
    entry = timm.models.model_entrypoint(architecture)
    sizes = {**TINY, **needs, "depth": depth}
    if "num_kv_heads" in needs:
        sizes["num_kv_heads"] = needs["num_kv_heads"][:depth]

    def make(pretrained=False, **kwargs):
        return entry(pretrained=pretrained, **{**sizes, **kwargs})

    make.__name__ = f"tiny{depth}_{architecture}"
    make.__module__ = __name__
    if not timm.is_model(make.__name__):
        timm.models.register_model(make)
    return make.__name__


def saved(model, path):
    """``model``'s weights in timm's layout."""
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return path

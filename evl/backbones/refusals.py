"""Refuses architectures that cannot be a backbone; the error gives the reason and names another one to use."""

from __future__ import annotations

import timm
from timm.layers import Attention, AttentionRope, HybridEmbed
from timm.models.eva import Eva, EvaAttention
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from evl.errors import BackboneError

CLIP = "vit_base_patch16_clip_quickgelu_224.openai"
DINOV3 = "vit_base_patch16_dinov3.lvd1689m"
IMAGENET = "vit_base_patch16_224.augreg_in21k"

# kind: (the reason, a backbone to use instead)
_KINDS = {
    "convolutional": ("it is a convolutional network, so its patches have no query and key", CLIP),
    "without attention": ("it mixes tokens without attention, so they have no query and key", CLIP),
    "windowed": (
        "it is windowed: a patch attends only to the patches of its window, but evl compares all patches of a frame "
        "with all patches of the next frame",
        DINOV3,
    ),
    "hierarchical": (
        "it is hierarchical: its stages differ in grid and width, but evl's decoder reads blocks of one size",
        DINOV3,
    ),
    "hybrid": ("it is a hybrid: convolutions make or mix its tokens, so a token is not one patch", IMAGENET),
    "relative bias": (
        "it adds a relative position bias to its attention scores, so query and key alone do not give its attention",
        "eva02_base_patch14_224.mim_in22k",
    ),
    "across channels": (
        "it attends across channels, not between patches (XCiT), so no query is compared with another patch's key",
        IMAGENET,
    ),
    "talking heads": (
        "it mixes the scores of its attention heads (talking heads), so query and key alone do not give its attention",
        IMAGENET,
    ),
    "other attention": (
        "its attention is not one softmax of query times key over all patches; it is gated, has two branches, or works "
        "inside a patch",
        IMAGENET,
    ),
    "variable": ("it takes images of any shape (NaFlex), but evl needs one grid of patches", "siglip"),
    "of a language model": (
        "it is the image tower of a language model, of a class that evl was never tested with",
        "vit_pe_core_base_patch16_224.fb",
    ),
}

# timm's modules of each kind; a model of another module is refused by its class, with a general reason
_MODULES = {
    "convolutional": """byobnet convmixer convnext cspnet cspnext densenet dla dpn efficientnet fasternet ghostnet
        hardcorenas hgnet hrnet inception_next inception_resnet_v2 inception_v3 inception_v4 lcnetv2 mobilenetv3
        mobilenetv5 nasnet nfnet pnasnet rdnet regnet repghost repvit res2net resnest resnet resnetv2 rexnet selecsls
        senet sknet starnet tresnet vgg vovnet xception xception_aligned""",
    "without attention": "mlp_mixer sequencer mambaout efficientvim",
    "windowed": """swin_transformer swin_transformer_v2 swin_transformer_v2_cr vision_transformer_sam hieradet_sam2
        maxxvit gcvit nest twins tiny_vit""",
    "hierarchical": "hiera mvitv2 pvt_v2 davit focalnet levit pit efficientvit_msra shvit",
    "hybrid": """vision_transformer_hybrid byoanet coat csatv2 cpubone edgenext efficientformer efficientformer_v2
        efficientvit_mit fastvit iformer lowformer metaformer mobilevit nextvit swiftformer visformer vitamin""",
    "relative bias": "beit vision_transformer_relpos",
    "across channels": "xcit",
    "talking heads": "cait",
    "other attention": "convit crossvit tnt volo",
    "variable": "naflexvit",
    "of a language model": "deepseek_vit gemma4_vit qwen3_vit",
}

# classes of blocks and attentions that supported models can have and evl cannot read
_PARTS = {
    "ParallelScalingBlock": "its blocks compute attention and MLP together from one projection",
    "DiffParallelScalingBlock": "each token has two queries and two keys, whose attentions are subtracted",
    "DiffAttention": "each token has two queries and two keys, whose attentions are subtracted",
    "ParallelThingsBlock": "each block has several attentions, so a token has more than one query and key",
}


def refuse_by_name(name: str) -> None:
    """Raises BackboneError with the reason if ``name`` is in a module of timm that cannot work. Builds no model."""
    for kind, modules in _MODULES.items():
        if timm.models.is_model_in_modules(name.partition(".")[0], modules.split()):
            raise _refusal(name, *_KINDS[kind])


def refuse_unsupported(model: nn.Module, name: str) -> None:
    """Raises BackboneError with the reason unless every block has global self-attention with one query and key."""
    if not isinstance(model, VisionTransformer | Eva):
        module = type(model).__module__.rpartition(".")[2]
        for kind, modules in _MODULES.items():
            if module in modules.split():
                raise _refusal(name, *_KINDS[kind])
        raise _refusal(name, f"it is a {type(model).__name__}, not one of timm's plain vision transformers", IMAGENET)
    if isinstance(model.patch_embed, HybridEmbed):
        raise _refusal(name, *_KINDS["hybrid"])
    for block in model.blocks:
        attention = getattr(block, "attn", None)
        if type(attention) in (Attention, AttentionRope, EvaAttention):
            continue
        found = type(block if attention is None else attention).__name__
        why = _PARTS.get(found, "evl cannot read one query and key per token from it")
        raise _refusal(name, f"it is built of {found}: {why}", IMAGENET)
    if getattr(model.patch_embed, "grid_size", None) is None:
        raise _refusal(name, *_KINDS["variable"])


def _refusal(name: str, why: str, instead: str) -> BackboneError:
    use = f"for example {instead}" if "_" in instead else f"see 'evl backbones {instead}'"
    return BackboneError(
        f"{name} cannot be a backbone; {why}. Use a plain vision transformer, {use} ('evl backbones' lists all)"
    )

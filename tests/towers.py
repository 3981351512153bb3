"""Tiny random CLIPs, built by open_clip itself: image towers of its own and of timm's, with their text towers."""

import json

import open_clip
import safetensors.torch
import timm
import torch
from timm.models import generate_default_cfgs, register_model
from timm.models.eva import _create_eva
from timm.models.vision_transformer import _create_vision_transformer

_SIZES = dict(img_size=32, patch_size=8, embed_dim=128, depth=3, num_heads=2)
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
PLAIN = {
    "embed_dim": 48,
    "vision_cfg": {"layers": 3, "width": 128, "head_width": 64, "patch_size": 8, "image_size": 32},
    "text_cfg": TEXT,
}


def _cfg(**more):
    more = {"num_classes": 0, "input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3, **more}
    return {**more, "interpolation": "bicubic", "first_conv": "patch_embed.proj", "classifier": "head"}


default_cfgs = generate_default_cfgs(
    {
        "evltest_siglip_32.x": _cfg(hf_hub_id="evl-tests/siglip"),
        "evltest_mean_32.x": _cfg(num_classes=48),
        "evltest_eva_clip_32.x": _cfg(hf_hub_id="evl-tests/eva", num_classes=48),
        "evltest_pe_core_32.x": _cfg(hf_hub_id="evl-tests/pe", num_classes=48),
        "evltest_clip_32.x": _cfg(hf_hub_id="evl-tests/clip", num_classes=48),
        "evltest_clip_quickgelu_32.x": _cfg(hf_hub_id="evl-tests/clip", num_classes=48),
    }
)


@register_model
def evltest_siglip_32(pretrained=False, **more):
    sizes = dict(_SIZES, class_token=False, global_pool="map")
    return _create_vision_transformer("evltest_siglip_32", pretrained, **{**sizes, **more})


@register_model
def evltest_mean_32(pretrained=False, **more):
    """Mean of the patches, and a norm behind it."""
    return _create_vision_transformer("evltest_mean_32", pretrained, **{**_SIZES, "global_pool": "avg", **more})


@register_model
def evltest_eva_clip_32(pretrained=False, **more):
    sizes = dict(
        _SIZES, qkv_fused=False, mlp_ratio=4 * 2 / 3, swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True,
        use_rot_pos_emb=True, ref_feat_shape=(4, 4), global_pool="token",
    )  # fmt: skip
    return _create_eva("evltest_eva_clip_32", pretrained, **{**sizes, **more})


@register_model
def evltest_pe_core_32(pretrained=False, **more):
    sizes = dict(
        _SIZES, attn_type="rope", use_pre_transformer_norm=True, use_rot_pos_emb=True, ref_feat_shape=(4, 4),
        rope_grid_offset=1.0, rope_grid_indexing="xy", global_pool="map", class_token=True,
    )  # fmt: skip
    return _create_eva("evltest_pe_core_32", pretrained, **{**sizes, **more})


def _clip(name, pretrained, act_layer, **more):
    from functools import partial

    sizes = dict(_SIZES, pre_norm=True, norm_layer=partial(torch.nn.LayerNorm, eps=1e-5), act_layer=act_layer)
    return _create_vision_transformer(name, pretrained, **{**sizes, **more})


@register_model
def evltest_clip_32(pretrained=False, **more):
    return _clip("evltest_clip_32", pretrained, "gelu", **more)


@register_model
def evltest_clip_quickgelu_32(pretrained=False, **more):
    return _clip("evltest_clip_quickgelu_32", pretrained, "quick_gelu", **more)


def with_trunk(name, pool, proj, **more):
    """open_clip's settings of a CLIP whose image tower is timm's."""
    vision = {"timm_model_name": name, "timm_pool": pool, "timm_proj": proj, "image_size": 32}
    return {"embed_dim": 48, "vision_cfg": vision, "text_cfg": dict(TEXT), "custom_text": True, **more}


def make(settings, seed=0):
    """A random CLIP whose every weight says something."""
    settings = json.loads(json.dumps(settings))
    custom = settings.pop("custom_text", False)
    torch.manual_seed(seed)
    clip = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**settings).eval()
    with torch.no_grad():
        for name, weight in clip.named_parameters():
            if weight.ndim == 1:
                weight.add_(0.1 * torch.randn_like(weight))
            elif name.endswith(("embedding.weight", "positional_embedding", "pos_embed", "cls_token", "latent")):
                weight.normal_(std=0.5)
            elif weight.ndim == 2:
                weight.normal_(std=weight.shape[1] ** -0.5)
    return clip


def write(clip, folder, settings=None, **more):
    """The whole CLIP as open_clip's file, with its settings beside it if they are given."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous().clone() for name, value in clip.state_dict().items()}
    path = folder / "open_clip_model.safetensors"
    safetensors.torch.save_file({**state, **more}, path)
    if settings is not None:
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": settings, "preprocess_cfg": {}}))
    return path


def by_open_clip(clip, clips, class_names, prompts):
    """(frames' unit embeddings (B,T,E), logits (B,Y)) by open_clip alone."""
    with torch.no_grad():
        frames = clip.encode_image(clips.flatten(0, 1), normalize=True).unflatten(0, clips.shape[:2])
        video = frames.mean(1)
        video = video / video.norm(dim=-1, keepdim=True)
        text = open_clip.build_zero_shot_classifier(clip, open_clip.tokenize, class_names, prompts)
        bias = 0.0 if clip.logit_bias is None else clip.logit_bias
        return frames, clip.logit_scale.exp() * video @ text + bias


assert timm.is_model("evltest_siglip_32")

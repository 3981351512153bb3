"""The families in miniature, registered in timm: 16 px, patches of 4, width 16, two heads, two blocks."""

from __future__ import annotations

from functools import partial

from timm.layers import LayerNorm, RmsNorm, SwiGLU, SwiGLUPacked
from timm.models import generate_default_cfgs, register_model
from timm.models.eva import _create_eva
from timm.models.vision_transformer import _create_vision_transformer
from torch import nn

_SIZE = dict(patch_size=4, embed_dim=16, depth=2, num_heads=2)
_CLIP = dict(pre_norm=True, norm_layer=partial(LayerNorm, eps=1e-5))
_GATED = dict(mlp_ratio=6, mlp_layer=SwiGLUPacked, act_layer=nn.SiLU)
_REGISTERS = dict(reg_tokens=4, no_embed_class=True)
_DINOV3 = dict(
    dynamic_img_size=True,
    qkv_bias=False,
    init_values=1e-5,
    rope_type="dinov3",
    rope_temperature=100,
    rope_rotate_half=True,
    use_rot_pos_emb=True,
    use_abs_pos_emb=False,
    num_reg_tokens=4,
    use_fc_norm=False,
    norm_layer=partial(LayerNorm, eps=1e-5),
)

_SIGLIP = dict(class_token=False, act_layer="gelu_tanh")
_PE = dict(
    attn_type="rope", use_pre_transformer_norm=True, use_rot_pos_emb=True, ref_feat_shape=(4, 4), rope_grid_offset=1.0,
    rope_grid_indexing="xy", norm_layer=partial(LayerNorm, eps=1e-5),
)  # fmt: skip

VITS = {
    "tiny_clip_16": _CLIP,
    "tiny_clip_32": {**_CLIP, "img_size": 32},
    "tiny_clip_quickgelu_16": {**_CLIP, "act_layer": "quick_gelu"},
    "tiny_siglip_16": dict(global_pool="map", **_SIGLIP),
    "tiny_siglip_gap_16": dict(global_pool="avg", fc_norm=False, **_SIGLIP),
    "tiny_gap_16": dict(class_token=False, global_pool="avg", fc_norm=False, num_heads=4),
    "tiny_dinov2": dict(init_values=1e-5),
    "tiny_dinov2_gated": dict(init_values=1e-5, **_GATED),
    "tiny_reg4_dinov2": dict(init_values=1e-5, **_REGISTERS),
    "tiny_vit_16": {},
    "tiny_vit_wide_16": dict(embed_dim=32, depth=3),
    "tiny_aimv2": dict(
        class_token=False, fc_norm=False, mlp_ratio=2, global_pool="avg", qkv_bias=False, proj_bias=False,
        act_layer="silu", norm_layer=partial(RmsNorm, eps=1e-5), embed_norm_layer=partial(RmsNorm, eps=1e-5),
        mlp_layer=SwiGLU,
    ),
}  # fmt: skip
EVAS = {
    "tiny_dinov3": _DINOV3,
    "tiny_dinov3_qkvb": {**_DINOV3, "qkv_bias": True},
    "tiny_dinov3_gated": {**_DINOV3, "mlp_ratio": 2, "swiglu_mlp": True},
    "tiny_eva02": dict(
        qkv_fused=False, mlp_ratio=4, swiglu_mlp=True, scale_mlp=True, use_rot_pos_emb=True, ref_feat_shape=(4, 4)
    ),
    "tiny_pe_core": dict(global_pool="map", attn_pool_num_heads=2, attn_pool_mlp_ratio=4.0, **_PE),
    "tiny_pe_spatial": dict(global_pool="token", use_post_transformer_norm=False, use_fc_norm=False, **_PE),
}  # fmt: skip


def _cfg(**more) -> dict:
    return {
        "input_size": (3, 16, 16), "mean": (0.5,) * 3, "std": (0.5,) * 3, "num_classes": 0, "interpolation": "bicubic",
        "fixed_input_size": True, "first_conv": "patch_embed.proj", "classifier": "head", "license": "mit", **more,
    }  # fmt: skip


default_cfgs = generate_default_cfgs(
    {f"{name}.untrained": _cfg() for name in (*VITS, *EVAS) if name not in ("tiny_vit_16", "tiny_clip_32")}
    | {
        "tiny_clip_32.untrained": _cfg(input_size=(3, 32, 32)),
        "tiny_vit_16.on_hub": _cfg(hf_hub_id="timm/"),
        "tiny_vit_16.elsewhere": _cfg(hf_hub_id="someone/else@v2", hf_hub_filename="weights/tiny.bin"),
        "tiny_vit_16.at_an_address": _cfg(url="https://weights.invalid/files/tiny-vit.pth"),
    }
)


def _register(name: str, create, arguments: dict) -> None:
    def model(pretrained=False, **kwargs):
        return create(name, pretrained=pretrained, **{"img_size": 16, **_SIZE, **arguments, **kwargs})

    model.__name__, model.__module__ = name, __name__
    register_model(model)


for _name, _arguments in VITS.items():
    _register(_name, _create_vision_transformer, _arguments)
for _name, _arguments in EVAS.items():
    _register(_name, _create_eva, _arguments)

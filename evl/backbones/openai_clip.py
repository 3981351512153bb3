"""OpenAI's CLIP archives: the image tower as a timm model, all sizes read from its tensors (METHOD.md section 6)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from evl.backbones.fit import misfits
from evl.backbones.timm_vit import TimmBackbone
from evl.backbones.weights import read_weights
from evl.errors import BackboneError
from evl.types import Preprocessing, WeightsOrigin

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HEAD_WIDTH = 64


def comes_from_openai(state: Mapping[str, Tensor], is_torchscript: bool) -> bool:
    """Whether weights are OpenAI's own, trained with QuickGELU: open_clip's have the same keys, but are neither
    TorchScript nor carry the archive's three numbers."""
    return "visual.class_embedding" in state and (is_torchscript or "input_resolution" in state)


def load_openai_clip(path: str | Path, num_taps: int, *, trust_origin: bool = False) -> TimmBackbone:
    """An OpenAI CLIP archive (TorchScript, or its state dict) -> backbone in float32, with QuickGELU.

    Raises BackboneError if the file is not one with a vision transformer, or if it may be open_clip's, whose weights
    have the same layout but mostly another activation; ``trust_origin`` says that it is OpenAI's nevertheless.
    """
    state, is_torchscript = read_weights(path)
    if "visual.class_embedding" not in state or "visual.conv1.weight" not in state:
        raise BackboneError(f"{path}: not an OpenAI CLIP with a vision transformer (no visual.class_embedding)")
    if not trust_origin and not comes_from_openai(state, is_torchscript):
        raise BackboneError(
            f"{path} has the layout of OpenAI's CLIP, but nothing says that it is OpenAI's: open_clip's weights look "
            "the same and mostly use GELU, not QuickGELU. Give a timm name with backbone.weights=FILE, for example "
            "--backbone vit_base_patch16_clip_224.laion2b (or …_clip_quickgelu_224)"
        )
    visual = {k.removeprefix("visual."): v.float() for k, v in state.items() if k.startswith("visual.")}
    try:
        vit = _build(visual)
    except BackboneError as error:
        raise BackboneError(f"{path}: {error}") from None
    except KeyError as error:
        raise BackboneError(f"{path}: the image tower is incomplete: missing visual.{error.args[0]}") from None
    except (RuntimeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise BackboneError(f"{path}: the image tower is of unknown form: {reason}") from None
    size = vit.patch_embed.img_size
    preprocessing = Preprocessing(tuple(size), CLIP_MEAN, CLIP_STD, interpolation="bicubic", antialias=True)
    backbone = TimmBackbone(vit, "openai_clip", preprocessing, num_taps)
    backbone.origin = WeightsOrigin("file", Path(path).name, "OpenAI CLIP", "quick_gelu")
    return backbone


def _build(visual: Mapping[str, Tensor]) -> VisionTransformer:
    width, _, *patch_size = visual["conv1.weight"].shape
    if width % HEAD_WIDTH:
        raise BackboneError(f"a width of {width} is no multiple of {HEAD_WIDTH}, the width of CLIP's heads")
    side = round((len(visual["positional_embedding"]) - 1) ** 0.5)
    if side * side + 1 != len(visual["positional_embedding"]):
        raise BackboneError(f"{len(visual['positional_embedding'])} positions: not a class token and a square grid")
    with torch.device("meta"):
        vit = VisionTransformer(
            img_size=(side * patch_size[0], side * patch_size[1]),
            patch_size=tuple(patch_size),
            embed_dim=width,
            depth=1 + max(int(key.split(".")[2]) for key in visual if key.startswith("transformer.resblocks.")),
            num_heads=width // HEAD_WIDTH,
            mlp_ratio=len(visual["transformer.resblocks.0.mlp.c_fc.weight"]) / width,
            num_classes=0,
            pre_norm=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
            act_layer="quick_gelu",
        )
    state = _to_timm(visual)
    if wrong := misfits(vit.state_dict(), state):
        raise BackboneError("; ".join(wrong))
    vit.load_state_dict(state, assign=True)
    return vit


_NAMES = {
    "attn.in_proj_": "attn.qkv.",
    "attn.out_proj.": "attn.proj.",
    "ln_1.": "norm1.",
    "ln_2.": "norm2.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}


def _to_timm(visual: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = {
        "cls_token": visual["class_embedding"].reshape(1, 1, -1),
        "pos_embed": visual["positional_embedding"][None],
        "patch_embed.proj.weight": visual["conv1.weight"],
        **{f"norm_pre.{part}": visual[f"ln_pre.{part}"] for part in ("weight", "bias")},
        **{f"norm.{part}": visual[f"ln_post.{part}"] for part in ("weight", "bias")},
    }
    for key, value in visual.items():
        if key.startswith("transformer.resblocks."):
            name = key.replace("transformer.resblocks.", "blocks.")
            for theirs, ours in _NAMES.items():
                name = name.replace(theirs, ours)
            state[name] = value
    return state

"""Reads the image tower of OpenAI's CLIP archives into a timm model, with all sizes from its tensors.

docs/method.md section 6 describes the archives.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from evl.backbones.weights.files import class_names, read_weights
from evl.backbones.weights.mismatches import misfits
from evl.backbones.weights.unrecorded import activation_in_script
from evl.errors import BackboneError
from evl.types import Preprocessing

logger = logging.getLogger(__name__)

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
HEAD_WIDTH = 64
_MARK = "input_resolution"  # a number that OpenAI's archives have and open_clip's files do not


def comes_from_openai(state: Mapping[str, Tensor], path: str | Path, is_torchscript: bool) -> bool:
    """Whether a file seems to be one of OpenAI's, which were trained with QuickGELU; open_clip's have the same keys.

    OpenAI's archives carry three numbers (input_resolution, context_length, vocab_size). Without them, a file counts as
    OpenAI's only if it is TorchScript in half precision, and its classes are neither open_clip's nor GELU.
    """
    if "visual.class_embedding" not in state:
        return False
    if _MARK in state:
        return True
    kernel = state.get("visual.conv1.weight")
    if not is_torchscript or kernel is None or kernel.dtype != torch.float16:
        return False
    classes = class_names(path)
    return not any("open_clip." in name for name in classes) and activation_in_script(classes) != "gelu"


def load_openai_clip(path: str | Path, *, trust_origin: bool = False) -> VisionTransformer:
    """Returns the image tower of an OpenAI CLIP archive (TorchScript, or its state dict) in float32, with QuickGELU.

    Raises BackboneError if the file is not such an archive with a vision transformer. Without ``trust_origin`` it also
    does if the file may be open_clip's, whose weights have the same layout but mostly another activation.
    """
    state, is_torchscript = read_weights(path)
    if "visual.class_embedding" not in state or "visual.conv1.weight" not in state:
        raise BackboneError(f"{path}: not an OpenAI CLIP with a vision transformer (no visual.class_embedding)")
    if not trust_origin and not comes_from_openai(state, path, is_torchscript):
        raise BackboneError(
            f"{path} has the layout of OpenAI's CLIP, but it may not be OpenAI's: open_clip's weights have the same "
            "names and mostly use GELU, not QuickGELU. Give a timm name with backbone.weights=FILE, for example "
            "`backbone=vit_base_patch16_clip_224.laion2b` (or …_clip_quickgelu_224)"
        )
    if not trust_origin and _MARK not in state:
        logger.warning(
            "%s: read as OpenAI's because it is TorchScript in half precision, but it lacks the numbers of OpenAI's "
            "archives (input_resolution, …); openai_clip computes quick_gelu and attention heads 64 wide",
            path,
        )
    visual = {k.removeprefix("visual."): v.float() for k, v in state.items() if k.startswith("visual.")}
    try:
        return build_openai_clip(_to_timm(visual))
    except BackboneError as error:
        raise BackboneError(f"{path}: {error}") from None
    except KeyError as error:
        raise BackboneError(f"{path}: the image tower is incomplete: missing visual.{error.args[0]}") from None


def build_openai_clip(
    state: Mapping[str, Tensor], image_size: int | tuple[int, int] | None = None
) -> VisionTransformer:
    """Returns the image tower with the tensors ``state``, which have timm's names. All sizes are read from them.

    ``image_size`` is needed if positions were interpolated; None: the image is a square. Raises BackboneError if the
    tensors do not fit each other.
    """
    try:
        return _build(state, image_size)
    except KeyError as error:
        raise BackboneError(f"the image tower is incomplete: missing {error.args[0]}") from None
    except (RuntimeError, ValueError, IndexError) as error:
        raise BackboneError(f"the image tower has unexpected tensors: {' '.join(str(error).split())}") from None


def _build(state: Mapping[str, Tensor], image_size: int | tuple[int, int] | None) -> VisionTransformer:
    width, _, *patch_size = state["patch_embed.proj.weight"].shape
    if width % HEAD_WIDTH:
        raise BackboneError(f"the width {width} is not a multiple of {HEAD_WIDTH}, the width of CLIP's attention heads")
    if image_size is None:
        positions = state["pos_embed"].shape[1]
        side = round((positions - 1) ** 0.5)
        if side * side + 1 != positions:
            raise BackboneError(f"{positions} positions: not a class token and a square grid")
        image_size = (side * patch_size[0], side * patch_size[1])
    with torch.device("meta"):
        vit = VisionTransformer(
            img_size=image_size,
            patch_size=tuple(patch_size),
            embed_dim=width,
            depth=1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks.")),
            num_heads=width // HEAD_WIDTH,
            mlp_ratio=len(state["blocks.0.mlp.fc1.weight"]) / width,
            num_classes=0,
            pre_norm=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
            act_layer="quick_gelu",
        )
    if wrong := misfits(vit.state_dict(), state):
        raise BackboneError("; ".join(wrong))
    vit.load_state_dict(state, assign=True)
    return vit


def preprocessing_of_clip(image_size: tuple[int, int]) -> Preprocessing:
    """Returns the preprocessing that all of OpenAI's CLIPs were trained with."""
    return Preprocessing(tuple(image_size), CLIP_MEAN, CLIP_STD, interpolation="bicubic", antialias=True)


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

"""Files whose tensors fit a name that computes something else with them.

Heads, rotary positions and a norm's epsilon are in no tensor, so weights of one family can have every name and shape of
another's, and give wrong features without any error: CLIP's B/16 and Perception Encoder's, for one. What the layout,
the parts behind the last block, and a ``config.json`` beside the file tell is held against what was built.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import timm
import torch
from torch import nn

from evl.backbones.weights.forms import Layout
from evl.backbones.weights.sidecar import json_beside, vision_config
from evl.errors import BackboneError

_SILENT = "features would be wrong without any error; give the name these weights belong to"
# transformers' ViT has 1e-12 where timm has 1e-6: neither is seen beside a variance of 1, but 1e-5 is
_SAME_EPSILON = 1e-6


def refuse_other_layout(path: Path, layout: Layout, keys: Collection[str], vit: nn.Module, name: str) -> None:
    """BackboneError where a layout belongs to another family: rotary blocks to plain ones or the reverse, or SigLIP."""
    has_rotary = getattr(vit, "rope", None) is not None
    if layout.name == "Perception Encoder" and not has_rotary:
        raise BackboneError(
            f"{path} has the layout of Perception Encoder, whose positions are rotary, but {name} has none: {_SILENT}"
        )
    # Perception Encoder's spatial towers have CLIP's names but for the norm behind the last block
    if layout.is_clip and has_rotary and any(f"{layout.prefix}{norm}.weight" in keys for norm in _LAST_NORMS):
        raise BackboneError(
            f"{path} has the layout of {layout.name}, without rotary positions, but {name} has such: {_SILENT}"
        )
    if layout.name == "Hugging Face SigLIP" and "siglip" not in name:  # vit_base_patch16_gap_224 has other heads
        raise BackboneError(f"{path} has the layout of SigLIP, but {name} is none: {_SILENT}")


_LAST_NORMS = ("ln_post", "post_layernorm")


def refuse_other_end(path: Path, theirs: Collection[str], ours: Collection[str], vit: nn.Module, name: str) -> None:
    """BackboneError where what stands behind the last block, not read itself, shows another family.

    ``theirs``, ``ours``: names of tensors, both timm's. SigLIP's towers are the same with and without pooling.
    """
    has_rotary = getattr(vit, "rope", None) is not None
    pools, we_pool = (_has(keys, "attn_pool.") for keys in (theirs, ours))
    normed, we_norm = (_has(keys, "norm.", "fc_norm.") for keys in (theirs, ours))
    if pools and not we_pool and "siglip" not in name:
        raise BackboneError(f"{path} has attention pooling (attn_pool.*), but {name} has none: {_SILENT}")
    if we_pool and not pools and has_rotary:
        raise BackboneError(f"{path} has no attention pooling (attn_pool.*), but {name} has it: {_SILENT}")
    if normed and not we_norm and has_rotary:
        raise BackboneError(f"{path} has a norm behind its last block, but {name} has none: {_SILENT}")


def _has(keys: Collection[str], *beginnings: str) -> bool:
    return any(key.startswith(beginnings) for key in keys)


def refuse_other_config(path: Path, layout: Layout, vit: nn.Module, name: str) -> None:
    """BackboneError where the JSON beside a file contradicts what was built: heads, epsilon, rotary positions."""
    if layout.is_hugging_face:
        config = vision_config(json_beside(path, "config.json"))
        rotary = config.get("rope_parameters")
        said = {
            "num_attention_heads": config.get("num_attention_heads"),
            "layer_norm_eps": config.get("layer_norm_eps"),
            "rms_norm_eps": config.get("rms_norm_eps"),
            "rope_theta": rotary.get("rope_theta") if isinstance(rotary, dict) else config.get("rope_theta"),
        }
        eps = _epsilon(vit)
        built = {
            "num_attention_heads": vit.blocks[0].attn.num_heads,
            "layer_norm_eps": eps if isinstance(vit.blocks[0].norm1, nn.LayerNorm) else None,
            "rms_norm_eps": None if isinstance(vit.blocks[0].norm1, nn.LayerNorm) else eps,
            "rope_theta": getattr(getattr(vit, "rope", None), "temperature", None),
        }
        _compare(path, "config.json", said, built, name)
    elif layout.name == "open_clip":
        config = json_beside(path, "open_clip_config.json").get("model_cfg")
        config = config.get("vision_cfg") if isinstance(config, dict) else None
        said = config.get("head_width") if isinstance(config, dict) else None
        built = vit.blocks[0].attn.head_dim
        _compare(path, "open_clip_config.json", {"head_width": said}, {"head_width": built}, name)
    else:
        _refuse_other_architecture(path, vit, name)


def _compare(path: Path, file: str, said: dict, built: dict, name: str) -> None:
    for key, theirs in said.items():
        ours = built[key]
        if not _is_number(theirs) or not _is_number(ours):
            continue
        if abs(theirs - ours) > (_SAME_EPSILON if key.endswith("_eps") else 0):
            raise BackboneError(
                f"{path} has, by the {file} beside it, {key} {theirs}, but {name} has {ours}: {_SILENT}"
            )


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _epsilon(vit: nn.Module) -> float | None:
    return getattr(vit.blocks[0].norm1, "eps", None)


def _refuse_other_architecture(path: Path, vit: nn.Module, name: str) -> None:
    """A ``config.json`` of timm's hub names the architecture: that one must compute what the named one does."""
    theirs = json_beside(path, "config.json").get("architecture")
    if not isinstance(theirs, str) or theirs == name.partition(".")[0] or not timm.is_model(theirs):
        return
    try:
        with torch.device("meta"):
            other = timm.create_model(theirs, pretrained=False, num_classes=0)
        sizes = [(model.embed_dim, len(model.blocks)) for model in (other, vit)]
        said, built = _computes(other), _computes(vit)
    except Exception:  # no vision transformer, or one that timm cannot build bare: it says nothing of these tensors
        return
    if sizes[0] != sizes[1]:
        return  # told by the tensors, or not this file's
    for what in said:
        if said[what] != built[what]:
            raise BackboneError(
                f"{path} is, by the config.json beside it, {theirs}, with {said[what]}, but {name} has {built[what]}: "
                f"features would be wrong without any error. Use {theirs}"
            )


_OF_ROTARY = ("temperature", "rotate_half", "grid_indexing", "grid_offset", "ref_feat_shape", "normalize_coords")


def _computes(vit: nn.Module) -> dict[str, str]:
    """What blocks compute and no tensor tells, in words; activations are ``activation``'s."""
    rope = getattr(vit, "rope", None)
    settings = ", ".join(f"{key} {getattr(rope, key, None)}" for key in _OF_ROTARY)
    return {
        "heads": f"{vit.blocks[0].attn.num_heads} heads",
        "rotary": "no rotary positions" if rope is None else f"rotary positions ({type(rope).__name__}, {settings})",
        "epsilon": f"an epsilon of {_epsilon(vit)} in its norms",
    }

"""Refuses weights whose tensors fit a model that computes something else with them.

Attention heads, rotary positions and a norm's epsilon are in no tensor. So the weights of one family can have every
name and shape of another, and give wrong features without any error: CLIP's B/16 and Perception Encoder's do. The
layout, the tensors after the last block, and a ``config.json`` beside the file are compared with the built model.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import timm
import torch
from torch import nn

from evl.backbones.weights.layouts import WeightsLayout
from evl.backbones.weights.sidecar import read_sidecar, vision_config
from evl.errors import BackboneError

_SILENT = "features would be wrong without any error; give the name these weights belong to"
# the ViT of transformers has 1e-12, timm's 1e-6: next to a variance of 1 they make no difference, but 1e-5 does
_SAME_EPSILON = 1e-6


def refuse_other_layout(path: Path, layout: WeightsLayout, keys: Collection[str], vit: nn.Module, name: str) -> None:
    """Raises BackboneError if the layout is one of another family: rotary and plain blocks, or SigLIP and others."""
    has_rotary = getattr(vit, "rope", None) is not None
    if layout.name == "Perception Encoder" and not has_rotary:
        raise BackboneError(
            f"{path} has the layout of Perception Encoder, whose positions are rotary, but {name} has none: {_SILENT}"
        )
    # Perception Encoder's spatial towers have CLIP's names, but no norm after the last block
    if layout.is_clip and has_rotary and any(f"{layout.prefix}{norm}.weight" in keys for norm in _LAST_NORMS):
        raise BackboneError(
            f"{path} has the layout of {layout.name}, without rotary positions, but {name} has them: {_SILENT}"
        )
    if layout.name == "Hugging Face SigLIP" and "siglip" not in name:  # vit_base_patch16_gap_224 has other heads
        raise BackboneError(f"{path} has the layout of SigLIP, but {name} is not a SigLIP: {_SILENT}")


_LAST_NORMS = ("ln_post", "post_layernorm")


def refuse_other_end(path: Path, theirs: Collection[str], ours: Collection[str], vit: nn.Module, name: str) -> None:
    """Raises BackboneError if the tensors after the last block, which evl does not read, are those of another family.

    ``theirs``, ``ours``: names of tensors in the file and in the model, both timm's. SigLIP's towers are the same with
    and without pooling.
    """
    has_rotary = getattr(vit, "rope", None) is not None
    pools, we_pool = (_has(keys, "attn_pool.") for keys in (theirs, ours))
    normed, we_norm = (_has(keys, "norm.", "fc_norm.") for keys in (theirs, ours))
    if pools and not we_pool and "siglip" not in name:
        raise BackboneError(f"{path} has attention pooling (attn_pool.*), but {name} has none: {_SILENT}")
    if we_pool and not pools and has_rotary:
        raise BackboneError(f"{path} has no attention pooling (attn_pool.*), but {name} has it: {_SILENT}")
    if normed and not we_norm and has_rotary:
        raise BackboneError(f"{path} has a norm after its last block, but {name} has none: {_SILENT}")


def _has(keys: Collection[str], *beginnings: str) -> bool:
    return any(key.startswith(beginnings) for key in keys)


def refuse_other_config(path: Path, layout: WeightsLayout, vit: nn.Module, name: str) -> None:
    """Raises BackboneError if the JSON beside a file contradicts the built model: heads, epsilon, rotary positions."""
    if layout.is_hugging_face:
        config = vision_config(read_sidecar(path, "config.json"))
        rotary = config.get("rope_parameters")
        recorded = {
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
        _compare(path, "config.json", recorded, built, name)
    elif layout.name == "open_clip":
        config = read_sidecar(path, "open_clip_config.json").get("model_cfg")
        config = config.get("vision_cfg") if isinstance(config, dict) else None
        recorded = config.get("head_width") if isinstance(config, dict) else None
        built = vit.blocks[0].attn.head_dim
        _compare(path, "open_clip_config.json", {"head_width": recorded}, {"head_width": built}, name)
    else:
        _refuse_other_architecture(path, vit, name)


def _compare(path: Path, file: str, recorded: dict, built: dict, name: str) -> None:
    for key, theirs in recorded.items():
        ours = built[key]
        if not _is_number(theirs) or not _is_number(ours):
            continue
        if abs(theirs - ours) > (_SAME_EPSILON if key.endswith("_eps") else 0):
            raise BackboneError(f"{path} has {key} {theirs} by the {file} beside it, but {name} has {ours}: {_SILENT}")


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _epsilon(vit: nn.Module) -> float | None:
    return getattr(vit.blocks[0].norm1, "eps", None)


def _refuse_other_architecture(path: Path, vit: nn.Module, name: str) -> None:
    """Raises BackboneError if a ``config.json`` of timm names an architecture that computes something else."""
    theirs = read_sidecar(path, "config.json").get("architecture")
    if not isinstance(theirs, str) or theirs == name.partition(".")[0] or not timm.is_model(theirs):
        return
    try:
        with torch.device("meta"):
            other = timm.create_model(theirs, pretrained=False, num_classes=0)
        sizes = [(model.embed_dim, len(model.blocks)) for model in (other, vit)]
        recorded, built = _operations(other), _operations(vit)
    except Exception:  # not a vision transformer, or timm cannot build it without weights: nothing to compare
        return
    if sizes[0] != sizes[1]:
        return  # the tensors do not fit, which is reported later, or the config.json is of another file
    for what in recorded:
        if recorded[what] != built[what]:
            raise BackboneError(
                f"{path} is {theirs} by the config.json beside it, with {recorded[what]}, but {name} has "
                f"{built[what]}: features would be wrong without any error. Use {theirs}"
            )


_OF_ROTARY = ("temperature", "rotate_half", "grid_indexing", "grid_offset", "ref_feat_shape", "normalize_coords")


def _operations(vit: nn.Module) -> dict[str, str]:
    """Returns what the blocks compute and no tensor records, in words; ``activation`` checks activations."""
    rope = getattr(vit, "rope", None)
    settings = ", ".join(f"{key} {getattr(rope, key, None)}" for key in _OF_ROTARY)
    return {
        "heads": f"{vit.blocks[0].attn.num_heads} heads",
        "rotary": "no rotary positions" if rope is None else f"rotary positions ({type(rope).__name__}, {settings})",
        "epsilon": f"an epsilon of {_epsilon(vit)} in its norms",
    }

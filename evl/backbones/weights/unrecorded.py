"""Refuses weights whose tensors fit a model that computes something else with them.

Activation, attention heads, rotary positions and a norm's epsilon are in no tensor. So the weights of one family can
have every name and shape of another, and give wrong features without any error: CLIP's B/16 and Perception Encoder's
do. The layout, the tensors after the last block, and the JSON files beside the file are compared with the built model.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from pathlib import Path

import timm
import torch
from torch import nn

from evl.backbones.weights.files import class_names
from evl.backbones.weights.layouts import WeightsLayout
from evl.errors import BackboneError

logger = logging.getLogger(__name__)

_NAMES = {"gelutanh": "gelu_tanh", "quickgelu": "quick_gelu", "silu": "silu", "swish": "silu", "relu": "relu"}
_HUGGING_FACE = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "silu": "silu",
    **dict.fromkeys(("gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_accurate"), "gelu_tanh"),
}
# open_clip's table of pretrained weights lists these as trained with QuickGELU; timm has no QuickGELU name for them
_QUICK_GELU_WITHOUT_NAME = {"vit_base_patch16_clip_224.dfn2b"}


def activation_of(vit: nn.Module) -> str:
    """Returns the activation of the MLPs in a built model: ``gelu``, ``gelu_tanh``, ``quick_gelu``, ``silu``, …"""
    act = getattr(vit.blocks[0].mlp, "act", None)
    if isinstance(act, nn.GELU):
        return "gelu_tanh" if act.approximate == "tanh" else "gelu"
    name = type(act).__name__.lower()
    return next((ours for theirs, ours in _NAMES.items() if name.startswith(theirs)), name)


def refuse_wrong_activation(name: str) -> None:
    """Raises BackboneError if timm's weights of that name were trained with QuickGELU and the architecture has GELU.

    timm lists such CLIP weights under both architectures; with GELU they give wrong features.
    """
    architecture, _, tag = name.partition(".")
    if "quickgelu" in architecture:
        return
    if not tag and (default := timm.get_pretrained_cfg(architecture)) is not None:
        tag = default.tag or ""  # timm's default
    if not tag or not _is_quick(architecture, tag):
        return
    twin = _twin(architecture)
    sentence = (
        f"the weights {tag!r} were trained with QuickGELU, but {architecture} uses GELU: features would be wrong "
        "without any error. "
    )
    if f"{architecture}.{tag}" in _QUICK_GELU_WITHOUT_NAME:
        from evl.backbones.weights.fetch import sources

        raise BackboneError(f"{sentence}Fetch {sources(name)[0].address} and use {twin} with backbone.weights=FILE")
    raise BackboneError(f"{sentence}Use {twin}.{tag}")


def _is_quick(architecture: str, tag: str) -> bool:
    twin = _twin(architecture)
    if f"{architecture}.{tag}" in _QUICK_GELU_WITHOUT_NAME:
        return True
    return twin != architecture and f"{twin}.{tag}" in timm.list_pretrained(f"{twin}.*")


def _twin(architecture: str) -> str:
    """Returns the name of the same architecture with the other activation, which need not exist."""
    if "_clip_quickgelu_" in architecture:
        return architecture.replace("_clip_quickgelu_", "_clip_")
    return architecture.replace("_clip_", "_clip_quickgelu_")


def refuse_other_activation(
    path: Path, layout: WeightsLayout, vit: nn.Module, name: str, *, notice: bool = True
) -> None:
    """Raises BackboneError if a file was trained with another activation than that of the architecture.

    All of OpenAI's archives have QuickGELU. For other files, a ``config.json`` or ``open_clip_config.json`` beside them
    decides. If there is none, the architecture's activation is used, and a warning names it (only with ``notice``).
    """
    built = activation_of(vit)
    recorded, reason = _recorded_activation(path, layout)
    if recorded is None:
        in_clip = layout.name.endswith(("timm", "tower")) and "_clip_" in name and "." not in name
        if notice and (layout.is_clip or in_clip):
            twin = _twin(name.partition(".")[0])
            other = f" If that is wrong, set backbone.name={twin}" if timm.is_model(twin) and twin != name else ""
            logger.warning(
                "%s: the activation that these weights were trained with is unknown; %s computes %s.%s",
                path, name, built, other,
            )  # fmt: skip
        return
    if {recorded, built} <= {"gelu", "gelu_tanh"}:  # timm uses exact GELU for some weights trained with the tanh form
        if recorded != built:
            logger.info("%s %s; %s computes %s, as timm does for these weights", path, reason, name, built)
        return
    if recorded == built:
        return
    twin = _twin(name.partition(".")[0])
    use = f"Use {twin}" if timm.is_model(twin) and twin != name else f"Give a name that uses {recorded}"
    theirs, ours = (_TITLES.get(one, one) for one in (recorded, built))
    raise BackboneError(
        f"{path} {reason}, so it was trained with {theirs}, but {name} uses {ours}: "
        f"features would be wrong without any error. {use}"
        + (", or openai_clip" if layout.name == "OpenAI CLIP" else "")
    )


_TITLES = {"gelu": "GELU", "gelu_tanh": "GELU (tanh)", "quick_gelu": "QuickGELU", "silu": "SiLU"}


def _recorded_activation(path: Path, layout: WeightsLayout) -> tuple[str | None, str]:
    """Returns the activation that the archive, or a file beside it, records, and the reason as part of a sentence."""
    if layout.name == "OpenAI CLIP":
        return "quick_gelu", "is one of OpenAI's archives"
    if layout.is_hugging_face:
        config = read_sidecar(path, "config.json")
        act = vision_config(config).get("hidden_act")
        act = str(act) if act is not None else None
        if act is None and layout.is_clip and str(config.get("model_type", "")).startswith("clip"):
            act = "quick_gelu"  # the default of transformers
        if layout.name.startswith("Hugging Face DINOv2") and config.get("use_swiglu_ffn"):
            act = "silu"  # hidden_act is not used then
        return _HUGGING_FACE.get(act), f"has a config.json beside it with hidden_act {act}"
    if layout.name in ("open_clip", "open_clip with timm's tower"):
        config = read_sidecar(path, "open_clip_config.json").get("model_cfg")
        if isinstance(config, dict) and (layout.is_clip or "timm_model_name" not in str(config)):
            quick = bool(config.get("quick_gelu", False))
            reason = f"has an open_clip_config.json beside it with quick_gelu {str(quick).lower()}"
            return ("quick_gelu" if quick else "gelu"), reason
        if found := activation_in_script(class_names(path)):
            return found, "has TorchScript classes with this activation"
    if layout.name == "timm":
        config = read_sidecar(path, "config.json")
        architecture, cfg = config.get("architecture"), config.get("pretrained_cfg")
        tag = cfg.get("tag") if isinstance(cfg, dict) else None
        if isinstance(tag, str) and "_clip_" in str(architecture) and timm.is_model(str(architecture)):
            quick = "_clip_quickgelu_" in architecture or _is_quick(architecture, tag)
            return ("quick_gelu" if quick else "gelu"), f"has a config.json beside it for {architecture}.{tag:.60}"
    return None, ""


def activation_in_script(classes: Collection[str]) -> str | None:
    """Returns the activation that the module classes of a TorchScript archive name; None for none or for several."""
    names = {name.rpartition(".")[2] for name in classes}
    found = {ours for theirs, ours in (("GELU", "gelu"), ("QuickGELU", "quick_gelu")) if theirs in names}
    return found.pop() if len(found) == 1 else None


def read_sidecar(path: Path, name: str) -> dict:
    """Returns the JSON object in the file ``name`` beside ``path``; {} if there is none of at most 1 MiB."""
    file = path.parent / name
    try:
        if not file.is_file() or file.stat().st_size > 1 << 20:
            return {}
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        logger.warning("%s cannot be read, so %s is not checked against it", file, path.name)
        return {}
    return content if isinstance(content, dict) else {}


def vision_config(config: dict) -> dict:
    """Returns the image tower's part of a ``config.json`` of transformers; all of it if there is only that tower.

    Older CLIPs call it ``vision_config_dict``, which wins if both are there, as in transformers.
    """
    for name in ("vision_config_dict", "vision_config"):
        if isinstance(config.get(name), dict):
            return config[name]
    return {} if "vision_config" in config else config


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
        norm = vit.blocks[0].norm1
        built = {
            "num_attention_heads": vit.blocks[0].attn.num_heads,
            "layer_norm_eps" if isinstance(norm, nn.LayerNorm) else "rms_norm_eps": getattr(norm, "eps", None),
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
        ours = built.get(key)
        if not {type(theirs), type(ours)} <= {int, float}:
            continue
        if abs(theirs - ours) > (_SAME_EPSILON if key.endswith("_eps") else 0):
            raise BackboneError(f"{path} has {key} {theirs} by the {file} beside it, but {name} has {ours}: {_SILENT}")


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
    """Returns what the blocks compute and no tensor records, in words, except the activation."""
    rope = getattr(vit, "rope", None)
    settings = ", ".join(f"{key} {getattr(rope, key, None)}" for key in _OF_ROTARY)
    return {
        "heads": f"{vit.blocks[0].attn.num_heads} heads",
        "rotary": "no rotary positions" if rope is None else f"rotary positions ({type(rope).__name__}, {settings})",
        "epsilon": f"an epsilon of {getattr(vit.blocks[0].norm1, 'eps', None)} in its norms",
    }

"""Finds the activation that weights were trained with, and refuses another one.

Tensors do not record their activation; the wrong one gives wrong features without an error.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import timm
from torch import nn

from evl.backbones.weights.files import class_names
from evl.backbones.weights.layouts import WeightsLayout
from evl.backbones.weights.sidecar import read_sidecar, vision_config
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
    """Whether timm's weights of that name were trained with QuickGELU."""
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
    """Returns the activation that the archive, or a file beside it, records, and the reason as part of a sentence.

    The activation is None if nothing records it.
    """
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

"""Which activation weights were trained with. Nothing in them tells, and with another features are wrong in silence."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

import timm
from torch import nn

from evl.backbones.weights.files import class_names
from evl.backbones.weights.forms import Layout
from evl.backbones.weights.sidecar import json_beside, vision_config
from evl.errors import BackboneError

logger = logging.getLogger(__name__)

_NAMES = {"gelutanh": "gelu_tanh", "quickgelu": "quick_gelu", "silu": "silu", "swish": "silu", "relu": "relu"}
_HUGGING_FACE = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "silu": "silu",
    **dict.fromkeys(("gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_accurate"), "gelu_tanh"),
}
# trained with QuickGELU by open_clip's table of pretrained weights, though timm has no name with QuickGELU for them
_QUICK_GELU_WITHOUT_NAME = {"vit_base_patch16_clip_224.dfn2b"}


def activation_of(vit: nn.Module) -> str:
    """The activation in the blocks' MLPs of a built model: ``gelu``, ``gelu_tanh``, ``quick_gelu``, ``silu``, …"""
    act = getattr(vit.blocks[0].mlp, "act", None)
    if isinstance(act, nn.GELU):
        return "gelu_tanh" if act.approximate == "tanh" else "gelu"
    name = type(act).__name__.lower()
    return next((ours for theirs, ours in _NAMES.items() if name.startswith(theirs)), name)


def refuse_wrong_activation(name: str) -> None:
    """timm lists CLIP weights trained with QuickGELU under a GELU architecture too; there they give wrong features."""
    architecture, _, tag = name.partition(".")
    if "quickgelu" in architecture:
        return
    if not tag and (default := timm.get_pretrained_cfg(architecture)) is not None:
        tag = default.tag or ""  # what timm would take
    if not tag or not _is_quick(architecture, tag):
        return
    twin = _twin(architecture)
    sentence = (
        f"the weights {tag!r} were trained with QuickGELU, but {architecture} uses GELU: features would be wrong "
        "without any error. "
    )
    if f"{architecture}.{tag}" in _QUICK_GELU_WITHOUT_NAME:
        from evl.backbones.weights.fetch import sources

        raise BackboneError(
            f"{sentence}Use {twin} with backbone.weights=FILE, the file being {sources(name)[0].address}"
        )
    raise BackboneError(f"{sentence}Use {twin}.{tag}")


def _is_quick(architecture: str, tag: str) -> bool:
    """Whether timm's weights of that name are natively of QuickGELU."""
    twin = _twin(architecture)
    if f"{architecture}.{tag}" in _QUICK_GELU_WITHOUT_NAME:
        return True
    return twin != architecture and f"{twin}.{tag}" in timm.list_pretrained(f"{twin}.*")


def _twin(architecture: str) -> str:
    """The same architecture with the other activation, whether it exists or not."""
    if "_clip_quickgelu_" in architecture:
        return architecture.replace("_clip_quickgelu_", "_clip_")
    return architecture.replace("_clip_", "_clip_quickgelu_")


def refuse_other_activation(path: Path, layout: Layout, vit: nn.Module, name: str, *, notice: bool = True) -> None:
    """BackboneError where a file says that it was trained with another activation than the architecture's.

    OpenAI's archives say it by what they are, others by a ``config.json`` or ``open_clip_config.json`` beside them.
    Where nothing says it, the name decides, and a notice tells what was assumed.
    """
    built = activation_of(vit)
    said, why = _said(path, layout)
    if said is None:
        in_clip = layout.name.endswith(("timm", "tower")) and "_clip_" in name and "." not in name
        if notice and (layout.is_clip or in_clip):
            twin = _twin(name.partition(".")[0])
            other = f" If that is wrong, set backbone.name={twin}" if timm.is_model(twin) and twin != name else ""
            logger.warning(
                "%s: nothing says with which activation these weights were trained; %s computes %s.%s",
                path, name, built, other,
            )  # fmt: skip
        return
    if {said, built} <= {"gelu", "gelu_tanh"}:  # timm takes the exact one for some weights trained with the other
        if said != built:
            logger.info("%s %s; %s computes %s, as timm does for these weights", path, why, name, built)
        return
    if said == built:
        return
    twin = _twin(name.partition(".")[0])
    use = f"Use {twin}" if timm.is_model(twin) and twin != name else f"Give a name that uses {said}"
    raise BackboneError(
        f"{path} {why}, trained with {_FOR_PEOPLE.get(said, said)}, but {name} uses {_FOR_PEOPLE.get(built, built)}: "
        f"features would be wrong without any error. {use}"
        + (", or openai_clip" if layout.name == "OpenAI CLIP" else "")
    )


_FOR_PEOPLE = {"gelu": "GELU", "gelu_tanh": "GELU (tanh)", "quick_gelu": "QuickGELU", "silu": "SiLU"}


def _said(path: Path, layout: Layout) -> tuple[str | None, str]:
    """The activation a file's origin tells, or None, and how it does."""
    if layout.name == "OpenAI CLIP":
        return "quick_gelu", "has the form of OpenAI's archives"
    if layout.is_hugging_face:
        config = json_beside(path, "config.json")
        act = vision_config(config).get("hidden_act")
        act = str(act) if act is not None else None
        if act is None and layout.is_clip and str(config.get("model_type", "")).startswith("clip"):
            act = "quick_gelu"  # what transformers takes where its config says nothing
        if layout.name.startswith("Hugging Face DINOv2") and config.get("use_swiglu_ffn"):
            act = "silu"  # whatever hidden_act says
        return _HUGGING_FACE.get(act), f"is, by the config.json beside it (hidden_act {act})"
    if layout.name in ("open_clip", "open_clip with timm's tower"):
        config = json_beside(path, "open_clip_config.json").get("model_cfg")
        if isinstance(config, dict) and (layout.is_clip or "timm_model_name" not in str(config)):
            quick = bool(config.get("quick_gelu", False))
            return (
                "quick_gelu" if quick else "gelu"
            ), f"is, by open_clip_config.json (quick_gelu {str(quick).lower()})"
        if found := activation_in_script(class_names(path)):
            return found, "is, by the classes its TorchScript names"
    if layout.name == "timm":
        config = json_beside(path, "config.json")
        architecture, cfg = config.get("architecture"), config.get("pretrained_cfg")
        tag = cfg.get("tag") if isinstance(cfg, dict) else None
        if isinstance(tag, str) and "_clip_" in str(architecture) and timm.is_model(str(architecture)):
            quick = "_clip_quickgelu_" in architecture or _is_quick(architecture, tag)
            return ("quick_gelu" if quick else "gelu"), f"is, by the config.json beside it ({architecture}.{tag:.60})"
    return None, ""


def activation_in_script(classes: Collection[str]) -> str | None:
    """What the classes of a TorchScript archive's modules say; None where they say nothing, or two things."""
    names = {name.rpartition(".")[2] for name in classes}
    found = {ours for theirs, ours in (("GELU", "gelu"), ("QuickGELU", "quick_gelu")) if theirs in names}
    return found.pop() if len(found) == 1 else None

"""Lists the backbones that work here, with sizes, cost, license, and where their weights are: ``evl backbones``."""

from __future__ import annotations

import fnmatch
import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import timm
import torch
from torch.overrides import TorchFunctionMode

from evl.backbones.embedded import EMBEDDED
from evl.backbones.refusals import refuse_by_name, refuse_unsupported
from evl.backbones.registry import architectures, create_backbone, refuse_wrong_activation
from evl.backbones.timm_vit import frame_macs, spec_of
from evl.backbones.weights.fetch import sources, weights_on_disk
from evl.errors import BackboneError
from evl.types import BackboneSpec

# the first pattern that matches "architecture.tag" counts; a listing has this order
_FAMILIES = (
    (r"vit_.*_clip_", "CLIP"),
    (r".*_siglip_.*\.v2_|vit_giantopt_.*_siglip_", "SigLIP 2"),
    (r".*_siglip_.*\.pali", "SigLIP (PaliGemma)"),
    (r".*_siglip_", "SigLIP"),
    (r"eva02_.*_clip_", "EVA-02-CLIP"),
    (r"eva_.*_clip_", "EVA-CLIP"),
    (r"vit_pe_", "Perception Encoder"),
    (r".*_dinov3(?!.*\.eupe)", "DINOv3"),
    (r".*_dinov2", "DINOv2"),
    (r".*\.dino$", "DINO"),
    (r"aimv2_", "AIMv2"),
    (r"eva02_", "EVA-02"),
    (r"eva_", "EVA"),
    (r".*\.mae", "MAE"),
    (r".*ijepa", "I-JEPA"),
    (r".*_dinov3.*\.eupe", "EUPE"),
    (r".*_tipsv2", "TIPSv2"),
    (r".*_radio_", "C-RADIO"),
    (r"vit_intern", "InternViT"),
    (r".*_lingbot", "LingBot-Vision"),
    (r".*_sapiens2", "Sapiens2"),
    (r"beit3_", "BEiT-3"),
    (r"flexivit_", "FlexiViT"),
    (r"deit3_", "DeiT III"),
    (r"deit_", "DeiT"),
    (r".*_rope_.*\.naver", "RoPE-ViT"),
    (r".*\..*bamboo", "ViT (Bamboo)"),
    (r".*\..*in2[12]k", "ViT (ImageNet-21k)"),
    (r".*\..*in12k", "ViT (ImageNet-12k)"),
    (r".*\..*in1k", "ViT (ImageNet-1k)"),
    (r"evl_", "evl"),
    (r".*", "ViT"),
)
ORDER = tuple(family for _, family in _FAMILIES)


@dataclass(frozen=True)
class Listed:
    """One backbone of the list.

    Attributes:
        macs: multiply-adds per frame.
        license: that of the weights, if timm gives one.
        source: the Hugging Face repository or the address of the weights; "evl" for those that come with evl; None if
            no weights are published.
        file: the weights file on this machine, if there is one.
    """

    name: str
    family: str
    spec: BackboneSpec
    parameters: int
    macs: int
    license: str | None = None
    source: str | None = None
    file: str | None = None

    @property
    def is_here(self) -> bool:
        """Whether this backbone can be used without a network."""
        return self.file is not None or self.source == "evl"

    def to_dict(self) -> dict:
        fields = ("width", "depth", "num_heads", "grid", "num_prefix_tokens", "image_size", "patch_size")
        return {
            "name": self.name,
            "family": self.family,
            **{field: getattr(self.spec, field) for field in fields},
            "parameters": self.parameters,
            "gflops": round(self.macs / 1e9, 3),  # a multiply-add counted once
            "license": self.license,
            "source": self.source,
            "file": self.file,
            "weights_here": self.is_here,
        }


def list_backbones(word: str = "") -> list[Listed]:
    """Returns the backbones whose name or family contains ``word``, sorted by family, then by multiply-adds.

    A word with * or ? is a pattern for the whole name. Nothing is downloaded, and the network is not used.
    """
    names = _names(word)
    with _no_garbage_collection():
        found = [listed for name in names if (listed := _listed(name)) is not None]
    return sorted(found, key=lambda one: (ORDER.index(one.family), one.macs, one.name))


def _names(word: str) -> Iterator[str]:
    tags: dict[str, list[str]] = {}
    for full in timm.list_pretrained():
        tags.setdefault(full.partition(".")[0], []).append(full)
    pattern = word.lower() if any(sign in word for sign in "*?[") else f"*{word.lower()}*"
    for architecture in (EMBEDDED, *architectures()):
        for name in tags.get(architecture, [architecture]):
            in_family = plain(word) and plain(word) in plain(family_of(name))
            if fnmatch.fnmatchcase(name, pattern) or in_family:
                yield name


def _listed(name: str) -> Listed | None:
    if name == EMBEDDED:
        backbone = create_backbone(name, 1)
        sizes = backbone.spec, *_cost(backbone.vit, backbone.spec)
        return Listed(name, family_of(name), *sizes, license="apache-2.0", source="evl")
    try:
        refuse_wrong_activation(name)
        spec, parameters, macs = _sizes(name.partition(".")[0])
    except BackboneError:
        return None
    found = sources(name)
    if not found:
        return Listed(name, family_of(name), spec, parameters, macs)
    path = weights_on_disk(name)
    license, file = timm.get_pretrained_cfg(name).license, None if path is None else str(path)
    return Listed(name, family_of(name), spec, parameters, macs, license, found[0].where, file)


def refuse(name: str) -> None:
    """Raises BackboneError with the reason if timm's ``name`` cannot be a backbone."""
    refuse_by_name(name)
    refuse_wrong_activation(name)
    _sizes(name.partition(".")[0])


def why_none(word: str) -> str:
    """A sentence on a ``word`` that lists nothing, with the reason where it names an architecture that cannot work."""
    sentence = f"no backbone that works here has {word!r} in its name or family; 'evl backbones' lists all"
    if any(sign in word for sign in "*?["):
        return sentence
    architecture = word.partition(".")[0]
    known = [word] if timm.is_model(architecture) else timm.list_models(f"{word}*") + timm.list_models(f"*{word}*")
    try:
        for name in known[:20]:
            refuse(name)
    except BackboneError as refusal:
        return f"{sentence}. {refusal}"
    return sentence


@cache
def _sizes(architecture: str) -> tuple[BackboneSpec, int, int]:
    """Returns (spec, number of parameters, multiply-adds per frame) of an architecture, from shapes alone."""
    with torch.device("meta"), _Unfilled():
        vit = timm.create_model(architecture, pretrained=False, num_classes=0)
    refuse_unsupported(vit, architecture)
    spec = spec_of(vit, architecture)
    return spec, *_cost(vit, spec)


def _cost(vit: torch.nn.Module, spec: BackboneSpec) -> tuple[int, int]:
    return sum(parameter.numel() for parameter in vit.parameters()), frame_macs(vit, spec)


class _Unfilled(TorchFunctionMode):
    """Skips the in-place operations that fill tensors on the meta device: they took most of a listing's time."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.endswith("__") and name != "requires_grad_":
            target = args[0] if args else (kwargs or {}).get("tensor")
            if isinstance(target, torch.Tensor) and target.is_meta:
                return target
        return func(*args, **(kwargs or {}))


@contextmanager
def _no_garbage_collection():
    """Turns garbage collection off: for hundreds of short-lived models it takes as long as building them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def family_of(name: str) -> str:
    """Returns the family of a name: ``vit_base_patch16_dinov3.lvd1689m`` -> ``DINOv3``."""
    return next(family for pattern, family in _FAMILIES if re.match(pattern, name))


def plain(word: str) -> str:
    """Returns ``word`` in lower case, letters and digits only, so that ``SigLIP 2`` equals ``siglip2``."""
    return re.sub(r"[^a-z0-9]", "", word.lower())

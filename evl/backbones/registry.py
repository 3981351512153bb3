"""Names → backbones: timm's, the embedded one, and OpenAI's archives."""

from __future__ import annotations

import fnmatch
from functools import cache

import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from evl.backbones.activation import activation_of
from evl.backbones.activation import refuse_wrong_activation as _refuse_wrong_activation
from evl.backbones.base import FrozenBackbone, hash_weights
from evl.backbones.loading import load_timm
from evl.backbones.openai_clip import load_openai_clip
from evl.backbones.timm_vit import TimmBackbone, preprocessing_of, random_weights_
from evl.config import BackboneConfig
from evl.errors import BackboneError, nearest
from evl.types import BackboneSpec, Preprocessing, WeightsOrigin

EMBEDDED = "evl_vit_tiny"
OPENAI = "openai_clip"


def create_backbone(config: BackboneConfig | str, num_taps: int, *, trust_origin: bool = False) -> FrozenBackbone:
    """The frozen backbone a config names, in float32 on the CPU, tapped at its last ``num_taps`` blocks.

    Raises BackboneError for an unknown name (with the nearest known), an architecture that cannot work, or weights
    that are missing, do not fit, or were made for another activation. ``trust_origin``: take a file in OpenAI's layout
    for OpenAI's, as where a known hash will tell.
    """
    if isinstance(config, str):
        config = BackboneConfig(name=config)
    backbone = _create(config, num_taps, trust_origin)
    if not any(parameter.is_meta for parameter in backbone.parameters()):
        backbone.weights_hash  # noqa: B018  (now, while the weights are as they were read: a model may be cast later)
        if not all(parameter.isfinite().all() for parameter in backbone.parameters()):
            raise BackboneError(f"the weights of {config.weights or config.name} are not all finite numbers")
    return backbone


def _create(config: BackboneConfig, num_taps: int, trust_origin: bool) -> FrozenBackbone:
    if config.name == OPENAI:
        if config.weights is None:
            raise BackboneError("openai_clip needs its archive: set backbone.weights=ViT-B-16.pt")
        if config.image_size is not None:
            raise BackboneError("openai_clip takes its size from the archive; leave backbone.image_size unset")
        return load_openai_clip(config.weights, num_taps, trust_origin=trust_origin)
    if config.name == EMBEDDED:
        return _embedded(config, num_taps)
    _refuse_unknown(config.name)
    if "." in config.name or (config.weights is None and config.pretrained):
        _refuse_wrong_activation(config.name)
    vit, origin = load_timm(config, trust_origin=trust_origin)
    native = None
    if config.image_size is not None:
        # named by the weights as they were read: interpolated positions differ in the last bit between machines
        native = hash_weights({f"vit.{name}": tensor for name, tensor in vit.state_dict().items()})
        size, patch = config.image_size, vit.patch_embed.patch_size
        height, width = (size, size) if isinstance(size, int) else size
        if height % patch[0] or width % patch[1]:
            raise BackboneError(
                f"{config.name} cannot take images of {height}×{width}: patches are {patch[0]}×{patch[1]}"
            )
        vit.set_input_size(img_size=(height, width))
    preprocessing = preprocessing_of(vit.pretrained_cfg, vit.patch_embed.img_size)
    backbone = TimmBackbone(vit, config.name, preprocessing, num_taps)
    backbone._hash, backbone.origin = native, origin
    return backbone


def _embedded(config: BackboneConfig, num_taps: int) -> TimmBackbone:
    """A small untrained ViT with weights from a fixed seed: for first steps and tests, not for good scores."""
    if config.weights is not None:
        raise BackboneError(f"{EMBEDDED} has weights of its own; leave backbone.weights unset")
    size = config.image_size or 64
    height, width = (size, size) if isinstance(size, int) else size
    if height % 8 or width % 8:
        raise BackboneError(f"{EMBEDDED} takes sizes that are multiples of 8, not {height}×{width}")
    vit = VisionTransformer(img_size=(height, width), patch_size=8, embed_dim=128, depth=4, num_heads=2, num_classes=0)
    random_weights_(vit, seed=0)
    preprocessing = Preprocessing((height, width), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear", True)
    backbone = TimmBackbone(vit, EMBEDDED, preprocessing, num_taps)
    backbone.origin = WeightsOrigin("embedded", EMBEDDED, "timm", activation_of(vit))
    return backbone


def _refuse_unknown(name: str) -> None:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = nearest(architecture, [EMBEDDED, OPENAI, *_architectures()])
        raise BackboneError(f"no backbone named {name!r}{near}; 'evl backbones WORD' lists what there is")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        near = nearest(tag, tags)
        raise BackboneError(f"{architecture} has no weights named {tag!r}{near}")


@cache
def _architectures() -> tuple[str, ...]:
    modules = ("vision_transformer", "eva", "deit", "vision_transformer_hybrid")
    return tuple(name for module in modules for name in timm.list_models(module=module))


@cache
def _spec(architecture: str) -> tuple[BackboneSpec, int] | None:
    """Description and number of parameters, from shapes alone; None if it cannot work here."""
    try:
        with torch.device("meta"):
            vit = timm.create_model(architecture, pretrained=False, num_classes=0)
        backbone = TimmBackbone(vit, architecture, preprocessing_of(vit.pretrained_cfg, (0, 0)), 1)
    except Exception:  # whatever timm raises: it does not work here
        return None
    return backbone.spec, sum(parameter.numel() for parameter in vit.parameters())


def list_backbones(word: str = "") -> list[tuple[str, BackboneSpec, int]]:
    """(name, description, parameters) of all that work here and contain ``word`` (or match it, with * and ?)."""
    pattern = word if any(sign in word for sign in "*?[") else f"*{word}*"
    names = [EMBEDDED]
    for architecture in _architectures():
        names += timm.list_pretrained(f"{architecture}.*") or [architecture]
    found = []
    for name in names:
        if not fnmatch.fnmatchcase(name, pattern):
            continue
        if name == EMBEDDED:
            backbone = create_backbone(name, 1)
            found.append((name, backbone.spec, sum(p.numel() for p in backbone.parameters())))
            continue
        try:
            _refuse_wrong_activation(name)
        except BackboneError:
            continue
        if (described := _spec(name.partition(".")[0])) is not None:
            found.append((name, *described))
    return found

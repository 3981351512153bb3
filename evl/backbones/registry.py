"""Creates a backbone by its name: timm's, the embedded one, OpenAI's archives, and encoders from outside."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path

import timm
from torch import Tensor

from evl.backbones.base import FrozenBackbone, Taps
from evl.backbones.embedded import EMBEDDED, load_embedded, preprocessing_of_embedded
from evl.backbones.refusals import refuse_by_name
from evl.backbones.timm_vit import TimmBackbone, preprocessing_of
from evl.backbones.weights.loading import load_timm, unfilled_timm
from evl.backbones.weights.openai_clip import build_openai_clip, load_openai_clip, preprocessing_of_clip
from evl.backbones.weights.unrecorded import activation_of, refuse_wrong_activation
from evl.config import BackboneConfig
from evl.errors import BackboneError, ConfigError, nearest
from evl.runtime.files import expand_home
from evl.runtime.import_path import import_class, is_import_path
from evl.types import BackboneSpec, Preprocessing, WeightsOrigin

OPENAI = "openai_clip"


def parse_backbone(text: str) -> BackboneConfig:
    """Returns the config that the text of ``--backbone`` means: a name, or the path of one of OpenAI's archives."""
    text = expand_home(text)
    is_file = Path(text).suffix in (".pt", ".pth") or os.path.isfile(text)  # False, not an error, for an odd path
    return BackboneConfig(OPENAI, weights=text) if is_file else BackboneConfig(text)


def create_backbone(
    config: BackboneConfig | str,
    taps: Taps,
    *,
    trust_origin: bool = False,
    state: Mapping[str, Tensor] | None = None,
) -> FrozenBackbone:
    """Returns the frozen backbone that ``config`` names, in float32 on the CPU.

    Args:
        config: a config, or a name alone.
        taps: 4 or ``"last 4"``, ``"all"``, or rising block numbers counted from 1, such as [3, 6, 9, 12].
        trust_origin: accept a file in OpenAI's layout as OpenAI's without further signs. Callers set it if they compare
            the weights with a known hash afterwards.
        state: the ``state_dict`` of such a backbone. If it is given, no weights are read or downloaded.

    Raises BackboneError for an unknown name (with the nearest known one), for an architecture that cannot work, and for
    weights that are missing, do not fit, or were trained with another activation.
    """
    if isinstance(config, str):
        config = BackboneConfig(name=config)
    backbone = _create(config, taps, trust_origin, state)
    # computes the hash of the weights as read, before a caller casts the model
    if backbone.weights_hash and not all(parameter.isfinite().all() for parameter in backbone.parameters()):
        raise BackboneError(f"the weights of {config.weights or config.name} are not all finite numbers")
    return backbone


def _create(
    config: BackboneConfig, taps: Taps, trust_origin: bool, state: Mapping[str, Tensor] | None
) -> FrozenBackbone:
    if is_import_path(config.name):
        backbone = create_from_outside(config, taps, pretrained=config.pretrained and state is None)
        if state is not None:
            _load_saved(backbone, state, config.name)
        return backbone
    if config.patch_size is not None and "flexivit" not in config.name:
        raise BackboneError(
            f"{config.name} has patches of one size; leave backbone.patch_size unset, or see 'evl backbones flexivit'"
        )
    if config.name == OPENAI and state is not None:
        tower = {name.removeprefix("vit."): tensor.float() for name, tensor in state.items()}
        vit, preprocessing_for, origin = build_openai_clip(tower, config.image_size), preprocessing_of_clip, None
    elif config.name == OPENAI:
        if config.weights is None:
            raise BackboneError("openai_clip needs its archive: set backbone.weights=ViT-B-16.pt")
        vit, preprocessing_for = load_openai_clip(config.weights, trust_origin=trust_origin), preprocessing_of_clip
        origin = WeightsOrigin("file", Path(config.weights).name, "OpenAI CLIP", activation_of(vit))
    elif config.name == EMBEDDED:
        (vit, origin), preprocessing_for = load_embedded(config, empty=state is not None), preprocessing_of_embedded
    else:
        _refuse(config)
        vit, origin = (
            (unfilled_timm(config.name), None) if state is not None else load_timm(config, trust_origin=trust_origin)
        )
        preprocessing_for = partial(preprocessing_of, vit.pretrained_cfg)
    backbone = TimmBackbone(vit, config.name, preprocessing_for(vit.patch_embed.img_size), taps)
    if state is None:
        backbone.origin = origin
    else:
        backbone._hash = ""  # until the state is loaded; the caller knows its origin
    if config.image_size is not None or config.patch_size is not None:
        backbone.resize(config.image_size, config.patch_size)
    if state is not None:
        _load_saved(backbone, state, backbone.spec.name)
    return backbone


def _load_saved(backbone: FrozenBackbone, state: Mapping[str, Tensor], name: str) -> None:
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        lines = "; ".join(line.strip()[:300] for line in str(error).splitlines()[:3])
        raise BackboneError(f"the saved weights do not fit {name}: {lines}") from None


def _refuse(config: BackboneConfig) -> None:
    """Raises BackboneError for timm's names that cannot be a backbone, or not with this config's weights."""
    _refuse_unknown(config.name)
    refuse_by_name(config.name)
    if "." in config.name or (config.weights is None and config.pretrained):
        refuse_wrong_activation(config.name)


def _refuse_unknown(name: str) -> None:
    architecture, dot, tag = name.partition(".")
    if not timm.is_model(architecture):
        low = architecture.lower()
        near = nearest(low, [EMBEDDED, OPENAI, *architectures()]) or nearest(low, timm.list_models())
        raise BackboneError(f"no backbone named {name!r}{near}; 'evl backbones WORD' lists the names")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")]
    if dot and tag not in tags:
        near = nearest(tag, tags)
        raise BackboneError(f"{architecture} has no weights named {tag!r}{near}")


@cache
def architectures() -> tuple[str, ...]:
    """Returns the architectures of those modules of timm whose models can work here."""
    modules = ("vision_transformer", "eva", "deit")
    return tuple(name for module in modules for name in timm.list_models(module=module))


def create_from_outside(config: BackboneConfig, taps: Taps, *, pretrained: bool) -> FrozenBackbone:
    """Returns ``MyEncoder(taps, weights=…, pretrained=…, image_size=…)``, checked and frozen.

    Raises BackboneError if it cannot be imported or made, or breaks the contract of FrozenBackbone.
    """
    setting = f"backbone.name={config.name}"
    if config.patch_size is not None:
        raise BackboneError(f"{setting}: backbone.patch_size is for FlexiViT; unset it")
    try:
        kind = import_class(config.name, "backbone.name", FrozenBackbone)
    except ConfigError as error:
        raise BackboneError(str(error)) from error
    arguments = dict(weights=config.weights, pretrained=pretrained, image_size=config.image_size)
    try:
        backbone = kind(taps, **arguments)
    except BackboneError:
        raise
    except Exception as error:  # the encoder's own code can raise anything
        call = ", ".join([repr(taps), *(f"{name}={value!r}" for name, value in arguments.items())])
        raise BackboneError(f"{setting}: {kind.__name__}({call}) failed: {type(error).__name__}: {error}") from error
    for name, wanted in (("spec", BackboneSpec), ("preprocessing", Preprocessing), ("taps", tuple)):
        if not isinstance(getattr(backbone, name, None), wanted):
            raise BackboneError(
                f"{setting}: its {name} is no {wanted.__name__}; call super().__init__(spec, preprocessing, taps)"
            )
    if not list(backbone.parameters()):
        raise BackboneError(f"{setting}: {kind.__name__} has no parameters, so its weights cannot be identified")
    if tuple(backbone.preprocessing.image_size) != tuple(backbone.spec.image_size):
        sizes = f"{backbone.preprocessing.image_size} and {backbone.spec.image_size}"
        raise BackboneError(f"{setting}: preprocessing and spec have images of {sizes}; they must be the same")
    backbone.requires_grad_(False)
    backbone.eval()
    if backbone.origin is None:
        origin = "random" if not config.pretrained else "file" if config.weights else "code"
        backbone.origin = WeightsOrigin(origin, config.weights or config.name, "its own", "its own")
    return backbone

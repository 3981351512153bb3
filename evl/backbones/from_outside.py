"""An encoder from outside the package, by import path: ``backbone.name=my_module:MyEncoder``."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from evl.backbones.base import FrozenBackbone, Taps
from evl.config import BackboneConfig
from evl.errors import BackboneError, ConfigError
from evl.runtime.import_path import import_class
from evl.types import BackboneSpec, Preprocessing, WeightsOrigin


def create_from_outside(config: BackboneConfig, taps: Taps, state: Mapping[str, Tensor] | None) -> FrozenBackbone:
    """``MyEncoder(taps, weights=…, pretrained=…, image_size=…)``, frozen and checked; ``state``: the tensors to put in.

    Raises BackboneError where it cannot be imported or made, or is not what its contract says.
    """
    said = f"backbone.name={config.name}"
    if config.patch_size is not None:
        raise BackboneError(f"{said}: backbone.patch_size is for FlexiViT; unset it")
    try:
        kind = import_class(config.name, "backbone.name", FrozenBackbone)
    except ConfigError as error:
        raise BackboneError(str(error)) from error
    given = dict(weights=config.weights, pretrained=config.pretrained and state is None, image_size=config.image_size)
    try:
        backbone = kind(taps, **given)
    except BackboneError:
        raise
    except Exception as error:  # whatever its own code raises
        named = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise BackboneError(
            f"{said} cannot be made by {kind.__name__}({taps!r}, {named}): {type(error).__name__}: {error}"
        ) from error
    for name, wanted in (("spec", BackboneSpec), ("preprocessing", Preprocessing), ("taps", tuple)):
        if not isinstance(getattr(backbone, name, None), wanted):
            raise BackboneError(
                f"{said}: its {name} is no {wanted.__name__}; call super().__init__(spec, preprocessing, taps)"
            )
    if not list(backbone.parameters()):
        raise BackboneError(f"{said}: {kind.__name__} has no parameters, so there is nothing to know its weights by")
    if tuple(backbone.preprocessing.image_size) != tuple(backbone.spec.image_size):
        sizes = f"{backbone.preprocessing.image_size} and {backbone.spec.image_size}"
        raise BackboneError(f"{said}: preprocessing and spec have images of {sizes}; they must be the same")
    backbone.requires_grad_(False)
    backbone.eval()
    if state is not None:
        with torch.no_grad():
            try:
                backbone.load_state_dict(state)
            except RuntimeError as error:
                lines = "; ".join(line.strip() for line in str(error).splitlines()[:3])
                raise BackboneError(f"the weights that were saved do not fit {config.name}: {lines}") from None
    if backbone.origin is None:
        kind_of = "random" if not config.pretrained else "file" if config.weights else "code"
        backbone.origin = WeightsOrigin(kind_of, config.weights or config.name, "its own", "its own")
    return backbone

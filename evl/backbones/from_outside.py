"""Creates an encoder from outside the package, by its import path: ``backbone.name=my_module:MyEncoder``."""

from __future__ import annotations

from evl.backbones.base import FrozenBackbone, Taps
from evl.config import BackboneConfig
from evl.errors import BackboneError, ConfigError
from evl.runtime.import_path import import_class
from evl.types import BackboneSpec, Preprocessing, WeightsOrigin


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

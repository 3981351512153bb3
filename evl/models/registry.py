"""Builds the decoder of a config, one of evl's own (``evl.decoders`` lists them) or one from outside the package."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from evl.config import ModelConfig
from evl.decoders import find_decoder, with_start
from evl.errors import ConfigError
from evl.models.attention import attention_sizes
from evl.models.side import side_sizes
from evl.runtime.import_path import import_class, is_import_path
from evl.types import BackboneSpec

_TRAINING_ONLY = ("mlp_dropout", "query_init")  # settings that change neither shape nor meaning of a trained weight


def build_decoder(config: ModelConfig, spec: BackboneSpec, num_layers: int, num_frames: int) -> nn.Module:
    """Returns the untrained decoder of ``config`` for a backbone with the sizes ``spec``.

    ``num_layers``: the number of tapped blocks. Raises ConfigError if the decoder cannot be made.
    """
    if is_import_path(config.decoder):
        return _build_from_outside(config, spec, num_layers, num_frames)
    module, _, name = find_decoder(config.decoder).path.partition(":")
    return getattr(importlib.import_module(module), name).from_config(config, spec, num_frames, num_layers)


def taps_of(config: ModelConfig) -> int | str | Sequence[int]:
    """Returns the blocks that the decoder reads, as ``create_backbone`` takes them: all of ``config.taps``, or the
    deepest. A decoder that also reads a start gets the map that enters the first of them, or 0 if it is in a list."""
    entry, taps = find_decoder(config.decoder), config.taps
    if entry.reads_start:
        return with_start(taps)
    if entry.reads_all_taps:
        return config.taps
    return 1 if isinstance(config.taps, str) else config.taps[-1:]


def reads_maps(config: ModelConfig) -> bool:
    """Whether the decoder of ``config`` reads neighbor maps (``evl.models.crossframe``)."""
    if is_import_path(config.decoder):
        return bool(getattr(import_decoder(config.decoder), "reads_maps", False))
    switch = find_decoder(config.decoder).maps_if
    return switch is not None and getattr(config, switch)


def reads_query_key(config: ModelConfig) -> bool:
    """Whether the decoder of ``config`` reads the encoder's own queries and keys, which no store holds."""
    if not is_import_path(config.decoder):
        return False
    return bool(getattr(import_decoder(config.decoder), "reads_query_key", False))


def setting_of(config: ModelConfig, name: str) -> object:
    """Returns the value of a setting, or the decoder's default for it; None if the decoder does not have it."""
    entry = find_decoder(config.decoder)
    if name not in entry.settings:
        return None
    value = getattr(config, name)
    if value is not None:
        return value
    default = entry.defaults.get(name)
    return default(config) if callable(default) else default


def architecture_of(config: ModelConfig, spec: BackboneSpec) -> dict[str, object]:
    """Returns the settings that decide the shape and meaning of a decoder's weights, with all defaults filled in."""
    settings = [name for name in find_decoder(config.decoder).settings if name not in _TRAINING_ONLY]
    architecture = {"decoder": config.decoder} | {name: setting_of(config, name) for name in settings}
    if "num_heads" in architecture:
        architecture["qkv_width"], architecture["num_heads"] = attention_sizes(config, spec)
    if "side_width" in architecture:
        architecture["side_width"] = side_sizes(config, spec)[0]
    return architecture


def import_decoder(name: str) -> type[nn.Module]:
    """Imports and returns the class that ``my_module:MyDecoder`` names.

    Raises ConfigError if Python does not find the module, its import fails, or the class is not a subclass of
    ``torch.nn.Module``.
    """
    return import_class(name, "model.decoder", nn.Module)


def is_loadable(value: object) -> bool:
    """Whether a saved model may have such a tensor: of floats, or one whole number, as BatchNorm counts its batches."""
    if not isinstance(value, Tensor) or value.is_sparse:
        return False
    return value.is_floating_point() or (value.dtype == torch.int64 and value.ndim == 0)


def _build_from_outside(config: ModelConfig, spec: BackboneSpec, num_layers: int, num_frames: int) -> nn.Module:
    """Returns ``MyDecoder(spec, num_frames=T, num_layers=M, **options)``, with a check of its output in each call."""
    kind, setting = import_decoder(config.decoder), f"model.decoder={config.decoder}"
    try:
        decoder = kind(spec, num_frames=num_frames, num_layers=num_layers, **config.options)
    except Exception as error:  # the decoder's own code can raise anything
        options = "".join(f", {name}={value!r}" for name, value in config.options.items())
        raise ConfigError(
            f"{setting}: {kind.__name__}(spec, num_frames={num_frames}, num_layers={num_layers}{options}) failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    width = getattr(decoder, "width", None)
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        has = "has none" if width is None else f"is {width!r}"
        raise ConfigError(
            f"{setting}: {kind.__name__} must have an attribute width, the D of its output (B,D); it {has}"
        )
    for name, value in decoder.state_dict().items():  # now, not when a trained model is saved
        if not is_loadable(value):
            found = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise ConfigError(
                f"{setting}: {name} holds {found}, which a saved model cannot hold; make it a tensor of floats, or a "
                "buffer with persistent=False"
            )
    decoder.register_forward_pre_hook(_cast_features)
    decoder.register_forward_hook(_check_output)
    return decoder


def _cast_features(decoder: nn.Module, arguments: tuple) -> tuple | None:
    """Casts features to the dtype of the decoder's weights, because an encoder may run in half precision."""
    dtype = next((one.dtype for one in decoder.parameters() if one.is_floating_point()), torch.float32)
    features = arguments[0]
    if all(one.tokens.dtype == dtype for one in features):
        return None

    def cast(one):
        one = one._replace(tokens=one.tokens.to(dtype))
        if getattr(decoder, "reads_query_key", False):
            one = one._replace(query=one.query.to(dtype), key=one.key.to(dtype))
        return one

    return ([cast(one) for one in features], *arguments[1:])


def _check_output(decoder: nn.Module, arguments: tuple, output: object) -> None:
    wanted = (arguments[0][0].tokens.shape[0], decoder.width)
    if isinstance(output, Tensor) and tuple(output.shape) == wanted:
        return
    found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"type {type(output).__name__}"
    raise ConfigError(
        f"{type(decoder).__name__}.forward gave an output of {found}; expected a tensor (B, width) = {wanted}"
    )

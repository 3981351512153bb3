"""Loads weights of any known layout into a timm model: all of them, or an error that lists what does not fit."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from math import isqrt
from pathlib import Path
from types import SimpleNamespace

import timm
import torch
from timm.models import _builder, vision_transformer
from torch import Tensor, nn

from evl.backbones.timm_vit import random_weights_, refuse_unsupported
from evl.backbones.weights.fetch import fetch, sources
from evl.backbones.weights.files import read_weights
from evl.backbones.weights.layouts import WeightsLayout, for_timm, from_hugging_face, recognize_layout, tower_of
from evl.backbones.weights.mismatches import misfits
from evl.backbones.weights.openai_clip import comes_from_openai
from evl.backbones.weights.unrecorded import (
    activation_of,
    refuse_other_activation,
    refuse_other_config,
    refuse_other_end,
    refuse_other_layout,
)
from evl.config import BackboneConfig
from evl.errors import BackboneError
from evl.types import WeightsOrigin

logger = logging.getLogger(__name__)

_POOLING = ("attn_pool.", "head")
_PART = re.compile(r"-\d{5}-of-\d{5}\.")  # in the name of each file of a checkpoint in several files
_loader_lock = threading.Lock()  # while timm's loader is replaced
_CONVERTERS_ACCEPT_NONE = hasattr(vision_transformer, "get_pretrained_grid_size")  # as pos_embed: timm 1.0.27 and later


def load_timm(config: BackboneConfig, *, trust_origin: bool = False) -> tuple[nn.Module, WeightsOrigin]:
    """Returns a timm vision transformer with the weights that ``config`` names, in float32, and their origin.

    Its image size is that of the architecture, or that of the weights if it differs and ``config.image_size`` is set.
    With ``trust_origin`` an unknown activation gives no warning, because the caller compares the weights with a known
    hash. Raises BackboneError for architectures that cannot work, and for weights that are missing or do not fit.
    """
    shape = shape_of(config.name)  # refuses before anything is read or downloaded
    if config.weights is None and not config.pretrained:
        vit = timm.create_model(config.name, pretrained=False, num_classes=0)
        random_weights_(vit, seed=0)
        return vit.float(), WeightsOrigin("random", "", "timm", activation_of(vit))
    path, origin = _find(config)
    state, is_torchscript = read_weights(path)
    is_openai = comes_from_openai(state, path, is_torchscript)
    try:
        layout = recognize_layout(state, path, is_openai)
    except BackboneError:
        if origin.kind == "file":
            raise
        layout = WeightsLayout("timm", "")  # timm's own weights, which its converters can read
    if origin.kind == "file":
        refuse_other_layout(path, layout, state.keys(), shape, config.name)
        refuse_other_activation(path, layout, shape, config.name, notice=not trust_origin)
        refuse_other_config(path, layout, shape, config.name)
        _refuse_other_patches(state, layout, tuple(shape.patch_embed.patch_size), config)
    vit, convert = _build(config.name)
    _load(vit, _converted(state, layout, vit, convert, config), layout, config)
    origin = WeightsOrigin(origin.kind, origin.source, layout.name, activation_of(vit), origin.license)
    logger.info("%s: weights of %s in the layout of %s, %s", path, config.name, layout.name, origin.activation)
    return vit.float(), origin


def shape_of(name: str) -> nn.Module:
    """Returns a timm model on the meta device. Raises BackboneError if it cannot be a backbone."""
    with torch.device("meta"):
        shape = timm.create_model(name, pretrained=False, num_classes=0)
    refuse_unsupported(shape, name)
    return shape


def unfilled_timm(name: str) -> nn.Module:
    """Returns a timm vision transformer in float32, for the caller to load weights into."""
    shape_of(name)
    return timm.create_model(name, pretrained=False, num_classes=0).float()


def _find(config: BackboneConfig) -> tuple[Path, WeightsOrigin]:
    if config.weights is None:
        path, where = fetch(config.name)
        kind = "url" if "://" in where else "hub"
        return path, WeightsOrigin(kind, where, "", "", timm.get_pretrained_cfg(config.name).license)
    path = Path(config.weights)
    if not os.path.exists(path):  # False, not an error, for a name that is too long
        found = sources(config.name)
        more = f". timm's weights of that name: {found[0].address}" if found else ""
        raise BackboneError(
            f"{path}: no such weights file; backbone.weights={path} should be the weights of {config.name}{more}"
        )
    return path, WeightsOrigin("file", path.name, "", "")


def _build(name: str) -> tuple[nn.Module, Callable]:
    """Returns a timm model without weights, and the function that timm would convert its checkpoints with.

    timm passes that function to ``load_pretrained``, which is replaced during the call.
    """
    converters: list[Callable | None] = []
    this_thread = threading.get_ident()

    def keep_converter(model, *args, filter_fn=None, **kwargs):
        if threading.get_ident() != this_thread:  # another thread creates a model at the same time
            return original(model, *args, filter_fn=filter_fn, **kwargs)
        return converters.append(filter_fn)

    with _loader_lock:
        original, _builder.load_pretrained = _builder.load_pretrained, keep_converter
        try:
            vit = timm.create_model(name, pretrained=True, num_classes=0)
        finally:
            _builder.load_pretrained = original
    convert = converters[0] if converters else None
    return vit, convert or (lambda state, model: state)


class _WithoutPositions:
    """A model for timm's converters with ``pos_embed`` hidden; else they would resample positions of another size.

    Converters before timm 1.0.27 always read the shape of ``pos_embed``; they get the shape of the file's positions.
    """

    def __init__(self, vit: nn.Module, state: Mapping[str, Tensor]):
        self._vit = vit
        self.pos_embed = None
        if not _CONVERTERS_ACCEPT_NONE:
            tables = (value for key, value in state.items() if key.endswith(("pos_embed", "positional_embedding")))
            self.pos_embed = SimpleNamespace(shape=(1, *next(tables, torch.empty(0, 0)).shape[-2:]))

    def __getattr__(self, name: str):
        return getattr(self._vit, name)


def _converted(
    state: Mapping[str, Tensor], layout: WeightsLayout, vit: nn.Module, convert: Callable, config: BackboneConfig
) -> dict[str, Tensor]:
    if layout.is_hugging_face:
        wanted, patch_size = vit.state_dict().keys(), tuple(vit.patch_embed.patch_size)
        try:
            return from_hugging_face(tower_of(state, layout), layout, wanted, patch_size)
        except BackboneError as error:
            raise BackboneError(f"{config.weights or config.name}: {error}") from None
    theirs = for_timm(state, layout)
    model = vit if config.weights is None else _WithoutPositions(vit, theirs)
    if layout.name == "DINOv3":
        theirs = _without_zero_biases(theirs, vit)
    try:
        return convert(theirs, model)
    except Exception as error:  # a converter can raise anything for keys that it does not expect
        raise BackboneError(
            f"{config.weights or 'the downloaded file'} has the layout of {layout.name}, which timm cannot convert for "
            f"{config.name} ({type(error).__name__}: {' '.join(str(error).split()[:40])})"
        ) from error


def _without_zero_biases(state: dict[str, Tensor], vit: nn.Module) -> dict[str, Tensor]:
    """Drops those of DINOv3's attention biases that are zero and that the model lacks.

    Other biases that the model lacks are renamed, so that they are reported as unexpected: timm's converter would drop
    them too, with only a printed line.
    """
    wanted, kept = vit.state_dict().keys(), {}
    for name, value in state.items():
        if name.endswith(".qkv.bias") and name.replace("qkv.bias", "q_bias") not in wanted:
            of_query, _, of_value = value.chunk(3)  # that of the keys is masked, so its value does not matter
            if not of_query.any() and not of_value.any():
                continue
            name = name.replace("qkv.bias", "qkv_bias")
        kept[name] = value
    return kept


def _load(vit: nn.Module, state: dict[str, Tensor], layout: WeightsLayout, config: BackboneConfig) -> None:
    """Loads all weights into ``vit``. Raises BackboneError with missing and unexpected names in groups."""
    _fit_positions(vit, state, config)
    wanted = vit.state_dict()
    if config.weights is not None:
        refuse_other_end(Path(config.weights), state.keys(), wanted.keys(), vit, config.name)
    if wrong := misfits(wanted, state, strict=config.weights is not None):
        source = config.weights or "the downloaded file"
        raise BackboneError(
            f"{source} (layout: {layout.name}) does not fit {config.name}: "
            + "; ".join(wrong)
            + ("; give a file with all parts, not one of several" if _PART.search(source) else "")
            + "; give the name these weights belong to"
        )
    vit.load_state_dict({name: state[name].float() for name in wanted if name in state}, strict=False)
    with torch.no_grad():
        for name, parameter in vit.named_parameters():
            if name not in state and name.startswith(_POOLING):
                parameter.zero_()  # not in the file, and never read; zero, so that it is the same in every run


def _fit_positions(vit: nn.Module, state: dict[str, Tensor], config: BackboneConfig) -> None:
    """Sets ``vit`` to the image size of the file's positions if ``config`` asks for an image size."""
    table, theirs = vit.state_dict().get("pos_embed"), state.get("pos_embed")
    if config.weights is None or table is None or theirs is None or theirs.ndim != 3 or table.shape == theirs.shape:
        return
    (height, width), patch = vit.patch_embed.grid_size, tuple(vit.patch_embed.patch_size)
    side = isqrt(max(0, theirs.shape[1] - (table.shape[1] - height * width)))
    if theirs.shape[2] != table.shape[2] or side * side + table.shape[1] - height * width != theirs.shape[1]:
        return  # not only the image size differs; reported with the other misfits
    size = (side * patch[0], side * patch[1])
    if config.image_size is not None:
        vit.set_input_size(img_size=size)
        return
    twin = _of_other_size(config.name, vit.patch_embed.img_size[0], size[0])
    raise BackboneError(
        f"{config.weights} does not fit {config.name}: pos_embed {tuple(table.shape)} expected, {tuple(theirs.shape)} "
        f"came: the file is for {size[0]} px; set backbone.image_size={size[0]}" + (f" or use {twin}" if twin else "")
    )


def _of_other_size(name: str, size: int, other: int) -> str | None:
    """Returns timm's name of the same architecture for images of another size; None if there is none."""
    head, _, tail = name.partition(".")[0].rpartition(f"_{size}")
    twin = f"{head}_{other}{tail}"
    return twin if head and timm.is_model(twin) else None


def _refuse_other_patches(
    state: Mapping[str, Tensor], layout: WeightsLayout, patch_size: tuple[int, int], config: BackboneConfig
) -> None:
    """Raises BackboneError for patch kernels of another size, and for those that are matrices of unknown order.

    timm would resample kernels without a message, but only FlexiViT is made for that. It would read every matrix in the
    order (channel, height, width).
    """
    for name, tensor in tower_of(state, layout).items():
        is_kernel = name.startswith(("patch_embed", "conv1.", "embeddings.patch_embed", "preprocessor.patchifier.proj"))
        if is_kernel and tensor.ndim == 2 and not layout.has_flat_patches:
            raise BackboneError(
                f"{config.weights}: {name} is a matrix {tuple(tensor.shape)} with an unknown order of channels, rows "
                "and columns; give it as a kernel (width, 3, height, width of a patch)"
            )
        if not is_kernel or tensor.ndim != 4 or "flexivit" in config.name:
            continue
        if tuple(tensor.shape[2:]) != patch_size:
            height, width = tensor.shape[2:]
            raise BackboneError(
                f"{config.weights} has patches of {height}×{width} pixels, but {config.name} takes "
                f"{patch_size[0]}×{patch_size[1]}; give the name these weights belong to"
            )

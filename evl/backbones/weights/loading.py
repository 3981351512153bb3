"""Weights into a timm model: whatever their layout, all of them or an error that says what does not fit."""

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
from evl.backbones.weights.activation import activation_of, refuse_other_activation
from evl.backbones.weights.contradictions import refuse_other_config, refuse_other_end, refuse_other_layout
from evl.backbones.weights.fetch import fetch, sources
from evl.backbones.weights.files import read_weights
from evl.backbones.weights.forms import Layout, for_timm, from_hugging_face, recognize_form, tower_of
from evl.backbones.weights.mismatches import misfits
from evl.backbones.weights.openai_clip import comes_from_openai
from evl.config import BackboneConfig
from evl.errors import BackboneError
from evl.types import WeightsOrigin

logger = logging.getLogger(__name__)

_POOLING = ("attn_pool.", "head")
_PART = re.compile(r"-\d{5}-of-\d{5}\.")  # of a checkpoint in several files
_timms_loader = threading.Lock()
_NONE_IS_NONE = hasattr(vision_transformer, "get_pretrained_grid_size")


def load_timm(config: BackboneConfig, *, trust_origin: bool = False) -> tuple[nn.Module, WeightsOrigin]:
    """A timm vision transformer with the weights a config names, in float32, and where they came from.

    Its image size is the architecture's, or the weights' own if that is another and ``config.image_size`` is set.
    ``trust_origin``: no notice where nothing tells the activation, because a known hash will tell.
    Raises BackboneError for architectures that cannot work, and weights that are missing or do not fit in all parts.
    """
    shape = shape_of(config.name)  # refuse before anything is read or downloaded
    if config.weights is None and not config.pretrained:
        vit = timm.create_model(config.name, pretrained=False, num_classes=0)
        random_weights_(vit, seed=0)
        return vit.float(), WeightsOrigin("random", "", "timm", activation_of(vit))
    path, origin = _find(config)
    state, is_torchscript = read_weights(path)
    is_openai = comes_from_openai(state, path, is_torchscript)
    try:
        layout = recognize_form(state, path, is_openai)
    except BackboneError:
        if origin.kind == "file":
            raise
        layout = Layout("timm", "")  # timm knows its own
    if origin.kind == "file":
        refuse_other_layout(path, layout, state.keys(), shape, config.name)
        refuse_other_activation(path, layout, shape, config.name, notice=not trust_origin)
        refuse_other_config(path, layout, shape, config.name)
        _refuse_other_patches(state, layout, tuple(shape.patch_embed.patch_size), config)
    vit, convert = _build(config.name)
    _put_in(vit, _converted(state, layout, vit, convert, config), layout, config)
    origin = WeightsOrigin(origin.kind, origin.source, layout.name, activation_of(vit), origin.license)
    logger.info("%s: weights of %s in the layout of %s, %s", path, config.name, layout.name, origin.activation)
    return vit.float(), origin


def shape_of(name: str) -> nn.Module:
    """A timm model without content. BackboneError for one that cannot be a backbone."""
    with torch.device("meta"):
        shape = timm.create_model(name, pretrained=False, num_classes=0)
    refuse_unsupported(shape, name)
    return shape


def unfilled_timm(name: str) -> nn.Module:
    """A timm vision transformer in float32 whose weights are still to be put in."""
    shape_of(name)
    return timm.create_model(name, pretrained=False, num_classes=0).float()


def _find(config: BackboneConfig) -> tuple[Path, WeightsOrigin]:
    if config.weights is None:
        path, where = fetch(config.name)
        kind = "url" if "://" in where else "hub"
        return path, WeightsOrigin(kind, where, "", "", timm.get_pretrained_cfg(config.name).license)
    path = Path(config.weights)
    if not os.path.exists(path):  # False, too, for what is too long to be a path
        found = sources(config.name)
        more = f". timm's weights of that name: {found[0].address}" if found else ""
        raise BackboneError(
            f"{path}: no such weights file; backbone.weights={path} should be the weights of {config.name}{more}"
        )
    return path, WeightsOrigin("file", path.name, "", "")


def _build(name: str) -> tuple[nn.Module, Callable]:
    """A timm model without weights, and the converter timm would use for its checkpoints."""
    caught: list[Callable | None] = []

    here = threading.get_ident()

    def note(model, *args, filter_fn=None, **kwargs):
        if threading.get_ident() != here:  # somebody else's model
            return theirs(model, *args, filter_fn=filter_fn, **kwargs)
        return caught.append(filter_fn)

    with _timms_loader:
        theirs, _builder.load_pretrained = _builder.load_pretrained, note
        try:
            vit = timm.create_model(name, pretrained=True, num_classes=0)
        finally:
            _builder.load_pretrained = theirs
    convert = caught[0] if caught else None
    return vit, convert or (lambda state, model: state)


class _WithoutPositions:
    """A model for timm's converters, which fit positions of another image size without a word if it has any.

    Those before timm 1.0.27 ask for a shape whether there is one or not: they get that of the file's own.
    """

    def __init__(self, vit: nn.Module, state: Mapping[str, Tensor]):
        self._vit = vit
        self.pos_embed = None
        if not _NONE_IS_NONE:
            tables = (value for key, value in state.items() if key.endswith(("pos_embed", "positional_embedding")))
            self.pos_embed = SimpleNamespace(shape=(1, *next(tables, torch.empty(0, 0)).shape[-2:]))

    def __getattr__(self, name: str):
        return getattr(self._vit, name)


def _converted(
    state: Mapping[str, Tensor], layout: Layout, vit: nn.Module, convert: Callable, config: BackboneConfig
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
    except Exception as error:  # whatever a converter meets in keys it was not made for
        raise BackboneError(
            f"{config.weights or 'the downloaded file'} has the layout of {layout.name}, which timm cannot convert for "
            f"{config.name} ({type(error).__name__}: {' '.join(str(error).split()[:40])})"
        ) from error


def _without_zero_biases(state: dict[str, Tensor], vit: nn.Module) -> dict[str, Tensor]:
    """DINOv3's projections without the biases that the model has no place for, where these are zero.

    timm's converter leaves out what is not zero as well, and prints; here such a bias is told as unexpected.
    """
    wanted, kept = vit.state_dict().keys(), {}
    for name, value in state.items():
        is_bias = name.endswith(".qkv.bias") and name.replace("qkv.bias", "q_bias") not in wanted
        if is_bias:
            query, _, of_value = value.chunk(3)  # the keys' is masked, whatever it says
            if query.any() or of_value.any():
                name = name.replace("qkv.bias", "qkv_bias")
            else:
                continue
        kept[name] = value
    return kept


def _put_in(vit: nn.Module, state: dict[str, Tensor], layout: Layout, config: BackboneConfig) -> None:
    """All weights into the model, or BackboneError with missing and unexpected names in groups."""
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
                parameter.zero_()  # not in the file, and not read: the same in every run rather than random


def _fit_positions(vit: nn.Module, state: dict[str, Tensor], config: BackboneConfig) -> None:
    """Positions of another image size: the model takes that size if another was asked for anyway; else an error."""
    table, theirs = vit.state_dict().get("pos_embed"), state.get("pos_embed")
    if config.weights is None or table is None or theirs is None or theirs.ndim != 3 or table.shape == theirs.shape:
        return
    (height, width), patch = vit.patch_embed.grid_size, tuple(vit.patch_embed.patch_size)
    side = isqrt(max(0, theirs.shape[1] - (table.shape[1] - height * width)))
    if theirs.shape[2] != table.shape[2] or side * side + table.shape[1] - height * width != theirs.shape[1]:
        return  # no other image size; told with everything else that differs
    size = (side * patch[0], side * patch[1])
    if config.image_size is not None:
        vit.set_input_size(img_size=size)
        return
    twin = _of_other_size(config.name, vit.patch_embed.img_size[0], size[0])
    raise BackboneError(
        f"{config.weights} does not fit {config.name}: pos_embed {tuple(table.shape)} expected, {tuple(theirs.shape)} "
        f"came: the file is for {size[0]} px; set backbone.image_size={size[0]}" + (f" or take {twin}" if twin else "")
    )


def _of_other_size(name: str, size: int, other: int) -> str | None:
    head, _, tail = name.partition(".")[0].rpartition(f"_{size}")
    twin = f"{head}_{other}{tail}"
    return twin if head and timm.is_model(twin) else None


def _refuse_other_patches(
    state: Mapping[str, Tensor], layout: Layout, patch_size: tuple[int, int], config: BackboneConfig
) -> None:
    """timm resamples patch kernels of another size without a word (only FlexiViT is made for that), and takes a matrix
    for one of (channel, height, width), whatever its order is."""
    for name, tensor in tower_of(state, layout).items():
        is_kernel = name.startswith(("patch_embed", "conv1.", "embeddings.patch_embed", "preprocessor.patchifier.proj"))
        if is_kernel and tensor.ndim == 2 and not layout.has_flat_patches:
            raise BackboneError(
                f"{config.weights}: {name} is a matrix {tuple(tensor.shape)}, and nothing says in which order it holds "
                "channels, rows and columns; give it as a kernel (width, 3, height, width of a patch)"
            )
        if not is_kernel or tensor.ndim != 4 or "flexivit" in config.name:
            continue
        if tuple(tensor.shape[2:]) != patch_size:
            height, width = tensor.shape[2:]
            raise BackboneError(
                f"{config.weights} has patches of {height}×{width} pixels, but {config.name} takes "
                f"{patch_size[0]}×{patch_size[1]}; give the name these weights belong to"
            )

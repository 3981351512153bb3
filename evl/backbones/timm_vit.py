"""Adapts timm's vision transformers with global self-attention, plain or rotary, to ``FrozenBackbone``.

Query and key are captured where the block itself passes them to ``scaled_dot_product_attention``: after projection,
optional q/k norm and rotary embedding, before the scale. So they are always the block's own, at no extra cost.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from evl.backbones.base import FrozenBackbone, Taps
from evl.backbones.positions import fit_to_size
from evl.backbones.refusals import refuse_unsupported
from evl.runtime.onednn import Linear
from evl.types import BackboneSpec, LayerFeatures, Preprocessing

_capture: ContextVar[_Capture | None] = ContextVar("capture", default=None)  # one per thread


class _Capture(TorchFunctionMode):
    """Records the output, query and key of tapped blocks. It is active only inside tapped blocks."""

    def __init__(self, inputs: dict[int, Tensor] | None):
        super().__init__()
        self.inputs = inputs  # if not None, filled with the inputs of tapped blocks that follow an untapped one
        self.block: int | None = None  # the tapped block that runs now
        self.queries_keys: dict[int, tuple[Tensor, Tensor]] = {}
        self.tokens: dict[int, Tensor] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            assert (kwargs or {}).get("attn_mask") is None, "query and key alone are not this attention"
            # the queries of a head become contiguous; a view would keep the whole qkv in memory, so this copies
            query, key = (x.clone(memory_format=torch.contiguous_format).transpose(1, 2) for x in args[:2])
            self.queries_keys[self.block] = (query, key)  # (F,L,N,K)
        return func(*args, **(kwargs or {}))

    def enter(self, block: int, tokens: Tensor) -> None:
        if self.inputs is not None and block - 1 not in self.tokens:
            self.inputs[block - 1] = tokens
        self.block = block
        self.__enter__()

    def leave(self, output: Tensor | None = None) -> None:
        if self.block is not None:
            self.__exit__(None, None, None)
            if output is not None:
                self.tokens[self.block] = output
            self.block = None


class TimmBackbone(FrozenBackbone):
    """A timm ``VisionTransformer`` or ``Eva`` as a FrozenBackbone. Blocks after the deepest tapped block do not run."""

    def __init__(self, vit: nn.Module, name: str, preprocessing: Preprocessing, taps: Taps):
        refuse_unsupported(vit, name)
        super().__init__(spec_of(vit, name), preprocessing, taps)
        self.vit = vit
        self.requires_grad_(False)
        self.eval()
        for module in vit.modules():
            if type(module) is nn.Linear:
                module.__class__ = Linear  # the same layer, computed by a faster library
        for number, block in enumerate(vit.blocks, 1):
            block.attn.fused_attn = True
            if number in self.taps:
                block.register_forward_pre_hook(partial(_enter, number))
                block.register_forward_hook(partial(_leave, number == self.taps[-1]))

    def resize(self, image_size: int | tuple[int, int] | None, patch_size: int | None = None) -> None:
        """Changes the encoder to take images of another size (a side, or (H, W)), in place; see ``fit_to_size``.

        ``weights_hash`` stays that of the weights as read, because interpolated weights differ in the last bit between
        machines. Raises BackboneError if patches do not tile the image.
        """
        self._hash = self.weights_hash
        fit_to_size(self.vit, self.spec.name, image_size, patch_size)
        self.requires_grad_(False)
        self.__dict__["_narrow"] = None
        self.spec = spec_of(self.vit, self.spec.name)
        self.preprocessing = replace(self.preprocessing, image_size=self.spec.image_size)

    def in_type(self, dtype: torch.dtype) -> FrozenBackbone:
        """Keeps the dtype of rotary tables: half precision would rotate patches far from the origin wrongly."""
        narrow = super().in_type(dtype)
        rope = getattr(self.vit, "rope", None)
        if narrow is not self and rope is not None and _type_of(narrow.vit.rope) != _type_of(rope):
            with torch.inference_mode(False):
                narrow.vit.rope = copy.deepcopy(rope)
        return narrow

    def compile(self) -> None:
        """Compiles the untapped blocks, and the MLPs of the tapped ones, when they first run."""
        super().compile()
        for number, block in enumerate(self.vit.blocks[: self.taps[-1]], 1):
            (block.mlp if number in self.taps else block).compile()

    def tap(self, frames: Tensor, before: dict[int, Tensor] | None = None) -> list[LayerFeatures]:
        capture = _Capture(before)
        token = _capture.set(capture)
        try:
            with suppress(_AllTapped):
                self.vit.forward_features(frames)
        finally:
            capture.leave()
            _capture.reset(token)
        return [LayerFeatures(capture.tokens[block], *capture.queries_keys[block]) for block in self.taps]


def _type_of(rope: nn.Module) -> torch.dtype:
    """Returns the narrowest dtype of the rotary parameters and buffers; float32 if timm keeps neither."""
    tensors = [*rope.parameters(), *(x for x in rope.buffers() if x.is_floating_point())]
    return min((x.dtype for x in tensors), key=lambda dtype: dtype.itemsize, default=torch.float32)


class _AllTapped(Exception):
    """Raised after the deepest tapped block, to skip the rest of the model."""


def _enter(number: int, module: nn.Module, args) -> None:
    if (capture := _capture.get()) is not None:
        capture.enter(number, args[0])


def _leave(is_deepest: bool, module: nn.Module, args, output: Tensor) -> None:
    if (capture := _capture.get()) is not None:
        capture.leave(output)
        if is_deepest:
            raise _AllTapped


def spec_of(vit: nn.Module, name: str) -> BackboneSpec:
    """Returns the sizes of a supported model, whose tensors may be on the meta device."""
    attention = vit.blocks[0].attn
    return BackboneSpec(
        name=name,
        width=vit.embed_dim,
        depth=len(vit.blocks),
        num_heads=attention.num_heads,
        head_width=attention.head_dim,
        grid=tuple(vit.patch_embed.grid_size),
        num_prefix_tokens=vit.num_prefix_tokens,
        image_size=tuple(vit.patch_embed.img_size),
        patch_size=tuple(vit.patch_embed.patch_size),
    )


def preprocessing_of(pretrained_cfg: dict, image_size: tuple[int, int]) -> Preprocessing:
    """Returns the preprocessing that timm's configuration of the weights gives."""
    interpolation = pretrained_cfg.get("interpolation", "bicubic")
    return Preprocessing(
        image_size=tuple(image_size),
        mean=tuple(pretrained_cfg["mean"]),
        std=tuple(pretrained_cfg["std"]),
        interpolation=interpolation if interpolation in ("bilinear", "bicubic") else "bicubic",
        antialias=True,
    )


@torch.no_grad()
def random_weights_(model: nn.Module, seed: int) -> None:
    """Fills every weight with numbers that depend on ``seed`` alone and are the same on every machine.

    Linear and convolution weights are uniform with variance 1/fan_in, tables of positions and tokens uniform with std
    0.02; norms and layer scales are 1, biases 0. NumPy promises that its legacy generator never changes, and
    ``random_sample`` of it is exact integer arithmetic.
    """
    import numpy as np

    generator = np.random.RandomState(seed)
    for name, parameter in sorted(model.named_parameters()):
        if parameter.is_meta:  # shapes only
            continue
        if parameter.ndim < 2:
            parameter.fill_(1.0 if name.endswith(("weight", "gamma", "gamma_1", "gamma_2")) else 0.0)
            continue
        is_table = name.split(".")[-1] in ("pos_embed", "cls_token", "reg_token", "dist_token")
        std = 0.02 if is_table else parameter[0].numel() ** -0.5
        uniform = generator.random_sample(parameter.numel()) * 2 - 1
        parameter.copy_(torch.from_numpy(uniform * (std * 3**0.5)).view_as(parameter))

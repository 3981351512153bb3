"""One adapter for all of timm's vision transformers with global self-attention, plain or rotary.

Queries and keys are taken where the block itself hands them to ``scaled_dot_product_attention``: after
projection, optional q/k norm and rotary embedding, before the scale. So they are the block's own by construction,
whatever stands before that call, and cost nothing to compute.
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

_capture: ContextVar[_Capture | None] = ContextVar("capture", default=None)  # one a thread


class _Capture(TorchFunctionMode):
    """Notes a tapped block's output and what it hands to attention. On only inside tapped blocks."""

    def __init__(self, inputs: dict[int, Tensor] | None):
        super().__init__()
        self.inputs = inputs  # where wanted: of the first tapped block of each row of them
        self.block: int | None = None  # the one it is in
        self.queries_keys: dict[int, tuple[Tensor, Tensor]] = {}
        self.tokens: dict[int, Tensor] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            assert (kwargs or {}).get("attn_mask") is None, "query and key alone are not this attention"
            # a head's queries side by side in memory; copied, because a view would keep the values of qkv alive
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
    """A timm ``VisionTransformer`` or ``Eva``. Blocks behind the deepest tap do not run."""

    def __init__(self, vit: nn.Module, name: str, preprocessing: Preprocessing, taps: Taps):
        refuse_unsupported(vit, name)
        spec = spec_of(vit, name)
        super().__init__(spec, preprocessing, taps)
        self.vit = vit
        self.requires_grad_(False)
        self.eval()
        for module in vit.modules():
            if type(module) is nn.Linear:
                module.__class__ = Linear  # the same, by the faster library
        for number, block in enumerate(vit.blocks, 1):
            block.attn.fused_attn = True
            if number in self.taps:
                block.register_forward_pre_hook(partial(_enter, number))
                block.register_forward_hook(partial(_leave, number == self.taps[-1]))

    def resize(self, image_size: int | tuple[int, int] | None, patch_size: int | None = None) -> None:
        """For images of another size (a side, or (H, W)), in place: see ``fit_to_size``.

        ``weights_hash`` stays that of the weights as they were read: interpolated ones differ in the last bit between
        machines. Raises BackboneError where patches do not fill the image.
        """
        self._hash = self.weights_hash
        fit_to_size(self.vit, self.spec.name, image_size, patch_size)
        self.requires_grad_(False)
        self.__dict__["_narrow"] = None
        self.spec = spec_of(self.vit, self.spec.name)
        self.preprocessing = replace(self.preprocessing, image_size=self.spec.image_size)

    def in_type(self, dtype: torch.dtype) -> FrozenBackbone:
        """With rotary tables and frequencies as they are: angles in half precision would turn patches far out wrong."""
        narrow = super().in_type(dtype)
        rope = getattr(self.vit, "rope", None)
        if narrow is not self and rope is not None and _type_of(narrow.vit.rope) != _type_of(rope):
            with torch.inference_mode(False):
                narrow.vit.rope = copy.deepcopy(rope)
        return narrow

    def compile(self) -> None:
        """Every block that is not tapped, and the MLPs of those that are."""
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
    """Of what can be narrowed: a learned frequency or a kept table, else frequencies that timm never narrows."""
    kept = [*rope.parameters(), *(x for x in rope.buffers() if x.is_floating_point())]
    return min((x.dtype for x in kept), key=lambda dtype: dtype.itemsize, default=torch.float32)


class _AllTapped(Exception):
    """The deepest tapped block is done: what stands behind it is of no use."""


def _enter(number: int, module: nn.Module, args) -> None:
    if (capture := _capture.get()) is not None:
        capture.enter(number, args[0])


def _leave(is_deepest: bool, module: nn.Module, args, output: Tensor) -> None:
    if (capture := _capture.get()) is not None:
        capture.leave(output)
        if is_deepest:
            raise _AllTapped


def spec_of(vit: nn.Module, name: str) -> BackboneSpec:
    """The sizes of a supported model; its tensors may be on the meta device."""
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
    """What the weights' own configuration says of pixels."""
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
    """Fill every weight from a generator of its own, whatever the state of torch's: the same on every machine.

    Linear and convolution weights uniform with variance 1/fan_in, tables of positions and tokens uniform with
    std 0.02, norms and layer scales 1, biases 0. NumPy's legacy generator is frozen for all time, and its
    ``random_sample`` is exact integer arithmetic.
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

"""One adapter for all of timm's vision transformers with global self-attention, plain or rotary.

Queries and keys are taken where the block itself hands them to ``scaled_dot_product_attention``: after
projection, optional q/k norm and rotary embedding, before the scale. So they are the block's own by construction,
whatever stands before that call, and cost nothing to compute.
"""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import Attention, AttentionRope
from timm.models.eva import Eva, EvaAttention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from evl.backbones.base import FrozenBackbone, Taps
from evl.errors import BackboneError
from evl.onednn import Linear
from evl.types import BackboneSpec, LayerFeatures, Preprocessing

_capture: ContextVar[_Capture | None] = ContextVar("capture", default=None)  # one a thread


class _Capture(TorchFunctionMode):
    """Notes a tapped block's output and what it hands to attention. On only inside tapped blocks."""

    def __init__(self):
        super().__init__()
        self.block: int | None = None  # the one it is in
        self.queries_keys: dict[int, tuple[Tensor, Tensor]] = {}
        self.tokens: dict[int, Tensor] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            # a head's queries side by side in memory; copied, because a view would keep the values of qkv alive
            query, key = (x.clone(memory_format=torch.contiguous_format).transpose(1, 2) for x in args[:2])
            self.queries_keys[self.block] = (query, key)  # (F,L,N,K)
        return func(*args, **(kwargs or {}))

    def enter(self, block: int) -> None:
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
        attention = vit.blocks[0].attn
        spec = BackboneSpec(
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

    def resize(self, image_size: int | tuple[int, int]) -> None:
        """For images of another size (a side, or (H, W)), in place: positions are interpolated as timm does.

        ``weights_hash`` stays that of the weights as they were read: interpolated ones differ in the last bit between
        machines. Raises BackboneError where patches do not fill the image.
        """
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        patch = self.spec.patch_size
        if height % patch[0] or width % patch[1]:
            raise BackboneError(
                f"{self.spec.name} cannot take images of {height}×{width}: patches are {patch[0]}×{patch[1]}"
            )
        self._hash = self.weights_hash
        self.vit.set_input_size(img_size=(height, width))
        self.requires_grad_(False)
        self.__dict__["_narrow"] = None
        self.spec = replace(self.spec, grid=tuple(self.vit.patch_embed.grid_size), image_size=(height, width))
        self.preprocessing = replace(self.preprocessing, image_size=(height, width))

    def compile(self) -> None:
        """Every block that is not tapped, and the MLPs of those that are."""
        super().compile()
        for number, block in enumerate(self.vit.blocks[: self.taps[-1]], 1):
            (block.mlp if number in self.taps else block).compile()

    def tap(self, frames: Tensor) -> list[LayerFeatures]:
        capture = _Capture()
        token = _capture.set(capture)
        try:
            with suppress(_AllTapped):
                self.vit.forward_features(frames)
        finally:
            capture.leave()
            _capture.reset(token)
        return [LayerFeatures(capture.tokens[block], *capture.queries_keys[block]) for block in self.taps]


class _AllTapped(Exception):
    """The deepest tapped block is done: what stands behind it is of no use."""


def _enter(number: int, module: nn.Module, args) -> None:
    if (capture := _capture.get()) is not None:
        capture.enter(number)


def _leave(is_deepest: bool, module: nn.Module, args, output: Tensor) -> None:
    if (capture := _capture.get()) is not None:
        capture.leave(output)
        if is_deepest:
            raise _AllTapped


def refuse_unsupported(model: nn.Module, name: str) -> None:
    """BackboneError, with the reason, unless every block has global self-attention with equal queries and keys."""
    if not isinstance(model, VisionTransformer | Eva):
        raise BackboneError(
            f"{name} is a {type(model).__name__}, which evl cannot read; it needs one of timm's plain vision "
            "transformers with global attention in every block: try 'evl backbones vit'"
        )
    for block in model.blocks:
        attention = getattr(block, "attn", None)
        if type(attention) not in (Attention, AttentionRope, EvaAttention):
            found = type(attention).__name__ if attention is not None else f"{type(block).__name__} blocks"
            raise BackboneError(
                f"{name} attends by {found}, from which one query and key a token cannot be read; "
                "evl needs plain or rotary self-attention: try 'evl backbones vit'"
            )
    if getattr(model.patch_embed, "grid_size", None) is None:
        raise BackboneError(f"{name} has no fixed grid of patches; evl needs one")


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
    std 0.02, norms 1, biases 0. NumPy's legacy generator is frozen for all time, and its ``random_sample`` is exact
    integer arithmetic.
    """
    import numpy as np

    generator = np.random.RandomState(seed)
    for name, parameter in sorted(model.named_parameters()):
        if parameter.is_meta:  # shapes only
            continue
        if parameter.ndim < 2:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            continue
        is_table = name.split(".")[-1] in ("pos_embed", "cls_token", "reg_token", "dist_token")
        std = 0.02 if is_table else parameter[0].numel() ** -0.5
        uniform = generator.random_sample(parameter.numel()) * 2 - 1
        parameter.copy_(torch.from_numpy(uniform * (std * 3**0.5)).view_as(parameter))

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
from timm.layers import resample_abs_pos_embed, resample_patch_embed
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from evl.backbones.base import FrozenBackbone, Taps
from evl.backbones.refusals import refuse_unsupported
from evl.errors import BackboneError
from evl.runtime.cpu import Linear
from evl.types import BackboneSpec, LayerFeatures, Preprocessing

_capture: ContextVar[_Capture | None] = ContextVar("capture", default=None)  # one per thread
_exporting: list[_Capture] = []  # in place of ``_capture`` while torch.export traces, which cannot set a ContextVar


class _Capture(TorchFunctionMode):
    """Records the output, query and key of tapped blocks. It is active only inside tapped blocks.

    While torch.export traces, it is active in all blocks, because the tracer knows modes only in ``with`` statements.
    """

    def __init__(self, inputs: dict[int, Tensor] | None):
        super().__init__()
        self.in_all_blocks = torch.compiler.is_exporting()
        self.inputs = inputs  # if not None, filled with the inputs of tapped blocks that follow an untapped one
        self.block: int | None = None  # the tapped block that runs now
        self.queries_keys: dict[int, tuple[Tensor, Tensor]] = {}
        self.tokens: dict[int, Tensor] = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention and self.block is not None:
            assert (kwargs or {}).get("attn_mask") is None, "query and key alone are not this attention"
            # the queries of a head become contiguous; a view would keep the whole qkv in memory, so this copies
            query, key = (x.clone(memory_format=torch.contiguous_format).transpose(1, 2) for x in args[:2])
            self.queries_keys[self.block] = (query, key)  # (F,L,N,K)
        return func(*args, **(kwargs or {}))

    def enter(self, block: int, tokens: Tensor) -> None:
        if self.inputs is not None and block - 1 not in self.tokens:
            self.inputs[block - 1] = tokens
        self.block = block
        if not self.in_all_blocks:
            self.__enter__()

    def leave(self, output: Tensor | None = None) -> None:
        if self.block is not None:
            if not self.in_all_blocks:
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
        if self.taps[0] == 0:
            vit.blocks[0].register_forward_pre_hook(_note_start)
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
        """Compiles the untapped blocks, and the MLPs of those with hooks, when they first run."""
        super().compile()
        for number, block in enumerate(self.vit.blocks[: self.taps[-1]], 1):
            is_tapped = number in self.taps or number - 1 == self.taps[0] == 0
            (block.mlp if is_tapped else block).compile()

    def tap(self, frames: Tensor, before: dict[int, Tensor] | None = None) -> list[LayerFeatures]:
        capture = _Capture(before)
        if torch.compiler.is_exporting():
            self._tap_exporting(frames, capture)
        else:
            token = _capture.set(capture)
            try:
                with suppress(_AllTapped):
                    self.vit.forward_features(frames)
            finally:
                capture.leave()
                _capture.reset(token)
        blocks = [block for block in self.taps if block > 0]
        return [LayerFeatures(capture.tokens[block], *capture.queries_keys[block]) for block in blocks]

    def _tap_exporting(self, frames: Tensor, capture: _Capture) -> None:
        """Runs the blocks up to the deepest tapped one by timm's function for that; a tracer knows no exceptions."""
        _exporting.append(capture)
        try:
            with capture:
                options = dict(stop_early=True, norm=False, output_fmt="NLC", intermediates_only=True)
                self.vit.forward_intermediates(frames, [self.taps[-1] - 1], **options)
        finally:
            _exporting.pop()


def _type_of(rope: nn.Module) -> torch.dtype:
    """Returns the narrowest dtype of the rotary parameters and buffers; float32 if timm keeps neither."""
    tensors = [*rope.parameters(), *(x for x in rope.buffers() if x.is_floating_point())]
    return min((x.dtype for x in tensors), key=lambda dtype: dtype.itemsize, default=torch.float32)


class _AllTapped(Exception):
    """Raised after the deepest tapped block, to skip the rest of the model."""


def _note_start(module: nn.Module, args) -> None:
    if (capture := _current()) is not None and capture.inputs is not None:
        capture.inputs[0] = args[0]


def _enter(number: int, module: nn.Module, args) -> None:
    if (capture := _current()) is not None:
        capture.enter(number, args[0])


def _leave(is_deepest: bool, module: nn.Module, args, output: Tensor) -> None:
    if (capture := _current()) is not None:
        capture.leave(output)
        if is_deepest and not capture.in_all_blocks:
            raise _AllTapped


def _current() -> _Capture | None:
    if torch.compiler.is_exporting():
        return _exporting[-1] if _exporting else None
    return _capture.get()


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


def frame_macs(vit: nn.Module, spec: BackboneSpec) -> int:
    """Returns the multiply-adds for one frame: linear layers on every token, patch embedding, and attention.

    A machine's peak counts each of them as two operations. Norms, activations, rotary embedding and the pooling after
    the last block are not counted. ``vit`` may be on the meta device.
    """
    num_patches = spec.grid[0] * spec.grid[1]
    total = num_patches * 3 * spec.patch_size[0] * spec.patch_size[1] * spec.width
    for block in vit.blocks:
        weights = sum(module.weight.numel() for module in block.modules() if isinstance(module, nn.Linear))
        total += spec.num_tokens * weights + 2 * spec.num_tokens**2 * spec.num_heads * spec.head_width
    return total


def fit_to_size(
    vit: nn.Module, name: str, image_size: int | tuple[int, int] | None, patch_size: int | None = None
) -> None:
    """Changes ``vit`` in place to take images of ``image_size`` ((H, W), the side of a square, or None: unchanged).

    Absolute positions are interpolated: bicubic and antialiased, but bilinear for FlexiViT and C-RADIO, which were
    trained so. Prefix tokens keep their positions. Rotary tables are computed anew for the grid. With ``patch_size``
    the kernels of the patch embedding are resampled too, as FlexiViT does it. Raises BackboneError if patches do not
    tile the image; it names the nearest sizes that they do tile.
    """
    if image_size is None:
        image_size = tuple(vit.patch_embed.img_size)
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    old_patch, old_grid = tuple(vit.patch_embed.patch_size), vit.patch_embed.grid_size
    patch = old_patch if patch_size is None else (patch_size, patch_size)
    if height % patch[0] or width % patch[1]:
        raise BackboneError(
            f"{name} cannot take images of {height}×{width}: patches are {patch[0]}×{patch[1]}; "
            f"{_nearest((height, width), patch)}"
        )
    table, kernels = vit.pos_embed, vit.patch_embed.proj.weight
    vit.set_input_size(img_size=(height, width), patch_size=patch if patch != old_patch else None)
    options = _interpolation(name)
    if options is None:
        return
    # set_input_size is bicubic for every family; the options below are those of timm's own loading
    if table is not None and old_grid != vit.patch_embed.grid_size:
        prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
        grid = {"new_size": vit.patch_embed.grid_size, "old_size": old_grid, "num_prefix_tokens": prefix}
        vit.pos_embed = nn.Parameter(
            resample_abs_pos_embed(table.detach(), **grid, **options), requires_grad=table.requires_grad
        )
    if patch != old_patch:
        vit.patch_embed.proj.weight = nn.Parameter(
            resample_patch_embed(kernels.detach(), list(patch), **options), requires_grad=kernels.requires_grad
        )


def _interpolation(name: str) -> dict | None:
    """Returns the options that timm's loader uses for families whose interpolation differs; None for all others."""
    if "flexivit" in name:
        return {"interpolation": "bilinear", "antialias": False}
    if "_radio_" in name:
        aligned = "base_patch16_radio_v3" in name or "huge_patch16_radio_v3" in name
        return {"interpolation": "bilinear", "antialias": False, "align_corners": aligned}
    return None


def _nearest(size: tuple[int, int], patch: tuple[int, int]) -> str:
    below = tuple(max(s // p, 1) * p for s, p in zip(size, patch, strict=True))
    above = tuple(-(-s // p) * p for s, p in zip(size, patch, strict=True))
    if below == above:
        return f"the nearest is {below[0]}×{below[1]}"
    return f"the nearest are {below[0]}×{below[1]} and {above[0]}×{above[1]}"

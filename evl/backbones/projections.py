"""Projections: the frozen parts of tapped blocks that compute query and key from the block's input.

    x (F,L,D), the input of a block -> norm -> one linear layer for q and k -> norm per head -> rotation of patch tokens

The result equals what the block itself passes to its attention (``evl.backbones.timm_vit``). Attention values are not
computed. A projections file holds the tensors and a description of the operations, so reading it needs no timm model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import safetensors.torch
import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError, safe_open
from timm.layers import LayerNorm, LayerNormFp32, RmsNorm, RmsNormFp32, apply_rot_embed_cat
from timm.models.eva import EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block, ResPostBlock
from torch import Tensor, nn

from evl.backbones.timm_vit import TimmBackbone
from evl.errors import BackboneError, StoreError
from evl.runtime.checksums import checksum
from evl.runtime.cpu import linear
from evl.runtime.files import require_plain_file
from evl.types import BackboneSpec

_checked = dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
_Count = Annotated[int, Field(gt=0, lt=2**20)]
_KEY = "evl"  # the only metadata key: the order of several keys, and so the bytes of the file, would vary


@_checked
class NormOptions:
    """Which norm: ``layer``, ``rms``, or ``none``."""

    kind: Literal["layer", "rms", "none"] = "none"
    eps: Annotated[float, Field(ge=0)] = 0.0


@_checked
class BlockOptions:
    """Which operations compute the query and key of a block.

    ``norm`` is applied to the block's input, ``query_norm`` and ``key_norm`` to each attention head. ``num_key_heads``
    is less than ``num_heads`` if attention heads share keys. ``rotation`` chooses the pairs of channels that are
    rotated together: ``neighbors``, or channels of both ``halves``. The first ``num_unrotated`` tokens stay unrotated.
    """

    num_heads: _Count
    num_key_heads: _Count
    head_width: _Count
    norm: NormOptions
    query_norm: NormOptions
    key_norm: NormOptions
    rotation: Literal["none", "neighbors", "halves"] = "none"
    num_unrotated: Annotated[int, Field(ge=0, lt=2**20)] = 0


@_checked
class _Told:
    """The metadata of a file: the options of each block, and the checksum of each tensor."""

    blocks: dict[int, BlockOptions]
    checksums: dict[str, int]


class _Norm(nn.Module):
    def __init__(self, options: NormOptions, weight: Tensor | None, bias: Tensor | None):
        super().__init__()
        self.options = options
        self.weight = _frozen(weight)
        self.bias = _frozen(bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.options.kind == "layer":
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.options.eps)
        if self.options.kind == "rms":
            return F.rms_norm(x, x.shape[-1:], self.weight, self.options.eps)
        return x


class BlockProjection(nn.Module):
    """The projection of one block: inputs (F,L,D) -> query and key (F,L,N,K), before the 1/√K scale."""

    def __init__(self, options: BlockOptions, tensors: Mapping[str, Tensor]):
        """Takes the tensors by name; all but ``weight`` may be missing.

        ``weight`` ((N+N')·K, D) has the rows of the queries first, ``bias`` too. ``norm``, ``query_norm`` and
        ``key_norm`` each have a ``.weight`` and ``.bias``. ``rotation`` (P, 2K) or (N, P, 2K) holds the sines, then the
        cosines, of each patch.
        """
        super().__init__()
        self.options = options
        self.weight = _frozen(tensors["weight"])
        self.bias = _frozen(tensors.get("bias"))
        for name in ("norm", "query_norm", "key_norm"):
            parts = (tensors.get(f"{name}.{part}") for part in ("weight", "bias"))
            setattr(self, name, _Norm(getattr(options, name), *parts))
        self.register_buffer("rotation", tensors.get("rotation"))

    def forward(self, inputs: Tensor, *, patches_only: bool = False) -> tuple[Tensor, Tensor]:
        """Returns query and key. ``patches_only``: the inputs have no prefix tokens."""
        options = self.options
        both = linear(self.norm(inputs), self.weight, self.bias).unflatten(-1, (-1, options.head_width))
        query, key = both.split([options.num_heads, options.num_key_heads], -2)  # (F,L,N,K)
        query, key = self.query_norm(query), self.key_norm(key)
        if self.rotation is not None:
            skipped = 0 if patches_only else options.num_unrotated
            query, key = self._rotated(query, skipped), self._rotated(key, skipped)
        if options.num_key_heads < options.num_heads:
            key = key.repeat_interleave(options.num_heads // options.num_key_heads, -2)
        return query, key

    def _rotated(self, x: Tensor, skipped: int) -> Tensor:
        x = x.transpose(1, 2)  # (F,N,L,K)
        patches = apply_rot_embed_cat(x[:, :, skipped:], self.rotation, half=self.options.rotation == "halves")
        return torch.cat([x[:, :, :skipped], patches.to(x.dtype)], 2).transpose(1, 2)

    def _apply(self, fn, recurse=True):
        """Keeps the dtype of the rotation: half precision would rotate patches far from the origin wrongly."""
        table = self.rotation
        super()._apply(fn, recurse)
        if table is not None and self.rotation.dtype.itemsize < table.dtype.itemsize:
            self.rotation = table.to(self.rotation.device)
        return self


class Projections(nn.Module):
    """The projections of several blocks, by block number from 1. They take no gradients."""

    def __init__(self, blocks: Mapping[int, BlockProjection]):
        super().__init__()
        self.parts = nn.ModuleDict({str(number): block for number, block in sorted(blocks.items())})

    @property
    def blocks(self) -> tuple[int, ...]:
        return tuple(map(int, self.parts))

    def queries_keys(self, block: int, inputs: Tensor, *, patches_only: bool = False) -> tuple[Tensor, Tensor]:
        """Inputs (F,L,D) of block number ``block``, in the dtype of the weights -> query and key (F,L,N,K)."""
        return self.parts[str(block)](inputs, patches_only=patches_only)

    def of(self, blocks: tuple[int, ...]) -> Projections:
        """Returns the projections of ``blocks`` only; they share their tensors with these."""
        return Projections({number: self.parts[str(number)] for number in blocks})

    def to_bytes(self) -> bytes:
        """Returns a safetensors file with ``NUMBER.weight``, …; the options and checksums are JSON in its metadata.

        Equal projections give equal bytes.
        """
        tensors = {name.removeprefix("parts."): value.cpu().contiguous() for name, value in self.state_dict().items()}
        options = {int(number): part.options for number, part in self.parts.items()}
        told = _Told(options, {name: checksum(value) for name, value in tensors.items()})
        return safetensors.torch.save(tensors, {_KEY: json.dumps(_TOLD.dump_python(told, mode="json"), sort_keys=True)})

    @classmethod
    def load(cls, path: str | Path, spec: BackboneSpec) -> Projections:
        """Reads a file that ``to_bytes`` wrote. Raises StoreError if it is damaged or does not fit ``spec``."""
        try:
            require_plain_file(path)
            with safe_open(path, "pt") as file:
                told = _TOLD.validate_json((file.metadata() or {}).get(_KEY, ""))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
        except (OSError, SafetensorError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise StoreError(f"{path}: not a file of projections, or a damaged one ({reason}); {_TO_MEND}") from None
        blocks = {}
        for number, options in told.blocks.items():
            own = {k.removeprefix(f"{number}."): v for k, v in tensors.items() if k.startswith(f"{number}.")}
            if wrong := _find_misfit(options, own, spec):
                raise StoreError(f"{path}: block {number} {wrong}; extract the store again")
            blocks[number] = BlockProjection(options, own)
        if not blocks or not set(blocks) <= set(range(1, spec.depth + 1)):
            raise StoreError(f"{path}: has projections of blocks {sorted(blocks)}; {spec.name} has 1 to {spec.depth}")
        for name, value in tensors.items():
            if checksum(value) != told.checksums.get(name):
                raise StoreError(f"{path}: {name} is damaged: its bytes are not those of its checksum; {_TO_MEND}")
        return cls(blocks)


_TOLD, _TO_MEND = TypeAdapter(_Told), "delete it, and evl extract makes it again"


def projections_of(backbone: TimmBackbone) -> Projections:
    """Returns float32 copies of the projections of the tapped blocks.

    Raises BackboneError for blocks whose operations are not known.
    """
    if not hasattr(backbone, "vit"):
        raise BackboneError(
            f"{backbone.spec.name} is not a timm model, so evl cannot copy its projections; extract with `form=maps`"
        )
    tables = _rotations(backbone.vit)
    with torch.no_grad():
        parts = {}
        for number in filter(None, backbone.taps):  # what enters block 1 (tap 0) has no attention
            options, tensors = _parts_of_block(backbone.vit.blocks[number - 1], backbone.spec.name)
            table = tables(number - 1)
            if table is not None:
                half = getattr(backbone.vit.blocks[number - 1].attn, "rotate_half", False)
                options["rotation"] = "halves" if half else "neighbors"
                options["num_unrotated"] = backbone.vit.blocks[number - 1].attn.num_prefix_tokens
                tensors["rotation"] = table
            kept = {name: value.detach().float().clone() for name, value in tensors.items() if value is not None}
            parts[number] = BlockProjection(BlockOptions(**options), kept)
    return Projections(parts)


def _parts_of_block(block: nn.Module, name: str) -> tuple[dict, dict[str, Tensor | None]]:
    """Returns (fields of BlockOptions, tensors) of a timm block."""
    if type(block) not in (Block, EvaBlock, ResPostBlock, EvaBlockPostNorm):
        raise _cannot(name, f"its blocks are {type(block).__name__}s")
    attention = block.attn
    num_heads, width = attention.num_heads, attention.head_dim
    norms = {"query_norm": attention.q_norm, "key_norm": attention.k_norm, "norm": nn.Identity()}
    if type(block) in (Block, EvaBlock):  # in the others attention comes before the norm
        norms["norm"] = block.norm1
    options = {
        "num_heads": num_heads,
        "num_key_heads": getattr(attention, "num_kv_heads", num_heads),
        "head_width": width,
    }
    tensors: dict[str, Tensor | None] = {}
    for part, norm in norms.items():
        options[part] = _norm_options(norm, name)
        tensors |= {f"{part}.{kind}": getattr(norm, kind, None) for kind in ("weight", "bias")}
    if attention.qkv is not None:
        rows = 2 * num_heads * width
        tensors["weight"] = attention.qkv.weight[:rows]
        bias = attention.qkv.bias
        if getattr(attention, "q_bias", None) is not None:  # EvaAttention has its biases outside of the layer
            bias = torch.cat([attention.q_bias, attention.k_bias])
        tensors["bias"] = None if bias is None else bias[:rows]
    else:
        layers = (attention.q_proj, attention.k_proj)
        tensors["weight"] = torch.cat([layer.weight for layer in layers])
        biases = [layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers]
        tensors["bias"] = None if all(layer.bias is None for layer in layers) else torch.cat(biases)
    return options, tensors


def _norm_options(norm: nn.Module, name: str) -> NormOptions:
    if isinstance(norm, nn.Identity):
        return NormOptions()
    if type(norm) in (nn.LayerNorm, LayerNorm, LayerNormFp32):
        return NormOptions("layer", norm.eps)
    if type(norm) in (RmsNorm, RmsNormFp32):
        return NormOptions("rms", norm.eps)
    raise _cannot(name, f"its norms are {type(norm).__name__}s")


def _rotations(vit: nn.Module):
    """Returns a function from a block's index to its table of sines and cosines (or None), as ``Eva`` passes it on."""
    rope = getattr(vit, "rope", None)
    if rope is None:
        return lambda index: None
    own_size = not vit.dynamic_img_size and hasattr(rope, "feat_shape")
    table = (rope.get_embed() if own_size else rope.get_embed(shape=vit.patch_embed.grid_size)).detach().float()
    return lambda index: table[index] if getattr(vit, "rope_mixed", False) else table


def _cannot(name: str, why: str) -> BackboneError:
    return BackboneError(
        f"evl cannot compute query and key of {name} from stored token maps: {why}; store neighbor maps (`form=maps`)"
    )


def _find_misfit(options: BlockOptions, tensors: Mapping[str, Tensor], spec: BackboneSpec) -> str | None:
    """Returns why the tensors of a file do not fit a block of ``spec``, in words; None if they fit."""
    own, wanted = (options.num_heads, options.head_width), (spec.num_heads, spec.head_width)
    if own != wanted or options.num_heads % options.num_key_heads:
        return f"has {options.num_heads} heads of {options.head_width} (and {options.num_key_heads} of keys)"
    rows = (options.num_heads + options.num_key_heads) * options.head_width
    patches = spec.grid[0] * spec.grid[1]
    allowed = {"weight": [(rows, spec.width)], "bias": [(rows,)]}
    for name, width in (("norm", spec.width), ("query_norm", options.head_width), ("key_norm", options.head_width)):
        parts = {"layer": ("weight", "bias"), "rms": ("weight",), "none": ()}[getattr(options, name).kind]
        allowed |= {f"{name}.{part}": [(width,)] for part in parts}
    if options.rotation != "none":
        table = (patches, 2 * options.head_width)
        allowed["rotation"] = [table]
        if options.num_key_heads == options.num_heads:
            allowed["rotation"].append((options.num_heads, *table))
        if options.num_unrotated != spec.num_tokens - patches:
            return f"leaves {options.num_unrotated} tokens unrotated"
    for name, value in tensors.items():
        if tuple(value.shape) not in allowed.get(name, ()) or value.dtype != torch.float32:
            return f"has {name!a:.40} of shape {tuple(value.shape)} and {value.dtype}"
        if not value.isfinite().all():
            return f"has numbers in {name} that are not finite"
    needed = ("weight",) if options.rotation == "none" else ("rotation", "weight")
    return next((f"lacks {name}" for name in needed if name not in tensors), None)


def _frozen(value: Tensor | None) -> nn.Parameter | None:
    return None if value is None else nn.Parameter(value, requires_grad=False)

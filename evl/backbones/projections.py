"""The frozen parts of tapped blocks that make queries and keys of the block's input, without the rest of the encoder.

    x (F,L,D), the input of a block -> norm -> one linear layer for q and k -> norm a head -> rotation of patch tokens

equals what the block hands to its attention (``evl.backbones.timm_vit``); values are never made. They are a file of
tensors with the operations written beside them, so that reading it needs no model of timm.
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
from evl.runtime.onednn import linear
from evl.types import BackboneSpec

_checked = dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
_Count = Annotated[int, Field(gt=0, lt=2**20)]
_KEY = "blocks"  # the only one of the file's metadata: with several their order, and so the bytes, would change


@_checked
class NormForm:
    """``layer``, ``rms``, or ``none``: no norm."""

    kind: Literal["layer", "rms", "none"] = "none"
    eps: Annotated[float, Field(ge=0)] = 0.0


@_checked
class BlockForm:
    """Which operations make a block's queries and keys. ``norm`` is of the block's input, the others of a head.

    ``num_key_heads``: fewer than ``num_heads`` where heads share keys. ``rotation``: which channels are turned
    together, ``neighbors`` or those of both ``halves``; the first ``num_unrotated`` tokens are not turned.
    """

    num_heads: _Count
    num_key_heads: _Count
    head_width: _Count
    norm: NormForm
    query_norm: NormForm
    key_norm: NormForm
    rotation: Literal["none", "neighbors", "halves"] = "none"
    num_unrotated: Annotated[int, Field(ge=0, lt=2**20)] = 0


class _Norm(nn.Module):
    def __init__(self, form: NormForm, weight: Tensor | None, bias: Tensor | None):
        super().__init__()
        self.form = form
        self.weight = _frozen(weight)
        self.bias = _frozen(bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.form.kind == "layer":
            return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.form.eps)
        if self.form.kind == "rms":
            return F.rms_norm(x, x.shape[-1:], self.weight, self.form.eps)
        return x


class BlockProjection(nn.Module):
    """One block's part: inputs (F,L,D) -> query and key (F,L,N,K), before the 1/√K scale."""

    def __init__(self, form: BlockForm, tensors: Mapping[str, Tensor]):
        """``tensors``: ``weight`` ((N+N')·K, D), queries first; ``bias``; those of ``norm``, ``query_norm`` and
        ``key_norm``; ``rotation`` (P, 2K) or (N, P, 2K): sines, then cosines, of each patch. Those that there are."""
        super().__init__()
        self.form = form
        self.weight = _frozen(tensors["weight"])
        self.bias = _frozen(tensors.get("bias"))
        for name in ("norm", "query_norm", "key_norm"):
            parts = (tensors.get(f"{name}.{part}") for part in ("weight", "bias"))
            setattr(self, name, _Norm(getattr(form, name), *parts))
        self.register_buffer("rotation", tensors.get("rotation"))

    def forward(self, inputs: Tensor, *, patches_only: bool = False) -> tuple[Tensor, Tensor]:
        """``patches_only``: the inputs are those of patches, without prefix tokens."""
        form = self.form
        both = linear(self.norm(inputs), self.weight, self.bias).unflatten(-1, (-1, form.head_width))
        query, key = both.split([form.num_heads, form.num_key_heads], -2)  # (F,L,N,K)
        query, key = self.query_norm(query), self.key_norm(key)
        if self.rotation is not None:
            skipped = 0 if patches_only else form.num_unrotated
            query, key = self._rotated(query, skipped), self._rotated(key, skipped)
        if form.num_key_heads < form.num_heads:
            key = key.repeat_interleave(form.num_heads // form.num_key_heads, -2)
        return query, key

    def _rotated(self, x: Tensor, skipped: int) -> Tensor:
        x = x.transpose(1, 2)  # (F,N,L,K)
        patches = apply_rot_embed_cat(x[:, :, skipped:], self.rotation, half=self.form.rotation == "halves")
        return torch.cat([x[:, :, :skipped], patches.to(x.dtype)], 2).transpose(1, 2)

    def _apply(self, fn, recurse=True):
        """The rotation keeps its type: angles in half precision would turn patches far out wrong."""
        table = self.rotation
        super()._apply(fn, recurse)
        if table is not None and self.rotation.dtype.itemsize < table.dtype.itemsize:
            self.rotation = table.to(self.rotation.device)
        return self


class Projections(nn.Module):
    """Those of several blocks, by number from 1. They take no gradients."""

    def __init__(self, blocks: Mapping[int, BlockProjection]):
        super().__init__()
        self.parts = nn.ModuleDict({str(number): block for number, block in sorted(blocks.items())})

    @property
    def blocks(self) -> tuple[int, ...]:
        return tuple(map(int, self.parts))

    def queries_keys(self, block: int, inputs: Tensor, *, patches_only: bool = False) -> tuple[Tensor, Tensor]:
        """inputs (F,L,D) of block number ``block``, in the type of the weights -> query and key (F,L,N,K)."""
        return self.parts[str(block)](inputs, patches_only=patches_only)

    def of(self, blocks: tuple[int, ...]) -> Projections:
        """Only those of ``blocks``, sharing their tensors."""
        return Projections({number: self.parts[str(number)] for number in blocks})

    def to_bytes(self) -> bytes:
        """A safetensors file: ``NUMBER.weight``, … and the operations as JSON under ``blocks`` of its metadata; the
        same bytes for the same projections."""
        tensors = {name.removeprefix("parts."): value.cpu().contiguous() for name, value in self.state_dict().items()}
        forms = {number: _FORM.dump_python(part.form, mode="json") for number, part in self.parts.items()}
        return safetensors.torch.save(tensors, {_KEY: json.dumps(forms, sort_keys=True)})

    @classmethod
    def load(cls, path: str | Path, spec: BackboneSpec) -> Projections:
        """What ``to_bytes`` gave, in a file. Raises StoreError where it is damaged or is not of ``spec``."""
        try:
            with safe_open(path, "pt") as file:
                forms = _FORMS.validate_json((file.metadata() or {}).get(_KEY, ""))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
        except (OSError, SafetensorError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise StoreError(f"{path}: not a file of projections, or a damaged one ({reason})") from None
        blocks = {}
        for number, form in forms.items():
            own = {k.removeprefix(f"{number}."): v for k, v in tensors.items() if k.startswith(f"{number}.")}
            if wrong := _what_does_not_fit(form, own, spec):
                raise StoreError(f"{path}: block {number} {wrong}; extract the store anew")
            blocks[number] = BlockProjection(form, own)
        if not blocks or not set(blocks) <= set(range(1, spec.depth + 1)):
            raise StoreError(f"{path}: has projections of blocks {sorted(blocks)}; {spec.name} has 1 to {spec.depth}")
        return cls(blocks)


_FORM, _FORMS = TypeAdapter(BlockForm), TypeAdapter(dict[int, BlockForm])


def projections_of(backbone: TimmBackbone) -> Projections:
    """Those of the tapped blocks, copied in float32. Raises BackboneError for blocks that cannot be taken apart."""
    if not hasattr(backbone, "vit"):
        raise BackboneError(
            f"{backbone.spec.name} is no encoder of timm's: its blocks cannot be taken apart; extract with --form maps"
        )
    tables = _rotations(backbone.vit)
    with torch.no_grad():
        parts = {}
        for number in backbone.taps:
            form, tensors = _taken_apart(backbone.vit.blocks[number - 1], backbone.spec.name)
            table = tables(number - 1)
            if table is not None:
                half = getattr(backbone.vit.blocks[number - 1].attn, "rotate_half", False)
                form["rotation"] = "halves" if half else "neighbors"
                form["num_unrotated"] = backbone.vit.blocks[number - 1].attn.num_prefix_tokens
                tensors["rotation"] = table
            kept = {name: value.detach().float().clone() for name, value in tensors.items() if value is not None}
            parts[number] = BlockProjection(BlockForm(**form), kept)
    return Projections(parts)


def _taken_apart(block: nn.Module, name: str) -> tuple[dict, dict[str, Tensor | None]]:
    """Fields of a BlockForm, and the tensors, of one of timm's blocks."""
    if type(block) not in (Block, EvaBlock, ResPostBlock, EvaBlockPostNorm):
        raise _cannot(name, f"its blocks are {type(block).__name__}s")
    attention = block.attn
    num_heads, width = attention.num_heads, attention.head_dim
    norms = {"query_norm": attention.q_norm, "key_norm": attention.k_norm, "norm": nn.Identity()}
    if type(block) in (Block, EvaBlock):  # in the others attention comes before the norm
        norms["norm"] = block.norm1
    form = {"num_heads": num_heads, "num_key_heads": getattr(attention, "num_kv_heads", num_heads), "head_width": width}
    tensors: dict[str, Tensor | None] = {}
    for part, norm in norms.items():
        form[part] = _norm_form(norm, name)
        tensors |= {f"{part}.{kind}": getattr(norm, kind, None) for kind in ("weight", "bias")}
    if attention.qkv is not None:
        rows = 2 * num_heads * width
        tensors["weight"] = attention.qkv.weight[:rows]
        bias = attention.qkv.bias
        if getattr(attention, "q_bias", None) is not None:  # of EvaAttention, which has it beside the layer
            bias = torch.cat([attention.q_bias, attention.k_bias])
        tensors["bias"] = None if bias is None else bias[:rows]
    else:
        layers = (attention.q_proj, attention.k_proj)
        tensors["weight"] = torch.cat([layer.weight for layer in layers])
        biases = [layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias for layer in layers]
        tensors["bias"] = None if all(layer.bias is None for layer in layers) else torch.cat(biases)
    return form, tensors


def _norm_form(norm: nn.Module, name: str) -> NormForm:
    if isinstance(norm, nn.Identity):
        return NormForm()
    if type(norm) in (nn.LayerNorm, LayerNorm, LayerNormFp32):
        return NormForm("layer", norm.eps)
    if type(norm) in (RmsNorm, RmsNormFp32):
        return NormForm("rms", norm.eps)
    raise _cannot(name, f"its norms are {type(norm).__name__}s")


def _rotations(vit: nn.Module):
    """Block index -> its table of sines and cosines, or None: as ``Eva`` gives it to the block."""
    rope = getattr(vit, "rope", None)
    if rope is None:
        return lambda index: None
    own_size = not vit.dynamic_img_size and hasattr(rope, "feat_shape")
    table = (rope.get_embed() if own_size else rope.get_embed(shape=vit.patch_embed.grid_size)).detach().float()
    return lambda index: table[index] if getattr(vit, "rope_mixed", False) else table


def _cannot(name: str, why: str) -> BackboneError:
    return BackboneError(
        f"queries and keys of {name} cannot be made from stored token maps: {why}; store attention maps (form=maps)"
    )


def _what_does_not_fit(form: BlockForm, tensors: Mapping[str, Tensor], spec: BackboneSpec) -> str | None:
    """Why the tensors of a file are not those of one block of ``spec``, in words."""
    if (form.num_heads, form.head_width) != (spec.num_heads, spec.head_width) or form.num_heads % form.num_key_heads:
        return f"has {form.num_heads} heads of {form.head_width} (and {form.num_key_heads} of keys)"
    rows = (form.num_heads + form.num_key_heads) * form.head_width
    patches = spec.grid[0] * spec.grid[1]
    allowed = {"weight": [(rows, spec.width)], "bias": [(rows,)]}
    for name, width in (("norm", spec.width), ("query_norm", form.head_width), ("key_norm", form.head_width)):
        kind = getattr(form, name).kind
        allowed |= {f"{name}.{part}": [(width,)] for part in ("weight", "bias") if (kind, part) != ("rms", "bias")}
        if kind == "none":
            allowed = {key: value for key, value in allowed.items() if not key.startswith(f"{name}.")}
    if form.rotation != "none":
        last = (patches, 2 * form.head_width)
        allowed["rotation"] = [last, *([(form.num_heads, *last)] if form.num_key_heads == form.num_heads else [])]
        if form.num_unrotated != spec.num_tokens - patches:
            return f"leaves {form.num_unrotated} tokens unrotated"
    for name, value in tensors.items():
        if tuple(value.shape) not in allowed.get(name, ()) or value.dtype != torch.float32:
            return f"has {name!a:.40} of shape {tuple(value.shape)} and {value.dtype}"
        if not value.isfinite().all():
            return f"has numbers in {name} that are not finite"
    missing = {"weight", *(["rotation"] if form.rotation != "none" else [])} - tensors.keys()
    return f"lacks {sorted(missing)[0]}" if missing else None


def _frozen(value: Tensor | None) -> nn.Parameter | None:
    return None if value is None else nn.Parameter(value, requires_grad=False)

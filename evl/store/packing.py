"""Packs features in fewer bytes and unpacks them: 16 bits, or 8 bits with a scale.

    int8      values = round(x / scale), scale = absmax / 127            error: half a step, scale / 2
    float8    values = float8_e4m3fn(x / scale), scale = absmax / 448    error: 2^-4 of x, or scale · 2^-10 near zero
    uint8     for neighbor maps, which are not negative: as int8, with scale = max / 255

The scale is float32. Each clip has its own scales, one per channel or per token. So a stored clip does not depend on
the other clips of its batch.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, UntypedStorage

from evl.errors import RunError

Dtype = Literal["float32", "float16", "bfloat16", "int8", "float8"]
TYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "float8": torch.float8_e4m3fn,
}
_LARGEST = {torch.int8: 127.0, torch.uint8: 255.0, torch.float8_e4m3fn: 448.0}
_PART = 1 << 18  # numbers that are unpacked together on the CPU, so that they stay in its cache
LARGE = 16 << 20  # bytes; the allocator itself keeps smaller blocks
_kept: list[UntypedStorage] = []
_lock = threading.Lock()


@dataclass(frozen=True)
class Packed:
    """Packed maps of some clips: ``values``, whose first dimension is the clips, and their ``scale`` or None.

    The scale broadcasts over the values.
    """

    values: Tensor
    scale: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows) -> Packed:
        """The clips ``rows`` (a slice, or a tensor of indices)."""
        return Packed(self.values[rows], None if self.scale is None else self.scale[rows])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Packed:
        values, scale = (x if x is None else x.to(device, non_blocking=non_blocking) for x in self._parts)
        return Packed(values, scale)

    def pin_memory(self) -> Packed:
        values, scale = (x if x is None else x.pin_memory() for x in self._parts)
        return Packed(values, scale)

    @property
    def _parts(self) -> tuple[Tensor, Tensor | None]:
        return self.values, self.scale

    @property
    def num_bytes(self) -> int:
        return sum(x.nbytes for x in self._parts if x is not None)

    def unpack(self, dtype: torch.dtype = torch.float32, out: Tensor | None = None) -> Tensor:
        """The numbers in ``dtype``, in the shape of ``values``; computed in float32 and rounded once.

        ``out``: a tensor of that shape that receives them; its dtype replaces ``dtype``. Values that have ``dtype`` and
        no scale are returned without a copy. No other memory of that size is used.
        """
        values, scale = self._parts
        if scale is None and out is None and values.dtype == dtype:
            return values
        if out is None:
            is_cpu = values.device.type == "cpu"
            out = empty(values.shape, dtype) if is_cpu else torch.empty_like(values, dtype=dtype)
        if scale is None:
            return out.copy_(values)
        if values.device.type != "cpu":
            return _unpack_at_once(values, scale, out)
        for target, part, factor in _in_parts(out, values, scale):
            _multiply(part, factor, target)
        return out


def _unpack_at_once(values: Tensor, scale: Tensor, out: Tensor) -> Tensor:
    """In two kernels. The values are exact in every type, so only the product is rounded."""
    return out.copy_(values).mul_(scale)


def _in_parts(out: Tensor, values: Tensor, scale: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Parts of (out, values, scale) that stay in the cache: some clips, or single frames if clips are large."""
    clips = max(1, _PART // max(1, values[0].numel())) if len(values) else 1
    for start in range(0, len(values), clips):
        part = slice(start, start + clips)
        if clips > 1 or values.ndim < 2 or values[0].numel() <= _PART:
            yield out[part], values[part], scale[part]
        else:
            for frame in range(values.shape[1]):
                yield out[start, frame], values[start, frame], scale[start, frame if scale.shape[1] > 1 else 0]


def _multiply(values: Tensor, scale: Tensor, out: Tensor) -> None:
    if values.dtype == torch.float8_e4m3fn:
        # the bits of a float8, shifted, are a float16 of 2^-8 times the value; an ordinary conversion takes ten times
        # as long
        bits = values.view(torch.int8).to(torch.int16)
        values, scale = bits.bitwise_left_shift_(7).bitwise_and_(-0x4080).view(torch.float16), scale * 256.0
    if out.dtype == torch.float32:
        out.copy_(values).mul_(scale)
    else:
        torch.mul(values, scale, out=out)


def pack_tokens(tokens: Tensor, dtype: Dtype, scale: Literal["channel", "token"] = "channel") -> Packed:
    """tokens (n,T,L,D) -> values (n,T,L,D), with 8 bits also a float32 scale (n,1,1,D) or (n,T,L,1).

    Raises RunError if numbers are not finite, or too large for float16.
    """
    return _pack(tokens, TYPES[dtype], (1, 2) if scale == "channel" else (3,), "token maps")


def pack_maps(maps: Tensor, dtype: Dtype) -> Packed:
    """maps (n,T,h,w,h,2,w) of ``evl.models.crossframe.packed_maps`` -> values of that shape.

    With 8 bits they are uint8 with a float32 scale (n,T,h,w,1,1,1), one per query patch. Raises RunError if numbers are
    not finite.
    """
    stored = torch.uint8 if dtype in ("int8", "float8") else TYPES[dtype]
    return _pack(maps, stored, (4, 5, 6), "neighbor maps")


@torch.no_grad()
def _pack(x: Tensor, dtype: torch.dtype, over: tuple[int, ...], what: str) -> Packed:
    if dtype in _LARGEST:
        lowest, highest = x.amin(over, keepdim=True).float(), x.amax(over, keepdim=True).float()
        absmax = torch.maximum(-lowest, highest)
        _require_finite(absmax, what)
        scale = absmax / _LARGEST[dtype]
        # the scale is 0 if all numbers are zero, or too small for a float32 scale
        steps = x.float() / torch.where(scale > 0, scale, 1.0)
        steps = steps if dtype.is_floating_point else steps.round_()
        most = _LARGEST[dtype]
        return Packed(steps.clamp_(0.0 if dtype == torch.uint8 else -most, most).to(dtype), scale)
    values = x.to(dtype)
    if not values.isfinite().all():
        _require_finite(x, what)
        raise RunError(
            f"{what} contain {x.abs().amax():.3g}, which is too large for {str(dtype).removeprefix('torch.')}; "
            "store them as bfloat16 (`dtype=bfloat16`)"
        )
    return Packed(values)


def _require_finite(x: Tensor, what: str) -> None:
    if not x.isfinite().all():
        raise RunError(
            f"{what} contain numbers that are not finite; check the backbone's weights, or set training.precision=fp32"
        )


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """As ``torch.empty``, on the CPU. The memory of a large tensor is used again when no tensor needs it any more.

    The system's allocator returns large blocks to the system when they are freed. The system fills the pages of new
    blocks with zeros, which takes seven times as long as writing to them (docs/store.md). Each step of a decoder needs
    the same sizes, so blocks are kept. The memory is in use while the tensor, a view of it, or a tensor that autograd
    keeps exists. A bare ``UntypedStorage`` does not count.
    """
    num_bytes = math.prod(shape) * dtype.itemsize
    if num_bytes < LARGE or not hasattr(torch._C, "_storage_Use_Count"):
        return torch.empty(shape, dtype=dtype)
    with _lock:
        for storage in _kept:
            if storage.nbytes() == num_bytes and _is_free(storage):
                return torch.empty(0, dtype=dtype).set_(storage, 0, torch.Size(shape))
        _kept[:] = [
            storage for storage in _kept if not _is_free(storage)
        ]  # free ones of other sizes: the batches have changed
        tensor = torch.empty(shape, dtype=dtype)
        _kept.append(tensor.untyped_storage())
        return tensor


def _is_free(storage: UntypedStorage) -> bool:
    return torch._C._storage_Use_Count(storage._cdata) == 1  # only the list refers to it

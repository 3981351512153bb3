"""Features in few bytes, and back: halves, or 8 bits with a scale.

    int8      values = round(x / scale), scale = absmax / 127            error: half a step, scale / 2
    float8    values = float8_e4m3fn(x / scale), scale = absmax / 448    error: 2^-4 of x, or scale · 2^-10 near zero
    uint8     (neighbour maps, which are not negative) as int8 with max / 255

The scale is float32, and taken over a channel or a token of one clip alone: a stored clip does not depend on the others
of its batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Dtype = Literal["float32", "float16", "bfloat16", "int8", "float8"]
TYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
    "float8": torch.float8_e4m3fn,
}


@dataclass(frozen=True)
class Packed:
    """``values``, first dimension clips, and their ``scale``, which broadcasts over them; None: no scale."""

    values: Tensor
    scale: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows) -> Packed:
        """The clips ``rows`` (a slice, or a tensor of indices)."""
        raise NotImplementedError

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Packed:
        raise NotImplementedError

    def pin_memory(self) -> Packed:
        raise NotImplementedError

    @property
    def num_bytes(self) -> int:
        raise NotImplementedError

    def unpack(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The numbers again, of the shape of ``values``: rounded once, to ``dtype``."""
        raise NotImplementedError


def maps_type(dtype: Dtype) -> torch.dtype:
    """The type of neighbour maps: uint8 for both 8-bit types."""
    return torch.uint8 if dtype in ("int8", "float8") else TYPES[dtype]


def pack_tokens(tokens: Tensor, dtype: Dtype, scale: Literal["channel", "token"] = "channel") -> Packed:
    """tokens (n,T,L,D) -> values (n,T,L,D), and for 8 bits a float32 scale (n,1,1,D) or (n,T,L,1).

    Raises RunError where numbers are not finite, or are too large for float16.
    """
    raise NotImplementedError


def pack_maps(maps: Tensor, dtype: Dtype) -> Packed:
    """maps (n,T,h,w,h,2,w) as ``evl.models.crossframe.packed_maps`` makes them -> values of that shape, and for 8 bits
    a float32 scale (n,T,h,w,1,1,1), one a query row. Raises RunError where numbers are not finite."""
    raise NotImplementedError

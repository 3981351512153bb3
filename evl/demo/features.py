"""Frozen features of many clips, in memory: computed once, read by every decoder.

A clip costs M·T·(L·D + 2·(h·w)²) numbers. Of a tapped block's query and key only the head-averaged maps between
neighbouring frames are kept (METHOD.md section 4: they hold no parameters), which is fewer bytes than queries and keys
(T·L·2·D) where 2·(h·w)² < 2·L·D, and saves a training step the two thirds of its time that making them takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from evl.backbones import FrozenBackbone
from evl.errors import RunError
from evl.models.crossframe import neighbour_maps, packed_maps, unpacked_maps
from evl.types import MappedFeatures


class StoredFeatures:
    """Of n clips, a tapped block each: ``tokens`` (n,T,L,D), ``maps`` (n,T,h,w,h,2,w) or None. ``batch`` gives what a
    decoder takes, in float32."""

    def __init__(self, tokens: Sequence[Tensor], maps: Sequence[Tensor | None]):
        self.tokens, self.maps = tuple(tokens), tuple(maps)

    def __len__(self) -> int:
        return len(self.tokens[0])

    @property
    def num_bytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in (*self.tokens, *self.maps) if x is not None)

    def batch(self, rows: Sequence[int]) -> list[MappedFeatures]:
        """The features of some clips, shallow to deep."""
        rows = torch.as_tensor(rows)
        return [
            MappedFeatures(
                tokens.index_select(0, rows).float(),
                () if maps is None else unpacked_maps(maps.index_select(0, rows), torch.float32),
            )
            for tokens, maps in zip(self.tokens, self.maps, strict=True)
        ]


@torch.no_grad()
def extract(
    backbone: FrozenBackbone,
    clips: Tensor,
    *,
    dtype: torch.dtype = torch.float16,
    at_once: int = 16,
    progress: Callable[[int], None] = lambda done: None,
) -> StoredFeatures:
    """What a frozen backbone says of clips (n,T,3,H,W), kept as ``dtype``, ``at_once`` clips at a time.

    Raises RunError for numbers that the type cannot hold.
    """
    spec = backbone.spec
    (h, w), (n, t) = spec.grid, clips.shape[:2]
    tokens = [torch.empty(n, t, spec.num_tokens, spec.width, dtype=dtype) for _ in backbone.taps]
    maps = [torch.empty(n, t, h, w, h, 2, w, dtype=dtype) for _ in backbone.taps]
    for start in range(0, n, at_once):
        part = slice(start, start + at_once)
        for block, one in enumerate(backbone(clips[part].float())):
            if one.tokens.abs().max() > torch.finfo(dtype).max:
                raise RunError(f"features of {spec.name} are too large for {dtype}; keep them as torch.float32")
            tokens[block][part] = one.tokens
            maps[block][part] = packed_maps(neighbour_maps(one.query, one.key, spec.grid, one.tokens.dtype), dtype)
        progress(min(n, start + at_once))
    return StoredFeatures(tokens, maps)


def pooled(features: StoredFeatures, num_prefix_tokens: int) -> StoredFeatures:
    """What a mean-pooled probe reads, and no more: one frame of one patch, the mean of the deepest block's patches.

    The mean of one is itself, so ``evl.models.MeanPool`` gives the same numbers as on the features themselves.
    """
    tokens = features.tokens[-1]
    means = torch.stack([one[:, num_prefix_tokens:].mean((0, 1), dtype=torch.float32) for one in tokens])
    alone = means.new_zeros(len(means), 1, num_prefix_tokens + 1, means.shape[-1])
    alone[:, 0, -1] = means
    return StoredFeatures([alone], [None])


def of_frame(features: StoredFeatures, t: int) -> StoredFeatures:
    """Features of one frame of every clip, for decoders that are to see a still picture."""
    return StoredFeatures([x[:, t : t + 1] for x in features.tokens], [None for _ in features.maps])

"""Frozen features of many clips, in memory: computed once, read by every decoder.

A clip costs M·T·(L·D + 2·(h·w)²) numbers. Of a tapped block's query and key only the head-averaged maps between
neighbouring frames are kept (METHOD.md section 4: they hold no parameters), which is fewer bytes than queries and keys
(T·L·2·D) where 2·(h·w)² < 2·L·D, and saves a training step the two thirds of its time that making them takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from evl.backbones import FrozenBackbone
from evl.data.loader import default_num_workers
from evl.errors import RunError
from evl.models.crossframe import neighbour_maps, packed_maps, unpacked_maps
from evl.types import MappedFeatures

CLIPS_AT_ONCE = 8


@contextmanager
def threads() -> Iterator[ThreadPoolExecutor]:
    """A pool with a thread a core, each of which computes alone.

    For models as small as these that is faster than all cores at each product, and far faster where other programs
    want the cores too: threads that share a product wait for the slowest.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(default_num_workers(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


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

    def batch(self, rows: Sequence[int], pool: Executor | None = None) -> list[MappedFeatures]:
        """The features of some clips, shallow to deep; a thread of ``pool`` each."""
        rows = torch.as_tensor(rows)

        def gather(block: int) -> MappedFeatures:
            tokens, maps = self.tokens[block].index_select(0, rows).float(), ()
            if self.maps[block] is not None:
                maps = unpacked_maps(self.maps[block].index_select(0, rows), torch.float32)
            return MappedFeatures(tokens, maps)

        return list((map if pool is None else pool.map)(gather, range(len(self.tokens))))


def extract(
    backbone: FrozenBackbone,
    clips: Tensor,
    pool: Executor,
    *,
    dtype: torch.dtype = torch.float16,
    progress: Callable[[int], None] = lambda done: None,
) -> StoredFeatures:
    """What a frozen backbone says of clips (n,T,3,H,W), kept as ``dtype``, a few clips a thread at a time.

    Raises RunError for numbers that the type cannot hold.
    """
    spec = backbone.spec
    (h, w), (n, t) = spec.grid, clips.shape[:2]
    tokens = [torch.empty(n, t, spec.num_tokens, spec.width, dtype=dtype) for _ in backbone.taps]
    maps = [torch.empty(n, t, h, w, h, 2, w, dtype=dtype) for _ in backbone.taps]

    def fill(part: slice) -> int:
        for block, one in enumerate(backbone(clips[part].float())):
            if one.tokens.abs().max() > torch.finfo(dtype).max:
                raise RunError(f"features of {spec.name} are too large for {dtype}; keep them as torch.float32")
            tokens[block][part] = one.tokens
            maps[block][part] = packed_maps(neighbour_maps(one.query, one.key, spec.grid, one.tokens.dtype), dtype)
        return min(n, part.stop)

    for done in pool.map(fill, [slice(start, start + CLIPS_AT_ONCE) for start in range(0, n, CLIPS_AT_ONCE)]):
        progress(done)
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


def of_frames(features: StoredFeatures, frames: Sequence[int]) -> StoredFeatures:
    """Features of one frame of every clip, ``frames`` (n), for decoders that are to see a still picture."""
    rows, chosen = torch.arange(len(features)), torch.as_tensor(frames)
    return StoredFeatures([x[rows, chosen][:, None] for x in features.tokens], [None for _ in features.maps])

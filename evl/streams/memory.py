"""Frozen features of many clips in memory, computed once for all decoders.

Each clip needs M·T·(L·D + 2·(h·w)²) numbers. Query and key are not kept, but the neighbor maps made from them, which
have no parameters (docs/method.md section 4). Maps need less memory than query and key (T·L·2·D) if
2·(h·w)² < 2·L·D. Computing them in each training step would take two thirds of its time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from evl.backbones import FrozenBackbone
from evl.data.loader import default_num_workers
from evl.errors import RunError
from evl.models.crossframe import neighbor_maps, packed_maps, unpacked_maps
from evl.streams.base import Batch, Features, Stream, Views
from evl.types import EncoderFacts, MappedFeatures, Sample

KEPT_BYTES = 2 << 30  # the most memory for kept features
CLIPS_AT_ONCE = 8


@contextmanager
def threads() -> Iterator[ThreadPoolExecutor]:
    """A pool with one thread per core; each of them computes its products alone.

    For small models this is faster than splitting each product over all cores. It is much faster if other programs use
    the cores, too, because threads that share a product wait for the slowest one.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(default_num_workers(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


class InMemory:
    """A stream of n clips in memory, one per sample; keys are (epoch, index) or indices.

    ``tokens`` (n,T,L,D) and ``maps`` (n,T,h,w,h,2,w), or None instead of maps, are given per tapped block. Features are
    returned in float32; threads of ``pool`` gather those of the blocks in parallel.
    """

    advice = "features are in memory, so training should not wait for them"
    waited_seconds = 0.0
    precision = "fp32"
    device = torch.device("cpu")
    views = Views(1, 1, "fp32")

    def __init__(
        self,
        tokens: Sequence[Tensor],
        maps: Sequence[Tensor | None],
        encoder: EncoderFacts | FrozenBackbone,
        samples: Sequence[Sample],
        pool: Executor | None = None,
    ):
        self.tokens, self.maps = tuple(tokens), tuple(maps)
        self.encoder, self.samples, self.pool = encoder, tuple(samples), pool

    def __len__(self) -> int:
        return len(self.tokens[0])

    @property
    def num_bytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in (*self.tokens, *self.maps) if x is not None)

    def of(self, samples: Sequence[Sample]) -> InMemory:
        """The same features with other samples, such as the labels of another task for the same clips."""
        return InMemory(self.tokens, self.maps, self.encoder, samples, self.pool)

    def notices(self) -> tuple[str, ...]:
        return ()

    def read(self, batches: Iterable[Sequence[int | tuple[int, int]]]) -> Iterator[Batch]:
        for keys in batches:
            rows = [key[1] if isinstance(key, tuple) else key for key in keys]
            labels = torch.full((len(rows),), -1)  # because each learner has labels of its own
            yield Batch(self.batch(rows), labels, tuple(rows), {}, (1,) * len(rows))

    def batch(self, rows: Sequence[int]) -> list[MappedFeatures]:
        """The features of the clips with these numbers, shallow to deep."""
        rows = torch.as_tensor(rows)

        def gather(block: int) -> MappedFeatures:
            tokens, maps = self.tokens[block].index_select(0, rows).float(), ()
            if self.maps[block] is not None:
                maps = unpacked_maps(self.maps[block].index_select(0, rows), torch.float32)
            return MappedFeatures(tokens, maps)

        return list((map if self.pool is None else self.pool.map)(gather, range(len(self.tokens))))


def extract(
    backbone: FrozenBackbone,
    clips: Tensor,
    samples: Sequence[Sample],
    pool: Executor,
    *,
    dtype: torch.dtype = torch.float16,
    mapped: Collection[int] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> InMemory:
    """Computes the features of clips (n,T,3,H,W) with a frozen backbone, and keeps them in ``dtype``.

    ``mapped``: the blocks whose neighbor maps are kept, because a decoder reads them; None: all tapped blocks. The
    threads of ``pool`` take a few clips at a time; ``progress(n)`` is called with the number of finished clips.
    Raises RunError if features are too large for the dtype.
    """
    spec = backbone.spec
    (h, w), (n, t) = spec.grid, clips.shape[:2]
    tokens = [torch.empty(n, t, spec.num_tokens, spec.width, dtype=dtype) for _ in backbone.taps]
    # what enters block 1 (tap 0) has no attention
    kept = [block > 0 and (mapped is None or block in mapped) for block in backbone.taps]
    maps = [torch.empty(n, t, h, w, h, 2, w, dtype=dtype) if keep else None for keep in kept]

    def fill(part: slice) -> int:
        for block, one in enumerate(backbone(clips[part].float())):
            if one.tokens.abs().max() > torch.finfo(dtype).max:
                raise RunError(f"features of {spec.name} are too large for {dtype}; keep them as torch.float32")
            tokens[block][part] = one.tokens
            if maps[block] is not None:
                maps[block][part] = packed_maps(neighbor_maps(one.query, one.key, spec.grid, one.tokens.dtype), dtype)
        return min(n, part.stop)

    for done in pool.map(fill, [slice(start, start + CLIPS_AT_ONCE) for start in range(0, n, CLIPS_AT_ONCE)]):
        progress(done)
    return InMemory(tokens, maps, backbone, samples, pool)


def pooled(features: InMemory, num_prefix_tokens: int) -> InMemory:
    """Reduces features to what a mean-pooled probe needs: one frame with one patch token, the deepest block's mean.

    The mean of one token is that token, so ``evl.models.MeanPool`` returns the same numbers as for the full features.
    """
    tokens = features.tokens[-1]
    means = torch.stack([one[:, num_prefix_tokens:].mean((0, 1), dtype=torch.float32) for one in tokens])
    tokens = means.new_zeros(len(means), 1, num_prefix_tokens + 1, means.shape[-1])
    tokens[:, 0, -1] = means
    encoder = replace(features.encoder.facts, taps=features.encoder.taps[-1:])
    return InMemory([tokens], [None], encoder, features.samples, features.pool)


def of_frames(features: InMemory, frames: Sequence[int]) -> InMemory:
    """The features of one frame of each clip, whose numbers are ``frames`` (n), for decoders that read one picture."""
    rows, chosen = torch.arange(len(features)), torch.as_tensor(frames)
    tokens = [x[rows, chosen][:, None] for x in features.tokens]
    return InMemory(tokens, [None for _ in features.maps], features.encoder, features.samples, features.pool)


class Cached:
    """A stream that reads each clip of ``stream`` once, and keeps its features while there is room for them.

    Keys with the same ``name_of(key)`` have the same features. ``labels`` are those of all samples. ``stream`` must
    give MappedFeatures, as a store's does.
    """

    def __init__(self, stream: Stream, labels: Sequence[int], name_of: Callable[[tuple[int, int]], Hashable]):
        self.stream, self.labels, self.name_of, self.free_bytes = stream, labels, name_of, KEPT_BYTES
        self.samples, self.encoder, self.device = stream.samples, stream.encoder, stream.device
        self.precision, self.views, self.advice = stream.precision, stream.views, stream.advice
        self._kept: dict[Hashable, list[MappedFeatures]] = {}

    @property
    def waited_seconds(self) -> float:
        return self.stream.waited_seconds

    def notices(self) -> tuple[str, ...]:
        return self.stream.notices()

    def read(self, batches: Iterable[Sequence[tuple[int, int]]]) -> Iterator[Batch]:
        for keys in batches:
            labels = torch.tensor([self.labels[index] for _, index in keys], device=self.device)
            yield Batch(self._features(keys), labels, tuple(index for _, index in keys), {})

    def _features(self, keys: Sequence[tuple[int, int]]) -> Features:
        names = [self.name_of(key) for key in keys]
        missing = {name: key for name, key in zip(names, keys, strict=True) if name not in self._kept}
        new = dict(zip(missing, self._read_clips(list(missing.values())), strict=True)) if missing else {}
        for name, layers in new.items():
            size = sum(x.numel() * x.element_size() for one in layers for x in (one.tokens, *one.maps))
            if size <= self.free_bytes:
                self.free_bytes -= size
                self._kept[name] = layers
        clips = [new.get(name) or self._kept[name] for name in names]
        return [_joined(layers) for layers in zip(*clips, strict=True)]

    def _read_clips(self, keys: list[tuple[int, int]]) -> list[list[MappedFeatures]]:
        """For each key, a copy of the features of its tapped blocks. No key may be that of a damaged video."""
        (batch,) = self.stream.read([keys])
        assert len(batch.indices) == len(keys), "a key of a damaged video"
        return [
            [
                MappedFeatures(x.tokens[i : i + 1].clone(), [m[:, i : i + 1].clone() for m in x.maps])
                for x in batch.features
            ]
            for i in range(len(keys))
        ]


def _joined(clips: Sequence[MappedFeatures]) -> MappedFeatures:
    """Joins one block's features of B clips: tokens (1,T,L,D) each -> (B,T,L,D), and maps in their dimension 1."""
    maps = [torch.cat(parts, 1) for parts in zip(*(one.maps for one in clips), strict=True)]
    return MappedFeatures(torch.cat([one.tokens for one in clips]), maps)

"""A stream that keeps its features in memory, for many learners on few clips."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

import torch

from evl.streams.base import Batch, Features, Stream
from evl.types import MappedFeatures

KEPT_BYTES = 2 << 30  # the most memory for kept features


class Cached:
    """A stream that reads each clip of ``stream`` once, and keeps its features while there is room for them.

    Keys with the same ``name_of(key)`` have the same features. ``labels`` are those of all samples. ``stream`` must
    give MappedFeatures, as a store's does.
    """

    def __init__(
        self,
        stream: Stream,
        labels: Sequence[int],
        name_of: Callable[[tuple[int, int]], Hashable],
    ):
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

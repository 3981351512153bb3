"""Features that stay in memory: of few clips, for many learners."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

import torch

from evl.streams.base import Batch, Features, Stream
from evl.types import MappedFeatures

KEPT_BYTES = 2 << 30


class Cached:
    """A stream whose clips are read and made when they are first asked for, and kept as long as they fit.

    ``name_of(key)``: keys of one name have the same features. ``labels`` are of all samples. For streams of
    MappedFeatures (a store's).
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
        new = {name: key for name, key in zip(names, keys, strict=True) if name not in self._kept}
        made = dict(zip(new, self._make(list(new.values())), strict=True)) if new else {}
        for name, layers in made.items():
            size = sum(x.numel() * x.element_size() for one in layers for x in (one.tokens, *one.maps))
            if size <= self.free_bytes:
                self.free_bytes -= size
                self._kept[name] = layers
        clips = [made.get(name) or self._kept[name] for name in names]
        return [_joined(layers) for layers in zip(*clips, strict=True)]

    def _make(self, keys: list[tuple[int, int]]) -> list[list[MappedFeatures]]:
        """Of each key in memory of its own. Damaged videos must not be asked for."""
        (batch,) = self.stream.read([keys])
        assert len(batch.indices) == len(keys), "a damaged video was asked for"
        return [
            [
                MappedFeatures(x.tokens[i : i + 1].clone(), [m[:, i : i + 1].clone() for m in x.maps])
                for x in batch.features
            ]
            for i in range(len(keys))
        ]


def _joined(clips: Sequence[MappedFeatures]) -> MappedFeatures:
    """One block's features of several clips: tokens (1,T,L,D) each -> (B,T,L,D), maps likewise in their dimension 1."""
    maps = [torch.cat(parts, 1) for parts in zip(*(one.maps for one in clips), strict=True)]
    return MappedFeatures(torch.cat([one.tokens for one in clips]), maps)

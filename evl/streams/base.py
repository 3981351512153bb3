"""What training and judging read, wherever it comes from.

Left of a stream something becomes features: videos that are decoded and encoded now, a store on disk, features kept in
memory. Right of it nobody can see the difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from evl.types import EncoderFacts, LayerFeatures, MappedFeatures, Sample

if TYPE_CHECKING:  # `evl bench` runs without PyAV
    from evl.data.dataset import ClipBatch

Features = Sequence[LayerFeatures | MappedFeatures]  # one per tapped block, shallow to deep


@dataclass(frozen=True)
class Batch:
    """Features of some clips, on the device of whoever learns or judges.

    ``features``: of all clips that could be read, (B,T,L,D) each; None where none could. ``labels`` (B) long, −1 where
    there is none. ``indices``: of the samples. ``damaged``: index → reason. ``num_views``: where a sample has several
    clips (its views), which then lie one behind the other: how many each has.
    """

    features: Features | None
    labels: Tensor
    indices: tuple[int, ...]
    damaged: dict[int, str]
    num_views: tuple[int, ...] = ()


@dataclass(frozen=True)
class Views:
    """By which views a stream shows each video: part of what a score is worth. ``note``: what else there is to say."""

    num_clips: int
    num_crops: int
    precision: str
    note: str = ""


class Stream(Protocol):
    """Batches of features.

    Attributes:
        samples: the videos, in the order of their indices.
        encoder: what there is to know of the encoder; its ``taps`` are the blocks whose features come.
        device, precision: of the features.
        views: how a video is shown, for streams by which models are judged.
        advice: what to try where training waits for data.
        waited_seconds: for how long reading has kept its reader waiting; not the time that encoding took.
    """

    samples: Sequence[Sample]
    encoder: EncoderFacts
    device: torch.device
    precision: str
    views: Views | None
    advice: str
    waited_seconds: float

    def notices(self) -> tuple[str, ...]:
        """What is odd about the videos that were read so far, a line each."""

    def read(self, batches: Iterable[Sequence[Any]]) -> Iterator[Batch]:
        """The features of each batch of keys, in order. A key is (epoch, index) in a stream of training clips, an index
        in one of views. Reading starts with the call; a batch may be used until the next one is asked for."""


def read_out(
    stream: Stream, found: Iterator[ClipBatch], features_of: Callable[[Any], Features], lengths: dict | None = None
) -> Iterator[Batch]:
    """The batches that ``found`` reads, on the device of ``stream``; ``features_of(clips)`` makes their features.

    Adds to ``stream.waited_seconds`` how long ``found`` kept us waiting, and to ``lengths`` what the batches tell.
    """
    while True:
        started = time.perf_counter()
        batch = next(found, None)
        stream.waited_seconds += time.perf_counter() - started
        if batch is None:
            return
        if lengths is not None:
            lengths.update(batch.lengths)
        labels = batch.labels.to(stream.device, non_blocking=True)
        features = None if batch.clips is None else features_of(batch.clips)
        yield Batch(features, labels, batch.indices, batch.damaged, batch.num_views)
        del features  # before the next ones are made


class Subset:
    """A stream of some samples of another: sample i is sample ``chosen[i]`` there."""

    def __init__(self, stream: Stream, chosen: Sequence[int]):
        self.stream, self.chosen = stream, tuple(chosen)
        self.samples = tuple(stream.samples[index] for index in self.chosen)
        self.encoder, self.device, self.precision = stream.encoder, stream.device, stream.precision
        self.views, self.advice = stream.views, stream.advice
        self._place = {index: place for place, index in enumerate(self.chosen)}

    @property
    def waited_seconds(self) -> float:
        return self.stream.waited_seconds

    def notices(self) -> tuple[str, ...]:
        return self.stream.notices()

    def read(self, batches: Iterable[Sequence[Any]]) -> Iterator[Batch]:
        def there(key):
            return (key[0], self.chosen[key[1]]) if isinstance(key, tuple) else self.chosen[key]

        for batch in self.stream.read([there(key) for key in keys] for keys in batches):
            damaged = {self._place[index]: reason for index, reason in batch.damaged.items()}
            indices = tuple(self._place[index] for index in batch.indices)
            yield Batch(batch.features, batch.labels, indices, damaged, batch.num_views)

"""The streams of features that training and judging read.

The features come from videos that are decoded and encoded now, from a store on disk, or from memory. Code that reads a
stream is the same for all three.
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
    """The features of some clips, on the stream's device.

    ``features``: those of the clips that could be read, with tokens (B,T,L,D) per tapped block; None if there are none.
    ``labels`` (B) long, −1 without a label. ``indices``: the numbers of the samples. ``damaged``: index → reason.
    ``num_views``: for each sample, the number of its clips, if samples have several clips (their views). The clips of a
    sample follow each other.
    """

    features: Features | None
    labels: Tensor
    indices: tuple[int, ...]
    damaged: dict[int, str]
    num_views: tuple[int, ...] = ()


@dataclass(frozen=True)
class Views:
    """The views of each video in a stream, which a score's protocol names. ``note`` is the end of that line."""

    num_clips: int
    num_crops: int
    precision: str
    note: str = ""


class Stream(Protocol):
    """Reads features in batches."""

    samples: Sequence[Sample]  # the videos, in the order of their indices
    encoder: EncoderFacts  # the description of the encoder; its taps are the blocks that have features in this stream
    device: torch.device  # device and precision: those of the features
    precision: str
    views: Views | None  # the views of each video, in streams for judging
    advice: str  # what users can do if training waits for data
    waited_seconds: float  # the time that callers have waited for data so far, without the time of encoding

    def notices(self) -> tuple[str, ...]:
        """What is unusual about the videos that were read so far, one line each."""

    def read(self, batches: Iterable[Sequence[Any]]) -> Iterator[Batch]:
        """Yields the features of each batch of keys, in order.

        A key is (epoch, index) in a stream of training clips, and an index in a stream of views. Reading starts with
        the call. A batch is valid until the next one is taken.
        """


def encoded(
    stream: Stream, clips: Iterator[ClipBatch], features_of: Callable[[Any], Features], lengths: dict | None = None
) -> Iterator[Batch]:
    """Yields the batches of ``clips`` with the features that ``features_of`` returns, on the device of ``stream``.

    Adds the time of waiting for ``clips`` to ``stream.waited_seconds``, and the lengths of their videos to ``lengths``.
    """
    while True:
        started = time.perf_counter()
        batch = next(clips, None)
        stream.waited_seconds += time.perf_counter() - started
        if batch is None:
            return
        if lengths is not None:
            lengths.update(batch.lengths)
        labels = batch.labels.to(stream.device, non_blocking=True)
        features = None if batch.clips is None else features_of(batch.clips)
        yield Batch(features, labels, batch.indices, batch.damaged, batch.num_views)
        del features  # frees their memory before the next ones are computed


class Subset:
    """A stream of some samples of another stream: its sample i is that stream's sample ``chosen[i]``."""

    def __init__(self, stream: Stream, chosen: Sequence[int]):
        self.stream, self.chosen = stream, tuple(chosen)
        self.samples = tuple(stream.samples[index] for index in self.chosen)
        self.encoder, self.device, self.precision = stream.encoder, stream.device, stream.precision
        self.views, self.advice = stream.views, stream.advice
        self._own_index = {index: own for own, index in enumerate(self.chosen)}

    @property
    def waited_seconds(self) -> float:
        return self.stream.waited_seconds

    def notices(self) -> tuple[str, ...]:
        return self.stream.notices()

    def read(self, batches: Iterable[Sequence[Any]]) -> Iterator[Batch]:
        def outer(key):
            return (key[0], self.chosen[key[1]]) if isinstance(key, tuple) else self.chosen[key]

        for batch in self.stream.read([outer(key) for key in keys] for keys in batches):
            damaged = {self._own_index[index]: reason for index, reason in batch.damaged.items()}
            indices = tuple(self._own_index[index] for index in batch.indices)
            yield Batch(batch.features, batch.labels, indices, damaged, batch.num_views)

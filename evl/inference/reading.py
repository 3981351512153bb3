"""The one loop that judges: every sample of a stream once, over all processes, by any number of readers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evl.errors import ConfigError
from evl.models import Classifier
from evl.models.crossframe import share_maps
from evl.runtime.distributed import World
from evl.runtime.precision import resolve_precision
from evl.streams import Features, Stream


@dataclass(frozen=True)
class Reader:
    """What is read from features: ``of(features)`` -> (ΣV,·) for the views of some videos.

    ``blocks``: the tapped blocks that it takes, None for all of the stream's. ``reads_maps``: whether it reads
    neighbor maps, which are then made once for all readers that do. ``reads_query_key``: whether it reads queries and
    keys of the encoder, which maps would take the place of.
    """

    of: Callable[[Features], Tensor]
    blocks: tuple[int, ...] | None = None
    reads_maps: bool = False
    reads_query_key: bool = False


@torch.inference_mode()
def read(
    stream: Stream,
    readers: Sequence[Reader],
    *,
    batch_size: int,
    world: World,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[list[dict[int, np.ndarray]], dict[int, str]]:
    """(for each reader: index → mean over a video's views, in double; index → reason for what could not be read).

    Every sample exactly once: process r takes samples r, r + size, …; all processes get the whole.
    ``progress(n)`` is called with the number of newly finished videos.
    """
    found: list[dict[int, np.ndarray]] = [{} for _ in readers]
    damaged: dict[int, str] = {}
    taps = stream.encoder.taps
    places = [[taps.index(block) for block in reader.blocks or taps] for reader in readers]
    mapped = {place for reader, own in zip(readers, places, strict=True) if reader.reads_maps for place in own}
    mapped -= {place for reader, own in zip(readers, places, strict=True) if reader.reads_query_key for place in own}
    for batch in stream.read(_share_of(world, len(stream.samples), batch_size)):
        damaged |= batch.damaged
        if batch.features is not None:
            features = batch.features
            if len(readers) > 1:
                features = share_maps(features, mapped, stream.encoder.spec.grid)
            for reader, own, of_reader in zip(readers, places, found, strict=True):
                values = reader.of([features[place] for place in own])
                means = [views.mean(0).cpu().numpy() for views in values.double().split(list(batch.num_views))]
                of_reader |= dict(zip(batch.indices, means, strict=True))
            del features
        progress(len(batch.indices) + len(batch.damaged))
    for others, other_damaged in world.gather((found, damaged)):
        for of_reader, more in zip(found, others, strict=True):
            of_reader |= more
        damaged |= other_damaged
    return found, dict(sorted(damaged.items()))


def _share_of(world: World, num_samples: int, batch_size: int) -> list[range]:
    """Batches of the samples that this process looks at."""
    mine = range(world.rank, num_samples, world.size)
    return [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]


def scores_of(model: Classifier) -> Reader:
    """Softmax of the logits, in double: what docs/method.md section 7 averages over views."""
    return Reader(
        lambda features: model.classify(features).double().softmax(-1),
        model.encoder.taps,
        model.reads_maps,
        model.reads_query_key,
    )


@contextmanager
def evaluating(models: Iterable[Classifier]) -> Iterator[None]:
    """Models in evaluation mode, and as they were afterwards."""
    before = [(model, model.training) for model in models]
    for model, _ in before:
        model.eval()
    try:
        yield
    finally:
        for model, was_training in before:
            model.train(was_training)


def device_of(model: Classifier) -> torch.device:
    return next(model.parameters()).device


def judging_precision(model: Classifier, precision: str | None = None) -> str:
    """The given one, or the model's own; fp16 is for CUDA, and far too slow on a CPU."""
    device = device_of(model)
    if precision is None:
        own = card_of(model).precision
        return "fp32" if own == "fp16" and device.type == "cpu" else own
    return resolve_precision(precision, device)


def card_of(model: Classifier):
    """The model's card. Raises ConfigError where it has none."""
    if model.card is None:
        raise ConfigError(
            "this model has no ModelCard, so its preprocessing is unknown; load it with evl.load(...), or build it "
            "from a config"
        )
    return model.card

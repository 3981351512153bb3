"""The judging loop: it reads every sample of a stream once, in all processes, for any number of readers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as with_fields

import numpy as np
import torch
from torch import Tensor

from evl.config import EvaluationConfig, RunConfig, replace
from evl.errors import ConfigError, NotFiniteError
from evl.models import Classifier
from evl.models.crossframe import share_maps
from evl.runtime.distributed import World
from evl.runtime.precision import resolve_precision
from evl.streams import Batch, Features, Stream
from evl.video.decode.missing import is_missing


@dataclass(frozen=True)
class Reader:
    """Something to compute from features: ``of(features)`` -> (ΣV,·) for the views of some videos.

    ``blocks``: the tapped blocks whose features it reads; None for all of the stream's. ``reads_maps``: whether it
    reads neighbor maps, which are computed once for all such readers. ``reads_query_key``: whether it reads the
    encoder's query and key, which neighbor maps would replace.
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
    skip: int = 0,
    after: Callable[[Batch, list[list[np.ndarray]]], None] = lambda batch, means: None,
) -> tuple[list[dict[int, np.ndarray]], dict[int, str]]:
    """Reads all samples; returns one dict per reader, and the damaged samples.

    Each reader's dict maps the index of a sample to the mean over its views, in double; the last dict maps the index
    of a damaged sample to the reason. Process r reads the samples r, r + size, …, and all processes return all results.
    ``progress(n)`` is called with the number of newly finished videos. The first ``skip`` batches are not read.
    ``after`` is called after each batch, with the batch without its features and the means of each reader.

    Raises NotFiniteError, after everything is read, for results that are not finite.
    """
    results: list[dict[int, np.ndarray]] = [{} for _ in readers]
    damaged: dict[int, str] = {}
    taps = stream.encoder.taps
    places = [[taps.index(block) for block in reader.blocks or taps] for reader in readers]
    mapped = {place for reader, own in zip(readers, places, strict=True) if reader.reads_maps for place in own}
    mapped -= {place for reader, own in zip(readers, places, strict=True) if reader.reads_query_key for place in own}
    batches = _share_of(world, len(stream.samples), batch_size)[skip:]
    for batch, is_first in _asked_again(stream, batches, damaged):
        found: list[list[np.ndarray]] = [[] for _ in readers]
        if batch.features is not None:
            features = batch.features
            if len(readers) > 1:
                features = share_maps(features, mapped, stream.encoder.spec.grid)
            for reader, own, result, means in zip(readers, places, results, found, strict=True):
                values = reader.of([features[place] for place in own])
                means += [views.mean(0).cpu().numpy() for views in values.double().split(list(batch.num_views))]
                result.update(zip(batch.indices, means, strict=True))
            del features
        after(with_fields(batch, features=None), found)
        progress(len(batch.indices) + len(batch.damaged) if is_first else 0)
    for other_results, other_damaged in world.gather((results, damaged)):
        for result, other in zip(results, other_results, strict=True):
            result.update(other)
        damaged |= other_damaged
    _refuse_not_finite(results, stream)
    return results, dict(sorted(damaged.items()))


def _refuse_not_finite(results: Sequence[dict[int, np.ndarray]], stream: Stream) -> None:
    odd = [[index for index, values in sorted(result.items()) if not np.isfinite(values).all()] for result in results]
    readers = tuple(number for number, indices in enumerate(odd) if indices)
    if readers:
        raise NotFiniteError(
            f"{stream.samples[odd[readers[0]][0]].name}: what the model makes of it is not finite (NaN or infinite); "
            "its weights, or mean and std in its model.json, cannot be used",
            readers,
        )


def _asked_again(stream: Stream, batches: list[Sequence[int]], damaged: dict[int, str]) -> Iterator[tuple[Batch, bool]]:
    """Yields the batches of a stream, and whether it is the first time; at the end missing videos are asked for again.

    ``damaged`` is filled with the reasons that remain.
    """
    for batch in stream.read(batches):
        damaged |= batch.damaged
        yield batch, True
    if again := [index for index, reason in damaged.items() if is_missing(reason)]:
        for batch in stream.read([[index] for index in again]):
            for index in batch.indices:
                del damaged[index]
            yield batch, False


def _share_of(world: World, num_samples: int, batch_size: int) -> list[range]:
    """The batches of the samples that this process reads."""
    mine = range(world.rank, num_samples, world.size)
    return [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]


def scores_of(model: Classifier) -> Reader:
    """A reader for a model's scores: the softmax of its logits, in double (docs/method.md section 7)."""
    return Reader(
        lambda features: model.classify(features).double().softmax(-1),
        model.encoder.taps,
        model.reads_maps,
        model.reads_query_key,
    )


@contextmanager
def evaluating(models: Iterable[Classifier]) -> Iterator[None]:
    """Puts models into evaluation mode within the block, and restores their modes afterwards."""
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
    """The given precision, or that of the model's card, with fp32 instead of fp16 on a CPU, where fp16 is very slow."""
    device = device_of(model)
    if precision is None:
        own = card_of(model).precision
        return "fp32" if own == "fp16" and device.type == "cpu" else own
    return resolve_precision(replace(RunConfig(), training={"precision": precision}).training.precision, device)


def evaluation_of(model: Classifier, **given: int | None) -> EvaluationConfig:
    """``config.evaluation`` of the model's card, with those of ``given`` that are not None. Raises ConfigError for a
    wrong value."""
    given = {name: value for name, value in given.items() if value is not None}
    return replace(card_of(model).config, evaluation=given).evaluation


def card_of(model: Classifier):
    """The model's card. Raises ConfigError if it has none."""
    if model.card is None:
        raise ConfigError(
            "this model has no ModelCard, so its preprocessing is unknown; load it with evl.load(...), or build it "
            "from a config"
        )
    return model.card

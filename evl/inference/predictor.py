"""Videos, or their stored features → predictions: views through the model, softmax averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evl.data.dataset import Batch, EvaluationViews, Files, collate_views
from evl.data.loader import read_batches
from evl.data.paths import AnyPath, videos_at
from evl.data.waiting import wait_until_complete
from evl.distributed import World, autocast, resolve_precision
from evl.errors import ConfigError
from evl.features.batches import StoredViews, read_ahead
from evl.features.store import StoredSplit
from evl.models import VideoClassifier
from evl.types import LayerFeatures, Prediction, Sample
from evl.video.long_videos import Length, long_videos_notice

Reader = Callable[[Sequence[LayerFeatures]], Tensor]  # features of views -> (ΣV,·)


@dataclass(frozen=True)
class Predictions:
    """In the order of the samples: what could be predicted, and index → reason for what could not.

    ``samples``: all videos, in their order. ``notices``: what is odd about them, a line each.
    """

    predictions: tuple[Prediction, ...]
    damaged: dict[int, str]
    samples: tuple[Sample, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(sample.path for sample in self.samples)


def predict(model: VideoClassifier, paths: AnyPath | Iterable[AnyPath], **options) -> Predictions:
    """Scores of unlabelled videos, by the model's own views unless told otherwise, on the model's device.

    ``paths``: one or several (any iterable) of files, of folders, of which all videos are taken, and of manifests, of
    which every row is, whether a file or a part of one. ``options``: those of ``predict_videos``. Raises PathTypeError
    for what is no path, DataError for a folder or manifest without videos.
    """
    return predict_videos(model, videos_at(paths), **options)


def predict_videos(
    model: VideoClassifier,
    samples: Sequence[Sample],
    *,
    num_clips: int | None = None,
    num_crops: int | None = None,
    batch_size: int | None = None,
    num_workers: int = 0,
    wait_seconds: float | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Predictions:
    """Predictions of samples without labels, with what is odd about them.

    ``wait_seconds``: files that are still being written are waited for, at most so long; what is not complete by then
    is not predicted, but is in ``damaged``. ``progress(n)`` is called with the number of newly finished videos.
    """
    late: dict[str, str] = {}
    if wait_seconds is not None:
        late = wait_until_complete([sample.path for sample in samples], wait_seconds)
    ready = [index for index, sample in enumerate(samples) if sample.path not in late]
    options = dict(num_clips=num_clips, num_crops=num_crops, batch_size=batch_size, num_workers=num_workers)
    lengths: dict[int, Length] = {}
    chosen = [samples[index] for index in ready]
    found = predict_samples(model, chosen, None, lengths=lengths, progress=progress, **options)
    damaged = {index: late[sample.path] for index, sample in enumerate(samples) if sample.path in late}
    damaged |= {ready[place]: reason for place, reason in found.damaged.items()}
    clip, clips = model.card.clip, num_clips or model.card.evaluation.num_clips
    notice = long_videos_notice({chosen[place]: length for place, length in lengths.items()}, clip, clips)
    return Predictions(found.predictions, dict(sorted(damaged.items())), tuple(samples), (notice,) if notice else ())


def predict_samples(
    model: VideoClassifier, samples: Sequence[Sample], labels: Sequence[int] | None, **options
) -> Predictions:
    """Predictions of every sample. ``labels``: indices of classes, or None; ``options``: those of ``of_samples``."""
    return predict_samples_by([model], samples, labels, **options)[0]


def predict_samples_by(
    models: Sequence[VideoClassifier], samples: Sequence[Sample], labels: Sequence[int] | None, **options
) -> list[Predictions]:
    """The same of several models that share their backbone: a video is decoded, and looked at, once for all of them."""
    readers = [scores_of(model) for model in models]
    with evaluating(models):
        found, damaged = of_samples(models[0], samples, readers, labels=labels, **options)
    return [_predictions(samples, labels, scores, damaged) for scores in found]


def predict_stored(
    models: Sequence[VideoClassifier], split: StoredSplit, labels: Sequence[int] | None, **options
) -> list[Predictions]:
    """The same from a store, by all its views, for one model or several that share their backbone (a StoredBackbone):
    features are read, and their neighbour maps made, once for all of them. ``options``: those of ``of_stored``."""
    readers = [scores_of(model) for model in models]
    with evaluating(models):
        found, damaged = of_stored(models[0], split, readers, labels=labels, **options)
    return [_predictions(split.samples, labels, scores, damaged) for scores in found]


def scores_of(model: VideoClassifier) -> Reader:
    """Softmax of the logits, in double: what METHOD.md section 7 averages over views."""
    return lambda features: model.classify(features).double().softmax(-1)


def of_samples(
    model: VideoClassifier,
    samples: Sequence[Sample],
    readers: Sequence[Reader],
    *,
    labels: Sequence[int] | None = None,
    num_clips: int | None = None,
    num_crops: int | None = None,
    batch_size: int | None = None,
    num_workers: int = 0,
    precision: str | None = None,
    files: Files | None = None,
    world: World | None = None,
    lengths: dict[int, Length] | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[list[dict[int, np.ndarray]], dict[int, str]]:
    """(of each reader: index → mean over a video's views, index → reason for what could not be read).

    Views are read and normalised as ``model`` wants them, and its backbone says what the readers get. Every sample
    exactly once, over all processes: process r takes samples r, r + size, …; all get the whole. ``files``: the
    samples', where they are known from before; without it labelled ones are verified, others are not. ``precision``:
    None for what the model was trained in (fp32 on the CPU for fp16). ``lengths`` is filled with those of the videos
    that this process opened, by index. ``progress(n)`` is called with the number of newly finished videos.
    """
    card = _card(model)
    device = next(model.parameters()).device
    world = world or World(0, 1, device)
    dataset = EvaluationViews(
        files or Files(samples, verify=labels is not None),
        labels,
        card.clip,
        card.preprocessing,
        num_clips=num_clips or card.evaluation.num_clips,
        num_crops=num_crops or card.evaluation.num_crops,
    )
    batches = _share_of(world, len(samples), batch_size or card.evaluation.batch_size)
    workers = min(num_workers, len(batches))
    read = read_batches(dataset, batches, num_workers=workers, device=device, collate=collate_views)
    if lengths is not None:
        read = _noting(read, lengths)
    return _over_views(model, read, readers, judging_precision(model, precision), world, progress)


def _noting(batches: Iterable[Batch], lengths: dict[int, Length]) -> Iterator[Batch]:
    for batch in batches:
        lengths |= batch.lengths
        yield batch


def of_stored(
    model: VideoClassifier,
    split: StoredSplit,
    readers: Sequence[Reader],
    *,
    labels: Sequence[int] | None = None,
    batch_size: int | None = None,
    precision: str | None = None,
    world: World | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[list[dict[int, np.ndarray]], dict[int, str]]:
    """``of_samples`` from a store: of all that it has of each video."""
    device = next(model.parameters()).device
    world = world or World(0, 1, device)
    batches = _share_of(world, len(split.samples), batch_size or _card(model).evaluation.batch_size)
    read = read_ahead(StoredViews(split, labels, model.backbone.taps, _card(model).clip).read, batches, device)
    return _over_views(model, read, readers, judging_precision(model, precision), world, progress)


@torch.inference_mode()
def _over_views(
    model: VideoClassifier, batches: Iterable[Batch], readers, precision: str, world: World, progress
) -> tuple[list[dict[int, np.ndarray]], dict[int, str]]:
    device = next(model.parameters()).device
    found: list[dict[int, np.ndarray]] = [{} for _ in readers]
    damaged: dict[int, str] = {}
    for batch in batches:
        damaged |= batch.damaged
        if batch.pixels is not None:
            with autocast(precision, device):
                features = model.features(batch.pixels.to(device, non_blocking=True))
                values = [reader(features) for reader in readers]  # (ΣV,·) each
            for of_reader, views in zip(found, values, strict=True):
                means = [views.mean(0).cpu().numpy() for views in views.double().split(list(batch.num_views))]
                of_reader |= dict(zip(batch.indices, means, strict=True))
        progress(len(batch.indices) + len(batch.damaged))
    for others, other_damaged in world.gather((found, damaged)):
        for of_reader, more in zip(found, others, strict=True):
            of_reader |= more
        damaged |= other_damaged
    return found, dict(sorted(damaged.items()))


def _card(model: VideoClassifier):
    if model.card is None:
        raise ConfigError(
            "this model says nothing of clips and pixels (no card); load it from a run, or build it from one"
        )
    return model.card


def _share_of(world: World, num_samples: int, batch_size: int) -> list[range]:
    """Batches of the samples that this process looks at."""
    mine = range(world.rank, num_samples, world.size)
    return [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]


@contextmanager
def evaluating(models: Iterable[VideoClassifier]) -> Iterator[None]:
    """Models in evaluation mode, and as they were afterwards."""
    before = [(model, model.training) for model in models]
    for model, _ in before:
        model.eval()
    try:
        yield
    finally:
        for model, was_training in before:
            model.train(was_training)


def _predictions(samples, labels, scores: dict[int, np.ndarray], damaged: dict[int, str]) -> Predictions:
    return Predictions(
        tuple(
            Prediction(
                samples[index].path,
                tuple(scores[index].tolist()),
                labels[index] if labels is not None else None,
                samples[index].start_seconds,
                samples[index].end_seconds,
            )
            for index in sorted(scores)
        ),
        damaged,
        tuple(samples),
    )


def judging_precision(model: VideoClassifier, precision: str | None = None) -> str:
    """The given one, or the model's own; fp16 is for CUDA, and far too slow on a CPU."""
    device = next(model.parameters()).device
    if precision is None:
        own = model.card.precision
        return "fp32" if own == "fp16" and device.type == "cpu" else own
    return resolve_precision(precision, device)

"""Videos, or their stored features → predictions: views through the model, softmax averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from evl.data.dataset import Batch, EvaluationViews, Files, collate_views
from evl.data.loader import read_batches
from evl.distributed import World, autocast, resolve_precision
from evl.errors import ConfigError
from evl.features.batches import StoredViews, read_ahead
from evl.features.store import StoredSplit
from evl.models import VideoClassifier
from evl.types import Prediction, Sample


@dataclass(frozen=True)
class Predictions:
    """In the order of the samples: what could be predicted, and index → reason for what could not."""

    predictions: tuple[Prediction, ...]
    damaged: dict[int, str]


def predict(
    model: VideoClassifier,
    paths: str | Path | Sequence[str | Path],
    *,
    num_clips: int | None = None,
    num_crops: int | None = None,
    num_workers: int = 0,
) -> Predictions:
    """Scores of unlabelled files, by the model's own views unless told otherwise, on the model's device."""
    samples = [Sample(str(path)) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    return predict_samples(model, samples, None, num_clips=num_clips, num_crops=num_crops, num_workers=num_workers)


def predict_samples(
    model: VideoClassifier, samples: Sequence[Sample], labels: Sequence[int] | None, **options
) -> Predictions:
    """``predict_samples_by`` of one model."""
    return predict_samples_by([model], samples, labels, **options)[0]


@torch.inference_mode()
def predict_samples_by(
    models: Sequence[VideoClassifier],
    samples: Sequence[Sample],
    labels: Sequence[int] | None,
    *,
    num_clips: int | None = None,
    num_crops: int | None = None,
    batch_size: int | None = None,
    num_workers: int = 0,
    precision: str | None = None,
    files: Files | None = None,
    world: World | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> list[Predictions]:
    """Every sample exactly once, over all processes: process r takes samples r, r + size, …; all get the whole.

    ``models``: one, or several that share their backbone: a video is decoded, and looked at, once for all of them.
    ``files``: the samples', where they are known from before; without it labelled ones are verified, others are not.
    ``precision``: None for what the model was trained in (fp32 on the CPU for fp16). ``progress`` hears how many videos
    each batch had.
    """
    model = models[0]
    card = model.card
    if card is None:
        raise ConfigError(
            "this model says nothing of clips and pixels (no card); load it from a run, or build it from one"
        )
    device = next(model.parameters()).device
    world = world or World(0, 1, device)
    precision = judging_precision(model, precision)
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
    return _predict(models, samples, labels, read, precision, world, progress)


@torch.inference_mode()
def predict_stored(
    models: Sequence[VideoClassifier],
    split: StoredSplit,
    labels: Sequence[int] | None,
    *,
    batch_size: int | None = None,
    precision: str | None = None,
    world: World | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> list[Predictions]:
    """The same from a store, by all its views, for one model or several that share their backbone (a StoredBackbone):
    features are read, and their neighbour maps made, once for all of them."""
    model = models[0]
    device = next(model.parameters()).device
    world = world or World(0, 1, device)
    precision = judging_precision(model, precision)
    batches = _share_of(world, len(split.samples), batch_size or model.card.evaluation.batch_size)
    read = read_ahead(StoredViews(split, labels, model.backbone.taps).read, batches, device)
    return _predict(models, split.samples, labels, read, precision, world, progress)


def _share_of(world: World, num_samples: int, batch_size: int) -> list[range]:
    """Batches of the samples that this process predicts."""
    mine = range(world.rank, num_samples, world.size)
    return [mine[start : start + batch_size] for start in range(0, len(mine), batch_size)]


def _predict(models, samples, labels, batches: Iterable[Batch], precision: str, world: World, progress):
    """Of each model, the predictions of all processes' batches."""
    scores: list[dict[int, tuple[float, ...]]] = [{} for _ in models]
    damaged: dict[int, str] = {}
    were_training = [model.training for model in models]
    for model in models:
        model.eval()
    try:
        for batch in batches:
            damaged |= batch.damaged
            if batch.pixels is not None:
                for of_model, found in zip(scores, _scores(models, batch, precision), strict=True):
                    of_model |= dict(zip(batch.indices, found, strict=True))
            progress(len(batch.indices) + len(batch.damaged))
    finally:
        for model, was_training in zip(models, were_training, strict=True):
            model.train(was_training)
    for others, other_damaged in world.gather((scores, damaged)):
        for of_model, found in zip(scores, others, strict=True):
            of_model |= found
        damaged |= other_damaged
    damaged = dict(sorted(damaged.items()))
    return [
        Predictions(tuple(_prediction(samples, labels, index, of_model[index]) for index in sorted(of_model)), damaged)
        for of_model in scores
    ]


def _prediction(samples: Sequence[Sample], labels: Sequence[int] | None, index: int, scores) -> Prediction:
    sample, label = samples[index], labels[index] if labels is not None else None
    return Prediction(sample.path, scores, label, sample.start_seconds, sample.end_seconds)


def judging_precision(model: VideoClassifier, precision: str | None = None) -> str:
    """The given one, or the model's own; fp16 is for CUDA, and far too slow on a CPU."""
    device = next(model.parameters()).device
    if precision is None:
        own = model.card.precision
        return "fp32" if own == "fp16" and device.type == "cpu" else own
    return resolve_precision(precision, device)


def _scores(models: Sequence[VideoClassifier], batch: Batch, precision: str) -> list[list[tuple[float, ...]]]:
    """Of each model, the scores of the batch's videos: softmax of each view, then the mean over a video's views
    (METHOD.md section 7)."""
    device = next(models[0].parameters()).device
    with autocast(precision, device):
        features = models[0].features(batch.pixels.to(device, non_blocking=True))
        logits = [model.classify(features) for model in models]  # (ΣV,Y) each
    views = [one.double().softmax(-1).split(batch.num_views) for one in logits]
    return [[tuple(scores.mean(0).tolist()) for scores in of_model] for of_model in views]

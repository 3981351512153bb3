"""Videos → predictions: views through the model, softmax averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evl.data.dataset import EvaluationViews, Files, collate_views
from evl.data.loader import read_batches
from evl.distributed import World, autocast, resolve_precision
from evl.errors import ConfigError
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
    model: VideoClassifier,
    samples: Sequence[Sample],
    labels: Sequence[int] | None,
    **options,
) -> Predictions:
    """Scores of every sample. ``labels``: indices of classes, or None; ``options``: those of ``over_views``."""
    vectors, damaged = over_views(model, samples, model, labels=labels, softmax=True, **options)
    predictions = tuple(
        Prediction(
            samples[index].path,
            tuple(vectors[index].tolist()),
            labels[index] if labels is not None else None,
            samples[index].start_seconds,
            samples[index].end_seconds,
        )
        for index in sorted(vectors)
    )
    return Predictions(predictions, damaged)


@torch.inference_mode()
def over_views(
    model: VideoClassifier,
    samples: Sequence[Sample],
    function: Callable[[Tensor], Tensor],
    *,
    labels: Sequence[int] | None = None,
    softmax: bool = False,
    num_clips: int | None = None,
    num_crops: int | None = None,
    batch_size: int | None = None,
    num_workers: int = 0,
    precision: str | None = None,
    files: Files | None = None,
    world: World | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[dict[int, np.ndarray], dict[int, str]]:
    """(index → mean over a video's views of ``function``, index → reason for what could not be read).

    ``function`` maps views (ΣV,T,C,H,W), read and normalised as ``model`` wants them, to (ΣV,·); with ``softmax`` the
    mean is of its softmax (METHOD.md section 7). Every sample exactly once, over all processes: process r takes
    samples r, r + size, …; all get the whole. ``files``: the samples', where they are known from before; without it
    labelled ones are verified, others are not. ``precision``: None for what the model was trained in (fp32 on the CPU
    for fp16). ``progress`` hears how many videos each batch had.
    """
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
    mine = range(world.rank, len(samples), world.size)
    size = batch_size or card.evaluation.batch_size
    batches = [mine[start : start + size] for start in range(0, len(mine), size)]
    vectors: dict[int, np.ndarray] = {}
    damaged: dict[int, str] = {}
    was_training = model.training
    model.eval()
    try:
        workers = min(num_workers, len(batches))
        for batch in read_batches(dataset, batches, num_workers=workers, device=device, collate=collate_views):
            damaged |= batch.damaged
            if batch.pixels is not None:
                with autocast(precision, device):
                    values = function(batch.pixels.to(device, non_blocking=True))  # (ΣV,·)
                means = mean_of_views(values, batch.num_views, softmax=softmax)
                vectors |= dict(zip(batch.indices, means, strict=True))
            progress(len(batch.indices) + len(batch.damaged))
    finally:
        model.train(was_training)
    for other_vectors, other_damaged in world.gather((vectors, damaged)):
        vectors |= other_vectors
        damaged |= other_damaged
    return vectors, dict(sorted(damaged.items()))


def mean_of_views(values: Tensor, num_views: Sequence[int], *, softmax: bool) -> list[np.ndarray]:
    """(ΣV,·), the views of several videos -> the mean of each one's, of their softmax if asked, in double."""
    values = values.double()
    parts = (values.softmax(-1) if softmax else values).split(list(num_views))
    return [views.mean(0).cpu().numpy() for views in parts]


def judging_precision(model: VideoClassifier, precision: str | None = None) -> str:
    """The given one, or the model's own; fp16 is for CUDA, and far too slow on a CPU."""
    device = next(model.parameters()).device
    if precision is None:
        own = model.card.precision
        return "fp32" if own == "fp16" and device.type == "cpu" else own
    return resolve_precision(precision, device)

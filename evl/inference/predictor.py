"""Videos → predictions: the softmax of the model, averaged over each video's views."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from evl.data.dataset import EvaluationViews, Files
from evl.data.manifests.paths import AnyPath
from evl.errors import VideoError
from evl.inference.reading import card_of, device_of, evaluating, evaluation_of, judging_precision, read, scores_of
from evl.inference.waiting import wait_until_complete
from evl.models import Classifier
from evl.runtime.distributed import World
from evl.runtime.files import expand_home
from evl.streams import Stream, Views
from evl.streams.live import Live, video_views
from evl.types import Prediction, Sample


@dataclass(frozen=True)
class Predictions:
    """The predictions of the videos that could be read, and ``damaged``: index → reason for the others.

    ``predictions`` are in the order of ``samples``, which are all videos. ``notices``: what is unusual about them, one
    line each. ``protocol``: how they were shown to the model, on one line.
    """

    predictions: tuple[Prediction, ...]
    damaged: dict[int, str]
    samples: tuple[Sample, ...] = ()
    notices: tuple[str, ...] = ()
    protocol: str = ""

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(sample.path for sample in self.samples)


def predict_videos(
    model: Classifier,
    samples: Sequence[Sample],
    *,
    num_clips: int | None = None,
    num_crops: int | None = None,
    batch_size: int | None = None,
    num_workers: int = 0,
    wait_seconds: float | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Predictions:
    """Predicts ``samples``, whose labels are ignored.

    Args:
        num_clips, num_crops: the views of each video; None for those of the model's card.
        batch_size: videos at a time; None for that of the model's card.
        num_workers: processes that decode; 0 decodes in this process.
        wait_seconds: how long to wait for files that are still being written; None does not wait. Files that are not
            complete by then are in ``damaged``.
        progress: ``progress(n)`` is called with the number of newly finished videos.
    """
    incomplete: dict[str, str] = {}
    if wait_seconds is not None:
        incomplete = wait_until_complete([sample.path for sample in samples], wait_seconds)
    ready = [index for index, sample in enumerate(samples) if sample.path not in incomplete]
    views = dict(num_clips=num_clips, num_crops=num_crops, num_workers=num_workers)
    stream = views_for(model, [samples[index] for index in ready], **views)
    (result,) = predict_views([model], stream, None, batch_size=batch_size, progress=progress)
    damaged = {index: incomplete[sample.path] for index, sample in enumerate(samples) if sample.path in incomplete}
    damaged |= {ready[place]: reason for place, reason in result.damaged.items()}
    protocol = card_of(model).protocol(len(result.predictions), precision=judging_precision(model))
    damaged = dict(sorted(damaged.items()))
    return Predictions(result.predictions, damaged, tuple(samples), stream.notices(), protocol)


def views_for(
    model: Classifier,
    samples: Sequence[Sample],
    labels: Sequence[int] | None = None,
    *,
    num_clips: int | None = None,
    num_crops: int | None = None,
    num_workers: int = 0,
    precision: str | None = None,
    files: Files | None = None,
) -> Live:
    """A stream of all views of ``samples`` for ``model``: decoded, normalized, and encoded by its backbone.

    ``files``: those of the samples, if they exist already; otherwise samples are verified if there are ``labels``.
    ``precision``: None for that of the model's training (fp32 instead of fp16 on a CPU). Raises ConfigError if the
    model has no backbone, or for a wrong number of clips or crops.
    """
    card = card_of(model)
    counts = evaluation_of(model, num_clips=num_clips, num_crops=num_crops)
    views = Views(counts.num_clips, counts.num_crops, judging_precision(model, precision))
    files = files or Files(samples, verify=labels is not None)
    return video_views(
        model.require_backbone(), files, labels, card.config.clip, card.preprocessing, views, num_workers=num_workers
    )


def read_views_of(
    model: Classifier, path: AnyPath, *, num_clips: int | None = None, num_crops: int | None = None
) -> Tensor:
    """Reads the views of one file for ``model``: normalized float32 (V,T,C,H,W). Raises VideoError."""
    card, path = card_of(model), expand_home(os.fsdecode(path))
    views = evaluation_of(model, num_clips=num_clips, num_crops=num_crops)
    counts = dict(num_clips=views.num_clips, num_crops=views.num_crops)
    files = Files([Sample(path)], verify=False)
    item = EvaluationViews(files, None, card.config.clip, card.preprocessing, **counts)[0]
    if item.problem is not None:
        raise VideoError(path, item.problem)
    return item.pixels


def predict_views(
    models: Sequence[Classifier],
    stream: Stream,
    labels: Sequence[int] | None,
    *,
    batch_size: int | None = None,
    world: World | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> list[Predictions]:
    """Predicts every video of a stream of views by several models that share its encoder; one result per model.

    ``labels``: numbers of classes, or None. ``batch_size``: videos at a time; None for that of the first model's card.
    """
    samples = stream.samples
    with evaluating(models):
        scores_per_model, damaged = read(
            stream,
            [scores_of(model) for model in models],
            batch_size=evaluation_of(models[0], batch_size=batch_size).batch_size,
            world=world or World(0, 1, device_of(models[0])),
            progress=progress,
        )
    results = []
    for model, scores in zip(models, scores_per_model, strict=True):
        predictions = tuple(
            Prediction(
                samples[index].path,
                tuple(scores[index].tolist()),
                labels[index] if labels is not None else None,
                samples[index].start_seconds,
                samples[index].end_seconds,
                model.class_names,
            )
            for index in sorted(scores)
        )
        results.append(Predictions(predictions, damaged, tuple(samples)))
    return results

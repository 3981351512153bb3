"""Videos → predictions: views through the model, softmax averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from evl.data.dataset import Files
from evl.data.manifests.paths import AnyPath, videos_at
from evl.inference.reading import card_of, device_of, evaluating, judging_precision, read, scores_of
from evl.inference.waiting import wait_until_complete
from evl.models import Classifier
from evl.runtime.distributed import World
from evl.runtime.progress import Report, counting, showing
from evl.streams import Stream, Views
from evl.streams.live import Live, video_views
from evl.types import Prediction, Sample
from evl.video.views import read_views


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


def predict(
    model: Classifier, paths: AnyPath | Iterable[AnyPath], *, progress: bool | Report = True, **options
) -> Predictions:
    """Scores of unlabelled videos, by the model's own views unless told otherwise, on the model's device.

    ``paths``: one or several (any iterable) of files, of folders, of which all videos are taken, and of manifests, of
    which every row is, whether a file or a part of one. ``progress``: as for ``evl.train``. ``options``: those of
    ``predict_videos``. Raises PathTypeError for what is no path, DataError for a folder or manifest without videos.
    """
    samples = videos_at(paths)
    with showing(progress) as report:
        return predict_videos(model, samples, progress=counting(report, "predicting", len(samples)), **options)


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
    """Predictions of samples without labels, with what is odd about them.

    ``wait_seconds``: files that are still being written are waited for, at most so long; what is not complete by then
    is not predicted, but is in ``damaged``. ``progress(n)`` is called with the number of newly finished videos.
    """
    late: dict[str, str] = {}
    if wait_seconds is not None:
        late = wait_until_complete([sample.path for sample in samples], wait_seconds)
    ready = [index for index, sample in enumerate(samples) if sample.path not in late]
    views = dict(num_clips=num_clips, num_crops=num_crops, num_workers=num_workers)
    stream = views_for(model, [samples[index] for index in ready], **views)
    (found,) = predict_views([model], stream, None, batch_size=batch_size, progress=progress)
    damaged = {index: late[sample.path] for index, sample in enumerate(samples) if sample.path in late}
    damaged |= {ready[place]: reason for place, reason in found.damaged.items()}
    return Predictions(found.predictions, dict(sorted(damaged.items())), tuple(samples), stream.notices())


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
    """The stream of all views of ``samples`` as ``model`` wants them: decoded, normalised, encoded by its backbone.

    ``files``: the samples', where they are known from before; without it labelled ones are verified, others are not.
    ``precision``: None for what the model was trained in (fp32 on the CPU for fp16). Raises ConfigError where the
    model has no backbone.
    """
    card = card_of(model)
    counts = num_clips or card.evaluation.num_clips, num_crops or card.evaluation.num_crops
    views = Views(*counts, judging_precision(model, precision))
    files = files or Files(samples, verify=labels is not None)
    return video_views(
        model.require_backbone(), files, labels, card.clip, card.preprocessing, views, num_workers=num_workers
    )


def read_views_of(
    model: Classifier, path: AnyPath, *, num_clips: int | None = None, num_crops: int | None = None
) -> Tensor:
    """The views of one file as ``views_for`` has them: float (V,T,C,H,W), normalised. Raises VideoError."""
    card = card_of(model)
    clip, pixels = card.clip, card.preprocessing
    return read_views(
        path,
        num_frames=clip.num_frames,
        stride=clip.stride,
        frames_per_second=clip.frames_per_second,
        sampling=clip.sampling,
        num_clips=num_clips or card.evaluation.num_clips,
        num_crops=num_crops or card.evaluation.num_crops,
        size=pixels.image_size,
        mean=pixels.mean,
        std=pixels.std,
        interpolation=pixels.interpolation,
        antialias=pixels.antialias,
        pixel_aspect=pixels.pixel_aspect,
    )


def predict_views(
    models: Sequence[Classifier],
    stream: Stream,
    labels: Sequence[int] | None,
    *,
    batch_size: int | None = None,
    world: World | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> list[Predictions]:
    """Predictions of every video of a stream of views, by models that share its encoder. ``labels``: numbers of
    classes, or None. ``batch_size``: videos at a time; None for the first model's own."""
    with evaluating(models):
        found, damaged = read(
            stream,
            [scores_of(model) for model in models],
            batch_size=batch_size or card_of(models[0]).evaluation.batch_size,
            world=world or World(0, 1, device_of(models[0])),
            progress=progress,
        )
    return [
        _predictions(stream.samples, labels, scores, damaged, model.class_names)
        for model, scores in zip(models, found, strict=True)
    ]


def _predictions(
    samples, labels, scores: dict[int, np.ndarray], damaged: dict[int, str], class_names: tuple[str, ...]
) -> Predictions:
    return Predictions(
        tuple(
            Prediction(
                samples[index].path,
                tuple(scores[index].tolist()),
                labels[index] if labels is not None else None,
                samples[index].start_seconds,
                samples[index].end_seconds,
                class_names,
            )
            for index in sorted(scores)
        ),
        damaged,
        tuple(samples),
    )

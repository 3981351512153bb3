"""Videos → predictions: the softmax of the model, averaged over each video's views."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evl.data.dataset import EvaluationViews, Files
from evl.data.manifests.manifest import AnyPath, Videos, is_one_video, videos_at
from evl.errors import ConfigError, VideoError
from evl.inference.reading import card_of, device_of, evaluating, evaluation_of, judging_precision, read, scores_of
from evl.models import Classifier
from evl.runtime.distributed import World
from evl.streams import Stream, Views
from evl.streams.live import Live, video_views, views_in_memory
from evl.types import Prediction, Sample

log = logging.getLogger("evl")
QUIET_SECONDS = 3.0  # a file that does not change for so long is complete
LIMIT_SECONDS = 600.0


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
    videos: Videos,
    *,
    num_clips: int | None = None,
    num_crops: int | None = None,
    batch_size: int | None = None,
    num_workers: int = 0,
    wait_seconds: float | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Predictions:
    """Predicts samples, whose labels are ignored, or videos by their paths.

    Args:
        videos: samples, files, folders and manifests, one or several.
        num_clips, num_crops: the views of each video; None for those of the model's card.
        batch_size: videos at a time; None for that of the model's card.
        num_workers: processes that decode; 0 decodes in this process.
        wait_seconds: how long to wait for files that are still being written; None does not wait. Files that are not
            complete by then are in ``damaged``.
        progress: ``progress(n)`` is called with the number of newly finished videos.
    """
    samples = videos_at(videos)
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
    videos: Videos,
    labels: Sequence[int] | None = None,
    *,
    num_clips: int | None = None,
    num_crops: int | None = None,
    num_workers: int = 0,
    precision: str | None = None,
    files: Files | None = None,
) -> Live:
    """A stream of all views of ``videos`` for ``model``: decoded, normalized, and encoded by its backbone.

    ``videos``: samples, files, folders and manifests, one or several. ``labels``: the class number of each sample.
    ``files``: those of the samples, if they exist already; otherwise samples are verified if there are ``labels``.
    ``precision``: None for that of the model's training (fp32 instead of fp16 on a CPU). Raises ConfigError if the
    model has no backbone, or for a wrong number of clips or crops.
    """
    card = card_of(model)
    counts = evaluation_of(model, num_clips=num_clips, num_crops=num_crops)
    views = Views(counts.num_clips, counts.num_crops, judging_precision(model, precision))
    files = files or Files(videos_at(videos), verify=labels is not None)
    return video_views(
        model.require_backbone(), files, labels, card.config.clip, card.preprocessing, views, num_workers=num_workers
    )


def stream_of(model: Classifier, videos: Stream | Videos) -> Stream:
    """The stream itself, or the stream ``views_for(model, videos)``."""
    return videos if hasattr(videos, "encoder") else views_for(model, videos)


def read_views_of(
    model: Classifier, video: AnyPath | Sample, *, num_clips: int | None = None, num_crops: int | None = None
) -> Tensor:
    """Reads the views of one video for ``model``: normalized float32 (V,T,C,H,W). Raises VideoError."""
    if not is_one_video(video):
        raise ConfigError(f"{video!r:.60}: expected one video; read the views of several one by one")
    card, files = card_of(model), Files(videos_at(video), verify=False)
    views = evaluation_of(model, num_clips=num_clips, num_crops=num_crops)
    counts = dict(num_clips=views.num_clips, num_crops=views.num_crops)
    item = EvaluationViews(files, None, card.config.clip, card.preprocessing, **counts)[0]
    if item.problem is not None:
        raise VideoError(files.samples[0].name, item.problem)
    return item.pixels


def scores_of_views(model: Classifier, views: Tensor) -> Tensor:
    """Scores (Y) in double, on the CPU, of the views (V,T,C,H,W) of one video: those of ``predict_videos``.

    They are computed as there: in evaluation mode, on the model's device, in the precision of its training. Raises
    ConfigError for views of another shape, DataError for scores that are not finite.
    """
    if views.ndim != 5 or not len(views):
        raise ConfigError(f"views of shape {tuple(views.shape)}; expected (V,T,C,H,W), the views of one video")
    stream = views_in_memory(model.require_backbone(), views, card_of(model).preprocessing, judging_precision(model))
    (result,) = predict_views([model], stream, None)
    return torch.tensor(result.predictions[0].scores, dtype=torch.float64)


def predict_views(
    models: Sequence[Classifier],
    stream: Stream | Videos,
    labels: Sequence[int] | None,
    *,
    batch_size: int | None = None,
    world: World | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> list[Predictions]:
    """Predicts every video of a stream of views by several models that share its encoder; one result per model.

    Videos in place of a stream are read by the views of the first model. ``labels``: numbers of classes, or None.
    ``batch_size``: videos at a time; None for that of the first model's card.
    """
    stream = stream_of(models[0], stream)
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


def wait_until_complete(
    paths: Iterable[str],
    limit_seconds: float = LIMIT_SECONDS,
    *,
    quiet_seconds: float = QUIET_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, str]:
    """Waits until all files are complete, at most ``limit_seconds``; returns path → reason for those that are not.

    A file is complete when it is not empty, and its size and time of change were the same for ``quiet_seconds``. A
    folder of frames is complete when this holds for its number of files and their total size. Files that do not exist
    yet are waited for, too. All are watched at the same time, so complete files cost ``quiet_seconds`` in total.
    """
    started = clock()
    seen = {path: (_state(path), started) for path in paths}  # each file's state, and the time since which it has it
    waiting, is_logged = set(seen), False
    while waiting:
        now = clock()
        for path in sorted(waiting):
            state = _state(path)
            before, since = seen[path]
            if state != before:
                seen[path] = state, now
            elif state is not None and state[0] > 0 and now - since >= quiet_seconds:
                waiting.discard(path)
        if not waiting:
            break
        if now - started >= max(limit_seconds, quiet_seconds):
            return {path: _reason(seen[path][0], limit_seconds) for path in seen if path in waiting}
        if not is_logged and now - started > quiet_seconds:
            is_logged = True
            files = "1 file" if len(waiting) == 1 else f"{len(waiting)} files"
            log.info("waiting for %s to be complete, such as %s (Ctrl-C stops)", files, min(waiting))
        sleep(min(0.5, quiet_seconds / 4))
    return {}


def _state(path: str) -> tuple | None:
    """(bytes, time of change or number of files); None if the path does not exist."""
    try:
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                sizes = [entry.stat().st_size for entry in entries if entry.is_file()]
            return sum(sizes), len(sizes)
        info = os.stat(path)
    except (OSError, ValueError):
        return None
    return info.st_size, info.st_mtime_ns


def _reason(state: tuple | None, limit_seconds: float) -> str:
    if state is None:
        return f"no such file, even after {limit_seconds:g} s of waiting"
    if state[0] == 0:
        return f"still empty after {limit_seconds:g} s of waiting"
    return f"still growing after {limit_seconds:g} s of waiting; wait longer, or predict it once it is complete"

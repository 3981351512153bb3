"""Videos → features: worker processes decode them, and this process encodes them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from evl.backbones import FrozenBackbone
from evl.config import ClipConfig, RunConfig
from evl.data.dataset import ClipBatch, EvaluationViews, Files, ReadViews, TrainingClips, collate_clips, collate_views
from evl.data.loader import default_num_workers, read_batches
from evl.data.splits import make_files, num_workers
from evl.runtime.precision import autocast
from evl.streams.base import Batch, Features, Views, encoded
from evl.types import Preprocessing, Sample
from evl.video.augment import TrainingTransform, mirrored_in_words
from evl.video.notices import Length, long_videos_notice
from evl.video.transforms import normalize

log = logging.getLogger("evl")


class Live:
    """A stream of the features that ``backbone`` computes for the clips of ``dataset``.

    ``num_clips`` is the number of clips by which a video is judged; notices about long videos use it.
    """

    def __init__(
        self,
        backbone: FrozenBackbone,
        dataset: TrainingClips | EvaluationViews | ReadViews,
        collate: Callable[[list], ClipBatch],
        preprocessing: Preprocessing,
        *,
        precision: str,
        num_workers: int,
        num_clips: int,
        views: Views | None = None,
    ):
        self.backbone = self.encoder = backbone
        self.dataset, self.collate, self.preprocessing, self.views = dataset, collate, preprocessing, views
        self.samples, self.precision, self.num_workers = dataset.samples, precision, num_workers
        self.device = next(backbone.parameters()).device
        self.advice = decoding_advice(num_workers)
        self.waited_seconds = 0.0
        self.num_clips = num_clips
        self._lengths: dict[int, Length] = {}

    def notices(self) -> tuple[str, ...]:
        """One line about long videos among those that were read so far, or nothing."""
        lengths = {self.samples[index]: length for index, length in self._lengths.items()}
        notice = long_videos_notice(lengths, self.dataset.clip, self.num_clips)
        return () if notice is None else (notice,)

    def read(self, batches: Iterable[Sequence]) -> Iterator[Batch]:
        workers = min(self.num_workers, len(batches)) if hasattr(batches, "__len__") else self.num_workers
        options = dict(num_workers=workers, device=self.device, collate=self.collate)
        clips = read_batches(self.dataset, batches, **options)  # this call starts the workers
        return encoded(self, clips, self._features, self._lengths)

    def _features(self, pixels: Tensor) -> Features:
        # bytes are normalized on the device, so one byte per pixel is copied there, not four
        pixels, pre = pixels.to(self.device, non_blocking=True), self.preprocessing
        clips = normalize(pixels, pre.mean, pre.std) if pixels.dtype == torch.uint8 else pixels
        with torch.no_grad(), autocast(self.precision, self.device):
            return self.backbone(clips)


def training_clips(
    backbone: FrozenBackbone,
    config: RunConfig,
    samples: Sequence[Sample],
    labels: Sequence[int],
    class_names: Sequence[str],
    preprocessing: Preprocessing,
) -> Live:
    """A stream of augmented training clips; keys are (epoch, index). ``labels``: the number of each sample's class."""
    transform = TrainingTransform(config.augment, preprocessing, class_names)
    for line in mirrored_in_words(class_names) if config.augment.flip == "pairs" else ():
        log.info("%s", line)
    files = make_files(samples, config)
    pixels = dict(square_pixels=preprocessing.pixel_aspect, jitter_seconds=config.augment.jitter_seconds)
    dataset = TrainingClips(files, labels, config.clip, transform, config.training.seed, **pixels)
    options = dict(precision=config.training.precision, num_workers=num_workers(config))
    return Live(backbone, dataset, collate_clips, preprocessing, **options, num_clips=config.evaluation.num_clips)


def video_views(
    backbone: FrozenBackbone,
    files: Files,
    labels: Sequence[int] | None,
    clip: ClipConfig,
    preprocessing: Preprocessing,
    views: Views,
    *,
    num_workers: int = 0,
) -> Live:
    """A stream of all views of each video; keys are indices. ``labels``: the number of each sample's class, or None."""
    dataset = EvaluationViews(files, labels, clip, preprocessing, num_clips=views.num_clips, num_crops=views.num_crops)
    options = dict(precision=views.precision, num_workers=num_workers, views=views, num_clips=views.num_clips)
    return Live(backbone, dataset, collate_views, preprocessing, **options)


def views_in_memory(backbone: FrozenBackbone, views: Tensor, preprocessing: Preprocessing, precision: str) -> Live:
    """A stream of one video, whose normalized views (V,T,C,H,W) are in memory; its key is 0."""
    options = dict(precision=precision, num_workers=0, num_clips=len(views))
    return Live(backbone, ReadViews((Sample("these views"),), (views,)), collate_views, preprocessing, **options)


def decoding_advice(num_workers: int) -> str:
    """What users can do if training waits for decoding."""
    more = f"data.num_workers above {num_workers}, " if num_workers < default_num_workers() else ""
    return f"try {more}evl prepare"

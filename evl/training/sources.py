"""Where a run's clips come from: videos that are decoded, or a store of what the backbone says of them.

The training loop knows one ``Source``, and no difference.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from evl.config import RunConfig
from evl.config import replace as replace_settings
from evl.data.dataset import Batch, TrainingClips, collate_clips
from evl.data.loader import StepSampler, default_num_workers, read_batches
from evl.data.splits import make_files, num_workers
from evl.distributed import World
from evl.errors import StoreError
from evl.evaluation import Evaluation, evaluate, evaluate_stored
from evl.evaluation.evaluate import labels_of
from evl.evaluation.stored import refuse_differences
from evl.features.batches import StoredTrainingClips, read_ahead
from evl.features.store import FeatureStore, StoredClips
from evl.models import VideoClassifier
from evl.types import Preprocessing, Sample
from evl.video.augment import TrainingTransform
from evl.video.long_videos import Length, long_videos_notice
from evl.video.transforms import normalise

log = logging.getLogger("evl")


class Source(Protocol):
    """``advice``: what to try where training waits for data."""

    train_samples: Sequence[Sample]
    val_samples: Sequence[Sample]
    advice: str

    def read_batches(self, first_step: int) -> Iterator[Batch]:
        """This process's micro-batches, from a step on."""

    def clips(self, batch: Batch) -> Tensor | StoredClips:
        """What the model takes, on its device; where all of a batch is damaged, one clip that stands in."""

    def evaluate(self, model: VideoClassifier, progress: Callable[[int], None], *, quick: bool) -> Evaluation:
        """The model on the validation videos; ``quick``: by as few views as there can be."""


class Videos:
    """Clips out of video files, by processes that decode them."""

    def __init__(
        self,
        config: RunConfig,
        class_names: Sequence[str],
        preprocessing: Preprocessing,
        train_samples: Sequence[Sample],
        val_samples: Sequence[Sample],
        world: World,
    ):
        self.config, self.world, self.preprocessing = config, world, preprocessing
        self.train_samples, self.val_samples = train_samples, val_samples
        self.labels = labels_of(train_samples, class_names)
        self.transform = TrainingTransform(config.augment, preprocessing, class_names)
        self.val_files = make_files(val_samples, config)
        self.num_workers = num_workers(config)
        self.advice = decoding_advice(self.num_workers)

    def read_batches(self, first_step: int) -> Iterator[Batch]:
        config, device = self.config, self.world.device
        files = make_files(self.train_samples, config)
        pixels = dict(square_pixels=self.preprocessing.pixel_aspect)
        dataset = TrainingClips(files, self.labels, config.clip, self.transform, config.training.seed, **pixels)
        sampler = make_sampler(config, len(self.train_samples), first_step, self.world)
        batches = read_batches(dataset, sampler, num_workers=self.num_workers, device=device, collate=collate_clips)
        return self._telling(batches, len(sampler)) if self.world.is_main else batches

    def _telling(self, batches: Iterator[Batch], total: int) -> Iterator[Batch]:
        """The batches; with the first report one line on long videos, if any were met by then."""
        first_report = min(total, self.config.training.log_every * self.config.training.accumulation)
        lengths: dict[Sample, Length] = {}
        for number, batch in enumerate(batches, 1):
            if number <= first_report:
                lengths |= {self.train_samples[index]: length for index, length in batch.lengths.items()}
            if number == first_report:
                notice = long_videos_notice(lengths, self.config.clip, self.config.evaluation.num_clips)
                if notice is not None:
                    log.warning("of the videos trained on so far, %s", notice)
            yield batch

    def clips(self, batch: Batch) -> Tensor:
        """Normalised floats: one byte a pixel travels to the device, not four."""
        if batch.pixels is None:
            shape = (1, self.config.clip.num_frames, 3, *self.preprocessing.image_size)
            return torch.zeros(shape, device=self.world.device)
        pixels, pre = batch.pixels.to(self.world.device, non_blocking=True), self.preprocessing
        return normalise(pixels, pre.mean, pre.std) if pixels.dtype == torch.uint8 else pixels

    def evaluate(self, model: VideoClassifier, progress: Callable[[int], None], *, quick: bool) -> Evaluation:
        views = dict(num_clips=1, num_crops=1) if quick else {}
        return evaluate(
            model, self.val_samples, files=self.val_files, num_workers=self.num_workers,
            precision=self.config.training.precision, world=self.world,
            batch_size=self.config.evaluation.batch_size, trained_on=self.train_samples, progress=progress, **views,
        )  # fmt: skip


def decoding_advice(num_workers: int) -> str:
    more = f"data.num_workers above {num_workers}, " if num_workers < default_num_workers() else ""
    return f"try {more}evl prepare"


class StoredFeatures:
    """Clips out of a store, by threads that read them: in the order in which they would be decoded."""

    advice = "the store's disk is slower than the training: copy the store to a faster one, or store int8"

    def __init__(self, config: RunConfig, store: FeatureStore, taps: Sequence[int], world: World):
        self.config, self.world = config, world
        self.store = store
        names, self.train_samples, self.val_samples = samples_of(store)
        labels, frames = labels_of(self.train_samples, names), store.description.num_frames("train")
        split, seed = store.splits["train"], config.training.seed
        self.reader = StoredTrainingClips(split, labels, config.clip, frames, seed, taps)
        self._stand_in: StoredClips | None = None

    def read_batches(self, first_step: int) -> Iterator[Batch]:
        sampler = make_sampler(self.config, len(self.train_samples), first_step, self.world)
        held = self.config.training.accumulation - 1
        return read_ahead(self.reader.read, sampler, self.world.device, held=held)

    def clips(self, batch: Batch) -> StoredClips:
        if batch.pixels is not None:
            return batch.pixels.to(self.world.device, non_blocking=True)
        if self._stand_in is None:
            self._stand_in = self.reader.any_clip().to(self.world.device)
        return self._stand_in

    def evaluate(self, model: VideoClassifier, progress: Callable[[int], None], *, quick: bool) -> Evaluation:
        """By all stored views, whether ``quick`` or not: reading them costs little."""
        return evaluate_stored(
            model, self.store, precision=self.config.training.precision, world=self.world,
            batch_size=self.config.evaluation.batch_size, trained_on=self.train_samples, progress=progress,
        )  # fmt: skip


def open_store(config: RunConfig) -> tuple[RunConfig, FeatureStore]:
    """(config with the store's videos and absolute path, the store at ``config.data.features``).

    Raises StoreError where there is none, it has no training clips, or the run needs other features: with all that is
    different.
    """
    path = Path(config.data.features).absolute()
    store = FeatureStore(path)
    refuse_differences(store, config)
    if "train" not in store.splits:
        raise StoreError(f"{path} has no training clips, only {', '.join(store.splits)}")
    # which videos there are is decided; how much damage is tolerated is not
    data = store.description.data
    own = {"features": str(path), "max_damaged_share": config.data.max_damaged_share}
    videos = {name: getattr(data, name) for name in _VIDEOS}
    return replace_settings(config, data={**videos, **own}), store


# settings that say which videos there are
_VIDEOS = ("path", "layout", "split_number", "val_path", "root", "class_names", "val_fraction", "group_by")


def samples_of(store: FeatureStore) -> tuple[tuple[str, ...], tuple[Sample, ...], tuple[Sample, ...]]:
    """(class names, training samples, validation samples); a test split is never looked at."""
    splits = store.splits
    return store.class_names, splits["train"].samples, splits["val"].samples if "val" in splits else ()


def make_sampler(config: RunConfig, num_samples: int, first_step: int, world: World) -> StepSampler:
    """This process's part of every step from ``first_step`` on; ConfigError if the batch cannot be split."""
    return StepSampler(
        num_samples,
        batch_size=config.training.batch_size,
        accumulation=config.training.accumulation,
        first_step=first_step,
        last_step=config.training.steps,
        seed=config.training.seed,
        rank=world.rank,
        world_size=world.size,
    )

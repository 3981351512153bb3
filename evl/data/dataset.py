"""Samples → clips. What comes out depends on seed, epoch and sample only: never on workers or processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from evl.config import ClipConfig
from evl.errors import ConfigError, VideoError
from evl.types import Preprocessing, Sample
from evl.video.reader import read_frames
from evl.video.sampling import random_clip_indices, random_segment_indices
from evl.video.views import frame_range, read_views


@dataclass(frozen=True)
class Item:
    """One sample as it came out: ``pixels`` (a clip (T,C,H,W), or views (V,T,C,H,W)), or ``problem``, never both."""

    index: int
    label: int | None
    pixels: Tensor | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Batch:
    """``pixels`` of all that could be read, stacked, with ``labels`` and ``indices``; ``damaged``: index → reason."""

    pixels: Tensor | None
    labels: Tensor
    indices: tuple[int, ...]
    damaged: dict[int, str]

    def pin_memory(self) -> Batch:  # called by DataLoader
        pixels = self.pixels.pin_memory() if self.pixels is not None else None
        return Batch(pixels, self.labels.pin_memory(), self.indices, self.damaged)


def collate(items: Sequence[Item]) -> Batch:
    good = [item for item in items if item.pixels is not None]
    return Batch(
        torch.stack([item.pixels for item in good]) if good else None,
        torch.tensor([-1 if item.label is None else item.label for item in good], dtype=torch.long),
        tuple(item.index for item in good),
        {item.index: item.problem for item in items if item.problem is not None},
    )


class TrainingClips(Dataset):
    """``dataset[(epoch, index)]`` -> Item with one augmented clip; all draws from (seed, epoch, index)."""

    def __init__(self, samples: Sequence[Sample], labels: Sequence[int], clip: ClipConfig, transform, seed: int):
        self.samples, self.labels, self.clip, self.transform, self.seed = samples, labels, clip, transform, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        sample, label = self.samples[index], self.labels[index]
        generator = np.random.default_rng([self.seed, epoch, index])
        try:
            first, count = frame_range(sample.path, sample.start_seconds, sample.end_seconds)
            frames = read_frames(sample.path, [first + i for i in self._draw(count, generator)])
            return Item(index, label, self.transform(frames, generator))
        except VideoError as error:
            return Item(index, label, problem=error.reason)

    def _draw(self, count: int, generator: np.random.Generator) -> list[int]:
        clip = self.clip
        if clip.sampling == "segment":
            return random_segment_indices(count, num_frames=clip.num_frames, generator=generator)
        return random_clip_indices(
            count, num_frames=clip.num_frames, stride=clip.stride, past_end=clip.past_end, generator=generator
        )


class EvaluationViews(Dataset):
    """``dataset[index]`` -> Item with all views of a video. ``labels`` may be None: then items have none."""

    def __init__(
        self,
        samples: Sequence[Sample],
        labels: Sequence[int] | None,
        clip: ClipConfig,
        preprocessing: Preprocessing,
        *,
        num_clips: int,
        num_crops: int,
    ):
        self.samples, self.labels = samples, labels
        self.options = dict(
            num_frames=clip.num_frames,
            stride=clip.stride,
            sampling=clip.sampling,
            num_clips=num_clips,
            num_crops=num_crops,
            size=preprocessing.image_size,
            mean=preprocessing.mean,
            std=preprocessing.std,
            interpolation=preprocessing.interpolation,
            antialias=preprocessing.antialias,
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        sample = self.samples[index]
        label = self.labels[index] if self.labels is not None else None
        times = dict(start_seconds=sample.start_seconds, end_seconds=sample.end_seconds)
        try:
            return Item(index, label, read_views(sample.path, **self.options, **times))
        except VideoError as error:
            return Item(index, label, problem=error.reason)


class StepSampler(Sampler):
    """Batches of (epoch, index) for one process, from ``first_step`` to ``last_step``.

    The samples of a step follow from seed and step alone: position p of the endless stream is sample
    permutation(seed, p // n)[p % n]. Micro-batch a of process r takes its part of the step's ``batch_size``
    positions, so any number of processes and micro-batches sees the same global batch, and a run resumes anywhere.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        batch_size: int,
        first_step: int,
        last_step: int,
        seed: int,
        accumulation: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ):
        parts = world_size * accumulation
        if batch_size % parts:
            raise ConfigError(
                f"training.batch_size {batch_size} cannot be split over {world_size} processes × {accumulation} "
                f"micro-batches; take a multiple of {parts}"
            )
        self.num_samples, self.seed = num_samples, seed
        self.batch_size, self.micro = batch_size, batch_size // parts
        self.steps = range(first_step, last_step)
        self.accumulation, self.rank, self.world_size = accumulation, rank, world_size
        self._permutation: tuple[int, np.ndarray | None] = (-1, None)

    def __len__(self) -> int:
        return len(self.steps) * self.accumulation

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in self.steps:
            for a in range(self.accumulation):
                start = step * self.batch_size + (a * self.world_size + self.rank) * self.micro
                yield [self._at(position) for position in range(start, start + self.micro)]

    def _at(self, position: int) -> tuple[int, int]:
        epoch, place = divmod(position, self.num_samples)
        if self._permutation[0] != epoch:
            self._permutation = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)
        return epoch, int(self._permutation[1][place])


def read_batches(dataset: Dataset, batches, *, num_workers: int, device: torch.device) -> Iterator[Batch]:
    """Batches in order, read ahead by workers, which are started here. Draws nothing from torch's global generator."""
    context = None
    if num_workers:
        context = multiprocessing.get_context("forkserver")  # fork and the decoder's threads do not mix
        context.set_forkserver_preload(["evl.data.dataset", "evl.video.augment"])
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(0),
        multiprocessing_context=context,
        worker_init_fn=_start_worker,
    )
    # Ctrl-C, or SIGTERM to the whole group, is the main process's to handle: it wants a last batch and a checkpoint. So
    # processes started here are born deaf to both. (The resource tracker is, too, but would unblock them for us.)
    if num_workers:
        resource_tracker.ensure_running()
    signals = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        return iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(worker: int) -> None:
    # the first SIGTERM may be the group's; a second one ends the worker, so that nothing can hang on it
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def default_num_workers() -> int:
    """One worker a core of this machine, shared by its processes, at most 8 a process."""
    return max(1, min(8, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))

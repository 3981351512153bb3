"""A store on disk → features: threads read ahead, and this process unpacks the features.

They equal the features that ``evl.streams.live`` computes from the videos, except for the store's rounding. Batches
have the same clips, and lack the same damaged videos.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import torch

from evl.config import ClipConfig, RunConfig
from evl.data.dataset import ClipBatch
from evl.runtime.precision import autocast
from evl.store.store import FeatureStore, StoredClips, StoredSplit, drawn_frames
from evl.store.unpacker import Unpacker
from evl.streams.base import Batch, Features, Views, encoded

READ_AHEAD = 2  # threads, and batches that they read in advance; two threads use the time that one waits for the disk


class Stored:
    """A stream of stored features. ``read_clips(keys, out)`` -> ClipBatch of StoredClips."""

    advice = "the store's disk is slower than the training: copy the store to a faster one, or store int8"

    def __init__(
        self,
        unpacker: Unpacker,
        split: StoredSplit,
        read_clips: Callable[..., ClipBatch],
        *,
        device: torch.device,
        precision: str,
        dtype: torch.dtype = torch.float32,
        views: Views | None = None,
    ):
        self.unpacker, self.split, self.read_clips = unpacker.to(device), split, read_clips
        self.samples, self.encoder = split.samples, unpacker.encoder
        self.device, self.precision, self.dtype, self.views = device, precision, dtype, views
        self.waited_seconds = 0.0

    def notices(self) -> tuple[str, ...]:
        return ()

    def read(self, batches: Iterable[Sequence]) -> Iterator[Batch]:
        return encoded(self, read_ahead(self.read_clips, batches, self.device), self._features)

    def _features(self, clips: StoredClips) -> Features:
        with autocast(self.precision, self.device):
            return self.unpacker(clips.to(self.device, non_blocking=True), self.dtype)


def stored_training_clips(store: FeatureStore, unpacker: Unpacker, config: RunConfig, device: torch.device) -> Stored:
    """A stream of the store's training clips; keys are (epoch, index)."""
    split = store.splits["train"]
    blocks = dict(blocks=unpacker.encoder.taps, needs_maps=unpacker.needs_maps)
    reader = StoredTrainingClips(split, config.clip, config.training.seed, **blocks)
    return Stored(unpacker, split, reader.read, device=device, precision=config.training.precision)


def stored_views(
    store: FeatureStore,
    name: str,
    unpacker: Unpacker,
    clip: ClipConfig,
    labels: Sequence[int] | None,
    *,
    device: torch.device,
    precision: str,
    dtype: torch.dtype = torch.float32,
) -> Stored:
    """A stream of all stored clips of each video of the split ``name``; keys are indices."""
    split, stored, options = store.splits[name], store.description.config.evaluation, store.description.options
    views = Views(stored.num_clips, stored.num_crops, precision, f", from a store ({options.form}, {options.dtype})")
    reader = StoredViews(split, labels, clip, unpacker.encoder.taps, needs_maps=unpacker.needs_maps)
    return Stored(unpacker, split, reader.read, device=device, precision=precision, dtype=dtype, views=views)


class StoredTrainingClips:
    """``read([(epoch, index), …])`` -> the ClipBatch of stored training clips for these keys.

    In epoch e, a video has its stored clip number e, modulo the number of its stored clips. If stored clips have more
    frames, the ``clip.num_frames`` frames are drawn by a generator with the seed (seed, epoch, index).
    """

    def __init__(
        self,
        split: StoredSplit,
        clip: ClipConfig,
        seed: int,
        blocks: Sequence[int] | None = None,
        *,
        needs_maps: bool = True,
    ):
        self.split, self.clip, self.seed = split, clip, seed
        self.blocks, self.needs_maps = blocks, needs_maps  # as ``StoredSplit.read`` takes them

    def read(self, keys: Sequence[tuple[int, int]], out: StoredClips | None = None) -> ClipBatch:
        split = self.split
        good = [(epoch, index) for epoch, index in keys if index not in split.damaged]
        pairs = [(index, epoch % split.num_clips(index)) for epoch, index in good]
        frames = None
        if split.num_frames != self.clip.num_frames:
            frames = [self._draw_frames(epoch, *pair) for (epoch, _), pair in zip(good, pairs, strict=True)]
        return ClipBatch(
            split.read(pairs, self.blocks, frames, out, needs_maps=self.needs_maps) if pairs else None,
            torch.tensor([split.labels[index] for _, index in good], dtype=torch.long),
            tuple(index for _, index in good),
            {index: split.damaged[index] for _, index in keys if index in split.damaged},
        )

    def _draw_frames(self, epoch: int, video: int, clip: int) -> list[int]:
        stored, num_valid = self.split.num_frames, self.split.num_valid(video, clip)
        draw = dict(seed=self.seed, epoch=epoch, video=video)
        return drawn_frames(stored, num_valid, self.clip.num_frames, self.clip.sampling, **draw)


class StoredViews:
    """``read([index, …])`` -> the ClipBatch of all stored views of these videos.

    For a training split, these are all its stored training clips. If stored clips have more than ``clip.num_frames``
    frames, that many are taken: those in the middle of the frames inside the video (dense), or the middle one of each
    group (segment).
    """

    def __init__(
        self,
        split: StoredSplit,
        labels: Sequence[int] | None,
        clip: ClipConfig,
        blocks: Sequence[int],
        *,
        needs_maps: bool = True,
    ):
        self.split, self.labels, self.clip, self.blocks, self.needs_maps = split, labels, clip, blocks, needs_maps

    def read(self, indices: Sequence[int], out: StoredClips | None = None) -> ClipBatch:
        split = self.split
        good = [index for index in indices if index not in split.damaged]
        pairs = [(index, clip) for index in good for clip in range(split.num_clips(index))]
        labels = [-1 if self.labels is None else self.labels[index] for index in good]
        frames = None
        if split.num_frames != self.clip.num_frames:
            frames = [self._middle_frames(*pair) for pair in pairs]
        return ClipBatch(
            split.read(pairs, self.blocks, frames, out, needs_maps=self.needs_maps) if pairs else None,
            torch.tensor(labels, dtype=torch.long),
            tuple(good),
            {index: split.damaged[index] for index in indices if index in split.damaged},
            tuple(split.num_clips(index) for index in good),
        )

    def _middle_frames(self, video: int, clip: int) -> list[int]:
        stored, wanted = self.split.num_frames, self.clip.num_frames
        if self.clip.sampling == "segment":
            size = stored // wanted
            return [group * size + size // 2 for group in range(wanted)]
        start = max(0, min(stored, self.split.num_valid(video, clip)) - wanted) // 2
        return list(range(start, start + wanted))


def read_ahead(
    read: Callable[..., ClipBatch], batches: Iterable[Sequence], device: torch.device
) -> Iterator[ClipBatch]:
    """Yields ``read(keys, out)`` for each batch, in order; reading in threads starts with this call.

    A batch is valid until the next one is taken, because its memory is used again. On CUDA, batches are in pinned
    memory of their own and stay valid. An error in ``read`` is raised when its batch is taken.
    """
    free: deque[StoredClips] = deque()

    def task(keys: Sequence) -> ClipBatch:
        try:
            out = free.popleft()
        except IndexError:
            out = None
        batch = read(keys, out)
        if device.type != "cuda":
            return batch
        pinned = batch.pin_memory()
        if batch.clips is not None:
            free.append(batch.clips)
        return pinned

    keys = iter(batches)
    pool = ThreadPoolExecutor(READ_AHEAD, thread_name_prefix="evl-store")
    waiting = deque(pool.submit(task, next_keys) for next_keys in islice(keys, READ_AHEAD))

    def in_order() -> Iterator[ClipBatch]:
        batch: ClipBatch | None = None
        try:
            while waiting:
                if batch is not None and batch.clips is not None and device.type != "cuda":
                    free.append(batch.clips)
                batch = waiting.popleft().result()
                if (next_keys := next(keys, None)) is not None:
                    waiting.append(pool.submit(task, next_keys))
                yield batch
        finally:  # also if the caller stops before the last batch
            pool.shutdown(wait=False, cancel_futures=True)

    return in_order()

"""Samples → clips. What comes out depends on seed, epoch and sample only: never on workers or processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from evl.config import ClipConfig
from evl.data.index_file import IndexFile
from evl.errors import VideoError
from evl.types import Preprocessing, Sample
from evl.video.index import counted_index
from evl.video.long_videos import Length
from evl.video.reader import read_clip
from evl.video.sampling import random_clip_indices, random_segment_indices
from evl.video.timed import TimedSampling
from evl.video.torchcodec import Decoder
from evl.video.views import views_of


def timed(clip: ClipConfig) -> TimedSampling | None:
    """How frames are chosen by their times, where they are."""
    return None if clip.frames_per_second is None else TimedSampling(clip.num_frames, clip.frames_per_second)


# what a file turned out to be when it was decoded whole
UNSEEN, INDEX_IS_RIGHT, MUST_BE_COUNTED = range(3)


@dataclass(frozen=True)
class Item:
    """One sample as it came out: ``pixels`` (a clip (T,C,H,W), or views (V,T,C,H,W)), or ``problem``, never both.
    ``length``: of the whole video, or the part that the sample is."""

    index: int
    label: int | None
    pixels: Tensor | None = None
    problem: str | None = None
    length: Length | None = None


@dataclass(frozen=True)
class Batch:
    """``pixels`` of all that could be read, with ``labels`` and ``indices``; ``damaged``: index → reason.

    Clips are stacked, (B,T,C,H,W); views of videos are joined, (ΣV,T,C,H,W), ``num_views`` of each; ``lengths``: by
    index, of those whose file was opened. From a store they are no pixels, but what is stored of these clips
    (``evl.features.StoredClips``).
    """

    pixels: Tensor | None
    labels: Tensor
    indices: tuple[int, ...]
    damaged: dict[int, str]
    num_views: tuple[int, ...] = ()
    lengths: dict[int, Length] = field(default_factory=dict)

    def pin_memory(self) -> Batch:  # called by DataLoader
        pixels = self.pixels.pin_memory() if self.pixels is not None else None
        return Batch(pixels, self.labels.pin_memory(), self.indices, self.damaged, self.num_views, self.lengths)


def collate_clips(items: Sequence[Item]) -> Batch:
    return _collate(items, torch.stack)


def collate_views(items: Sequence[Item]) -> Batch:
    """Videos may differ in their number of views."""
    return _collate(items, torch.cat)


def _collate(items: Sequence[Item], join) -> Batch:
    good = [item for item in items if item.pixels is not None]
    return Batch(
        join([item.pixels for item in good]) if good else None,
        torch.tensor([-1 if item.label is None else item.label for item in good], dtype=torch.long),
        tuple(item.index for item in good),
        {item.index: item.problem for item in items if item.problem is not None},
        tuple(len(item.pixels) for item in good) if join is torch.cat else (),
        {item.index: item.length for item in good if item.length is not None},
    )


class Files:
    """The files of ``samples``, and what their readers, in all processes, have learned of them.

    With ``verify`` a file (or the part between a sample's times) is decoded whole when it is first met, by whichever
    worker, and refused if any of its frames does not decode cleanly; after that only what is needed is decoded, and so
    from the start for files that are in ``index_file``.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        verify: bool = True,
        decoder: Decoder = "pyav",
        index_file: IndexFile | None = None,
    ):
        self.samples, self.verify, self.decoder, self.index_file = samples, verify, decoder, index_file
        self.seen = torch.full((len(samples),), UNSEEN, dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int, choose: Callable[..., Sequence[int]], **how) -> Tensor:
        """uint8 (F,3,H,W): the frames of sample ``index`` that ``choose`` names. ``how``: ``by_time`` and others of
        ``read_clip``. Raises VideoError."""
        sample, seen = self.samples[index], int(self.seen[index])
        known = self.index_file.find(sample.path) if self.index_file is not None else None
        if known is None and seen == MUST_BE_COUNTED:
            known = counted_index(sample.path)
        clip = read_clip(
            sample.path,
            choose,
            start_seconds=sample.start_seconds,
            end_seconds=sample.end_seconds,
            verify=self.verify and seen == UNSEEN and known is None,
            index=known,
            decoder=self.decoder,
            **how,
        )
        if self.verify:
            self.seen[index] = MUST_BE_COUNTED if clip.index.is_counted else INDEX_IS_RIGHT
        return clip.frames


class _Measured:
    """A choice of frames that keeps the length of what it last chose from."""

    def __init__(self, choose: Callable[..., Sequence[int]]):
        self.choose, self.length = choose, None

    def __call__(self, known: int | np.ndarray) -> Sequence[int]:
        if isinstance(known, np.ndarray):  # times in microseconds
            self.length = Length(len(known), float(known[-1] - known[0]) / 1e6)
        else:
            self.length = Length(known)
        return self.choose(known)


class TrainingClips(Dataset):
    """``dataset[(epoch, index)]`` -> Item with one augmented clip; all draws from (seed, epoch, index)."""

    def __init__(
        self,
        files: Files,
        labels: Sequence[int],
        clip: ClipConfig,
        transform,
        seed: int,
        *,
        square_pixels: bool = False,
    ):
        self.files, self.labels, self.clip, self.transform, self.seed = files, labels, clip, transform, seed
        self.samples, self.square_pixels = files.samples, square_pixels

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        _, index = key
        generator = None

        def choose(known: int | np.ndarray) -> list[int]:
            nonlocal generator  # anew, if the choice is
            generator = self.generator(key)
            return self._draw(known, generator)

        measured = _Measured(choose)
        try:
            by_time = timed(self.clip) is not None
            frames = self.files.read(index, measured, by_time=by_time, square_pixels=self.square_pixels)
        except VideoError as error:
            return self.failed(key, error.reason)
        return Item(index, self.labels[index], self.transform(frames, generator), length=measured.length)

    def sample_of(self, key: tuple[int, int]) -> int:
        return key[1]

    def failed(self, key: tuple[int, int], reason: str) -> Item:
        return Item(key[1], self.labels[key[1]], problem=reason)

    def generator(self, key: tuple[int, int]) -> np.random.Generator:
        """That all draws of a clip come from; the first one is its start."""
        return np.random.default_rng([self.seed, *key])

    def _draw(self, known: int | np.ndarray, generator: np.random.Generator) -> list[int]:
        clip = self.clip
        if (by_time := timed(clip)) is not None:
            return by_time.indices(known, by_time.random_start(known, generator), clip.past_end)
        if clip.sampling == "segment":
            return random_segment_indices(known, num_frames=clip.num_frames, generator=generator)
        return random_clip_indices(
            known, num_frames=clip.num_frames, stride=clip.stride, past_end=clip.past_end, generator=generator
        )


class EvaluationViews(Dataset):
    """``dataset[index]`` -> Item with all views of a video. ``labels`` may be None: then items have none."""

    def __init__(
        self,
        files: Files,
        labels: Sequence[int] | None,
        clip: ClipConfig,
        preprocessing: Preprocessing,
        *,
        num_clips: int,
        num_crops: int,
    ):
        self.files, self.samples, self.labels, self.preprocessing = files, files.samples, labels, preprocessing
        self.options = dict(
            num_frames=clip.num_frames,
            stride=clip.stride,
            frames_per_second=clip.frames_per_second,
            sampling=clip.sampling,
            num_clips=num_clips,
            num_crops=num_crops,
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        label = self.labels[index] if self.labels is not None else None
        measured = None

        def read(choose, **how) -> Tensor:
            nonlocal measured
            measured = _Measured(choose)
            return self.files.read(index, measured, **how)

        try:
            views = views_of(read, self.preprocessing, **self.options)
        except VideoError as error:
            return self.failed(index, error.reason)
        return Item(index, label, views, length=measured.length)

    def sample_of(self, index: int) -> int:
        return index

    def failed(self, index: int, reason: str) -> Item:
        return Item(index, self.labels[index] if self.labels is not None else None, problem=reason)

"""Samples → clips. An item depends only on seed, epoch and sample, not on the number of workers or processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from evl.config import ClipConfig
from evl.data.index_file import IndexFile
from evl.data.untrimmed import jittered
from evl.errors import VideoError
from evl.types import Preprocessing, Sample
from evl.video.augment import TrainingTransform
from evl.video.decode.index import counted_index
from evl.video.decode.missing import read_patiently
from evl.video.decode.reader import Clip, read_clip
from evl.video.decode.torchcodec import Decoder
from evl.video.notices import Length
from evl.video.plans import EvenClips, Plan, RandomClip, Spacing
from evl.video.transforms import evaluation_views


def spacing_of(clip: ClipConfig) -> Spacing:
    """The distances between the frames of a clip with these settings."""
    return Spacing(clip.num_frames, clip.stride, clip.frames_per_second, clip.sampling, clip.past_end)


Part = tuple[float | None, float | None]  # start and end in seconds

# the state of a file: not yet decoded whole, or what decoding it whole showed about its frame index
UNSEEN, INDEX_IS_RIGHT, MUST_BE_COUNTED = range(3)


@dataclass(frozen=True)
class Item:
    """One sample after reading: either ``pixels`` (a clip (T,C,H,W), or views (V,T,C,H,W)), or a ``problem``.

    ``num_valid``: for each clip, the number of frames that lie inside the video; its other frames are repeats.
    ``length``: the length of the whole video, or of the part of it that the sample means.
    """

    index: int
    label: int | None
    pixels: Tensor | None = None
    problem: str | None = None
    num_valid: tuple[int, ...] = ()
    length: Length | None = None


@dataclass(frozen=True)
class ClipBatch:
    """The ``clips`` that could be read, with their ``labels`` and ``indices``; ``damaged``: index → reason.

    Training clips are stacked pixels (B,T,C,H,W). Views of B videos are concatenated pixels (ΣV,T,C,H,W), and
    ``num_views`` holds the number of views of each video. A store gives ``evl.store.StoredClips`` instead of pixels.
    ``lengths``: index → length, for the videos whose files were opened.
    """

    clips: Any
    labels: Tensor
    indices: tuple[int, ...]
    damaged: dict[int, str]
    num_views: tuple[int, ...] = ()
    lengths: dict[int, Length] = field(default_factory=dict)

    def pin_memory(self) -> ClipBatch:  # called by DataLoader
        clips = self.clips.pin_memory() if self.clips is not None else None
        return replace(self, clips=clips, labels=self.labels.pin_memory())


def collate_clips(items: Sequence[Item]) -> ClipBatch:
    """Returns one batch with the stacked clips of all items that have pixels."""
    return _collate(items, torch.stack)


def collate_views(items: Sequence[Item]) -> ClipBatch:
    """Returns one batch with the concatenated views of all items; items may differ in their number of views."""
    return _collate(items, torch.cat)


def _collate(items: Sequence[Item], join) -> ClipBatch:
    good = [item for item in items if item.pixels is not None]
    return ClipBatch(
        join([item.pixels for item in good]) if good else None,
        torch.tensor([-1 if item.label is None else item.label for item in good], dtype=torch.long),
        tuple(item.index for item in good),
        {item.index: item.problem for item in items if item.problem is not None},
        tuple(len(item.pixels) for item in good) if join is torch.cat else (),
        {item.index: item.length for item in good if item.length is not None},
    )


class Files:
    """The files of ``samples``, and their state, which all worker processes share.

    With ``verify``, the first worker that reads a file decodes all of it, or all of the part between the sample's
    times. It refuses the file if one of these frames does not decode cleanly. Later reads decode only the frames they
    need. Files in ``index_file`` count as verified: they are not decoded whole.
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

    def read(self, index: int, plan: Plan, *, square_pixels: bool, part: Part | None = None) -> Clip:
        """Reads the frames of sample number ``index`` that ``plan`` names (``read_clip``). Raises VideoError.

        ``part``: another start and end, in seconds, than the sample's. A video that is missing is asked for again, a
        few times.
        """
        sample = self.samples[index]
        part = (sample.start_seconds, sample.end_seconds) if part is None else part
        return read_patiently(lambda: self._read(index, plan, square_pixels, part))

    def _read(self, index: int, plan: Plan, square_pixels: bool, part: Part) -> Clip:
        sample, seen = self.samples[index], int(self.seen[index])
        frame_index = self.index_file.find(sample.path) if self.index_file is not None else None
        if frame_index is None and seen == MUST_BE_COUNTED:
            frame_index = counted_index(sample.path)
        clip = read_clip(
            sample.path,
            plan,
            start_seconds=part[0],
            end_seconds=part[1],
            verify=self.verify and seen == UNSEEN and frame_index is None,
            index=frame_index,
            decoder=self.decoder,
            square_pixels=square_pixels,
        )
        if self.verify:
            self.seen[index] = MUST_BE_COUNTED if clip.index.is_counted else INDEX_IS_RIGHT
        return clip


def _length(clip: Clip) -> Length:
    """Returns how many frames the clip was drawn from, and how many seconds if it was drawn by time."""
    known = clip.known
    return Length(known) if isinstance(known, int) else Length(len(known), float(known[-1] - known[0]) / 1e6)


class _SampleDataset(Dataset):
    files: Files
    labels: Sequence[int] | None

    @property
    def samples(self) -> Sequence[Sample]:
        return self.files.samples

    def __len__(self) -> int:
        return len(self.files)

    def sample_of(self, key) -> int:
        """Returns the number of the sample that ``key`` means."""
        return key

    def failed(self, key, reason: str) -> Item:
        """Returns the item of a sample that could not be read."""
        index = self.sample_of(key)
        return Item(index, self._label(index), problem=reason)

    def _label(self, index: int) -> int | None:
        return None if self.labels is None else self.labels[index]


@dataclass(eq=False)
class TrainingClips(_SampleDataset):
    """``dataset[(epoch, index)]`` -> Item with one augmented clip (T,C,H,W), drawn from (seed, epoch, index)."""

    files: Files
    labels: Sequence[int]
    clip: ClipConfig
    transform: TrainingTransform | Callable[[Tensor, np.random.Generator], Tensor]  # a TrainingTransform gives labels
    seed: int
    _: KW_ONLY
    square_pixels: bool = False
    jitter_seconds: float = 0.0  # of the ends of segments

    def __getitem__(self, key: tuple[int, int]) -> Item:
        _, index = key
        seed = (self.seed, *key)
        plan = RandomClip(spacing_of(self.clip), seed)
        part = jittered(self.samples[index], self.jitter_seconds, seed)
        try:
            clip = self.files.read(index, plan, square_pixels=self.square_pixels, part=part)
        except VideoError as error:
            return self.failed(key, error.reason)
        _, generator = plan.draw(clip.known)
        if isinstance(self.transform, TrainingTransform):
            pixels, label = self.transform.labelled(clip.frames, self.labels[index], generator)
        else:
            pixels, label = self.transform(clip.frames, generator), self.labels[index]
        return Item(index, label, pixels, num_valid=plan.num_valid(clip.known), length=_length(clip))

    def sample_of(self, key: tuple[int, int]) -> int:
        return key[1]


@dataclass(eq=False)
class EvaluationViews(_SampleDataset):
    """``dataset[index]`` -> Item with all views (V,T,C,H,W) of a video. With ``labels`` None, items have no label."""

    files: Files
    labels: Sequence[int] | None
    clip: ClipConfig
    preprocessing: Preprocessing
    _: KW_ONLY
    num_clips: int
    num_crops: int

    def __post_init__(self):
        self.plan = EvenClips(spacing_of(self.clip), self.num_clips)

    def __getitem__(self, index: int) -> Item:
        try:
            clip = self.files.read(index, self.plan, square_pixels=self.preprocessing.pixel_aspect)
        except VideoError as error:
            return self.failed(index, error.reason)
        views = evaluation_views(clip.frames, self.plan.places(clip.known), self.num_crops, self.preprocessing)
        num_valid = self.plan.num_valid(clip.known) * self.num_crops
        return Item(index, self._label(index), views, num_valid=num_valid, length=_length(clip))


@dataclass(frozen=True)
class ReadViews(Dataset):
    """``dataset[index]`` -> Item with the views (V,T,C,H,W) of a video that was read before."""

    samples: Sequence[Sample]
    views: Sequence[Tensor]

    def __getitem__(self, index: int) -> Item:
        return Item(index, None, self.views[index])

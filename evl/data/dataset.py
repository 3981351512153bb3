"""Samples → clips. What comes out depends on seed, epoch and sample only: never on workers or processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from evl.config import ClipConfig
from evl.data.index_file import IndexFile
from evl.errors import VideoError
from evl.types import Preprocessing, Sample
from evl.video.decode.index import counted_index
from evl.video.decode.reader import Clip, read_clip
from evl.video.decode.torchcodec import Decoder
from evl.video.long_videos import Length
from evl.video.plans import EvenClips, Plan, RandomClip, Spacing
from evl.video.transforms import evaluation_views


def spacing_of(clip: ClipConfig) -> Spacing:
    """How the frames of a clip lie."""
    return Spacing(clip.num_frames, clip.stride, clip.frames_per_second, clip.sampling, clip.past_end)


# what a file turned out to be when it was decoded whole
UNSEEN, INDEX_IS_RIGHT, MUST_BE_COUNTED = range(3)


@dataclass(frozen=True)
class Item:
    """One sample as it came out: ``pixels`` (a clip (T,C,H,W), or views (V,T,C,H,W)), or ``problem``, never both.

    ``num_valid``: of each clip, how many of its frames lie inside the video; the others repeat. ``length``: of the
    whole video, or the part that the sample is.
    """

    index: int
    label: int | None
    pixels: Tensor | None = None
    problem: str | None = None
    num_valid: tuple[int, ...] = ()
    length: Length | None = None


@dataclass(frozen=True)
class ClipBatch:
    """``clips``: all that could be read, with ``labels`` and ``indices``; ``damaged``: index → reason.

    Clips are pixels, stacked, (B,T,C,H,W); views of videos are joined, (ΣV,T,C,H,W), ``num_views`` of each. From a
    store they are what is stored of these clips (``evl.store.StoredClips``). ``lengths``: by index, of the videos
    whose files were opened.
    """

    clips: Any
    labels: Tensor
    indices: tuple[int, ...]
    damaged: dict[int, str]
    num_views: tuple[int, ...] = ()
    lengths: dict[int, Length] = field(default_factory=dict)

    def pin_memory(self) -> ClipBatch:  # called by DataLoader
        clips = self.clips.pin_memory() if self.clips is not None else None
        return ClipBatch(clips, self.labels.pin_memory(), self.indices, self.damaged, self.num_views, self.lengths)


def collate_clips(items: Sequence[Item]) -> ClipBatch:
    return _collate(items, torch.stack)


def collate_views(items: Sequence[Item]) -> ClipBatch:
    """Videos may differ in their number of views."""
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

    def read(self, index: int, plan: Plan, *, square_pixels: bool) -> Clip:
        """The frames of sample ``index`` that ``plan`` wants (``read_clip``). Raises VideoError."""
        sample, seen = self.samples[index], int(self.seen[index])
        known = self.index_file.find(sample.path) if self.index_file is not None else None
        if known is None and seen == MUST_BE_COUNTED:
            known = counted_index(sample.path)
        clip = read_clip(
            sample.path,
            plan,
            start_seconds=sample.start_seconds,
            end_seconds=sample.end_seconds,
            verify=self.verify and seen == UNSEEN and known is None,
            index=known,
            decoder=self.decoder,
            square_pixels=square_pixels,
        )
        if self.verify:
            self.seen[index] = MUST_BE_COUNTED if clip.index.is_counted else INDEX_IS_RIGHT
        return clip


def length_of(clip: Clip) -> Length:
    """Of what a clip was chosen from; seconds where it was chosen by time."""
    known = clip.known
    return Length(known) if isinstance(known, int) else Length(len(known), float(known[-1] - known[0]) / 1e6)


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
        plan = RandomClip(spacing_of(self.clip), (self.seed, *key))
        try:
            clip = self.files.read(index, plan, square_pixels=self.square_pixels)
        except VideoError as error:
            return self.failed(key, error.reason)
        _, generator = plan.draw(clip.known)
        pixels = self.transform(clip.frames, generator)
        return Item(index, self.labels[index], pixels, num_valid=plan.num_valid(clip.known), length=length_of(clip))

    def sample_of(self, key: tuple[int, int]) -> int:
        return key[1]

    def failed(self, key: tuple[int, int], reason: str) -> Item:
        return Item(key[1], self.labels[key[1]], problem=reason)


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
        self.clip = clip
        self.plan, self.num_crops = EvenClips(spacing_of(clip), num_clips), num_crops

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        label = self.labels[index] if self.labels is not None else None
        try:
            clip = self.files.read(index, self.plan, square_pixels=self.preprocessing.pixel_aspect)
        except VideoError as error:
            return self.failed(index, error.reason)
        views = evaluation_views(clip.frames, self.plan.places(clip.known), self.num_crops, self.preprocessing)
        return Item(
            index, label, views, num_valid=self.plan.num_valid(clip.known) * self.num_crops, length=length_of(clip)
        )

    def sample_of(self, index: int) -> int:
        return index

    def failed(self, index: int, reason: str) -> Item:
        return Item(index, self.labels[index] if self.labels is not None else None, problem=reason)

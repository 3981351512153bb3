"""Videos → the clips that are stored, exactly as training and evaluation read them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import Dataset

from evl.data.dataset import EvaluationViews, Files, TrainingClips, timed
from evl.features.description import ShardRange, StoreDescription
from evl.video.augment import TrainingTransform
from evl.video.sampling import clip_starts

FRAMES_AT_ONCE = 64  # through the backbone, in whole clips; never changed by memory, device or what was done before


@dataclass(frozen=True)
class Clips:
    """``pixels`` (n,T,C,H,W) of all clips that could be read, ``pairs`` (video, clip) and ``num_valid`` (frames inside
    the video) of each, and why others could not. ``seconds``: spent reading each key."""

    pixels: Tensor | None
    pairs: tuple[tuple[int, int], ...]
    num_valid: tuple[int, ...]
    damaged: dict[tuple[int, int], str]
    seconds: tuple[float, ...]

    def pin_memory(self) -> Clips:  # called by DataLoader
        return self if self.pixels is None else replace(self, pixels=self.pixels.pin_memory())


class ClipReader(Dataset):
    """What ``evl.data.loader.read_batches`` takes, for one split of a store.

    A key is (video, clip) in training: clip k is live training's of epoch k; it is the video alone in other splits,
    whose clips are its evaluation views.
    """

    def __init__(self, description: StoreDescription, split: str, files: Files):
        self.clips_a_video = description.clips_a_video(split)
        self.is_training = split == "train"
        self.noted = _Noted(files)
        self.samples = files.samples
        index_of = {name: y for y, name in enumerate(description.class_names)}
        labels = [index_of[sample.label] for sample in files.samples]
        self.clip = description.clip
        if self.is_training:
            self.clip = replace(self.clip, num_frames=description.num_frames(split))
            pixels = dict(square_pixels=description.preprocessing.pixel_aspect)
            transform = TrainingTransform(description.augment, description.preprocessing, description.class_names)
            self.dataset = TrainingClips(self.noted, labels, self.clip, transform, description.seed, **pixels)
        else:
            self.num_clips = description.evaluation.num_clips
            views = dict(num_clips=self.num_clips, num_crops=description.evaluation.num_crops)
            self.dataset = EvaluationViews(self.noted, labels, self.clip, description.preprocessing, **views)

    def key_of(self, pair: tuple[int, int]):
        return pair if self.is_training else pair[0]

    def pairs_of(self, key) -> list[tuple[int, int]]:
        return [key] if self.is_training else [(key, view) for view in range(self.clips_a_video)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key) -> Clips:
        started = time.perf_counter()
        video, clip = key if self.is_training else (key, None)
        item = self.dataset[(clip, video) if self.is_training else video]
        seconds = (time.perf_counter() - started,)
        pairs = self.pairs_of(key)
        if item.pixels is None:
            return Clips(None, (), (), dict.fromkeys(pairs, item.problem), seconds)
        pixels = item.pixels[None] if self.is_training else item.pixels
        return Clips(pixels, tuple(pairs), self._num_valid(pairs, key), {}, seconds)

    def sample_of(self, key) -> int:
        return key[0] if self.is_training else key

    def failed(self, key, reason: str) -> Clips:
        return Clips(None, (), (), dict.fromkeys(self.pairs_of(key), reason), (0.0,))

    def _num_valid(self, pairs: Sequence[tuple[int, int]], key) -> tuple[int, ...]:
        """Of each clip of the video that was just read, the frames that lie inside it; the others repeat."""
        num_frames, stride, count = self.clip.num_frames, self.clip.stride, self.noted.known
        if (by_time := timed(self.clip)) is not None:
            times = count
            if self.is_training:
                starts = [by_time.random_start(times, self.dataset.generator(key[::-1]))]
            else:
                starts = by_time.starts(times, self.num_clips)
            inside = [by_time.num_inside(times, start) for start in starts]
            return tuple(inside * (len(pairs) // len(inside)))
        if self.clip.sampling == "segment":
            return (num_frames,) * len(pairs)
        if self.is_training:
            starts = [self.noted.indices[0]]
        else:  # all clips of the first crop come first
            starts = clip_starts(count, num_frames=num_frames, stride=stride, num_clips=self.num_clips)
        inside = [min(num_frames, (count - 1 - start) // stride + 1) for start in starts]
        return tuple(inside * (len(pairs) // len(inside)))


def collate(items: Sequence[Clips]) -> Clips:
    """Many keys, in order."""
    good = [item.pixels for item in items if item.pixels is not None]
    damaged: dict[tuple[int, int], str] = {}
    for item in items:
        damaged |= item.damaged
    return Clips(
        torch.cat(good) if good else None,
        tuple(pair for item in items for pair in item.pairs),
        tuple(number for item in items for number in item.num_valid),
        damaged,
        tuple(seconds for item in items for seconds in item.seconds),
    )


def clips_at_once(num_frames: int) -> int:
    """Clips of so many frames that go through the backbone together."""
    return max(1, FRAMES_AT_ONCE // num_frames)


def keys_of(reader: ClipReader, shard: ShardRange, num_frames: int) -> list[list]:
    """What is read of a shard, in batches: clips of training, whole videos of other splits."""
    keys = list(dict.fromkeys(map(reader.key_of, shard.pairs)))
    size = max(1, clips_at_once(num_frames) // (1 if reader.is_training else reader.clips_a_video))
    return [keys[start : start + size] for start in range(0, len(keys), size)]


class _Noted:
    """``Files`` that note, in the process that reads, what is known of the last video (how many frames it has, or their
    times) and which were taken."""

    def __init__(self, files: Files):
        self.files, self.samples = files, files.samples
        self.known, self.indices = 0, ()

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int, choose: Callable[..., Sequence[int]], **how) -> Tensor:
        def noting(known) -> Sequence[int]:
            self.known, self.indices = known, tuple(choose(known))
            return self.indices

        return self.files.read(index, noting, **how)

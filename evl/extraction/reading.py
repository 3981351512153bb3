"""Reads the clips of a store from the videos, exactly as training and evaluation read them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import Dataset

from evl.data.dataset import EvaluationViews, Files, TrainingClips
from evl.store.description import ShardRange, StoreDescription
from evl.video.augment import TrainingTransform

# frames that go through the backbone together, in whole clips. Always the same, whatever the memory, the device, or the
# shards that are already written: another number would change the stored bytes
FRAMES_AT_ONCE = 64


@dataclass(frozen=True)
class Clips:
    """Clips that were read from videos."""

    pixels: Tensor | None  # (n,T,C,H,W) of all clips that could be read; None if there are none
    pairs: tuple[tuple[int, int], ...]  # (video, clip) of each of them
    num_valid: tuple[int, ...]  # how many frames of each lie inside the video
    damaged: dict[tuple[int, int], str]  # (video, clip) -> reason, for the clips that could not be read
    seconds: tuple[float, ...]  # time spent reading each key

    def pin_memory(self) -> Clips:  # called by DataLoader
        return self if self.pixels is None else replace(self, pixels=self.pixels.pin_memory())


class ClipReader(Dataset):
    """Reads the clips of one split of a store; a data set for ``evl.data.loader.read_batches``.

    In training a key is (video, clip), and clip k is the one that live training reads in epoch k. In other splits a
    key is a video, and its clips are the evaluation views.
    """

    def __init__(self, description: StoreDescription, split: str, files: Files):
        config, self.clips_per_video = description.config, description.clips_per_video(split)
        self.is_training = split == "train"
        self.samples = files.samples
        index_of = {name: y for y, name in enumerate(description.class_names)}
        labels = [index_of[sample.label] for sample in files.samples]
        if self.is_training:
            clip = replace(config.clip, num_frames=description.num_frames(split))
            square = description.preprocessing.pixel_aspect
            pixels = dict(square_pixels=square, jitter_seconds=config.augment.jitter_seconds)
            transform = TrainingTransform(config.augment, description.preprocessing, description.class_names)
            self.dataset = TrainingClips(files, labels, clip, transform, config.training.seed, **pixels)
        else:
            views = dict(num_clips=config.evaluation.num_clips, num_crops=config.evaluation.num_crops)
            self.dataset = EvaluationViews(files, labels, config.clip, description.preprocessing, **views)

    def key_of(self, pair: tuple[int, int]):
        return pair if self.is_training else pair[0]

    def pairs_of(self, key) -> list[tuple[int, int]]:
        return [key] if self.is_training else [(key, view) for view in range(self.clips_per_video)]

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
        return Clips(pixels, tuple(pairs), item.num_valid, {}, seconds)

    def sample_of(self, key) -> int:
        return key[0] if self.is_training else key

    def failed(self, key, reason: str) -> Clips:
        return Clips(None, (), (), dict.fromkeys(self.pairs_of(key), reason), (0.0,))


def collate(items: Sequence[Clips]) -> Clips:
    """The clips of many keys in one Clips, in the same order."""
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
    """How many clips of ``num_frames`` frames go through the backbone together."""
    return max(1, FRAMES_AT_ONCE // num_frames)


def keys_of(reader: ClipReader, shard: ShardRange, num_frames: int) -> list[list]:
    """The keys of a shard, in batches: clips in training, whole videos in other splits."""
    keys = list(dict.fromkeys(map(reader.key_of, shard.pairs)))
    size = max(1, clips_at_once(num_frames) // (1 if reader.is_training else reader.clips_per_video))
    return [keys[start : start + size] for start in range(0, len(keys), size)]

"""What a store of features is: everything that decides the numbers in it, and what a run must share with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from evl.config import AugmentConfig, BackboneConfig, ClipConfig, DataConfig, EvaluationConfig, RunConfig
from evl.types import BackboneSpec, Preprocessing, Sample, WeightsOrigin

FEATURE_VERSION = 1  # rises when the same pixels would give other features, or the same features other numbers
FORMAT_VERSION = 1  # rises when the layout of files changes
DESCRIPTION = "store.json"
SPLITS = ("train", "val", "test")  # in the order of their shards

_checked = dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
Positive = Annotated[int, Field(gt=0)]


@_checked
class StoreOptions:
    """What is stored of a clip, and how.

    ``form``: ``tokens`` (M+1 token maps; query and key are made of them when they are read) or ``maps`` (M token maps
    and the attention maps between neighbouring frames). ``scale``: of 8-bit token maps, one a clip and channel, or one
    a token. ``frames``: a longer run of frames a training clip, of which training draws its clips; None: just a clip.
    Made with what cannot be: ConfigError.
    """

    form: Literal["tokens", "maps"] = "tokens"
    dtype: Literal["float32", "float16", "bfloat16", "int8", "float8"] = "float16"
    scale: Literal["channel", "token"] = "channel"
    clips_per_video: Annotated[int, Field(gt=0, le=100_000)] = 1
    frames: Annotated[int, Field(gt=0, le=4096)] | None = None
    shard_megabytes: Annotated[int, Field(gt=0, le=1 << 20)] = 128  # 10^6 bytes; a shard has one clip at least


@_checked
class StoreDescription:
    """``store.json``. ``splits``: number of videos a split, damaged ones too. ``taps``: block numbers from 1.

    ``preprocessing`` is that of the run (interpolation and antialias as ``clip`` has them); ``seed`` draws the training
    clips; ``videos_hash`` (``hash_videos``) names the list of videos. ``clips_per_shard``: see ``shard_ranges``.
    """

    backbone: BackboneConfig
    backbone_hash: str
    spec: BackboneSpec
    preprocessing: Preprocessing
    taps: tuple[Positive, ...]
    options: StoreOptions
    precision: Literal["fp32", "bf16", "fp16"]
    clip: ClipConfig
    augment: AugmentConfig
    evaluation: EvaluationConfig
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    data: DataConfig
    class_names: tuple[str, ...]
    splits: dict[str, Annotated[int, Field(ge=0, lt=2**31)]]
    videos_hash: str
    clips_per_shard: Positive
    origin: WeightsOrigin | None = None
    format_version: int = FORMAT_VERSION
    feature_version: int = FEATURE_VERSION
    evl_version: str = ""

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks whose token maps are stored: the tapped ones, and in form ``tokens`` the one before each (0: the first
        block's input)."""
        return stored_blocks(self.taps, self.options.form)

    @property
    def fingerprint(self) -> dict[str, object]:
        """All that decides a stored feature, as JSON values: names with dots -> value."""
        raise NotImplementedError

    @property
    def fingerprint_hash(self) -> str:
        """SHA-256 (hex) of ``fingerprint``."""
        raise NotImplementedError

    def num_frames(self, split: str) -> int:
        """Frames of a stored clip: ``options.frames`` in training, if set, else ``clip.num_frames``."""
        return self.options.frames or self.clip.num_frames if split == "train" else self.clip.num_frames

    def clips_a_video(self, split: str) -> int:
        """Stored clips of a whole video: ``clips_per_video`` of training, all views else."""
        return (
            self.options.clips_per_video if split == "train" else self.evaluation.num_clips * self.evaluation.num_crops
        )

    def to_json(self) -> str:
        """The text of ``store.json``: the same bytes for the same description."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, text: str, source: str | Path = DESCRIPTION) -> StoreDescription:
        """Raises StoreError for what is no description, or one of a newer evl; ``source``: the file's name."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class ShardRange:
    """Items ``first`` to ``first + count`` of a split, counted as video · clips_a_video + clip."""

    number: int
    split: str
    first: int
    count: int
    clips_a_video: int

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(video, clip) of each item."""
        return [divmod(item, self.clips_a_video) for item in range(self.first, self.first + self.count)]


def stored_blocks(taps: Sequence[int], form: str) -> tuple[int, ...]:
    """Blocks whose token maps a form needs, rising."""
    return tuple(sorted({*taps, *(tap - 1 for tap in taps)} if form == "tokens" else set(taps)))


def shard_ranges(description: StoreDescription) -> tuple[ShardRange, ...]:
    """The items of every shard, decided by the description alone. Splits are not mixed; outside of training a video's
    views are all in one shard."""
    raise NotImplementedError


def clips_a_shard(bytes_of_clip: int, options: StoreOptions) -> int:
    """``clips_per_shard`` for clips of so many bytes: what fits into ``shard_megabytes``, at least one."""
    return max(1, options.shard_megabytes * 1_000_000 // bytes_of_clip)


def bytes_a_clip(spec: BackboneSpec, taps: Sequence[int], options: StoreOptions, num_frames: int) -> int:
    """Bytes of the tensors of one stored clip of ``num_frames`` frames, exactly: scales too, headers not."""
    raise NotImplementedError


def hash_videos(splits: Mapping[str, Sequence[Sample]]) -> str:
    """SHA-256 (hex) of the list of videos: splits, paths as they are, times, labels, in order."""
    raise NotImplementedError


def differences(description: StoreDescription, config: RunConfig) -> list[str]:
    """Why a run with ``config`` cannot use the store, one sentence each; [] where it can.

    Not compared: ``data`` (the store has its own list of videos), ``training`` (a store's clips are those that its
    seed draws; other seeds start from other values and take videos in another order, on the same clips), and
    ``evaluation.batch_size``.
    """
    raise NotImplementedError


def conflicts(description: StoreDescription, other: StoreDescription) -> list[str]:
    """Why extraction as ``other`` describes it cannot go on in a store of ``description``, one sentence each."""
    raise NotImplementedError


def config_of(description: StoreDescription) -> RunConfig:
    """A run that can use the store: backbone, ``model.taps``, clip, augment, evaluation, data and seed are its own."""
    raise NotImplementedError

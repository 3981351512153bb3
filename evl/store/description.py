"""The description of a store: everything that decides its numbers, and the clips that each shard holds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from evl.backbones.base import tapped_blocks
from evl.config import ModelConfig, RunConfig, TrainingConfig
from evl.errors import ConfigError, StoreError, nearest
from evl.runtime.files import strict_json
from evl.types import BackboneSpec, Preprocessing, Sample, WeightsOrigin

FEATURE_VERSION = 1  # rises when the same pixels would be stored as other numbers
FORMAT_VERSION = 3  # rises when the layout of the files changes
DESCRIPTION, PROJECTIONS = "store.json", "projections.safetensors"
SPLITS = ("train", "val", "test")  # in the order of their shards
MOST_ITEMS = 10**8  # clips per store, because its index is read into memory
# the parts of a description, and of its config, that decide the stored numbers (``fingerprint`` leaves out some fields)
_DECIDES = ("feature_version", "backbone_hash", "spec", "preprocessing", "precision", "options", "videos_hash")
_SECTIONS = ("backbone", "clip", "augment", "evaluation")

_checked = dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
Positive = Annotated[int, Field(gt=0)]


@dataclasses.dataclass(frozen=True)
class StoreOptions:
    """What is stored per clip, and in which type. Raises ConfigError for unknown or impossible values."""

    # tokens stores M+1 token maps, and reading makes query and key from them; maps stores M token maps and the
    # neighbor maps
    form: Literal["tokens", "maps"] = "tokens"
    dtype: Literal["float32", "float16", "bfloat16", "int8", "float8"] = "float16"  # of the stored numbers
    scale: Literal["channel", "token"] = "channel"  # of 8-bit token maps: one per clip and channel, or one per token
    clips_per_video: int = 1  # training clips that are stored per video
    # frames per stored training clip. If they are more than clip.num_frames, training draws its clips from them.
    # None: clip.num_frames
    frames: int | None = None
    shard_megabytes: int = 128  # largest size of a shard in 10^6 bytes. A shard has at least one clip

    def __post_init__(self):
        hints = get_type_hints(type(self))
        for name in ("form", "dtype", "scale"):
            value, known = getattr(self, name), get_args(hints[name])
            if value not in known:
                raise ConfigError(f"{name} {str(value)[:50]!r} of a store is unknown{nearest(str(value)[:50], known)}")
        for name, most in (("clips_per_video", 100_000), ("frames", 4096), ("shard_megabytes", 1 << 20)):
            value = getattr(self, name)
            if not (name == "frames" and value is None) and (type(value) is not int or not 1 <= value <= most):
                raise ConfigError(f"{name} of a store is {value!r:.50}; expected a number from 1 to {most}")


def _only_decisive(config: RunConfig) -> RunConfig:
    """``config`` with the default value of each setting that a store does not decide."""
    return dataclasses.replace(
        config,
        model=ModelConfig(decoder=_decoder_of(config.model.taps), taps=config.model.taps),
        training=TrainingConfig(seed=config.training.seed),
        data=dataclasses.replace(config.data, num_workers=None),
    )


def _decoder_of(taps: str | Sequence[int]) -> str:
    """A decoder that can read all of these taps: EVL's, but only the side network reads what enters block 1 (0)."""
    return "side" if not isinstance(taps, str) and taps[0] == 0 else "evl"


@_checked
class StoreDescription:
    """The content of ``store.json``."""

    # the config of a run that can use the store. Backbone, model.taps, clip, augment, evaluation, data and the seed
    # are those of the extraction; all else has its default value
    config: Annotated[RunConfig, AfterValidator(_only_decisive)]
    backbone_hash: str
    spec: BackboneSpec
    preprocessing: Preprocessing  # of that run
    options: StoreOptions
    precision: Literal["fp32", "bf16", "fp16"]
    class_names: tuple[str, ...]
    splits: dict[str, Annotated[int, Field(ge=0, lt=2**31)]]  # number of videos per split, damaged ones included
    videos_hash: str  # identifies the list of videos (hash_videos)
    clips_per_shard: Positive  # see items_per_shard
    origin: WeightsOrigin | None = None
    format_version: int = FORMAT_VERSION
    feature_version: int = FEATURE_VERSION
    evl_version: str = ""

    @property
    def taps(self) -> tuple[int, ...]:
        """The tapped blocks, counted from 1, in ascending order. A first 0 is the input of the first block."""
        return tapped_blocks(self.config.model.taps, self.spec.depth)

    @property
    def mapped(self) -> tuple[int, ...]:
        """The tapped blocks of which there are neighbor maps: all but 0."""
        return tuple(filter(None, self.taps))

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks whose token maps are stored: the tapped blocks, and in form ``tokens`` also the block before each.

        0 stands for the input of the first block.
        """
        return stored_blocks(self.taps, self.options.form)

    def __post_init__(self):
        _validate(self)  # pydantic makes a ValidationError of a ValueError

    @property
    def fingerprint(self) -> dict[str, object]:
        """Everything that decides the stored numbers: name with dots, as in ``store.json`` -> JSON value."""
        content = TypeAdapter(StoreDescription).dump_python(self, mode="json")
        config, weights = content["config"], self.config.backbone.weights
        config["backbone"]["weights"] = None if weights is None else Path(weights).name  # its folder does not matter
        chosen = {name: content[name] for name in _DECIDES} | {name: config[name] for name in _SECTIONS}
        chosen |= {"taps": list(self.taps), "data": {"decoder": config["data"]["decoder"]}}
        chosen["training"] = {"seed": config["training"]["seed"]}
        for section, field in (("evaluation", "batch_size"), ("evaluation", "metrics"), ("options", "shard_megabytes")):
            del chosen[section][field]
        return _flat(chosen)

    @property
    def fingerprint_hash(self) -> str:
        """SHA-256 (hex) of ``fingerprint``."""
        return hashlib.sha256(_json(self.fingerprint).encode()).hexdigest()

    def num_frames(self, split: str) -> int:
        """Frames per stored clip: in training ``options.frames`` if it is set, else ``clip.num_frames``."""
        whole = self.config.clip.num_frames
        return self.options.frames or whole if split == "train" else whole

    def clips_per_video(self, split: str) -> int:
        """Stored clips per video: ``options.clips_per_video`` in training, all its views in other splits."""
        views = self.config.evaluation
        return self.options.clips_per_video if split == "train" else views.num_clips * views.num_crops

    def to_json(self) -> str:
        """The text of ``store.json``. Equal descriptions have the same text."""
        return _json(TypeAdapter(StoreDescription).dump_python(self, mode="json"), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str | Path = DESCRIPTION) -> StoreDescription:
        """Reads the text of ``store.json``; ``source`` is the file's name for messages.

        Raises StoreError if it is no description, or if another version of evl made it.
        """
        try:
            content = strict_json(text)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{source}: not the description of a store of features ({str(error)[:200]})") from None
        if not isinstance(content, dict) or type(content.get("format_version")) is not int:
            raise StoreError(f"{source}: not the description of a store of features; evl extract makes one")
        for name, known in (("format_version", FORMAT_VERSION), ("feature_version", FEATURE_VERSION)):
            version = content.get(name, known)
            if type(version) is int and version != known:
                what = f"{source}: {name.replace('_', ' ')} {version if abs(version) < 10**9 else 'unknown'}"
                if version > known:
                    raise StoreError(f"{what}, made by a newer evl; this one reads {known}: upgrade evl")
                raise StoreError(f"{what}, made by an older evl; this one reads {known}: extract again")
        try:
            return TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            message = first["msg"].removeprefix("Value error, ")
            raise StoreError(f"{source}: {where}{': ' if where else ''}{message[:300]}") from None


def _validate(description: StoreDescription) -> None:
    """Raises ValueError if the parts of a description do not fit each other."""
    spec, clip, options = description.spec, description.config.clip, description.options
    pre, splits, class_names = description.preprocessing, description.splits, description.class_names
    numbers = (spec.width, spec.depth, spec.num_heads, spec.head_width, *spec.grid, *spec.image_size, *spec.patch_size)
    frames, is_segment = options.frames, clip.sampling == "segment"
    num_clips = sum(count * description.clips_per_video(split) for split, count in splits.items())
    is_wrong = {
        "spec: sizes must be from 1 to 2^20": not all(0 < n <= 1 << 20 for n in numbers)
        or not 0 <= spec.num_prefix_tokens <= 1 << 20,
        "spec: the grid does not fit the image size": any(
            size // patch != cells
            for size, patch, cells in zip(spec.image_size, spec.patch_size, spec.grid, strict=True)
            if patch
        ),
        "preprocessing: images of another size than the backbone's": pre.image_size != spec.image_size,
        "preprocessing: mean and std must be finite, std above 0": not all(map(math.isfinite, (*pre.mean, *pre.std)))
        or min(pre.std) <= 0,
        "preprocessing: interpolation must be bilinear or bicubic": pre.interpolation not in ("bilinear", "bicubic"),
        "spec: more than 9,999 blocks": spec.depth > 9_999,
        "splits must be among train, val and test": not set(splits) <= set(SPLITS) or not any(splits.values()),
        f"more than {MOST_ITEMS:,} clips": num_clips > MOST_ITEMS,
        "a class name is given twice": len(set(class_names)) != len(class_names),
        "a run of frames shorter than a clip": frames is not None and frames < clip.num_frames,
        "with segment sampling, a run of frames must be a multiple of the clip's": is_segment
        and (frames or 0) % clip.num_frames != 0,
        "form maps needs neighboring frames: segment sampling cannot draw them from a longer run": is_segment
        and options.form == "maps"
        and frames not in (None, clip.num_frames),
    }
    for message, wrong in is_wrong.items():
        if wrong:
            raise ValueError(message)
    tapped_blocks(description.config.model.taps, spec.depth)  # raises if the backbone has no such blocks


@dataclasses.dataclass(frozen=True)
class ShardRange:
    """The clips of one shard: items ``first`` to ``first + count`` of a split.

    Clip c of video v is item v · clips_per_video + c.
    """

    number: int
    split: str
    first: int
    count: int
    clips_per_video: int

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(video, clip) of each item."""
        return [divmod(item, self.clips_per_video) for item in range(self.first, self.first + self.count)]


def stored_blocks(taps: Sequence[int], form: str) -> tuple[int, ...]:
    """Blocks whose token maps are stored in a form, in ascending order."""
    return tuple(sorted({*taps, *(tap - 1 for tap in taps if tap)} if form == "tokens" else set(taps)))


def shard_ranges(description: StoreDescription) -> tuple[ShardRange, ...]:
    """The items of every shard. The description alone decides them.

    A shard has clips of one split only. Outside of training, all views of a video are in the same shard.
    """
    return tuple(shard_range(description, number) for number in range(first_shards(description)[""]))


def shard_range(description: StoreDescription, number: int) -> ShardRange:
    """The items of one shard. Raises IndexError if the store has no shard of that number."""
    firsts = first_shards(description)
    if not 0 <= number < firsts[""]:
        raise IndexError(f"no shard {number}: the store has {firsts['']} shards, counted from 0")
    split = [split for split in SPLITS if firsts[split] <= number and description.splits.get(split)][-1]
    step, clips = items_per_shard(description, split), description.clips_per_video(split)
    first = (number - firsts[split]) * step
    return ShardRange(number, split, first, min(step, description.splits[split] * clips - first), clips)


def first_shards(description: StoreDescription) -> dict[str, int]:
    """The number of the first shard of each split. The key "" has the number of all shards."""
    firsts, number = {}, 0
    for split in SPLITS:
        firsts[split] = number
        total = description.splits.get(split, 0) * description.clips_per_video(split)
        number += -(-total // items_per_shard(description, split))
    return firsts | {"": number}


def items_per_shard(description: StoreDescription, split: str) -> int:
    """Items per shard of a split; its last shard may have fewer."""
    most, views = description.clips_per_shard, description.clips_per_video(split)
    return most if split == "train" else max(1, most // views) * views


def clips_per_shard(num_bytes: int, options: StoreOptions) -> int:
    """How many clips of ``num_bytes`` each fit into ``shard_megabytes``, at least one."""
    return max(1, options.shard_megabytes * 1_000_000 // num_bytes)


def clip_tensors(
    spec: BackboneSpec, taps: Sequence[int], options: StoreOptions, num_frames: int
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The tensors of a shard: name -> (type, shape per clip)."""
    t, num_tokens, width, (h, w) = num_frames, spec.num_tokens, spec.width, spec.grid
    is_small = options.dtype in ("int8", "float8")
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for block in stored_blocks(taps, options.form):
        tensors[f"tokens.{block}"] = (options.dtype, (t, num_tokens, width))
        if is_small:
            shape = (1, 1, width) if options.scale == "channel" else (t, num_tokens, 1)
            tensors[f"tokens.{block}.scale"] = ("float32", shape)
    for block in filter(None, taps if options.form == "maps" else ()):
        tensors[f"maps.{block}"] = ("uint8" if is_small else options.dtype, (t, h, w, h, 2, w))
        if is_small:
            tensors[f"maps.{block}.scale"] = ("float32", (t, h, w, 1, 1, 1))
    return tensors


def bytes_per_clip(spec: BackboneSpec, taps: Sequence[int], options: StoreOptions, num_frames: int) -> int:
    """Exact size in bytes of the tensors of one stored clip, scales included. Headers of files are not counted."""
    sizes = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "float8": 1, "uint8": 1}
    return sum(
        sizes[dtype] * math.prod(shape) for dtype, shape in clip_tensors(spec, taps, options, num_frames).values()
    )


def hash_videos(splits: Mapping[str, Sequence[Sample]]) -> str:
    """SHA-256 (hex) of the list of videos in order: splits, paths as they are, times, labels, and groups if any."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for sample in splits.get(split, ()):
            row = [split, sample.path, sample.start_seconds, sample.end_seconds, sample.label]
            row += [] if sample.group is None else [sample.group]
            digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def _flat(value, name: str = "") -> dict[str, object]:
    """Nested dicts -> one dict, whose names have dots between the levels."""
    if not isinstance(value, dict):
        return {name: value}
    flat = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{name}.{key}" if name else key)
    return flat


def _json(value, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, allow_nan=False)  # ASCII, because a path may contain bytes that are no text

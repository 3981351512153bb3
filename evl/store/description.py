"""What a store of features is: everything that decides the numbers in it, and what a run must share with it."""

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

FEATURE_VERSION = 1  # rises when the same pixels would give other features, or the same features other numbers
FORMAT_VERSION = 2  # rises when the layout of files changes
DESCRIPTION = "store.json"
SPLITS = ("train", "val", "test")  # in the order of their shards
MOST_ITEMS = 10**8  # of a store: its index is in memory
# the parts of a description, and of its config, that decide the numbers of a stored feature (not all fields of each)
_DECIDES = ("feature_version", "backbone_hash", "spec", "preprocessing", "precision", "options", "videos_hash")
_SECTIONS = ("backbone", "clip", "augment", "evaluation")

_checked = dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
Positive = Annotated[int, Field(gt=0)]


@dataclasses.dataclass(frozen=True)
class StoreOptions:
    """What is stored of a clip, and how.

    ``form``: ``tokens`` (M+1 token maps; query and key are made of them when they are read) or ``maps`` (M token maps
    and the attention maps between neighboring frames). ``scale``: of 8-bit token maps, one a clip and channel, or one
    a token. ``frames``: a longer run of frames a training clip, of which training draws its clips; None: just a clip.
    Made with what cannot be: ConfigError.
    """

    form: Literal["tokens", "maps"] = "tokens"
    dtype: Literal["float32", "float16", "bfloat16", "int8", "float8"] = "float16"
    scale: Literal["channel", "token"] = "channel"
    clips_per_video: int = 1
    frames: int | None = None
    shard_megabytes: int = 128  # 10^6 bytes; a shard has one clip at least

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


def _of_store(config: RunConfig) -> RunConfig:
    """What a store decides of a run, whatever else a file claims; how many processes read videos decides nothing."""
    return dataclasses.replace(
        config,
        model=ModelConfig(taps=config.model.taps),
        training=TrainingConfig(seed=config.training.seed),
        data=dataclasses.replace(config.data, num_workers=None),
    )


@_checked
class StoreDescription:
    """``store.json``. ``splits``: number of videos a split, damaged ones too.

    ``config`` is a run that can use the store: backbone, ``model.taps``, clip, augment, evaluation, data and the seed
    are the store's, all else is at its default. ``preprocessing`` is that of the run. ``videos_hash`` (``hash_videos``)
    names the list of videos. ``clips_per_shard``: see ``shard_ranges``.
    """

    config: Annotated[RunConfig, AfterValidator(_of_store)]
    backbone_hash: str
    spec: BackboneSpec
    preprocessing: Preprocessing
    options: StoreOptions
    precision: Literal["fp32", "bf16", "fp16"]
    class_names: tuple[str, ...]
    splits: dict[str, Annotated[int, Field(ge=0, lt=2**31)]]
    videos_hash: str
    clips_per_shard: Positive
    origin: WeightsOrigin | None = None
    format_version: int = FORMAT_VERSION
    feature_version: int = FEATURE_VERSION
    evl_version: str = ""

    @property
    def taps(self) -> tuple[int, ...]:
        """The tapped blocks, counted from 1, rising."""
        return tapped_blocks(self.config.model.taps, self.spec.depth)

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks whose token maps are stored: the tapped ones, and in form ``tokens`` the one before each (0: the first
        block's input)."""
        return stored_blocks(self.taps, self.options.form)

    def __post_init__(self):
        for wrong, is_wrong in _what_cannot_be(self).items():
            if is_wrong:
                raise ValueError(wrong)  # pydantic turns it into a ValidationError
        tapped_blocks(self.config.model.taps, self.spec.depth)  # as here, where there are no such blocks

    @property
    def fingerprint(self) -> dict[str, object]:
        """All that decides a stored feature: names with dots, as ``store.json`` has them -> JSON values."""
        content = TypeAdapter(StoreDescription).dump_python(self, mode="json")
        config, weights = content["config"], self.config.backbone.weights
        config["backbone"]["weights"] = None if weights is None else Path(weights).name  # wherever it lies
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
        """Frames of a stored clip: ``options.frames`` in training, if set, else ``clip.num_frames``."""
        whole = self.config.clip.num_frames
        return self.options.frames or whole if split == "train" else whole

    def clips_a_video(self, split: str) -> int:
        """Stored clips of a whole video: ``clips_per_video`` of training, all views else."""
        views = self.config.evaluation
        return self.options.clips_per_video if split == "train" else views.num_clips * views.num_crops

    def to_json(self) -> str:
        """The text of ``store.json``: the same bytes for the same description."""
        return _json(TypeAdapter(StoreDescription).dump_python(self, mode="json"), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str | Path = DESCRIPTION) -> StoreDescription:
        """Raises StoreError for what is no description, or one of a newer evl; ``source``: the file's name."""
        try:
            content = strict_json(text)
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{source}: not the description of a store of features ({str(error)[:200]})") from None
        if not isinstance(content, dict) or type(content.get("format_version")) is not int:
            raise StoreError(f"{source}: not the description of a store of features; evl extract makes one")
        for name, known in (("format_version", FORMAT_VERSION), ("feature_version", FEATURE_VERSION)):
            found = content.get(name, known)
            if type(found) is int and found != known:
                what = f"{source}: {name.replace('_', ' ')} {found if abs(found) < 10**9 else 'unheard of'}"
                if found > known:
                    raise StoreError(f"{what}, made by a newer evl; this one reads {known}: upgrade evl")
                raise StoreError(f"{what}, made by an older evl; this one reads {known}: extract again")
        try:
            return TypeAdapter(cls).validate_python(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            message = first["msg"].removeprefix("Value error, ")
            raise StoreError(f"{source}: {where}{': ' if where else ''}{message[:300]}") from None


def _what_cannot_be(it: StoreDescription) -> dict[str, bool]:
    """What is said of a store whose parts do not fit each other -> whether it is so."""
    spec, clip, frames = it.spec, it.config.clip, it.options.frames
    numbers = (spec.width, spec.depth, spec.num_heads, spec.head_width, *spec.grid, *spec.image_size, *spec.patch_size)
    pre = it.preprocessing
    is_segment = clip.sampling == "segment"
    return {
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
        "splits must be among train, val and test": not set(it.splits) <= set(SPLITS) or not any(it.splits.values()),
        f"more than {MOST_ITEMS:,} clips": sum(n * it.clips_a_video(split) for split, n in it.splits.items())
        > MOST_ITEMS,
        "a class name stands there twice": len(set(it.class_names)) != len(it.class_names),
        "a run of frames shorter than a clip": frames is not None and frames < clip.num_frames,
        "with segment sampling, a run of frames must be a multiple of the clip's": is_segment
        and (frames or 0) % clip.num_frames != 0,
        "attention maps are between neighbors: segment sampling draws no clips of a longer run of them": is_segment
        and it.options.form == "maps"
        and frames not in (None, clip.num_frames),
    }


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
    return tuple(shard_range(description, number) for number in range(first_shards(description)[""]))


def shard_range(description: StoreDescription, number: int) -> ShardRange:
    """One of ``shard_ranges``. Raises IndexError where there are not so many."""
    firsts = first_shards(description)
    if not 0 <= number < firsts[""]:
        raise IndexError(f"shard {number} of {firsts['']}")
    split = [split for split in SPLITS if firsts[split] <= number and description.splits.get(split)][-1]
    step, clips = items_a_shard(description, split), description.clips_a_video(split)
    first = (number - firsts[split]) * step
    return ShardRange(number, split, first, min(step, description.splits[split] * clips - first), clips)


def first_shards(description: StoreDescription) -> dict[str, int]:
    """The number of the first shard of each split, and under "" that of all shards."""
    firsts, number = {}, 0
    for split in SPLITS:
        firsts[split] = number
        total = description.splits.get(split, 0) * description.clips_a_video(split)
        number += -(-total // items_a_shard(description, split))
    return firsts | {"": number}


def items_a_shard(description: StoreDescription, split: str) -> int:
    """Items that a shard of the split has, the last one aside."""
    most, views = description.clips_per_shard, description.clips_a_video(split)
    return most if split == "train" else max(1, most // views) * views


def clips_a_shard(bytes_of_clip: int, options: StoreOptions) -> int:
    """``clips_per_shard`` for clips of so many bytes: what fits into ``shard_megabytes``, at least one."""
    return max(1, options.shard_megabytes * 1_000_000 // bytes_of_clip)


def clip_tensors(
    spec: BackboneSpec, taps: Sequence[int], options: StoreOptions, num_frames: int
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The tensors of one stored clip: name -> (type, shape without the first dimension)."""
    t, num_tokens, width, (h, w) = num_frames, spec.num_tokens, spec.width, spec.grid
    is_small = options.dtype in ("int8", "float8")
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for block in stored_blocks(taps, options.form):
        tensors[f"tokens.{block}"] = (options.dtype, (t, num_tokens, width))
        if is_small:
            shape = (1, 1, width) if options.scale == "channel" else (t, num_tokens, 1)
            tensors[f"tokens.{block}.scale"] = ("float32", shape)
    for block in taps if options.form == "maps" else ():
        tensors[f"maps.{block}"] = ("uint8" if is_small else options.dtype, (t, h, w, h, 2, w))
        if is_small:
            tensors[f"maps.{block}.scale"] = ("float32", (t, h, w, 1, 1, 1))
    return tensors


def bytes_a_clip(spec: BackboneSpec, taps: Sequence[int], options: StoreOptions, num_frames: int) -> int:
    """Bytes of the tensors of one stored clip of ``num_frames`` frames, exactly: scales too, headers not."""
    sizes = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "float8": 1, "uint8": 1}
    return sum(
        sizes[dtype] * math.prod(shape) for dtype, shape in clip_tensors(spec, taps, options, num_frames).values()
    )


def hash_videos(splits: Mapping[str, Sequence[Sample]]) -> str:
    """SHA-256 (hex) of the list of videos: splits, paths as they are, times, labels, groups if any, in order."""
    digest = hashlib.sha256()
    for split in SPLITS:
        for sample in splits.get(split, ()):
            row = [split, sample.path, sample.start_seconds, sample.end_seconds, sample.label]
            row += [] if sample.group is None else [sample.group]
            digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def _flat(value, name: str = "") -> dict[str, object]:
    """Names with dots -> values that are no objects."""
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key, one in value.items() for k, v in _flat(one, f"{name}.{key}" if name else key).items()}


def _json(value, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, allow_nan=False)  # ASCII: paths may hold what is no text

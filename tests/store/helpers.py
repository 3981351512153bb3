"""A small store of random features."""

import torch

from evl.config import (
    BackboneConfig,
    ClipConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    RunConfig,
    TrainingConfig,
)  # fmt: skip
from evl.store.description import StoreDescription, StoreOptions, hash_videos, shard_ranges, stored_blocks
from evl.store.index import write_index
from evl.store.packing import pack_maps, pack_tokens
from evl.store.writing import ShardItem, write_description, write_shard
from evl.types import BackboneSpec, Preprocessing, Sample

CLASSES = ("left", "right", "über")


def samples_of(split: str, count: int) -> tuple[Sample, ...]:
    return tuple(
        Sample(f"videos/{split} {i}.mp4", CLASSES[i % 3], 0.5 * i if i % 2 else None, i + 1.0 if i % 2 else None)
        for i in range(count)
    )


def describe(*, splits=None, taps=(2, 3, 5), grid=(2, 3), num_frames=4, clip=None, clips_per_shard=4, **options):
    splits = {"train": 5, "val": 3} if splits is None else splits
    size = (grid[0] * 16, grid[1] * 16)
    options = StoreOptions(**options)
    return StoreDescription(
        config=RunConfig(
            backbone=BackboneConfig(name="some_vit"),
            model=ModelConfig(taps=taps),
            clip=clip or ClipConfig(num_frames=num_frames),
            data=DataConfig(path="videos", pixel_aspect=False),
            training=TrainingConfig(seed=7),
            evaluation=EvaluationConfig(num_clips=2, num_crops=1),
        ),
        backbone_hash="0" * 64,
        spec=BackboneSpec("some_vit", 8, 6, 2, 4, grid, 1, size, (16, 16)),
        preprocessing=Preprocessing(size, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic", True),
        options=options,
        precision="fp32",
        class_names=CLASSES,
        splits=splits,
        videos_hash=hash_videos({split: samples_of(split, count) for split, count in splits.items()}),
        clips_per_shard=clips_per_shard,
        evl_version="0",
    )


def features_of(description, split, video, clip):
    """(tokens, maps) of one clip, (T,L,D) and (T,h,w,h,2,w) by block: random, the same at each call."""
    seed = 1000 * ("train", "val", "test").index(split) + 10 * video + clip
    generator = torch.Generator().manual_seed(seed)
    spec, t = description.spec, description.num_frames(split)
    h, w = spec.grid
    tokens = {
        block: torch.randn(t, spec.num_tokens, spec.width, generator=generator) * (block + 1)
        for block in stored_blocks(description.taps, description.options.form)
    }
    if description.options.form == "tokens":
        return tokens, {}
    maps = {block: torch.rand(t, h, w, h, 2, w, generator=generator) for block in description.taps}
    for one in maps.values():
        one[0, :, :, :, 0] = 0
        one[-1, :, :, :, 1] = 0
    return tokens, maps


def shard_of(description, covers, damaged):
    items, features = [], []
    for video, clip in covers.pairs:
        sample = samples_of(covers.split, description.splits[covers.split])[video]
        reason = damaged.get((covers.split, video))
        valid = description.num_frames(covers.split) - video % 2
        items.append(ShardItem(video, clip, sample, valid if reason is None else 0, reason))
        if reason is None:
            features.append(features_of(description, covers.split, video, clip))
    options = description.options
    if not features:
        return items, {}, {}
    tokens, maps = (
        {block: torch.stack([one[part][block] for one in features]) for block in features[0][part]} for part in (0, 1)
    )
    tokens = {block: pack_tokens(x, options.dtype, options.scale) for block, x in tokens.items()}
    return items, tokens, {block: pack_maps(x, options.dtype) for block, x in maps.items()}


def make_store(folder, description=None, *, damaged=None, backwards=False):
    """A finished store in ``folder``. ``damaged``: (split, video) -> reason."""
    description = description or describe()
    write_description(folder, description)
    ranges = shard_ranges(description)
    for covers in reversed(ranges) if backwards else ranges:
        write_shard(folder, description, covers.number, *shard_of(description, covers, damaged or {}))
    write_index(folder)
    return description

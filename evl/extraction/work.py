"""Plans an extraction before the first video is read, and computes the stored features of clips."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from evl._version import __version__
from evl.backbones import FrozenBackbone, create_backbone
from evl.backbones.projections import projections_of
from evl.config import RunConfig, replace
from evl.data.splits import find_splits
from evl.decoders import find_decoder
from evl.errors import BackboneError, ConfigError, SaveError, StoreError
from evl.models.crossframe import neighbor_maps, packed_maps
from evl.models.registry import taps_of
from evl.runtime.files import expand_home, is_used, nearest_existing
from evl.runtime.precision import autocast, resolve_precision
from evl.store.description import (
    DESCRIPTION,
    PROJECTIONS,
    ShardRange,
    StoreDescription,
    StoreOptions,
    bytes_per_clip,
    clips_per_shard,
    hash_videos,
    shard_ranges,
)
from evl.store.packing import Packed, pack_maps, pack_tokens
from evl.store.writing import write_description
from evl.types import Sample
from evl.video.augment import TrainingTransform
from evl.video.decode.torchcodec import require as require_decoder
from evl.video.transforms import normalize, preprocessing_of


@dataclass(frozen=True)
class Extraction:
    """The plan of an extraction."""

    folder: Path
    config: RunConfig  # with absolute paths
    description: StoreDescription
    splits: dict[str, tuple[Sample, ...]]  # the videos of each split
    # for each split, videos that are listed but do not exist. They are not in splits
    missing: dict[str, tuple[Sample, ...]]
    backbone: FrozenBackbone  # on its device
    # (number from 1, count) of this process. It writes each shard whose number + 1 is part[0] modulo part[1]
    part: tuple[int, int] = (1, 1)

    @property
    def device(self) -> torch.device:
        return next(self.backbone.parameters()).device

    def mine(self) -> list[ShardRange]:
        """The shards that this process writes."""
        number, count = self.part
        return [shard for shard in shard_ranges(self.description) if shard.number % count == number - 1]

    def features_of(self, pixels: Tensor) -> tuple[dict[int, Packed], dict[int, Packed]]:
        """Pixels (n,T,C,H,W), uint8 or normalised -> (token maps, neighbor maps), each block -> Packed, on the CPU.

        The features are those that live training computes.
        """
        description, backbone, pre = self.description, self.backbone, self.description.preprocessing
        options, pixels = description.options, pixels.to(self.device, non_blocking=True)
        # views, and clips with random erasing, are already normalised
        clips = normalize(pixels, pre.mean, pre.std) if pixels.dtype == torch.uint8 else pixels
        with torch.no_grad():
            with autocast(description.precision, clips.device):
                if options.form == "tokens":
                    tokens, features = backbone.token_maps(clips)[0], []
                else:
                    features = backbone(clips)
                    tokens = {tap: layer.tokens for tap, layer in zip(backbone.taps, features, strict=True)}
            maps = {}
            for tap, layer in zip(backbone.taps, features, strict=False):
                if tap == 0:  # what enters block 1 has no attention
                    continue
                dtype = layer.tokens.dtype
                whole = packed_maps(neighbor_maps(layer.query, layer.key, backbone.spec.grid, dtype), dtype)
                maps[tap] = pack_maps(whole, options.dtype).to("cpu")
            packed = {
                block: pack_tokens(tokens[block], options.dtype, options.scale).to("cpu") for block in sorted(tokens)
            }
        return packed, maps


def plan_extraction(
    config: RunConfig, out: str | Path, options: StoreOptions, *, device: torch.device, part: tuple[int, int] = (1, 1)
) -> Extraction:
    """Finds the videos and makes the backbone. Writes nothing. Raises errors of ``evl.errors``."""
    number, count = part
    if not 1 <= number <= count:
        raise ConfigError(f"part {number}/{count}: expected a number from 1 to {max(1, count)}")
    videos = find_splits(config)
    config = videos.config
    require_decoder(config.data.decoder)
    reads_start = find_decoder(config.model.decoder).reads_start
    # in form tokens, what enters the first tapped block is stored anyway
    taps = taps_of(config.model) if reads_start and options.form == "maps" else config.model.taps
    backbone = create_backbone(config.backbone, taps).to(device)
    if taps != config.model.taps:
        config = replace(config, model={"taps": backbone.taps})
    if backbone.frames_per_map > 1:
        raise BackboneError(
            f"{backbone.spec.name} makes one token map per {backbone.frames_per_map} frames, but a store needs one "
            "per frame: train on the videos instead"
        )
    num_frames = max(options.frames or 0, config.clip.num_frames)
    size = bytes_per_clip(backbone.spec, backbone.taps, options, num_frames)
    try:
        description = StoreDescription(
            config=config,
            backbone_hash=backbone.weights_hash,
            spec=backbone.spec,
            preprocessing=preprocessing_of(config, backbone.preprocessing),
            options=options,
            precision=resolve_precision(config.training.precision, device),
            class_names=videos.class_names,
            splits={split: len(samples) for split, samples in videos.splits.items()},
            videos_hash=hash_videos(videos.splits),
            clips_per_shard=clips_per_shard(size, options),
            origin=backbone.origin,
            evl_version=__version__,
        )
    except ValidationError as error:
        raise ConfigError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    if config.augment.flip == "pairs":
        raise ConfigError(
            "augment.flip=pairs changes labels of clips, and a store has one label for each video: extract with "
            "augment.flip=0, or train on the videos"
        )
    TrainingTransform(config.augment, description.preprocessing, videos.class_names)  # raises if the config is wrong
    return Extraction(expand_home(Path(out)), config, description, videos.splits, videos.missing, backbone, part)


def check_store_folder(work: Extraction) -> None:
    """Raises now what would be an error later.

    StoreError if the folder is neither empty nor a store of the same description; SaveError if it cannot be written to;
    BackboneError if the backbone's blocks cannot be stored in this form.
    """
    folder = work.folder
    if work.description.options.form == "tokens" and not (folder / PROJECTIONS).exists():
        projections_of(work.backbone)
    nearest = nearest_existing(folder)
    if nearest != folder.absolute() and not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        why = "may not be written to" if nearest.is_dir() else "is no folder"
        raise SaveError(f"{folder} cannot be made: {nearest} {why}; choose another `out`")
    if (folder / DESCRIPTION).exists():
        write_description(folder, work.description)  # raises if the descriptions differ, else does nothing
    elif is_used(folder):
        raise StoreError(f"{folder} already exists, is not empty, and is no store of features; choose another `out`")

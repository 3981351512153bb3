"""A store of features that is in memory alone: its description, its backbone, its clips."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from evl.backbones import FrozenBackbone
from evl.backbones.projections import projections_of
from evl.config import RunConfig
from evl.models.crossframe import neighbor_maps, packed_maps
from evl.store import StoredClips, StoreDescription, StoreOptions
from evl.store.packing import pack_maps, pack_tokens
from evl.store.unpacker import Unpacker


def describe(backbone: FrozenBackbone, config: RunConfig, options: StoreOptions, precision: str) -> StoreDescription:
    return StoreDescription(
        config=config, backbone_hash="0" * 64, spec=backbone.spec, preprocessing=backbone.preprocessing,
        options=options, precision=precision, class_names=("a", "b"), splits={"train": 1},
        videos_hash="0" * 64, clips_per_shard=1, evl_version="0",
    )  # fmt: skip


def unpacker_of(description: StoreDescription, backbone: FrozenBackbone) -> Unpacker:
    projections = projections_of(backbone) if description.options.form == "tokens" else None
    return Unpacker(description, projections)


@torch.no_grad()
def stored_clips(backbone: FrozenBackbone, clips: Tensor, options: StoreOptions) -> StoredClips:
    """What a store holds of these clips, computed and packed where they are."""
    tokens, features = backbone.token_maps(clips)
    if options.form == "tokens":
        chosen, maps = tokens, {}
    else:
        chosen = {tap: tokens[tap] for tap in backbone.taps}
        maps = {
            tap: pack_maps(
                packed_maps(neighbor_maps(one.query, one.key, backbone.spec.grid, one.tokens.dtype), one.tokens.dtype),
                options.dtype,
            )
            for tap, one in zip(backbone.taps, features, strict=True)
        }
    return StoredClips({tap: pack_tokens(one, options.dtype, options.scale) for tap, one in chosen.items()}, maps)


def features_in_memory(description: StoreDescription, config: RunConfig, backbone: FrozenBackbone):
    """The ``Extraction`` that would make such a store of videos: for its ``features_of``. Needs PyAV."""
    from evl.extraction.work import Extraction

    return Extraction(Path("nowhere"), config, description, {}, {}, backbone)

"""A store of features, written: shard by shard, each whole or not there, the same bytes whoever writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evl.features.description import StoreDescription
from evl.features.packing import Packed
from evl.types import Sample

SHARDS = "shards"
INDEX = "index.parquet"
PROJECTIONS = "projections.safetensors"


@dataclass(frozen=True)
class ShardItem:
    """One item of a shard: a row, or where ``reason`` is set a clip that could not be made (and no row)."""

    video: int
    clip: int
    sample: Sample
    num_valid: int = 0  # frames inside the video
    reason: str | None = None


def shard_path(folder: str | Path, number: int) -> Path:
    """``shards/00000.safetensors`` of a store."""
    return Path(folder) / SHARDS / f"{number:05d}.safetensors"


def write_description(folder: str | Path, description: StoreDescription) -> None:
    """Begins a store, or does nothing where the same is begun. Raises StoreError where another one is there."""
    raise NotImplementedError


def missing_shards(folder: str | Path, description: StoreDescription) -> list[int]:
    """Numbers of the shards that are not there yet."""
    raise NotImplementedError


def write_shard(
    folder: str | Path,
    description: StoreDescription,
    number: int,
    items: Sequence[ShardItem],
    tokens: Mapping[int, Packed],
    maps: Mapping[int, Packed] | None = None,
) -> None:
    """A shard, whole or not at all. ``items``: all that ``shard_ranges(description)[number]`` covers, in its order;
    ``tokens`` and ``maps``: block -> Packed with a row for each item without ``reason`` (both may be empty where all
    have one). Raises SaveError if the disk refuses; ValueError where shapes are not the description's.
    """
    raise NotImplementedError


def write_index(folder: str | Path) -> None:
    """``index.parquet``, of the shards' headers, when all are there: the same bytes whoever writes it.

    A video of which one item has a reason is damaged as a whole. Raises StoreError where shards are missing or wrong.
    """
    raise NotImplementedError

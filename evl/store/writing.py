"""A store of features, written: shard by shard, each whole or not there, the same bytes whoever writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from evl.errors import ExistsError, StoreError
from evl.runtime.files import write_file
from evl.store.compatibility import conflicts
from evl.store.description import DESCRIPTION, StoreDescription, clip_tensors, shard_range
from evl.store.index import INDEX, write_index
from evl.store.packing import TYPES, Packed
from evl.store.shards import ITEMS, SHARDS, missing_shards, read_description, shard_path
from evl.types import Sample

PROJECTIONS = "projections.safetensors"


@dataclass(frozen=True)
class ShardItem:
    """One item of a shard: a row, or where ``reason`` is set a clip that could not be made (and no row)."""

    video: int
    clip: int
    sample: Sample
    num_valid: int = 0  # frames inside the video
    reason: str | None = None


def write_description(folder: str | Path, description: StoreDescription) -> None:
    """Begins a store, or does nothing where the same is begun. Raises StoreError where another one is there."""
    path = Path(folder) / DESCRIPTION
    if not path.exists():
        with suppress(ExistsError):
            write_file(path, description.to_json(), only_new=True)
    # what is there now, which may be of a process that began at the same moment
    if found := conflicts(read_description(folder), description):
        raise StoreError(f"{folder} is another store of features: {'; '.join(found)}")


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
    covers = shard_range(description, number)
    if [(item.video, item.clip) for item in items] != covers.pairs:
        raise ValueError(f"shard {number} holds other clips than {covers}")
    rows = sum(item.reason is None for item in items)
    tensors = _tensors(tokens, "tokens") | _tensors(maps or {}, "maps")
    frames = description.num_frames(covers.split)
    wanted = {
        name: ((rows, *shape), TYPES[dtype])
        for name, (dtype, shape) in clip_tensors(
            description.spec, description.taps, description.options, frames
        ).items()
    }
    found = {name: (tuple(value.shape), value.dtype) for name, value in tensors.items()}
    if found != wanted and (rows or tensors):
        raise ValueError(f"shard {number} is to hold {wanted}, not {found}")
    listed = [_listed(item, covers.split) for item in items]
    # one entry: safetensors writes several in an order of its own
    text = json.dumps({"fingerprint": description.fingerprint_hash, "items": listed})
    write_file(shard_path(folder, number), safetensors.torch.save(tensors, metadata={ITEMS: text}))


def _tensors(packed: Mapping[int, Packed], kind: str) -> dict[str, Tensor]:
    tensors = {}
    for block, one in packed.items():
        tensors[f"{kind}.{block}"] = one.values.detach().cpu().contiguous()
        if one.scale is not None:
            tensors[f"{kind}.{block}.scale"] = one.scale.detach().cpu().contiguous()
    return tensors


def _listed(item: ShardItem, split: str) -> dict[str, object]:
    sample = item.sample
    row = {"split": split, "video": item.video, "path": sample.path, "label": sample.label, "clip": item.clip}
    more = {"start_seconds": sample.start_seconds, "end_seconds": sample.end_seconds, "group": sample.group}
    row |= {name: value for name, value in more.items() if value is not None}
    return row | ({"num_valid": item.num_valid} if item.reason is None else {"reason": item.reason})


__all__ = [
    "INDEX", "PROJECTIONS", "SHARDS", "ShardItem", "missing_shards", "read_description", "shard_path",
    "write_description", "write_index", "write_shard",
]  # fmt: skip

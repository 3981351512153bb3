"""Writes a store of features, shard by shard.

A shard is written whole or not at all, and has the same bytes, whichever process writes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from evl.errors import ExistsError, StoreError
from evl.runtime.checksums import checksums
from evl.runtime.files import write_file
from evl.store.compatibility import conflicts
from evl.store.description import DESCRIPTION, StoreDescription, clip_tensors, shard_range
from evl.store.packing import TYPES, Packed
from evl.store.shards import ITEMS, read_description, shard_path
from evl.types import Sample


@dataclass(frozen=True)
class ShardItem:
    """One clip of a shard. It has a row in the shard's tensors, unless it could not be made: then ``reason`` is set.

    ``num_valid``: how many of its frames lie inside the video.
    """

    video: int
    clip: int
    sample: Sample
    num_valid: int = 0
    reason: str | None = None


def write_description(folder: str | Path, description: StoreDescription) -> None:
    """Writes ``store.json``. Does nothing if the same description is already there.

    Raises StoreError if another one is there.
    """
    path = Path(folder) / DESCRIPTION
    if not path.exists():
        with suppress(ExistsError):
            write_file(path, description.to_json(), only_new=True)
    # another process may have written the file at the same moment
    if differences := conflicts(read_description(folder), description):
        raise StoreError(f"{folder} is another store of features: {'; '.join(differences)}")


def write_shard(
    folder: str | Path,
    description: StoreDescription,
    number: int,
    items: Sequence[ShardItem],
    tokens: Mapping[int, Packed],
    maps: Mapping[int, Packed] | None = None,
) -> None:
    """Writes one shard, whole or not at all.

    ``items``: all clips of ``shard_range(description, number)``, in that order. ``tokens``: block -> Packed, with a row
    for each item without ``reason``; empty if all items have one. ``maps``: the same, in form ``maps``.

    Raises SaveError if the file cannot be written, ValueError if items or shapes do not fit the description.
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
    given = {name: (tuple(value.shape), value.dtype) for name, value in tensors.items()}
    if given != wanted and (rows or tensors):
        raise ValueError(f"shard {number}: expected tensors {wanted}, but {given} were given")
    listed, row = [], 0
    for item in items:
        listed.append(_listed(item, covers.split))
        if item.reason is None:
            listed[-1]["checksums"] = checksums(tensors, row)
            row += 1
    # a single entry, because safetensors writes several entries in no fixed order
    text = json.dumps({"fingerprint": description.fingerprint_hash, "items": listed})
    write_file(shard_path(folder, number), safetensors.torch.save(tensors, metadata={ITEMS: text}), one_of_many=True)


def _tensors(packed: Mapping[int, Packed], kind: str) -> dict[str, Tensor]:
    tensors = {}
    for block, maps in packed.items():
        tensors[f"{kind}.{block}"] = maps.values.detach().cpu().contiguous()
        if maps.scale is not None:
            tensors[f"{kind}.{block}.scale"] = maps.scale.detach().cpu().contiguous()
    return tensors


def _listed(item: ShardItem, split: str) -> dict[str, object]:
    sample = item.sample
    row = {"split": split, "video": item.video, "path": sample.path, "label": sample.label, "clip": item.clip}
    more = {"start_seconds": sample.start_seconds, "end_seconds": sample.end_seconds, "group": sample.group}
    row |= {name: value for name, value in more.items() if value is not None}
    return row | ({"num_valid": item.num_valid} if item.reason is None else {"reason": item.reason})

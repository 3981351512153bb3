"""Compares the index of a store with its shards: the shards' own word counts."""

from __future__ import annotations

from itertools import groupby

from evl.errors import StoreError
from evl.store.description import ShardRange, StoreDescription, first_shards, items_per_shard
from evl.store.index import INDEX, SplitRows, as_text
from evl.store.shards import Shard, Shards


def shard_of_item(description: StoreDescription, split: str, item: int) -> int:
    """The number of the shard that has item number ``item`` of a split."""
    return first_shards(description)[split] + item // items_per_shard(description, split)


def refuse_contradiction(shard: Shard, covers: ShardRange, rows: SplitRows, shards: Shards) -> None:
    """Raises StoreError if the index lists another video, label, time, group, clip or damage than the shard."""
    for video, group in groupby(shard.items, lambda item: item["video"]):
        items = list(group)
        for what, listed, own in _facts(video, items, covers, rows, shards):
            if listed != own:
                raise StoreError(
                    f"{shards.folder / INDEX} contradicts {shard.path.name}: the {what} of video {video} of "
                    f"{covers.split} is {listed!r:.100} there, and {own!r:.100} in the shard; delete {INDEX}, and evl "
                    "extract makes it again"
                )


def _facts(video: int, items: list[dict], covers: ShardRange, rows: SplitRows, shards: Shards):
    """(what, the index's, the shard's) of one video."""
    sample, item = rows.samples[video], items[0]
    yield "path", sample.path, as_text(item["path"])
    for name in ("label", "start_seconds", "end_seconds"):
        yield name, getattr(sample, name), item.get(name)
    group = item.get("group")
    yield "group", sample.group, None if group is None else as_text(group)
    is_damaged = any(one.get("reason") is not None for one in items)
    if video in rows.damaged and not is_damaged:  # by a clip in another shard, perhaps
        is_damaged = _is_damaged_elsewhere(video, covers, shards)
    yield "damage", video in rows.damaged, is_damaged
    if not is_damaged:
        yield "number of clips", int(rows.num_clips[video]), covers.clips_per_video
        first = int(rows.first[video])
        for one in items:
            yield f"num_valid of clip {one['clip']}", int(rows.num_valid[first + one["clip"]]), one["num_valid"]


def _is_damaged_elsewhere(video: int, covers: ShardRange, shards: Shards) -> bool:
    first = video * covers.clips_per_video
    numbers = {
        shard_of_item(shards.description, covers.split, item) for item in range(first, first + covers.clips_per_video)
    }
    return any(
        item["video"] == video and item.get("reason") is not None
        for number in numbers - {covers.number}
        for item in shards.get(number).items
    )

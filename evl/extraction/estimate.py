"""The cost of an extraction, found before anything is written: bytes are counted, time is measured on a few videos."""

from __future__ import annotations

import shutil
import time
from dataclasses import asdict, dataclass, replace
from statistics import mean

from torch import Tensor

from evl.data.loader import default_num_workers, read_batches
from evl.data.splits import make_files, num_workers
from evl.errors import RunError
from evl.extraction.reading import ClipReader, clips_at_once, collate
from evl.extraction.work import Extraction
from evl.runtime.files import nearest_existing
from evl.runtime.progress import duration
from evl.store.description import SPLITS, bytes_per_clip, shard_ranges
from evl.store.shards import missing_shards

VIDEOS_MEASURED = 3  # per kind of clip; clips read before these warm up the reader
FILES_SHARE = 1.01  # size of all files over that of the tensors: headers, index, projections


@dataclass(frozen=True)
class Estimate:
    """The size of a store, and the time that this process needs for it."""

    num_clips: int  # clips of the whole store
    num_bytes: int  # exact size of the tensors of the whole store
    bytes_to_write: int  # size of the tensors that are still missing; all processes together write them
    free_bytes: int  # free space on the store's disk
    clips_to_do: int  # missing clips that this process extracts
    seconds: float | None = None  # time for these clips; None if it was not measured, or no video could be read
    lines: tuple[str, ...] = ()  # the same in words

    @property
    def fits(self) -> bool:
        return self.bytes_to_write * FILES_SHARE < self.free_bytes

    def to_dict(self) -> dict:
        return {**{name: value for name, value in asdict(self).items() if name != "lines"}, "fits": self.fits}


def estimate(work: Extraction, *, measure: bool = True) -> Estimate:
    """The Estimate of an extraction. ``measure`` extracts a few clips, which takes some seconds.

    Videos are read in a process of their own, as in the extraction.
    """
    description, options = work.description, work.description.options
    missing = set(missing_shards(work.folder, description))
    sizes = {
        split: bytes_per_clip(description.spec, description.taps, options, description.num_frames(split))
        for split in SPLITS
    }
    shards = shard_ranges(description)
    to_do = {split: sum(shard.count for shard in work.mine() if shard.split == split and shard.number in missing)
             for split in SPLITS}  # fmt: skip
    cost = Estimate(
        num_clips=sum(shard.count for shard in shards),
        num_bytes=sum(shard.count * sizes[shard.split] for shard in shards),
        bytes_to_write=sum(shard.count * sizes[shard.split] for shard in shards if shard.number in missing),
        free_bytes=shutil.disk_usage(nearest_existing(work.folder)).free,
        clips_to_do=sum(to_do.values()),
        seconds=_seconds(work, to_do) if measure else None,
    )
    return replace(cost, lines=_lines(work, cost))


def _lines(work: Extraction, cost: Estimate) -> tuple[str, str]:
    description, options = work.description, work.description.options
    videos = ", ".join(f"{count} {split} videos × {description.clips_per_video(split)}"
                       for split, count in description.splits.items() if count)  # fmt: skip
    blocks = ", ".join(map(str, description.blocks))
    size = f"{options.dtype}, {cost.num_bytes / max(1, cost.num_clips) / 1e6:.2f} MB per clip"
    whole = (
        f"{cost.num_clips} clips ({videos}), {options.form} of blocks {blocks}, {size}: {in_bytes(cost.num_bytes)}; "
        f"{in_bytes(cost.free_bytes)} are free"
    )
    share = f" (part {work.part[0]}/{work.part[1]})" if work.part[1] > 1 else ""
    if not cost.clips_to_do:
        return whole, f"nothing is left to do{share}"
    left = f"{cost.clips_to_do} clips to do{share}"
    if cost.seconds is None:
        return whole, f"{left}; the time is unknown, because no video that was tried could be read"
    return whole, f"{left}, about {duration(cost.seconds)} on {work.device}"


def in_bytes(count: int) -> str:
    """``1.25 GB``, ``12.00 MB``."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.2f} MB"


def refuse_full_disk(work: Extraction) -> None:
    """Raises RunError if the disk has no room for the missing shards."""
    cost = estimate(work, measure=False)
    if not cost.fits:
        raise RunError(
            f"{work.folder}: {cost.bytes_to_write / 1e9:.2f} GB are to be written, {cost.free_bytes / 1e9:.2f} GB "
            "are free there; store fewer clips or fewer bits, or extract anyway with `yes=True`"
        )


def _seconds(work: Extraction, to_do: dict[str, int]) -> float | None:
    """Time for ``to_do`` clips of each split. Clips of val and test cost the same."""
    training, views = to_do["train"], to_do["val"] + to_do["test"]
    total = 0.0
    for split, clips in (("train", training), ("val" if to_do["val"] else "test", views)):
        if not clips:
            continue
        if (cost := _seconds_per_clip(work, split)) is None:
            return None
        total += clips * cost
    return total


def _seconds_per_clip(work: Extraction, split: str) -> float | None:
    reader = ClipReader(work.description, split, make_files(work.splits[split], work.config))
    count = len(reader)
    videos = sorted({i * count // VIDEOS_MEASURED for i in range(VIDEOS_MEASURED)})
    # the first clip of a video takes longer, because the whole file is decoded to find damage
    clips = range(min(2, reader.clips_per_video)) if reader.is_training else [0]
    keys = [reader.key_of((video, clip)) for video in [videos[0], *videos] for clip in clips]
    workers = num_workers(work.config)
    read = {clip: [] for clip in clips}
    pixels = None
    stream = read_batches(
        reader, [[key] for key in keys], num_workers=min(1, workers), device=work.device, collate=collate
    )
    for place, item in enumerate(stream):
        if item.pixels is None:
            continue
        pixels = item.pixels
        if place >= len(clips):  # the first video only warms up the reader
            read[clips[place % len(clips)]].append(item.seconds[0])
    if pixels is None or not all(read.values()):
        return None
    first, later = mean(read[clips[0]]), mean(read[clips[-1]])
    per_video = first + (reader.clips_per_video - 1) * later if reader.is_training else first
    reading, computing = per_video / reader.clips_per_video, _seconds_computing(work, pixels)
    if work.device.type == "cpu":  # the same cores read and compute
        return reading / min(max(1, workers), default_num_workers()) + computing
    return max(reading / workers, computing) if workers else reading + computing


def _seconds_computing(work: Extraction, pixels: Tensor) -> float:
    """Seconds per clip for the backbone and for packing its features."""
    size = 1 if work.device.type == "cpu" else clips_at_once(pixels.shape[1])
    batch = pixels[:1].expand(size, *pixels.shape[1:])
    work.features_of(batch)
    started = time.perf_counter()
    work.features_of(batch)  # the result is on the CPU, so the device has finished
    return (time.perf_counter() - started) / size

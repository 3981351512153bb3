"""What an extraction will cost, before anything is written: bytes by counting, time by a short measurement."""

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
from evl.runtime.time_left import duration
from evl.store.description import SPLITS, bytes_a_clip, shard_ranges
from evl.store.writing import missing_shards

VIDEOS_MEASURED = 3  # of a kind: the first ones warm up what reads them
FILES_SHARE = 1.01  # of the tensors' bytes: headers, index, projections


@dataclass(frozen=True)
class Estimate:
    """``num_clips`` and ``num_bytes`` (of tensors, exactly) of the whole store; ``bytes_to_write``: of what is not
    there yet, by all processes; ``free_bytes``: on that disk.

    ``clips_to_do`` and ``seconds``: this process's part of what is missing; None if nothing could be read, or measured.
    ``lines``: the same in words.
    """

    num_clips: int
    num_bytes: int
    bytes_to_write: int
    free_bytes: int
    clips_to_do: int
    seconds: float | None = None
    lines: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return self.bytes_to_write * FILES_SHARE < self.free_bytes

    def to_dict(self) -> dict:
        return {**{name: value for name, value in asdict(self).items() if name != "lines"}, "fits": self.fits}


def estimate(work: Extraction, *, measure: bool = True) -> Estimate:
    """Some seconds long with ``measure``. Reads videos in a process of its own, as extraction will."""
    description, options = work.description, work.description.options
    missing = set(missing_shards(work.folder, description))
    sizes = {
        split: bytes_a_clip(description.spec, description.taps, options, description.num_frames(split))
        for split in SPLITS
    }
    shards = shard_ranges(description)
    to_do = {split: sum(one.count for one in work.mine() if one.split == split and one.number in missing)
             for split in SPLITS}  # fmt: skip
    found = Estimate(
        num_clips=sum(one.count for one in shards),
        num_bytes=sum(one.count * sizes[one.split] for one in shards),
        bytes_to_write=sum(one.count * sizes[one.split] for one in shards if one.number in missing),
        free_bytes=shutil.disk_usage(nearest_existing(work.folder)).free,
        clips_to_do=sum(to_do.values()),
        seconds=_seconds(work, to_do) if measure else None,
    )
    return replace(found, lines=_lines(work, found))


def _lines(work: Extraction, found: Estimate) -> tuple[str, str]:
    description, options = work.description, work.description.options
    videos = ", ".join(f"{count} {split} videos × {description.clips_a_video(split)}"
                       for split, count in description.splits.items() if count)  # fmt: skip
    blocks = ", ".join(map(str, description.blocks))
    size = f"{options.dtype}, {found.num_bytes / max(1, found.num_clips) / 1e6:.2f} MB per clip"
    whole = (
        f"{found.num_clips} clips ({videos}), {options.form} of blocks {blocks}, {size}: {in_bytes(found.num_bytes)}; "
        f"{in_bytes(found.free_bytes)} are free"
    )
    share = f" (part {work.part[0]}/{work.part[1]})" if work.part[1] > 1 else ""
    if not found.clips_to_do:
        return whole, f"nothing is left to do{share}"
    left = f"{found.clips_to_do} clips to do{share}"
    if found.seconds is None:
        return whole, f"{left}; no video that was tried could be read, so no time"
    return whole, f"{left}, about {duration(found.seconds)} on {work.device}"


def in_bytes(count: int) -> str:
    """``1.25 GB``, ``12.00 MB``."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.2f} MB"


def refuse_full_disk(work: Extraction) -> None:
    """RunError where the disk cannot hold what is not there yet."""
    found = estimate(work, measure=False)
    if not found.fits:
        raise RunError(
            f"{work.folder}: {found.bytes_to_write / 1e9:.2f} GB are to be written, {found.free_bytes / 1e9:.2f} GB "
            "are free there; store fewer clips, or in fewer bits, or go on all the same with yes=True (--yes)"
        )


def _seconds(work: Extraction, to_do: dict[str, int]) -> float | None:
    """For so many clips of each split; those of val and test cost the same."""
    training, views = to_do["train"], to_do["val"] + to_do["test"]
    total = 0.0
    for split, clips in (("train", training), ("val" if to_do["val"] else "test", views)):
        if not clips:
            continue
        if (cost := _seconds_a_clip(work, split)) is None:
            return None
        total += clips * cost
    return total


def _seconds_a_clip(work: Extraction, split: str) -> float | None:
    reader = ClipReader(work.description, split, make_files(work.splits[split], work.config))
    count = len(reader)
    videos = sorted({i * count // VIDEOS_MEASURED for i in range(VIDEOS_MEASURED)})
    # a video's first clip takes longer: the file is decoded whole, to find damage
    clips = range(min(2, reader.clips_a_video)) if reader.is_training else [0]
    keys = [reader.key_of((video, clip)) for video in [videos[0], *videos] for clip in clips]
    workers = num_workers(work.config)
    read = {clip: [] for clip in clips}
    pixels = None
    stream = read_batches(
        reader, [[key] for key in keys], num_workers=min(1, workers), device=work.device, collate=collate
    )
    for place, one in enumerate(stream):
        if one.pixels is None:
            continue
        pixels = one.pixels
        if place >= len(clips):  # the first video warms up what reads
            read[clips[place % len(clips)]].append(one.seconds[0])
    if pixels is None or not all(read.values()):
        return None
    first, later = mean(read[clips[0]]), mean(read[clips[-1]])
    per_video = first + (reader.clips_a_video - 1) * later if reader.is_training else first
    reading, computing = per_video / reader.clips_a_video, _computing(work, pixels)
    if work.device.type == "cpu":  # which reads and computes with the same cores
        return reading / min(max(1, workers), default_num_workers()) + computing
    return max(reading / workers, computing) if workers else reading + computing


def _computing(work: Extraction, pixels: Tensor) -> float:
    """Seconds a clip: backbone and packing."""
    size = 1 if work.device.type == "cpu" else clips_at_once(pixels.shape[1])
    batch = pixels[:1].expand(size, *pixels.shape[1:])
    work.features_of(batch)
    started = time.perf_counter()
    work.features_of(batch)  # ends on the CPU: nothing is left to be waited for
    return (time.perf_counter() - started) / size

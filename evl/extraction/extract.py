"""Computes the features of every video once and writes them to a store.

An extraction that was killed can be resumed, and many processes can share one. The store's description alone decides
which clips a shard holds and which of them go through the backbone together. So a shard has the same bytes, whichever
process writes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from evl.backbones.projections import projections_of
from evl.collections.material import announce_material
from evl.config import RunConfig
from evl.data.loader import read_batches
from evl.data.manifests.manifest import write_missing
from evl.data.splits import make_files, stop_if_too_many
from evl.data.splits import num_workers as workers_of
from evl.errors import RunError
from evl.extraction.estimate import Estimate, estimate, refuse_full_disk
from evl.extraction.reading import ClipReader, Clips, clips_at_once, collate, keys_of
from evl.extraction.work import Extraction, check_store_folder, plan_extraction
from evl.runtime.distributed import join_world
from evl.runtime.files import remove_abandoned, remove_file, write_file, write_table
from evl.runtime.out_folder import hold_lock, made_folder
from evl.runtime.progress import Progress, Report
from evl.store.description import PROJECTIONS, SPLITS, ShardRange, StoreOptions, shard_ranges
from evl.store.index import INDEX, write_index
from evl.store.packing import Packed
from evl.store.shards import missing_shards, open_shard, shard_path
from evl.store.writing import ShardItem, write_description, write_shard
from evl.types import Sample
from evl.video.decode.missing import is_missing

DAMAGED, MISSING = "damaged.csv", "missing.csv"


@dataclass(frozen=True)
class ExtractResult:
    """What ``extract`` did."""

    folder: Path
    num_clips: int  # clips that were stored in this call, by all processes of torchrun
    num_bytes: int  # size of all files of the store
    seconds: float  # duration of this call
    is_complete: bool  # whether all shards are there
    # split -> path -> reason, for the whole store if it is complete, else for the videos that were read now
    damaged: dict[str, dict[str, str]]
    missing: tuple[Sample, ...]  # videos that are listed but do not exist
    # the same for videos that were away when they were read: the next call reads their shards again
    away: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def num_damaged(self) -> int:
        return sum(map(len, self.damaged.values()))

    def __fspath__(self) -> str:
        return str(self.folder)


def extract(
    config: RunConfig,
    out: str | Path,
    options: StoreOptions | None = None,
    *,
    device: str | None = None,
    part: tuple[int, int] = (1, 1),
    yes: bool = False,
    on_estimate: Callable[[Estimate], None] | None = None,
    progress: Report = lambda report: None,
) -> ExtractResult:
    """Writes the features of all videos of ``config`` to the folder ``out``. An unfinished store there is continued.

    Missing is not damaged: a video that is away even after some pauses is left out, and the next call with the same
    arguments asks for it again. It makes only the shards with such videos anew.

    The arguments are those of ``evl.extract``. Under torchrun its processes share ``part``. No other process may work
    on the same part, or on parts of another count. The first process calls ``on_estimate``.

    Raises StoreError if ``out`` holds something else, RunError if too many videos are damaged, and other errors of
    ``evl.errors``.
    """
    with join_world(device) as world, ExitStack() as held:
        number, count = part
        shared = ((number - 1) * world.size + world.rank + 1, count * world.size)
        work = plan_extraction(config, out, options or StoreOptions(), device=world.device, part=shared)
        world.only_main(lambda: check_store_folder(work))
        world.only_main(lambda: held.enter_context(hold_part(work.folder, part)))
        if on_estimate is not None:
            world.only_main(lambda: on_estimate(estimate(work)))
        elif not yes:
            world.only_main(lambda: refuse_full_disk(work))
        world.only_main(lambda: begin(work))
        forget_away(work)
        everything = [sample for samples in work.splits.values() for sample in samples]
        world.only_main(lambda: announce_material(everything, work.config))
        started = time.monotonic()
        num_clips, damaged = _write_shards(work, progress)
        world.barrier()
        world.only_main(lambda: finish(work))
        num_clips = sum(world.gather(num_clips))
        is_complete = (work.folder / INDEX).exists()
        for other in world.gather(damaged):
            for split, reasons in other.items():
                damaged[split] = damaged.get(split, {}) | reasons
    if is_complete:
        damaged = _damaged(work)
    size = sum(path.stat().st_size for path in work.folder.rglob("[!.]*") if path.is_file())
    missing = tuple(sample for group in work.missing.values() for sample in group)
    seconds = time.monotonic() - started
    broken, away = map(partial(_by_name, work), _parted(damaged))
    return ExtractResult(work.folder, num_clips, size, seconds, is_complete, broken, missing, away)


@contextmanager
def hold_part(folder: Path, part: tuple[int, int]) -> Iterator[None]:
    """Holds one part of the store in ``folder``. Raises RunError if another process works on this part, or on parts of
    another count, which are other shards."""
    number, count = part
    with made_folder(folder), ExitStack() as held:
        try:
            held.enter_context(hold_lock(folder / f".part-{number}-of-{count}.evl.lock", folder))
            for other in folder.glob(".part-*.evl.lock"):
                if not other.name.endswith(f"-of-{count}.evl.lock"):
                    with hold_lock(other, folder):  # of a dead process
                        pass
        except RunError as error:
            todo = "to share the work, give each process a `part` of its own, such as 1/2 and 2/2"
            raise RunError(f"{error}; {todo}") from None
        yield


def begin(work: Extraction) -> None:
    """Writes the files beside the shards. Removes temporary files of a killed process, and the index if a shard is
    missing or to be made again."""
    folder = work.folder
    remove_abandoned(folder)
    write_description(folder, work.description)
    if work.description.options.form == "tokens" and not (folder / PROJECTIONS).exists():
        write_file(folder / PROJECTIONS, projections_of(work.backbone).to_bytes())
    away = _away_shards(work)
    if away or missing_shards(folder, work.description):
        # the index first: a store without it counts as unfinished
        for name in (INDEX, DAMAGED, *([MISSING] if away else [])):
            remove_file(folder / name)
    if work.missing and not (folder / MISSING).exists():
        write_missing(folder / MISSING, work.missing)


def forget_away(work: Extraction) -> None:
    """Removes the shards of this process in which videos were away, so that they are made again."""
    mine = {shard.number for shard in work.mine()}
    for covers in _away_shards(work):
        if covers.number in mine:
            remove_file(shard_path(work.folder, covers.number))


def _away_shards(work: Extraction) -> list[ShardRange]:
    """The shards that were written while videos were away."""
    unmade = set(missing_shards(work.folder, work.description))
    made = [covers for covers in shard_ranges(work.description) if covers.number not in unmade]
    return [covers for covers in made if any(is_missing(reason) for _, reason in _reasons(work, covers))]


def finish(work: Extraction) -> None:
    """Writes the index and the lists of damaged and missing videos, once all shards are there.

    Raises RunError if too many training videos are damaged.
    """
    folder = work.folder
    if missing_shards(folder, work.description):
        return
    damaged = _damaged(work)
    _stop_if_too_many(work, damaged.get("train", {}))
    broken, away = _parted(damaged)
    if broken and not (folder / DAMAGED).exists():
        rows = [(name, split, why) for split, group in _by_name(work, broken).items() for name, why in group.items()]
        write_table(folder / DAMAGED, [("path", "split", "reason"), *rows])
    if away:
        gone = {split: tuple(work.splits[split][video] for video in group) for split, group in away.items()}
        splits = [split for split in SPLITS if split in gone or split in work.missing]
        write_missing(folder / MISSING, {s: (*work.missing.get(s, ()), *gone.get(s, ())) for s in splits})
    if not (folder / INDEX).exists():
        write_index(folder)


def _damaged(work: Extraction) -> dict[str, dict[int, str]]:
    """The videos that the shards list as unread: split -> video -> reason."""
    damaged: dict[str, dict[int, str]] = {}
    for covers in shard_ranges(work.description):
        for video, reason in _reasons(work, covers):
            damaged.setdefault(covers.split, {}).setdefault(video, reason)
    return damaged


def _reasons(work: Extraction, covers: ShardRange) -> list[tuple[int, str]]:
    """(video, reason) of the clips of a shard that could not be read."""
    items = open_shard(work.folder, work.description, covers).items
    return [(item["video"], item["reason"]) for item in items if item.get("reason") is not None]


def _parted(
    reasons: dict[str, dict[int, str]],
) -> tuple[dict[str, dict[int, str]], dict[str, dict[int, str]]]:
    """The damaged ones, and those that are only away."""
    damaged, away = {}, {}
    for split, group in reasons.items():
        for video, why in group.items():
            (away if is_missing(why) else damaged).setdefault(split, {})[video] = why
    return damaged, away


def _by_name(work: Extraction, damaged: dict[str, dict[int, str]]) -> dict[str, dict[str, str]]:
    return {split: {work.splits[split][video].name: why for video, why in reasons.items()}
            for split, reasons in damaged.items()}  # fmt: skip


def _stop_if_too_many(work: Extraction, damaged: dict[int, str]) -> None:
    """Counts damaged files, as live training does. Several videos (with times) may be cut out of one file."""
    samples = work.splits["train"]
    stop_if_too_many({samples[video].path: why for video, why in damaged.items()}, samples, work.config)


class _Shard:
    """The features of one shard, collected in memory until they are written."""

    def __init__(self, work: Extraction, covers: ShardRange):
        self.work, self.covers = work, covers
        self.tokens: dict[int, list[Packed]] = {}
        self.maps: dict[int, list[Packed]] = {}
        self.num_valid: dict[tuple[int, int], int] = {}
        self.damaged: dict[tuple[int, int], str] = {}

    def add(self, clips: Clips) -> None:
        self.damaged |= clips.damaged
        if clips.pixels is None:
            return
        self.num_valid |= dict(zip(clips.pairs, clips.num_valid, strict=True))
        for part in clips.pixels.split(clips_at_once(clips.pixels.shape[1])):
            for kept, new in zip((self.tokens, self.maps), self.work.features_of(part), strict=True):
                for block, packed in new.items():
                    kept.setdefault(block, []).append(packed)

    def write(self) -> None:
        samples = self.work.splits[self.covers.split]
        items = [
            ShardItem(
                video, clip, samples[video], self.num_valid.get((video, clip), 0), self.damaged.get((video, clip))
            )
            for video, clip in self.covers.pairs
        ]
        tokens, maps = ({block: _joined(parts) for block, parts in kept.items()} for kept in (self.tokens, self.maps))
        write_shard(self.work.folder, self.work.description, self.covers.number, items, tokens, maps)


def _write_shards(work: Extraction, progress: Report) -> tuple[int, dict[str, dict[int, str]]]:
    """Writes this process's missing shards -> (number of stored clips, split -> video -> reason of its damage)."""
    todo, mine = set(missing_shards(work.folder, work.description)), work.mine()
    done = before = sum(shard.count for shard in mine if shard.number not in todo)
    total, stored = sum(shard.count for shard in mine), 0
    damaged: dict[str, dict[int, str]] = {}
    for split in SPLITS:
        shards = [shard for shard in mine if shard.split == split and shard.number in todo]
        if not shards:
            continue
        samples = work.splits[split]
        reader = ClipReader(work.description, split, make_files(samples, work.config))
        batches = [keys_of(reader, shard, work.description.num_frames(split)) for shard in shards]
        flat = [batch for group in batches for batch in group]
        workers = min(workers_of(work.config), len(flat))
        stream = read_batches(reader, flat, num_workers=workers, device=work.device, collate=collate)
        for covers, group in zip(shards, batches, strict=True):
            shard = _Shard(work, covers)
            for clips in islice(stream, len(group)):
                shard.add(clips)
                if clips.damaged:
                    reasons = damaged.setdefault(split, {})
                    reasons |= {video: why for (video, _), why in clips.damaged.items()}
                    if split == "train":
                        _stop_if_too_many(work, reasons)
                done += len(clips.pairs) + len(clips.damaged)
                counts = zip(("damaged", "missing"), _parted(damaged), strict=True)
                note = ", ".join(f"{name} {sum(map(len, group.values()))}" for name, group in counts if group)
                progress(Progress("extracting", done, total, note, before, "clips"))
            shard.write()
            stored += len(shard.num_valid)
    return stored, damaged


def _joined(parts: Sequence[Packed]) -> Packed:
    if len(parts) == 1:
        return parts[0]
    scales = [part.scale for part in parts if part.scale is not None]
    return Packed(_cat([part.values for part in parts]), torch.cat(scales) if scales else None)


def _cat(tensors: Sequence[Tensor]) -> Tensor:
    """As ``torch.cat``, which does not support every 8-bit type on every device."""
    dtype = tensors[0].dtype
    if dtype.itemsize > 1:
        return torch.cat(list(tensors))
    return torch.cat([tensor.view(torch.uint8) for tensor in tensors]).view(dtype)

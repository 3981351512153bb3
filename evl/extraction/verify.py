"""Computes some clips of a store again from the videos, and compares."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path

import numpy as np
import torch

from evl.backbones import create_backbone
from evl.backbones.projections import Projections
from evl.config import replace as replace_settings
from evl.data.loader import read_batches
from evl.data.splits import make_files
from evl.data.splits import num_workers as workers_of
from evl.errors import StoreError
from evl.extraction.reading import ClipReader, collate
from evl.extraction.work import Extraction
from evl.runtime.distributed import pick_device
from evl.runtime.progress import Progress, Report, showing
from evl.store.description import PROJECTIONS, first_shards
from evl.store.packing import Packed
from evl.store.store import FeatureStore, StoredSplit
from evl.video.transforms import preprocessing_of

# how much the same computation may differ in other batches or on another machine, as a share of the largest number of
# a map
COMPUTING = {"fp32": 1e-4, "fp16": 2**-7, "bf16": 2**-5}
# rounding changes each of the two compared numbers by up to half a step, so one step is allowed: as a share of the
# number ...
ROUNDING = {"float32": 0.0, "float16": 2**-10, "bfloat16": 2**-7, "int8": 0.0, "uint8": 0.0, "float8": 2**-3}
# ... and for types with a scale, as a share of the scale
STEP = {"int8": 1.0, "uint8": 1.0, "float8": 2**-9}


@dataclass(frozen=True)
class Checked:
    """The comparison of one stored clip."""

    split: str
    path: str
    clip: int
    difference: float = 0.0  # the largest difference, as a share of the allowed one. Up to 1 the clips count as equal
    problem: str | None = None  # why the clip could not be computed again, or None

    @property
    def is_equal(self) -> bool:
        return self.problem is None and self.difference <= 1


@dataclass(frozen=True)
class Verification:
    """The result of ``verify_store``: the clips that were computed again, which ``seed`` drew, and ``damaged_shards``:
    the path of each shard whose checksums are wrong (or of the file of projections) -> what is wrong."""

    store: Path
    seed: int
    clips: tuple[Checked, ...]
    damaged_shards: dict[str, str] = field(default_factory=dict)

    @property
    def different(self) -> tuple[Checked, ...]:
        """The clips that are not equal."""
        return tuple(clip for clip in self.clips if not clip.is_equal)


def verify_store(
    store: str | PathLike,
    *,
    sample: int = 16,
    seed: int | None = None,
    num_workers: int | None = None,
    device: str | None = None,
    progress: bool | Report = True,
) -> Verification:
    """Reads all numbers of a finished store and compares them with their checksums: ``.damaged_shards``. Then computes
    ``sample`` clips again, from the videos, and compares: ``.clips``, ``.different``.

    ``seed`` draws them; None: others each time. ``num_workers``: processes that read videos; None: one a core.
    Raises StoreError where there is no store, or its encoder has other weights or settings now.
    """
    store = FeatureStore(fspath(store))
    seed = secrets.randbelow(2**32) if seed is None else seed
    work = _extraction_of(store, device)
    chosen = _drawn(store, sample, seed)
    results: list[Checked] = []
    with showing(progress) as report:
        damaged = _damaged_shards(store, report)
        for name, split in store.splits.items():
            pairs = [pair for other, *pair in chosen if other == name]
            reader = ClipReader(store.description, name, make_files(split.samples, work.config))
            count = workers_of(work.config) if num_workers is None else num_workers
            stream = read_batches(
                reader, [[reader.key_of(tuple(pair))] for pair in pairs], num_workers=min(count, len(pairs)),
                device=work.device, collate=collate,
            )  # fmt: skip
            for (video, clip), read in zip(pairs, stream, strict=True):
                results.append(_compared(work, split, video, clip, read))
                report(Progress("computing again", len(results), len(chosen), unit="clips"))
    return Verification(store.path, seed, tuple(results), damaged)


def _damaged_shards(store: FeatureStore, progress: Report) -> dict[str, str]:
    damaged, done, total = {}, 0, first_shards(store.description)[""]
    if store.description.options.form == "tokens":
        try:
            Projections.load(store.path / PROJECTIONS, store.description.spec)
        except StoreError as error:
            damaged[str(store.path / PROJECTIONS)] = str(error)
    for split in store.splits.values():
        for path, problem in split.problems():
            done += 1
            progress(Progress("reading", done, total, unit="shards"))
            if problem is not None:
                damaged[str(path)] = problem
    return damaged


def _extraction_of(store: FeatureStore, device: str | None) -> Extraction:
    """The extraction that made the store, from its description."""
    description = store.description
    config = replace_settings(description.config, training={"precision": description.precision})
    backbone = create_backbone(config.backbone, description.taps).to(pick_device(device))
    now = replace(
        description,
        backbone_hash=backbone.weights_hash,
        spec=backbone.spec,
        preprocessing=preprocessing_of(config, backbone.preprocessing),
    )
    before, after = description.fingerprint, now.fingerprint
    if changed := [f"{name} is {after[name]} now and {before[name]} in the store" for name in before
                   if after[name] != before[name]]:  # fmt: skip
        raise StoreError(f"{store.path} cannot be made again: {'; '.join(changed)}")
    splits = {name: split.samples for name, split in store.splits.items()}
    return Extraction(store.path, config, description, splits, {}, backbone)


def _drawn(store: FeatureStore, count: int, seed: int) -> list[tuple[str, int, int]]:
    """(split, video, clip) of stored clips, in order. Each stored clip is equally likely."""
    videos = [(name, video, split.num_clips(video)) for name, split in store.splits.items()
              for video in range(len(split)) if split.num_clips(video)]  # fmt: skip
    ends = np.cumsum([clips for _, _, clips in videos])
    total = int(ends[-1]) if videos else 0
    places = np.sort(np.random.default_rng(seed).choice(total, min(count, total), replace=False)) if total else []
    chosen = []
    for place in places:
        at = int(np.searchsorted(ends, place, side="right"))
        name, video, clips = videos[at]
        chosen.append((name, video, int(place - (ends[at] - clips))))
    return chosen


def _compared(work: Extraction, split: StoredSplit, video: int, clip: int, read) -> Checked:
    name = split.samples[video].name
    if read.pixels is None:
        return Checked(split.name, name, clip, problem=next(iter(read.damaged.values())))
    place = read.pairs.index((video, clip))
    made = work.features_of(read.pixels[place : place + 1])
    try:
        stored = split.read([(video, clip)], verify=False)  # how much it differs says more than that it does
    except StoreError as error:
        return Checked(split.name, name, clip, problem=str(error))
    description = work.description
    worst = 0.0
    for there, here in zip((stored.tokens, stored.maps), made, strict=True):
        assert there.keys() == here.keys()
        for block, packed in there.items():
            worst = max(worst, difference(packed, here[block], description.options.dtype, description.precision))
    return Checked(split.name, name, clip, worst)


def difference(stored: Packed, made: Packed, dtype: str, precision: str) -> float:
    """The largest difference between two maps of a clip, as a share of the allowed one."""
    here, there = made.unpack(), stored.unpack()
    kind = "uint8" if stored.values.dtype == torch.uint8 else dtype
    allowed = ROUNDING[kind] * there.abs() + COMPUTING[precision] * there.abs().max()
    if stored.scale is not None:
        allowed = allowed + STEP[kind] * stored.scale
    differences = (here - there).abs()
    shares = torch.where(differences > 0, differences / allowed, 0.0)  # where all is zero, ``allowed`` is zero too
    return float("inf") if shares.isnan().any() else shares.max().item()

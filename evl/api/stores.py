"""Stores of features: made, estimated, verified, opened."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from evl.api.settings import config_for
from evl.config import BackboneConfig, RunConfig
from evl.errors import ConfigError
from evl.extraction.estimate import Estimate, estimate
from evl.extraction.extract import ExtractResult
from evl.extraction.extract import extract as extract_features
from evl.extraction.verify import Verification, verify
from evl.extraction.work import check_store_folder, plan_extraction
from evl.runtime.distributed import pick_device
from evl.runtime.progress import Report, showing
from evl.store.description import StoreOptions
from evl.store.store import FeatureStore

AnyPath = str | PathLike


def extract(
    data: AnyPath | Mapping[str, Any] | None = None,
    out: AnyPath | None = None,
    *,
    backbone: str | BackboneConfig | Mapping[str, Any] | None = None,
    config: RunConfig | AnyPath | None = None,
    recipe: str | None = None,
    settings: Iterable[str] = (),
    clips_per_video: int = 1,
    frames: int | None = None,
    form: str = "tokens",
    dtype: str = "float16",
    scale: str = "channel",
    shard_megabytes: int = 128,
    part: tuple[int, int] = (1, 1),
    device: str | None = None,
    yes: bool = False,
    on_estimate: Callable[[Estimate], None] | None = None,
    progress: bool | Report = True,
    **fields: Any,
) -> ExtractResult:
    """Computes the frozen encoder's features of every video, once, and stores them in the folder ``out``; goes on
    with a store that is not complete.

        evl.extract("videos/", out="store", backbone="vit_base_patch16_clip_quickgelu_224.openai")
        model = evl.train(data="store", out="runs/mine", lr=1e-3)

    Args:
        clips_per_video: augmented clips of each training video.
        frames: None, or longer runs of frames, of which training draws its clips.
        form, dtype, scale, shard_megabytes: how they are stored (docs/store.md).
        part: (i, n), the i-th of n parts from 1, for n processes side by side.
        yes: go on where the disk seems too small.
        on_estimate: called with what it will cost, before anything is written; takes the place of ``yes``.

    The other arguments are those of ``evl.train``. The result may be given as ``data`` to whatever reads a store;
    its ``damaged`` are the videos that could not be read. Raises errors of ``evl.errors``.
    """
    given = dict(backbone=backbone, config=config, recipe=recipe, settings=settings, clips_per_video=clips_per_video,
                 frames=frames, form=form, dtype=dtype, scale=scale, shard_megabytes=shard_megabytes)  # fmt: skip
    with showing(progress) as report:
        chosen, options = _chosen(data, out, {**given, **fields})
        how = dict(device=device, part=part, yes=yes, on_estimate=on_estimate, progress=report)
        return extract_features(chosen, out, options, **how)


def estimate_extraction(
    data: AnyPath | Mapping[str, Any] | None = None,
    out: AnyPath | None = None,
    *,
    part: tuple[int, int] = (1, 1),
    device: str | None = None,
    **options: Any,
) -> Estimate:
    """What ``evl.extract`` of the same arguments will cost: bytes by counting, seconds by a short measurement.

    Nothing is written. Raises what ``evl.extract`` does.
    """
    chosen, stored = _chosen(data, out, options)
    work = plan_extraction(chosen, out, stored, device=pick_device(device), part=part)
    check_store_folder(work)
    return estimate(work)


def _chosen(data: Any, out: AnyPath | None, given: Mapping[str, Any]) -> tuple[RunConfig, StoreOptions]:
    if out is None:
        raise ConfigError("where to? Give `out`, the folder of the store")
    names = {field.name for field in dataclasses.fields(StoreOptions)} & given.keys()
    options = StoreOptions(**{name: given[name] for name in names})
    chosen = config_for(data, **{name: value for name, value in given.items() if name not in names})
    if chosen.data.features is not None:
        raise ConfigError("data is a store of features already; give the videos")
    return chosen, options


def verify_store(
    store: AnyPath,
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
    Raises StoreError where there is no store, or its encoder has other weights now.
    """
    with showing(progress) as report:
        how = dict(sample=sample, seed=seed, workers=num_workers, device=device, progress=report)
        return verify(Path(store), **how)


def open_store(path: AnyPath) -> FeatureStore:
    """The finished store of features in a folder: ``splits``, ``class_names``, ``description``. Raises StoreError."""
    return FeatureStore(os.fspath(path))

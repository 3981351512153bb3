"""The videos of a config: which of them train, validate and test, how to read them, and how many may be damaged."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from evl.config import DataConfig, RunConfig
from evl.config import replace as replace_settings
from evl.data.dataset import Files
from evl.data.draw import refuse_shared_groups, split_samples, with_groups
from evl.data.index_file import IndexFile
from evl.data.loader import default_num_workers
from evl.data.manifests import Manifest, refuse_missing
from evl.data.manifests.listing import still_missing
from evl.data.manifests.manifest import read_class_names, read_manifest
from evl.data.notices import manifest_notices, several_labels, split_notices
from evl.data.untrimmed import extent_reader, with_background
from evl.errors import ConfigError, DataError, RunError, plural
from evl.types import BACKGROUND, Sample
from evl.video.decode.missing import NO_FILE as NO_FILE
from evl.video.decode.missing import is_missing as is_missing

log = logging.getLogger("evl")
MOVED = "`resume=True` and `data.root=FOLDER`"  # how a run is given the new folder of its videos


@dataclass(frozen=True)
class DataSplits:
    """The videos of a config. ``config`` itself has absolute paths here.

    ``splits``: the samples of train and val, and of test if the manifest has it. ``missing``: by split, the listed
    samples whose files are missing; ``splits`` does not contain them.
    """

    config: RunConfig
    class_names: tuple[str, ...]
    splits: dict[str, tuple[Sample, ...]]
    missing: dict[str, tuple[Sample, ...]]


def find_splits(config: RunConfig, *, test: bool = True) -> DataSplits:
    """Reads the lists of ``config.data`` and returns the samples of each split.

    ``test``: also return the test split, if the manifest has one and at least one of its videos exists. Notices about
    the lists are logged. Raises ConfigError without ``data.path``; DataError if a list cannot be read, has no training
    or validation split, or if all videos of either are missing.
    """
    if config.data.path is None:
        raise ConfigError("no videos: give `data`, a folder with a folder per class, or a manifest")
    config = with_absolute_paths(config)  # a path names a video, also when a run is resumed
    data = config.data
    names = read_class_names(data.class_names) if data.class_names else None
    manifest = _read(data.path, config, class_names=names, layout=data.layout, split_number=data.split_number)
    training, missing = _present(manifest, "training", "train", "all")
    val_missing, test_missing, val_fraction = {}, {}, None
    if data.val_path is not None:
        # a folder has the layout of the training videos; a list has its own
        layout = data.layout if Path(data.val_path).is_dir() else "auto"
        val = _read(data.val_path, config, class_names=manifest.class_names, layout=layout)
        validation, val_missing = _present(val, "validation", "val", "all")
    elif "val" in manifest.splits:
        validation, val_missing = _present(manifest, "validation", "val")
    else:
        val_fraction = data.val_fraction
        training, validation = split_samples(training, val_fraction=val_fraction, seed=config.training.seed)
    splits = {"train": training, "val": validation}
    refuse_shared_groups(splits | {"test": manifest.splits.get("test", ())})
    for notice in (*several_labels((*training, *validation)), *split_notices(training, validation, val_fraction)):
        log.warning(notice)
    if test and not set(manifest.splits.get("test", ())) <= set(manifest.missing):
        splits["test"], test_missing = _present(manifest, "test", "test")
    for split, gone in (*val_missing.items(), *test_missing.items()):
        missing[split] = (*missing.get(split, ()), *gone)
    class_names = manifest.class_names
    if data.background is not None:
        splits = with_background(splits, data, config.clip, extent_reader(data))
        class_names = (*(name for name in class_names if name != BACKGROUND), BACKGROUND)
    return DataSplits(config, class_names, splits, missing)


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """``config`` with absolute paths of its videos."""
    paths = {name: str(Path(value).absolute()) for name in ("path", "val_path", "root", "class_names", "index")
             if (value := getattr(config.data, name)) is not None}  # fmt: skip
    return replace_settings(config, data=paths)


def announce_notices(manifest: Manifest) -> None:
    """Logs the notices about a list of videos, and how many files in its folder are not videos."""
    for notice in manifest_notices(manifest):
        log.warning(notice)
    if manifest.ignored:
        others = plural(len(manifest.ignored), "file")
        log.info("%s: ignored %s that are not videos, such as %s", manifest.source, others, manifest.ignored[0])


def _read(path: str, config: RunConfig, **options) -> Manifest:
    manifest = read_manifest(path, root=config.data.root, **options)
    announce_notices(manifest)
    add_groups = partial(with_groups, group_by=config.data.group_by, path=path, root=config.data.root)
    splits = {split: add_groups(samples) for split, samples in manifest.splits.items()}
    return replace(manifest, splits=splits, missing=add_groups(manifest.missing))


def _present(manifest: Manifest, use: str, *names: str) -> tuple[tuple[Sample, ...], dict[str, tuple[Sample, ...]]]:
    """Returns the samples whose files exist, of the first split in ``names`` that the manifest has, and split → the
    samples whose files are missing. Raises DataError if there is no such split, or if all its videos are missing."""
    split = next((name for name in names if name in manifest.splits), None)
    if split is None:
        splits = ", ".join(manifest.splits)
        raise DataError(f"{manifest.source} has no {use} split, only {splits}; give one of these directly")
    absent = set(manifest.missing)
    gone = tuple(sample for sample in manifest.splits[split] if sample in absent)
    present = tuple(sample for sample in manifest.splits[split] if sample not in absent)
    if not present:
        refuse_missing(manifest.source, gone)
    return present, {split: gone} if gone else {}


def num_workers(config: RunConfig) -> int:
    """Returns the config's number of worker processes, or one per core if it has none."""
    return default_num_workers() if config.data.num_workers is None else config.data.num_workers


def make_files(samples: Sequence[Sample], config: RunConfig) -> Files:
    """Returns the ``Files`` of ``samples``, read as ``config.data`` says."""
    data = config.data
    index_file = IndexFile(data.index) if data.index is not None else None
    return Files(samples, verify=data.verify, decoder=data.decoder, index_file=index_file)


def stop_if_too_many(damaged: dict[str, str], train_samples: Sequence[Sample], config: RunConfig) -> None:
    """Raises RunError if all training files, or more than ``data.max_damaged_share`` of them, are damaged or gone.

    ``damaged``: path → reason.
    """
    total, allowed = len({sample.path for sample in train_samples}), config.data.max_damaged_share
    if not damaged or (len(damaged) <= allowed * total and len(damaged) < total):
        return
    gone = [path for path, reason in damaged.items() if is_missing(reason)]
    if 2 * len(gone) > len(damaged):
        message = describe_gone(len(gone), total, "train", gone[0], old_root(config.data, train_samples), MOVED)
        if len(damaged) < total:
            message += f". To go on without them, raise data.max_damaged_share (now {allowed:g})"
        raise RunError(message)
    path, reason = next(iter(damaged.items()))
    if len(damaged) >= total:
        raise RunError(f"all {total} training videos are damaged, such as {path}: {reason}. 'evl check' lists them")
    raise RunError(
        f"{len(damaged)} of {total} training videos are damaged ({100 * len(damaged) / total:.1f} %, allowed "
        f"{100 * allowed:g} %), such as {path}: {reason}. 'evl check' lists them; repair or remove them, or raise "
        "data.max_damaged_share"
    )


def old_root(data: DataConfig, samples: Sequence[Sample]) -> str:
    """Returns the old folder of a run's videos, which a new ``data.root`` replaces.

    It is the ``data.root`` they were listed with, else the folder ``data.path``, else the folder of the list. If some
    videos lay outside of it, it is the lowest folder that contains all videos.
    """
    paths = [os.path.abspath(sample.path) for sample in samples]
    folders = [data.root] if data.root else [data.path, os.path.dirname(data.path or "")] if not data.val_path else []
    for folder in filter(None, folders):
        if all(Path(path).is_relative_to(folder) for path in paths):
            return folder
    return os.path.commonpath([os.path.dirname(path) for path in paths])


def moved_samples(samples: Sequence[Sample], before: str, root: str) -> tuple[Sample, ...]:
    """Returns the samples with ``before`` replaced by ``root`` in their paths; paths outside of ``before`` stay."""

    def moved(path: str) -> str:
        path = os.path.abspath(path)
        return os.path.join(root, os.path.relpath(path, before)) if Path(path).is_relative_to(before) else path

    return tuple(replace(sample, path=moved(sample.path)) for sample in samples)


def gone_samples(splits: dict[str, Sequence[Sample]], root: str, *, how: str) -> dict[str, tuple[Sample, ...]]:
    """Returns split → its samples whose files are gone; splits without such samples are left out.

    ``root``: the folder that the videos were in; ``how``: the arguments that give the new folder. Raises DataError if
    all videos of a split are gone.
    """
    gone = {name: missing for name, samples in splits.items() if (missing := still_missing(samples))}
    for name, missing in gone.items():
        if len(missing) == len(splits[name]):
            raise DataError(describe_gone(len(missing), len(missing), name, missing[0].path, root, how))
    return gone


def describe_gone(count: int, total: int, split: str, path: str, root: str, how: str) -> str:
    """Returns a sentence on ``count`` of ``total`` videos that are gone, ``path`` one of them, and what to do."""
    share = f"all {total}" if count == total else f"{count} of {total}"
    split = {"train": "training", "val": "validation"}.get(split, split)
    return (
        f"{share} {split} videos are gone, such as {path}. If you moved them, give {how}: "
        f"the folder that now holds the content of {root}. If they are on a disk that is not mounted, mount it"
    )

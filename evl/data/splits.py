"""The videos of a config: which of them train, validate and test, how to read them, and how many may be damaged."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from evl.config import RunConfig
from evl.config import replace as replace_settings
from evl.data.dataset import Files
from evl.data.draw import split_samples
from evl.data.groups import refuse_shared_groups, with_groups
from evl.data.index_file import IndexFile
from evl.data.loader import default_num_workers
from evl.data.manifests.manifest import Manifest, read_class_names, read_manifest, refuse_missing
from evl.data.moved import NO_FILE, describe_gone, old_root
from evl.data.notices import manifest_notices, several_labels, split_notices
from evl.errors import ConfigError, DataError, RunError, plural
from evl.types import Sample

log = logging.getLogger("evl")


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
    data = config.data
    if data.path is None:
        raise ConfigError("no videos: give --data a folder with a folder per class, or a manifest")
    paths = {name: str(Path(value).absolute()) for name in ("path", "val_path", "root", "class_names", "index")
             if (value := getattr(data, name)) is not None}  # fmt: skip
    config = replace_settings(config, data=paths)
    data = config.data  # from here on all paths are absolute: a path names a video, also when a run is resumed
    names = read_class_names(data.class_names) if data.class_names else None
    manifest = read_manifest(
        data.path, root=data.root, class_names=names, layout=data.layout, split_number=data.split_number
    )
    announce_notices(manifest)
    manifest = _grouped(manifest, data.path, config)
    missing: dict[str, tuple[Sample, ...]] = {}
    training, val_fraction = _present(manifest, ("train", "all"), missing), None
    if training is None:
        raise DataError(f"{data.path} has no training split, only {', '.join(manifest.splits)}")
    if data.val_path is not None:
        # a folder has the layout of the training videos; a list has its own
        layout = data.layout if Path(data.val_path).is_dir() else "auto"
        val = read_manifest(data.val_path, root=data.root, class_names=manifest.class_names, layout=layout)
        announce_notices(val)
        val = _grouped(val, data.val_path, config)
        validation = _present(val, ("val", "all"), missing)
        if validation is None:
            names = ", ".join(val.splits)
            raise DataError(f"{data.val_path} has no validation split, only {names}; give one of these directly")
    elif "val" in manifest.splits:
        validation = _present(manifest, ("val",), missing)
    else:
        val_fraction = data.val_fraction
        training, validation = split_samples(training, val_fraction=val_fraction, seed=config.training.seed)
    splits = {"train": training, "val": validation}
    refuse_shared_groups(splits | {"test": manifest.splits.get("test", ())})
    for notice in (*several_labels((*training, *validation)), *split_notices(training, validation, val_fraction)):
        log.warning(notice)
    if test and not set(manifest.splits.get("test", ())) <= set(manifest.missing):
        splits["test"] = _present(manifest, ("test",), missing)
    return DataSplits(config, manifest.class_names, splits, missing)


def announce_notices(manifest: Manifest) -> None:
    """Logs the notices about a list of videos, and how many files in its folder are not videos."""
    for notice in manifest_notices(manifest):
        log.warning(notice)
    if manifest.ignored:
        others = plural(len(manifest.ignored), "file")
        log.info("%s: ignored %s that are not videos, such as %s", manifest.source, others, manifest.ignored[0])


def _grouped(manifest: Manifest, path: str, config: RunConfig) -> Manifest:
    """Returns the manifest with the groups of ``data.group_by``."""
    group_by, root = config.data.group_by, config.data.root
    if group_by is None:
        return manifest
    folder = root or (path if Path(path).is_dir() else Path(path).parent)
    make = partial(with_groups, group_by=group_by, folder=folder, source=manifest.source)
    return replace(
        manifest,
        splits={split: make(samples) for split, samples in manifest.splits.items()},
        missing=make(manifest.missing),
    )


def _present(manifest: Manifest, splits: tuple[str, ...], missing: dict[str, tuple[Sample, ...]]):
    """Returns the samples whose files exist, of the first of ``splits`` that the manifest has, or None if it has none
    of them. The others are added to ``missing``."""
    split = next((name for name in splits if name in manifest.splits), None)
    if split is None:
        return None
    absent = set(manifest.missing)
    gone = tuple(sample for sample in manifest.splits[split] if sample in absent)
    present = tuple(sample for sample in manifest.splits[split] if sample not in absent)
    if not present:
        refuse_missing(manifest.source, gone)
    if gone:
        missing[split] = (*missing.get(split, ()), *gone)
    return present


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
    gone = [path for path, reason in damaged.items() if reason == NO_FILE]
    if 2 * len(gone) > len(damaged):
        message = describe_gone(
            len(gone), total, "train", gone[0], old_root(config.data, train_samples), "--resume --set data.root"
        )
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

"""What a config says of its videos: which train, validate and test, how they are read, how many may be damaged."""

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
class FoundSplits:
    """``config`` has absolute paths. ``splits``: train and val, and test where the manifest has one; ``missing``:
    listed videos that are not there, by split, and in none of ``splits``."""

    config: RunConfig
    class_names: tuple[str, ...]
    splits: dict[str, tuple[Sample, ...]]
    missing: dict[str, tuple[Sample, ...]]


def find_samples(
    config: RunConfig,
) -> tuple[RunConfig, tuple[str, ...], tuple[Sample, ...], tuple[Sample, ...], dict[str, tuple[Sample, ...]]]:
    """(config with absolute paths, class names, training samples, validation samples, missing samples by split).

    A test split, where there is one, is never looked at. Missing videos are in neither list; DataError if all of
    either are.
    """
    found = find_splits(config, test=False)
    return found.config, found.class_names, found.splits["train"], found.splits["val"], found.missing


def find_splits(config: RunConfig, *, test: bool = True) -> FoundSplits:
    """The same with the test split, if the manifest has one of which there is a video."""
    data = config.data
    if data.path is None:
        raise ConfigError("no videos: give --data a folder with a folder per class, or a manifest")
    paths = {name: str(Path(value).absolute()) for name in ("path", "val_path", "root", "class_names", "index")
             if (value := getattr(data, name)) is not None}  # fmt: skip
    config = replace_settings(config, data=paths)
    data = config.data  # from here on every path is absolute: it is a video's name, in this run and when it goes on
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
        # laid out as the training videos are, unless it is a list
        layout = data.layout if Path(data.val_path).is_dir() else "auto"
        val = read_manifest(data.val_path, root=data.root, class_names=manifest.class_names, layout=layout)
        announce_notices(val)
        val = _grouped(val, data.val_path, config)
        validation = _present(val, ("val", "all"), missing)
        if validation is None:
            found = ", ".join(val.splits)
            raise DataError(f"{data.val_path} has no validation split, only {found}; name one of them directly")
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
    return FoundSplits(config, manifest.class_names, splits, missing)


def announce_notices(manifest: Manifest) -> None:
    """Logs what is odd about a list of videos, and how many files in its folder are none."""
    for notice in manifest_notices(manifest):
        log.warning(notice)
    if manifest.ignored:
        others = plural(len(manifest.ignored), "other file")
        log.info("%s: ignored: %s, such as %s", manifest.source, others, manifest.ignored[0])


def _grouped(manifest: Manifest, path: str, config: RunConfig) -> Manifest:
    """The manifest, with the groups that ``data.group_by`` makes."""
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
    """The samples that are there of the first of ``splits`` that the manifest has (None: it has none of them). Those
    that are not are added to ``missing``."""
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
    """The config's number of reading processes, or one a core."""
    return default_num_workers() if config.data.num_workers is None else config.data.num_workers


def make_files(samples: Sequence[Sample], config: RunConfig) -> Files:
    data = config.data
    index_file = IndexFile(data.index) if data.index is not None else None
    return Files(samples, verify=data.verify, decoder=data.decoder, index_file=index_file)


def stop_if_too_many(damaged: dict[str, str], train_samples: Sequence[Sample], config: RunConfig) -> None:
    """RunError if more than the allowed share of the training files is damaged or gone, or all are."""
    total, allowed = len({sample.path for sample in train_samples}), config.data.max_damaged_share
    if not damaged or (len(damaged) <= allowed * total and len(damaged) < total):
        return
    gone = [path for path, reason in damaged.items() if reason == NO_FILE]
    if 2 * len(gone) > len(damaged):
        share = f"; without them a run goes on if data.max_damaged_share (now {allowed:g}) allows it"
        told = describe_gone(
            len(gone), total, "train", gone[0], old_root(config.data, train_samples), "--resume --set data.root"
        )
        raise RunError(told + share * (len(damaged) < total))
    path, reason = next(iter(damaged.items()))
    if len(damaged) >= total:
        raise RunError(f"all {total} training videos are damaged, such as {path}: {reason}. 'evl check' lists them")
    raise RunError(
        f"{len(damaged)} of {total} training videos are damaged ({100 * len(damaged) / total:.1f} %, allowed "
        f"{100 * allowed:g} %), such as {path}: {reason}. 'evl check' lists them; mend or remove them, or raise "
        "data.max_damaged_share"
    )

"""Finds the videos of a run again after they were moved to another folder, and those that are gone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evl.config import DataConfig
from evl.data.manifests.listing import missing_samples
from evl.errors import DataError
from evl.types import Sample

MOVED = "`resume=True` and `data.root=FOLDER`"  # how a run is given the new folder of its videos
NO_FILE = "no such file"  # the reason in a reader's VideoError for a file that does not exist


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
    gone = {name: missing for name, samples in splits.items() if (missing := missing_samples(samples))}
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

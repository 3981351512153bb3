"""Videos that a run lists, and that lie elsewhere by now: where they lay, where they are, which are gone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from evl.config import DataConfig
from evl.data.manifests.listing import missing_samples
from evl.errors import DataError
from evl.types import Sample

NO_FILE = "no such file"  # the reason that readers give for what is not there


def old_root(data: DataConfig, samples: Sequence[Sample]) -> str:
    """The folder that ``data.root`` stands for when a run's videos have moved: the root they were listed with, the
    folder of videos, or the list's own; the lowest folder above all of them where they lay outside of it."""
    paths = [os.path.abspath(sample.path) for sample in samples]
    known = [data.root] if data.root else [data.path, os.path.dirname(data.path or "")] if not data.val_path else []
    for folder in filter(None, known):
        if all(_is_below(path, folder) for path in paths):
            return folder
    return os.path.commonpath([os.path.dirname(path) for path in paths])


def moved_samples(samples: Sequence[Sample], before: str, root: str) -> tuple[Sample, ...]:
    """Samples that lay below the folder ``before``, at the same place below ``root``; others as they are."""

    def moved(path: str) -> str:
        path = os.path.abspath(path)
        return os.path.join(root, os.path.relpath(path, before)) if _is_below(path, before) else path

    return tuple(replace(sample, path=moved(sample.path)) for sample in samples)


def gone_samples(splits: dict[str, Sequence[Sample]], root: str, *, how: str) -> dict[str, tuple[Sample, ...]]:
    """Those of each split that are not there; splits of which all are there are left out.

    ``root``: the folder they lay below; ``how``: the option that says where it is now. Raises DataError where all of a
    split are gone.
    """
    gone = {name: found for name, samples in splits.items() if (found := missing_samples(samples))}
    for name, found in gone.items():
        if len(found) == len(splits[name]):
            raise DataError(describe_gone(len(found), len(found), name, found[0].path, root, how))
    return gone


def describe_gone(count: int, total: int, split: str, path: str, root: str, how: str) -> str:
    """A sentence for people on videos that are no longer where they were."""
    many = f"all {total}" if count == total else f"{count} of {total}"
    split = {"train": "training", "val": "validation"}.get(split, split)
    return (
        f"{many} {split} videos are gone, such as {path}. If they were moved, say where they lie now: {how}=FOLDER, "
        f"the folder that holds what {root} held; if a disk is not mounted, mount it"
    )


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip(os.sep) + os.sep)

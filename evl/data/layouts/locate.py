"""Turns the rows of an annotation into samples."""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from evl.data.layouts.base import Annotation
from evl.data.layouts.places import ByName, ByPath
from evl.data.layouts.trimmed import are_trimmed
from evl.data.manifests.listing import is_video_name
from evl.errors import DataError
from evl.types import Sample


@dataclass(frozen=True)
class Located:
    """Samples by split, those of them whose file is missing, and the number of rows without a label, left out."""

    splits: dict[str, tuple[Sample, ...]]
    class_names: tuple[str, ...] | None
    missing: tuple[Sample, ...]
    num_unlabeled: int


def locate(annotation: Annotation, root: Path, *, by_path: bool = False) -> Located:
    """Finds the videos of the rows below ``root``: by name in any folder, or exactly at their paths (``by_path``).

    A row whose video is missing becomes a sample too, with its published name. Raises DataError for a name that no file
    can have.
    """
    rows = [row for row in dict.fromkeys(annotation.rows) if row.label is not None]
    for row in rows:
        _refuse_unwritable(row.file)
        _refuse_unwritable(row.label)
    num_unlabeled = sum(row.label is None for row in annotation.rows)
    names = {name for row in rows for name in (row.name, row.uncut) if name is not None}
    places = ByPath(root) if by_path else ByName(root, names)
    parts = [places.find(row.name, row) for row in rows]
    uncut = [
        places.find(row.uncut, row) if part is None and row.uncut is not None else None
        for row, part in zip(rows, parts, strict=True)
    ]
    lengths = {file: row.end_seconds - row.start_seconds for row, file in zip(rows, uncut, strict=True) if file}
    cut = bool(lengths) and not are_trimmed(lengths)
    groups: dict[str, list[Sample]] = defaultdict(list)
    missing = []
    for row, part, whole in zip(rows, parts, uncut, strict=True):
        path = part or whole or os.path.join(root, row.file)
        if cut and whole is not None and is_video_name(whole):  # a folder of frames has no times of its own
            sample = Sample(path, row.label, row.start_seconds, row.end_seconds)
        else:
            sample = Sample(path, row.label)
        groups[row.split].append(sample)
        if part is None and whole is None:
            missing.append(sample)
    splits = {split: tuple(groups[split]) for split in ("train", "val", "test", "all") if split in groups}
    return Located(splits, annotation.class_names, tuple(missing), num_unlabeled)


def _refuse_unwritable(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(f"the name {name!r} in an annotation is not UTF-8") from None
    if "\0" in name:
        raise DataError(f"the name {name!r} in an annotation has a zero byte")

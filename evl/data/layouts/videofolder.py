"""A folder for Hugging Face's ``datasets``: metadata.csv or metadata.jsonl with ``file_name`` and a label."""

from __future__ import annotations

import os
from pathlib import Path

from evl.data.layouts.base import (
    Annotation,
    FoundLayout,
    Row,
    csv_header,
    parse_json,
    read_csv,
    read_lines,
    read_start,
)
from evl.data.manifests.labels import is_empty_cell
from evl.data.manifests.listing import SPLIT_NAMES, is_video_name
from evl.errors import DataError
from evl.runtime.text import clean_label

LOOKED_FOR = "metadata.csv or metadata.jsonl with a column file_name (at the top, or in a folder for each split)"
NUM_SPLITS = 1
_NOT_LABELS = {"file_name", "split"}


def find(files: list[Path]) -> list[Path]:
    """Returns the metadata files with a column file_name, one per folder."""
    by_folder: dict[Path, Path] = {}
    for file in files:
        if (file.name.lower() == "metadata.csv" and "file_name" in csv_header(file, "file_name")) or (
            file.name.lower() == "metadata.jsonl" and '"file_name"' in read_start(file)
        ):
            by_folder.setdefault(file.parent, file)
    return list(by_folder.values())


def read(found: FoundLayout, split_number: int) -> Annotation:
    """Reads rows whose ``file`` is the path below the folder of the data set.

    A row's split is a folder with a split's name in its path, or else its column ``split``, or else ``all``.
    """
    rows = []
    for file in found.files:
        items = read_csv(file, "file_name") if file.suffix.lower() == ".csv" else _read_objects(file)
        column = _label_column(file, items)
        for number, item in enumerate(items, 1):
            name = str(item.get("file_name") or "").strip()
            if not name or "\0" in name:
                raise DataError(f"{file}, video {number}: file_name is {item.get('file_name')!r}, expected a path")
            path = os.path.normpath(file.parent.relative_to(found.folder) / name)
            label = None if is_empty_cell(item.get(column)) else clean_label(item[column])
            if label is not None and is_video_name(label):
                raise DataError(f"{file}, video {number}: the label {label!r} is a video's name; are cells swapped?")
            rows.append(Row(_split(path, item), label, path))
    unsplit = [row for row in rows if row.split == "all"]
    if unsplit and len(unsplit) < len(rows):
        raise DataError(
            f"{found.folder}: some videos are in a split (train, val, test), but {unsplit[0].file} is in none"
        )
    return Annotation(tuple(rows))


def _split(path: str, item: dict) -> str:
    for folder in Path(path).parent.parts:
        if folder.lower() in SPLIT_NAMES:
            return SPLIT_NAMES[folder.lower()]
    return SPLIT_NAMES.get(str(item.get("split") or "").strip().lower(), "all")


def _label_column(file: Path, items: list[dict]) -> str:
    columns = list(dict.fromkeys(key for item in items for key in item if key is not None))
    if "label" in columns:
        return "label"
    others = [name for name in columns if name not in _NOT_LABELS]
    if len(others) != 1:
        raise DataError(
            f"{file}: it is not clear which column is the label; name that column 'label'. The columns are "
            f"{', '.join(columns) or 'none'}"
        )
    return others[0]


def _read_objects(file: Path) -> list[dict]:
    items = []
    for number, line in enumerate(read_lines(file), 1):
        items.append(parse_json(line, f"{file}, line {number}"))
        if not isinstance(items[-1], dict):
            raise DataError(f"{file}, line {number}: expected an object with file_name and label")
    return items

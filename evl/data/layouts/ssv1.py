"""Something-Something v1: lists of ``id;label``, and each video as a folder of frames."""

from __future__ import annotations

import re
from pathlib import Path

from evl.data.layouts.base import Annotation, FoundLayout, Row, read_json, read_lines
from evl.data.manifests.labels import clean_class_names
from evl.data.manifests.listing import SPLIT_NAMES
from evl.errors import DataError

LOOKED_FOR = "something-something-v1-train.csv or -validation.csv (id;label), or the same as .json"
NUM_SPLITS = 1
_NAME = re.compile(r"something-something-v1-(labels|train|validation|test)\.(csv|json)", re.IGNORECASE)


def find(files: list[Path]) -> list[Path]:
    """Returns one list of each kind, .csv before .json; [] if there is no training and no validation list."""
    lists: dict[str, Path] = {}
    for file in sorted(files, key=lambda file: file.suffix.lower()):
        if match := _NAME.fullmatch(file.name):
            lists.setdefault(match[1].lower(), file)
    return list(lists.values()) if lists.keys() & {"train", "validation"} else []


def read(found: FoundLayout, split_number: int) -> Annotation:
    """Reads the lists. The class names are those of the labels list, sorted; without it, all labels, sorted."""
    rows, names = [], None
    for file in found.files:
        kind = _NAME.fullmatch(file.name)[1].lower()
        if kind == "labels":
            names = clean_class_names(sorted(_names(file)), file)
            continue
        for name, label in _pairs(file):
            if label is None and kind != "test":
                raise DataError(f"{file}: the video {name} has no label")
            rows.append(Row(SPLIT_NAMES[kind], label, name))
    return Annotation(tuple(rows), names)


def _names(file: Path) -> list[str]:
    content = read_json(file) if file.suffix.lower() == ".json" else read_lines(file)
    if not isinstance(content, list | dict) or not all(isinstance(name, str) for name in content):
        raise DataError(f"{file}: expected class names, as a list or as the keys of an object")
    return [name.strip() for name in content]


def _pairs(file: Path) -> list[tuple[str, str | None]]:
    if file.suffix.lower() != ".json":
        pairs = [line.partition(";")[::2] for line in read_lines(file)]
    else:
        content = read_json(file)
        if isinstance(content, dict):
            pairs = list(content.items())
        elif not isinstance(content, list):
            raise DataError(f"{file}: expected a list of objects with id and label")
        else:
            pairs = [(row.get("id"), row.get("label") or row.get("template")) if isinstance(row, dict) else (row, None)
                     for row in content]  # fmt: skip
    if not all(name for name, _ in pairs):
        raise DataError(f"{file}: a video has no id; expected id;label, or a list of objects with id and label")
    return [(str(name).strip(), str(label).strip() if label else None) for name, label in pairs]

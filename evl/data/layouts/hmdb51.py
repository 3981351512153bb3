"""HMDB51: a text list for each class and split, with lines of ``name.avi`` and 0, 1 or 2."""

from __future__ import annotations

import re
from pathlib import Path

from evl.data.layouts.base import Annotation, FoundLayout, Row, read_lines
from evl.errors import DataError

LOOKED_FOR = "CLASS_test_split1.txt (and 2, 3) for each class"
NUM_SPLITS = 3
_NAME = re.compile(r"(.+)_test_split([123])\.txt", re.IGNORECASE)
_SPLITS = {"1": "train", "2": "test", "0": None}


def find(files: list[Path]) -> list[Path]:
    """Returns the lists of all classes and splits."""
    return [file for file in files if _NAME.fullmatch(file.name)]


def read(found: FoundLayout, split_number: int) -> Annotation:
    """Reads the lists of one split: 1 is a training video, 2 a test video, and 0 is not in this split."""
    rows = []
    for file in found.files:
        label, number = _NAME.fullmatch(file.name).groups()
        if int(number) != split_number:
            continue
        for line in read_lines(file):
            *name, use = line.rsplit(maxsplit=1)
            if use not in _SPLITS or not name:
                raise DataError(f"{file}: {line!r}, expected 'name.avi' and 0, 1 or 2")
            if _SPLITS[use] is not None:
                rows.append(Row(_SPLITS[use], label, f"{label}/{name[0]}"))
    if not rows:
        raise DataError(
            f"{found.files[0].parent}: no lists of split {split_number} (CLASS_test_split{split_number}.txt)"
        )
    return Annotation(tuple(rows))

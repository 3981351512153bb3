"""UCF101: classInd.txt, trainlist01.txt, testlist01.txt (and 02, 03)."""

from __future__ import annotations

import re
from pathlib import Path

from evl.data.layouts.base import Annotation, FoundLayout, Row, read_lines
from evl.errors import DataError
from evl.runtime.text import clean_label

LOOKED_FOR = "classInd.txt with trainlist01.txt and testlist01.txt beside it"
NUM_SPLITS = 3
_NAME = re.compile(r"(train|test)list0?([123])\.txt", re.IGNORECASE)


def find(files: list[Path]) -> list[Path]:
    """Returns classInd.txt, then the lists beside it."""
    for classes in files:
        if classes.name.lower() == "classind.txt":
            lists = [file for file in files if file.parent == classes.parent and _NAME.fullmatch(file.name)]
            if lists:
                return [classes, *lists]
    return []


def read(found: FoundLayout, split_number: int) -> Annotation:
    """Reads the lists of one split. Classes have the order of classInd.txt; a video's class is its folder."""
    classes, *lists = found.files
    numbers: dict[str, int] = {}
    for line in read_lines(classes):
        number, *name = line.split(maxsplit=1)
        if not number.isdecimal() or not name:
            raise DataError(f"{classes}: {line!r}, expected 'number class'")
        numbers[clean_label(name[0])] = int(number)
    rows = []
    for file in lists:
        split, number = _NAME.fullmatch(file.name).groups()
        if int(number) != split_number:
            continue
        for line in read_lines(file):
            name = re.sub(r"\s+[0-9]+$", "", line)  # training lists add the number of the class
            folder, slash, _ = name.replace("\\", "/").partition("/")
            label = clean_label(folder)
            if label not in numbers or not slash:
                raise DataError(f"{file}: {line!r}, expected 'CLASS/name.avi' with a class in {classes}")
            rows.append(Row(split.lower(), label, name))
    if not rows:
        raise DataError(f"{classes.parent}: no lists of split {split_number} (trainlist0{split_number}.txt)")
    return Annotation(tuple(rows), tuple(sorted(numbers, key=numbers.__getitem__)))

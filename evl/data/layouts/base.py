"""What layouts share: the rows of an annotation, and functions that read JSON, CSV and text files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evl.data.manifests.columns import header_cells
from evl.data.manifests.listing import SPLIT_NAMES, is_video_name
from evl.data.manifests.text_table import read_text, table_rows
from evl.errors import DataError, one_line
from evl.runtime.text import clean_label


@dataclass(frozen=True)
class FoundLayout:
    """A recognized layout: its name, its annotation files, and the folder that contains them."""

    name: str
    files: tuple[Path, ...]
    folder: Path


@dataclass(frozen=True)
class Row:
    """One video of an annotation.

    ``label``: its class, which is cleaned here, or None. ``file``: its published name, or its path below the folder of
    videos. ``uncut``: the name, without ending, of the longer video that it is a part of. If ``file`` is missing, the
    part between the two times is read from ``uncut``.
    """

    split: str
    label: str | None
    file: str
    uncut: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None

    def __post_init__(self):
        if self.label is not None:
            object.__setattr__(self, "label", clean_label(self.label))

    @property
    def name(self) -> str:
        return name_of(self.file)


@dataclass(frozen=True)
class Annotation:
    """All rows, and the class names in their published order. None means: the labels, sorted."""

    rows: tuple[Row, ...]
    class_names: tuple[str, ...] | None = None


def name_of(file: str) -> str:
    """Returns a file's name without its folders. Only a video's ending is removed, as names may contain dots."""
    file = os.path.basename(file)
    return os.path.splitext(file)[0] if is_video_name(file) else file


def split_of(text: str) -> str | None:
    """Returns train, val or test for a text that contains a split's name, such as kinetics_400_train; else None."""
    words = text.lower().replace("-", "_").replace(".", "_").split("_")
    return next((SPLIT_NAMES[word] for word in reversed(words) if word in SPLIT_NAMES), None)


def read_json(file: Path):
    """Returns the content of a JSON file. Raises DataError if it cannot be read."""
    return parse_json(read_text(file), file)


def parse_json(text: str, where: str | Path):
    """Returns the value of a JSON text. Raises DataError, with ``where``, for other text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: cannot be read as JSON ({one_line(error)})") from None


def read_json_rows(file: Path, *fields: str) -> list[dict]:
    """Returns the list of objects in a JSON file. Raises DataError unless each object has all ``fields``."""
    rows = read_json(file)
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= set(fields) for row in rows):
        raise DataError(f"{file}: expected a list of objects with {', '.join(fields)}")
    return rows


def read_lines(file: Path) -> list[str]:
    """Returns the lines of a text file that are not empty, without blanks around them."""
    return [line.strip() for line in read_text(file).splitlines() if line.strip()]


def read_csv(file: Path, *required: str) -> list[dict[str, str]]:
    """Returns the rows of a table as dicts. Raises DataError if a row has more cells than there are columns.

    ``required``: columns that the header has; the character between their names is the delimiter.
    """
    return [row for _, row in table_rows(file, read_text(file), required)[1]]


def read_start(file: Path) -> str:
    """Returns the first 4096 bytes of a file as text; "" if it cannot be read."""
    try:
        with open(file, "rb") as content:
            return content.read(4096).decode("utf-8-sig", errors="replace")
    except OSError:
        return ""


def csv_header(file: Path, *required: str) -> tuple[str, ...]:
    """Returns the columns of a table, as ``read_csv`` divides them; () if it has none. Reads only the first line."""
    lines = read_start(file).splitlines()
    return tuple(header_cells(lines[0], required)[1]) if lines else ()


def class_name(file: Path, names: Sequence[str], number) -> str:
    """Returns the name of the class with this number, counted from 0. Raises DataError for any other number."""
    if not isinstance(number, int) or not 0 <= number < len(names):
        raise DataError(f"{file}: label {number!r}, expected a number from 0 to {len(names) - 1}")
    return names[number]
